"""The lists in a document of JSON: where its records may lie, and how many there are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import NoneType
from typing import Any, BinaryIO, cast

from pik.inputs.blocks import UTF8_BOM
from pik.inputs.json_text import JsonText, Malformed
from pik.model.record_path import EACH, RecordPath, path_text

MOST = 64 << 20
"""Bytes of a document that are looked at, at most."""

DEPTH = 4
"""Names of fields on the path to a list, at most."""

_FIRST = 1 << 20
"""Bytes of an element that is looked into, at most."""

_SHORT = 4
"""Bytes of a value that are looked at where it does not matter."""

_PAIR = {"key", "value"}
"""The fields of attributes, such as those of OpenTelemetry: a list of them belongs to what is around it."""

_TYPES = {"S", "N", "B", "BOOL", "NULL"}
"""What DynamoDB calls the types of values."""


@dataclass(frozen=True, slots=True)
class DocumentList:
    """A list in a document: the path to it, how many elements it has, and the first one of all. `whole`: it was read to
    its end."""

    path: RecordPath
    records: int
    first: Any
    whole: bool = True

    def __str__(self) -> str:
        """Return the path with the number of elements."""
        return f"{path_text(self.path)} ({'' if self.whole else 'more than '}{self.records:,})"

    @property
    def has_objects(self) -> bool:
        """Whether its elements may be records: objects, not lists or texts."""
        return isinstance(self.first, dict)


def lists_in(found: object, depth: int = DEPTH) -> Iterator[RecordPath]:
    """Yield the paths to lists of objects in an object or a list, so many names deep. Objects with hardly a field but
    lists and objects are around others."""
    if isinstance(found, list):
        if found and isinstance(found[0], dict) and not (found[0] and found[0].keys() <= _PAIR):
            around = sum(map(_is_value, found[0].values())) < 2
            inner = list(lists_in(found[0], depth)) if around else []
            yield from ((EACH, *path) for path in inner) if inner else [(EACH,)]
    elif isinstance(found, dict) and depth:
        for name, value in found.items():
            yield from ((name, *path) for path in lists_in(value, depth - 1))


def _is_value(found: object) -> bool:
    """Return whether something is neither a list nor an object, but one that has the type of a value, such as those of
    DynamoDB and MongoDB."""
    if isinstance(found, dict) and len(found) == 1:
        [(name, value)] = found.items()
        return (name in _TYPES or name.startswith("$")) and not isinstance(value, (dict, list))
    return not isinstance(found, (dict, list, NoneType))


def record_count(found: object, path: RecordPath) -> int:
    """Return how many records an object has on a path of `lists_in`."""
    if not path:
        return 1
    if path[0] == EACH:
        return sum(record_count(one, path[1:]) for one in found) if isinstance(found, list) else 0
    return record_count(found.get(path[0]), path[1:]) if isinstance(found, dict) else 0


def lists_of(stream: BinaryIO, most: int = MOST) -> Sequence[DocumentList]:
    """Return the lists in the document that a text begins with, the longest first: those of objects as `lists_in` finds
    them, and others that fields of the document have. The text is read piece by piece; of one that is longer than
    `most`, or malformed, what comes before that counts."""
    walk = _Walk(JsonText(cast(BinaryIO, _Beginning(stream, most)), b""))
    with suppress(Malformed):
        walk.document()
    return sorted(walk.found, key=lambda one: -one.records)


def _rows_in(found: object) -> Iterator[RecordPath]:
    """Yield the paths to lists of lists that an element of a list has, such as the rows of a table."""
    for name, value in found.items() if isinstance(found, dict) else ():
        if isinstance(value, list) and value and isinstance(value[0], list):
            yield EACH, name, EACH


def _first(found: Any, path: RecordPath) -> Any:
    """Return the first element on a path; None where there is none."""
    for step in path:
        found = (found[0] if found else None) if step == EACH and isinstance(found, list) else found and found[step]
    return found


class _Beginning:
    """The beginning of a stream, without a byte order mark."""

    def __init__(self, stream: BinaryIO, left: int) -> None:
        self._stream, self._left, self._mark = stream, left, UTF8_BOM

    def read(self, size: int) -> bytes:
        """Return the next bytes, none at the end."""
        data = self._stream.read(min(size, self._left))
        self._left -= len(data)
        mark, self._mark = self._mark, b""
        return data.removeprefix(mark)


class _Walk:
    """Goes through a document, and notes its lists."""

    def __init__(self, text: JsonText) -> None:
        self._text = text
        self.found: list[DocumentList] = []

    def document(self) -> None:
        """Go through the document, if it is an object."""
        if self._text.peek_document() == b"{":
            self._object(())

    def _object(self, path: RecordPath) -> None:
        self._text.take(b"{", "{")
        is_last = self._text.peek() == b"}" and bool(self._text.take(b"}", "}"))
        while not is_last:
            to_it = (*path, str(_read(self._text.name())))
            mark = self._text.peek()
            if mark == b"{" and len(to_it) < DEPTH:
                self._object(to_it)
            elif mark == b"[":
                self._list(to_it)
            else:
                self._text.value(_SHORT)
            is_last = self._text.take(b",}", "a comma or }") == b"}"

    def _list(self, to_it: RecordPath) -> None:
        self._text.take(b"[", "[")
        if self._text.peek() == b"]":
            self._text.take(b"]", "]")
            return
        first = _read(self._text.value(_FIRST)[0])
        paths = [*lists_in([first], DEPTH - len(to_it)), *_rows_in(first)]
        if not paths and len(to_it) == 1 and not isinstance(first, dict):
            paths = [(EACH,)]
        counts = [record_count([first], path) for path in paths]
        limit = _FIRST if any(len(path) > 1 for path in paths) else _SHORT
        whole = False
        try:
            while self._text.take(b",]", "a comma or ]") == b",":
                value, _ = self._text.value(limit)
                one = [_read(value)] if limit > _SHORT else [None]
                counts = [count + record_count(one, path) for count, path in zip(counts, paths, strict=True)]
            whole = True
        finally:
            self.found += [
                DocumentList((*to_it, *path), count, _first([first], path), whole)
                for path, count in zip(paths, counts, strict=True)
            ]


def _read(value: bytes) -> object:
    """Return what a value is; None if it is cut or malformed."""
    with suppress(ValueError, RecursionError):
        return json.loads(value)
    return None

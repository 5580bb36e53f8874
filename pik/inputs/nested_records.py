"""Records in documents of JSON: the elements of the lists that a path leads to, such as `Records[]`.

A document is read piece by piece. What is not on the path is skipped, and so only its brackets are looked at.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Generator, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from typing import BinaryIO

from pik.errors import InputError, UsageError
from pik.inputs import blocks as limits
from pik.inputs.advice import MIXED, OTHER_FORMAT, WHOLE, Advice
from pik.inputs.blocks import UTF8_BOM, Block, Problem
from pik.inputs.document_lists import lists_in
from pik.inputs.held_records import HeldRecords
from pik.inputs.json_text import JsonText, Malformed
from pik.inputs.json_values import problem_of
from pik.model.event import one_line
from pik.model.layout import Layout
from pik.model.record_path import EACH, RecordPath, path_text, read_path

_NAMES = 12
"""Names of an object's fields that are shown where the path's is not among them."""

_SHORT = 4
"""Bytes of a value that are looked at where it does not matter: enough for null."""


def blocks(
    stream: BinaryIO, name: str, layout: Layout, *, max_line: int, first_seq: int = 1, offset: int = 0
) -> Iterator[Block]:
    """Yield the records from `first_seq` on. The documents are read again from the first one, as only what precedes a
    record says where it lies; so `offset` does not matter.

    An object in which the path finds no list is a problem, and so is the rest of a document that is malformed, if
    another one follows. Raises InputError where none does, where the text ends inside of a document, and where a field
    of `layout.parents` comes too late.
    """
    del offset
    start = stream.read(limits.FIRST_READ).removeprefix(UTF8_BOM)
    for block in _Reader(JsonText(stream, start), name, layout, max_line).blocks():
        if block.first_seq >= first_seq:
            yield block
        elif block.last_seq >= first_seq:
            yield block.split(first_seq - 1)[1]


class NoList(Problem):
    """A document, or an object in it, in which the path finds no list."""


def expect_lists(found: Iterator[Block], layout: Layout, name: str) -> None:
    """Raise UsageError where the first block has nothing but objects in which the path finds no list."""
    first = next(found, None)
    if first is None:
        return
    seqs = range(first.first_seq, first.last_seq + 1)
    if all(isinstance(first.problems.get(seq), NoList) for seq in seqs):
        problem = first.problems[first.first_seq]
        paths = _lists_in(problem.record)
        lists = f"its lists: {' or '.join(paths)}" if paths else OTHER_FORMAT
        what = f"--records {layout.records} finds nothing in {name}: {problem.reason}"
        raise UsageError(what, hint=Advice(lists, MIXED, name=name))


_KINDS = {b"{": "an object", b"[": "a list", b'"': "a text", b"t": "true", b"f": "false", b"n": "null"}

_Moving = Generator[Block, None, str | None]
"""Moves through the text, yields the blocks that are full, and returns why the path finds no list, if it finds none."""


class _Reader:
    """Reads documents one after the other."""

    def __init__(self, text: JsonText, name: str, layout: Layout, max_line: int) -> None:
        self._text, self._name, self._max_line = text, name, max_line
        self._path = read_path(layout.records or "")
        self._held = HeldRecords(name, layout.parents, max_line)
        self._lists = 0

    def blocks(self) -> Iterator[Block]:
        """Yield all records as blocks."""
        try:
            yield from self._documents()
        except InputError as error:
            self._held.abandon(error.message)
            yield from self._held.rest(self._text.position)
            raise
        yield from self._held.rest(self._text.position)

    def _documents(self) -> Iterator[Block]:
        while mark := self._text.peek_document():
            begin = self._text.line
            if mark not in (b"{", b"["):
                line = self._text.rest_of_line(self._max_line).rstrip()
                self._held.add(line, NoList(f"expected a JSON document (line {begin})", line))
            else:
                try:
                    yield from self._unit(self._path, "this document")
                except Malformed as error:
                    self._go_on(error, begin)
            if self._held.is_full:
                yield from self._held.full(self._text.position)

    def _go_on(self, error: Malformed, begin: int) -> None:
        """Keep the rest of a malformed document as a problem, and move to the next one. Raises InputError where there
        is none."""
        if error.ended:
            message = f"{self._name} ends inside of the JSON document that begins on line {begin}"
            raise InputError(message, hint=Advice(*WHOLE))
        reason = f"the document is malformed: {error.reason} (line {self._text.line})"
        with self._text.kept(self._max_line) as kept:
            if not self._text.next_document(b"[" if self._path[0] is EACH else b"{"):
                raise InputError(f"{self._name}: {reason}", hint="what precedes is read; nothing after it was")
            rest = (error.text + self._text.taken(kept))[: self._max_line + 1]
        self._held.abandon(reason)
        self._held.add(one_line(rest), Problem(reason, rest))

    def _unit(self, path: RecordPath, what: str, number: str = "") -> Iterator[Block]:
        """Read a document, or an element of a list on the path. It is a problem if the rest of the path finds no list
        in it."""
        line, lists = self._text.line, self._lists
        with self._text.kept(self._max_line) as kept:
            try:
                missing = yield from self._value(path, 0, what)
            except Malformed as error:
                if self._lists == lists:
                    error.text = self._text.taken(kept)
                raise
            if missing is not None:
                value = self._text.taken(kept)
                self._held.add(one_line(value), NoList(f"{missing}{number} (line {line})", value))

    def _value(self, path: RecordPath, at: int, what: str) -> _Moving:
        """Read the value to which the first steps of the path lead."""
        mark = self._text.peek()
        if path[at] is EACH and mark == b"[":
            yield from self._elements(path[at + 1 :], f"{path_text(path[:at])} of {what}" if at else what)
            return None
        if path[at] is not EACH and mark == b"{":
            return (yield from self._fields(path, at, what))
        value, _ = self._text.value(_SHORT)
        if value == b"null":
            return None
        found = f"{path_text(path[:at])} in {what}" if at else what
        wanted = "a list" if path[at] is EACH else "an object"
        return f"{found} is {_KINDS.get(mark, 'not ' + wanted)}, not {wanted}"

    def _fields(self, path: RecordPath, at: int, what: str) -> _Moving:
        """Read the object that has the next step of the path as a field."""
        text, held = self._text, self._held
        names: list[str] = []
        missing: str | None = None
        text.take(b"{", "{")
        held.open()
        is_last = text.peek() == b"}" and bool(text.take(b"}", "}"))
        while not is_last:
            name = _decode(text.name())
            if name == path[at]:
                if name in names:
                    raise Malformed(f"the field {name} comes twice")
                missing = yield from self._value(path, at + 1, what)
            elif held.wants(name):
                self._keep(name)
            else:
                text.value(_SHORT)
            if len(names) < _NAMES or name == path[at]:
                names.append(name)
            is_last = text.take(b",}", "a comma or }") == b"}"
        held.close()
        if path[at] in names:
            return missing
        wanted = path_text(path[: path.index(EACH, at)])
        have = ", ".join(names[:_NAMES]) + (", …" if len(names) >= _NAMES else "")
        return f"no list {wanted} in {what}; it has: {have or 'no fields'}"

    def _keep(self, name: str) -> None:
        """Keep the value of a field that a mapping uses."""
        value, is_whole = self._text.value(self._max_line)
        line = self._text.value_line
        if is_whole and (problem := problem_of(value, lambda: line)) is not None:
            raise Malformed(f"the field {name}: {problem.reason}")
        self._held.set(name, value, line)

    def _elements(self, path: RecordPath, what: str) -> Iterator[Block]:
        """Read a list: its elements are records, or the rest of the path leads on from each."""
        text, held = self._text, self._held
        self._lists += 1
        text.take(b"[", "[")
        if text.peek() == b"]":
            text.take(b"]", "]")
            return
        number = 0
        while True:
            if path:
                number += 1
                yield from self._unit(path, f"an element of {what}", f" (element {number})")
            else:
                # Records that wait do so by their number and size, wherever reads end.
                while not held.waits and (values := text.many_elements(self._max_line)):
                    held.extend(list(map(one_line, values)))
                    if held.is_full:
                        yield from held.full(text.position)
                for value in text.elements(self._max_line):
                    self._record(value)
                    if held.is_full:
                        yield from held.full(text.position)
                if text.list_ends:
                    return
                self._record(*text.value(self._max_line))
            if held.is_full:
                yield from held.full(text.position)
            if text.take(b",]", "a comma or ]") == b"]":
                return

    def _record(self, value: bytes, is_whole: bool = True) -> None:
        """Add a record, or the beginning of one that is too long."""
        if is_whole:
            problem = problem_of(value, lambda: self._text.value_line)
        else:
            reason = f"the record is longer than {self._max_line} bytes (line {self._text.value_line})"
            problem = Problem(reason, value)
        self._held.add(one_line(value), problem)


def _lists_in(document: bytes) -> list[str]:
    """Return paths to the lists of objects in a document, if it is whole."""
    with suppress(ValueError, RecursionError):
        return [shlex.quote(path_text(path)) for path in islice(lists_in(json.loads(document)), 5)]
    return []


@lru_cache(maxsize=128)
def _decode(name: bytes) -> str:
    try:
        return str(json.loads(name))
    except ValueError:
        raise Malformed(f"the name {name[:40].decode(errors='replace')} is not JSON") from None

"""A cursor over JSON text that is read piece by piece, in bounded memory whatever the length of a value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import msgspec

READ = 1 << 18
"""Bytes read at a time."""

AHEAD = 1 << 16
"""Bytes that are looked at together: a name, or a number, has fewer."""

_STRING = rb'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"'
_WHOLE = rb'[^"{}\[\]]++|' + _STRING


def _balanced(depth: int) -> bytes:
    """Return the pattern of brackets with what is in them, nested so many levels deep."""
    inner = rb"[{\[](?:%b)*+[}\]]" % _WHOLE
    for _ in range(depth - 1):
        inner = rb"[{\[](?:%b|%b)*+[}\]]" % (_WHOLE, inner)
    return inner


_BLANK = re.compile(rb"[ \t\r\n]*+")
_BETWEEN = re.compile(rb"[ \t\r\n\x1e]*+")
_NAME = re.compile(rb"(%b)[ \t\r\n]*+:" % _STRING)
_CUT_NAME = re.compile(rb'(?:%b|"[^"\n]*+)[ \t\r\n]*+' % _STRING)
_VALUE = re.compile(rb'%b|%b|[^\s"{}\[\],:\x1e]++' % (_balanced(12), _STRING))
_ELEMENT = re.compile(rb"[ \t\r\n]*+(%b)[ \t\r\n]*+([,\]])" % _balanced(12))
# What is in brackets up to one that opens or closes around the cut. A brace that begins a line is looked at alone.
_PASSED = re.compile(rb"(?:[^\"{}\[\]\x1e]++|%b|(?<=[,:\[ \t])%b)*+" % (_STRING, _balanced(12)))
_IN_STRING = re.compile(rb'(?:[^"\\\n\x1e]++|\\[^\n\x1e]|\n(?=[^{\[]))*+')
_SHOWN = 20
"""Bytes that are shown of what is not expected."""

_BEGINNING = re.compile(rb"[ \t\r\n]*+\{[ \t\r\n]*+%b" % _STRING)
_MANY = 1 << 13
"""Elements that are told at once, at most: tiny ones take more memory as objects than as bytes."""

_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_OPENING = b"{["


class Malformed(Exception):
    """The text is not JSON at the cursor, or ends there. `text` is the beginning of the value in which that is."""

    def __init__(self, reason: str, text: bytes = b"", *, ended: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.text, self.ended = reason, text, ended


class Kept:
    """What the cursor passes is kept here, up to a limit and one byte more."""

    def __init__(self, start: int, limit: int) -> None:
        self.start = start
        """Where in the buffer it goes on."""
        self._data = bytearray()
        self._room = limit + 1

    def up_to(self, buffer: bytes, end: int) -> bytearray:
        """Return what is kept, with the buffer up to there."""
        room = self._room - len(self._data)
        return self._data + buffer[self.start : min(end, self.start + room)]

    def moved(self, buffer: bytes, end: int, start: int) -> None:
        """Keep the buffer up to there; it goes on at `start` of the next one."""
        if len(self._data) < self._room:
            self._data = self.up_to(buffer, end)
        self.start = start


class JsonText:
    """The text, and a cursor in it. Methods that expect something raise Malformed where it is not there."""

    def __init__(self, stream: BinaryIO, start: bytes) -> None:
        self._stream = stream
        self._buffer = b"\n" + start  # there is always a byte before the cursor
        self._at = 1
        self._base = -1
        self._lines, self._counted = 0, 1  # line breaks, and up to where in the buffer they are counted
        self._value_at = 1
        self._value_line: int | None = None  # where the buffer does not have it any more
        self._kept: list[Kept] = []
        self._ended = False
        self._not_many_before = 0  # bytes of the text
        self.list_ends = False
        """Whether the elements that were yielded last were those at the end of their list."""

    @property
    def position(self) -> int:
        """Bytes of the text before the cursor."""
        return self._base + self._at

    @property
    def line(self) -> int:
        """The number of the cursor's line."""
        self._lines += self._buffer.count(b"\n", self._counted, self._at)
        self._counted = self._at
        return self._lines + 1

    @property
    def value_line(self) -> int:
        """The number of the line on which the last value begins."""
        if self._value_line is None:
            return self.line - self._buffer.count(b"\n", self._value_at, self._at)
        return self._value_line

    def peek(self) -> bytes:
        """Return the next byte that is not white space, and move to it; no byte at the end."""
        return self._next(_BLANK)

    def peek_document(self) -> bytes:
        """Return the byte that begins the next document, and move to it; no byte at the end."""
        return self._next(_BETWEEN)

    def take(self, marks: bytes, expected: str) -> bytes:
        """Move past a mark, one of these, and return it."""
        mark = self.peek()
        if not mark or mark not in marks:
            raise self._unexpected(expected)
        self._at += 1
        return mark

    def name(self) -> bytes:
        """Move past the name of a field and its colon, and return it as a JSON string."""
        self.peek()
        found = self._matched(_NAME)
        if found is None:
            cut = _CUT_NAME.fullmatch(self._buffer, self._at) if self._ended else None
            raise self._unexpected("the name of a field") if cut is None else self._end()
        self._at = found.end()
        return found[1]

    def value(self, limit: int) -> tuple[bytes, bool]:
        """Move past a value. Return it and True, or its beginning and False where it has more bytes than the limit.

        Only its brackets and strings are looked at: it may be malformed.
        """
        self.peek()
        found = self._matched(_VALUE)
        if found is not None:
            self._value_at, self._value_line, self._at = found.start(), None, found.end()
            value = found[0]
            return (value, True) if len(value) <= limit else (value[: limit + 1], False)
        if self.peek() not in (b"{", b"[", b'"'):
            raise self._unexpected("a value")
        self._value_line = self.line
        with self.kept(limit) as kept:
            try:
                self._pass_value()
            except Malformed as error:
                error.text = self.taken(kept)
                raise
            value = self.taken(kept)
        return value, len(value) <= limit

    def elements(self, limit: int) -> Iterator[bytes]:
        """Yield the next elements of a list, as long as they are objects or lists that have been read whole, with what
        follows. Afterwards the cursor is where the next one begins, or after the list if `list_ends`."""
        self.list_ends = False
        buffer, match = self._buffer, _ELEMENT.match
        while (found := match(buffer, self._at)) is not None and len(found[1]) <= limit:
            self._value_at, self._value_line, self._at = found.start(1), None, found.end()
            yield found[1]
            if found[2] == b"]":
                self.list_ends = True
                return

    def many_elements(self, limit: int) -> list[bytes]:
        """Move past the next elements of a list, if it is easy to tell many at once, and return them. They are JSON.

        They end before what looks like the last beginning of an element in what has been read. That it is one is
        certain if all before it is JSON: as the text of a list is read from its beginning, it can be read in one way.
        """
        if len(self._buffer) - self._at < READ // 2:
            self._read()
        found = _BEGINNING.match(self._buffer, self._at)
        if found is None or self.position < self._not_many_before:
            return []
        end = self._buffer.rfind(b"}," + found[0], self._at) + 1
        try:
            elements = [bytes(one) for one in _decode_list(b"[%b]" % self._buffer[self._at : end])] if end else []
        except (msgspec.MsgspecError, ValueError, RecursionError):
            elements = []
        if not elements or len(elements) > _MANY or max(map(len, elements)) > limit:
            self._not_many_before = self._base + (end or len(self._buffer))
            return []
        self._at = end + 1
        return elements

    def rest_of_line(self, limit: int) -> bytes:
        """Move to the end of the line, and return the beginning of what was passed."""
        with self.kept(limit) as kept:
            while (end := self._buffer.find(b"\n", self._at)) < 0:
                self._at = len(self._buffer)
                if not self._read():
                    break
            else:
                self._at = end
            return self.taken(kept)

    def next_document(self, opening: bytes) -> bool:
        """Move to where another document may begin: a bracket that begins a line, where JSON does not allow it, or a
        record separator. Return whether there is one before the end."""
        begin = re.compile(rb"\x1e|(?<=\n)" + re.escape(opening))
        while True:
            for found in begin.finditer(self._buffer, self._at):
                if found[0] == b"\x1e" or self._may_begin(found.start()):
                    self._at = found.start()
                    return True
            self._at = len(self._buffer)
            if not self._read():
                return False

    @contextmanager
    def kept(self, limit: int) -> Iterator[Kept]:
        """Keep what the cursor passes meanwhile."""
        kept = Kept(self._at, limit)
        self._kept.append(kept)
        try:
            yield kept
        finally:
            self._kept.remove(kept)

    def taken(self, kept: Kept) -> bytes:
        """Return what has been kept so far, up to the cursor."""
        return bytes(kept.up_to(self._buffer, self._at))

    def _next(self, blank: re.Pattern[bytes]) -> bytes:
        if (mark := self._buffer[self._at : self._at + 1]) > b" ":
            return mark
        while True:
            found = blank.match(self._buffer, self._at)
            assert found is not None  # it matches the empty text
            self._at = found.end()
            if self._at < len(self._buffer) or not self._read():
                return self._buffer[self._at : self._at + 1]

    def _matched(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Return the match at the cursor; None if there is none within AHEAD bytes."""
        while True:
            found = pattern.match(self._buffer, self._at)
            if found is not None and (found.end() < len(self._buffer) or self._ended):
                return found
            if len(self._buffer) - self._at >= AHEAD or not self._read():
                return found if self._ended else None

    def _pass_value(self) -> None:
        """Move past brackets with what is in them, or past a string."""
        if self._buffer[self._at : self._at + 1] == b'"':
            self._pass_string()
            return
        depth = 1
        self._at += 1
        while depth:
            found = _PASSED.match(self._buffer, self._at)
            assert found is not None  # it matches the empty text
            self._at = found.end()
            mark = self._buffer[self._at : self._at + 1]
            if not mark:
                if not self._read():
                    raise self._end()
                continue
            if mark == b'"':
                self._pass_string()
            elif mark in _OPENING:
                if self._buffer[self._at - 1 : self._at] == b"\n" and self._may_begin(self._at):
                    raise Malformed("another document begins inside of a value")
                depth += 1
                self._at += 1
            elif mark == b"\x1e":
                raise Malformed("a record separator stands inside of a value")
            else:
                depth -= 1
                self._at += 1

    def _pass_string(self) -> None:
        """Move past a string, or to where another document begins in it. It may have line breaks, though JSON does not
        allow them."""
        self._at += 1
        while True:
            found = _IN_STRING.match(self._buffer, self._at)
            assert found is not None  # it matches the empty text
            self._at = found.end()
            mark = self._buffer[self._at : self._at + 1]
            if mark == b'"':
                self._at += 1
                return
            if mark == b"\x1e":
                return
            if len(self._buffer) - self._at < 2 and self._read():
                continue
            after = self._buffer[self._at + 1 : self._at + 2]
            if not after:
                self._at = len(self._buffer)
                raise self._end()
            self._at += 1
            if mark == b"\n" and after in _OPENING:
                return

    def _may_begin(self, at: int) -> bool:
        """Return whether JSON does not allow a bracket there, after what precedes it."""
        return self._buffer[max(0, at - 256) : at].rstrip()[-1:] not in (b",", b":", b"[")

    def _unexpected(self, expected: str) -> Malformed:
        if not self.peek():
            return self._end()
        while len(self._buffer) - self._at < _SHOWN and self._read():
            pass
        shown = self._buffer[self._at : self._at + _SHOWN].decode(errors="replace").split("\n")[0]
        return Malformed(f"expected {expected} at {shown!r}")

    def _end(self) -> Malformed:
        return Malformed("the text ends", ended=True)

    def _read(self) -> bool:
        """Read on. Return whether there is more."""
        data = self._stream.read(READ)
        if not data:
            self._ended = True
            return False
        for kept in self._kept:
            kept.moved(self._buffer, self._at, 1)
        _ = self.line
        drop = self._at - 1
        self._buffer = self._buffer[drop:] + data
        self._base, self._counted, self._at = self._base + drop, 1, 1
        return True

"""JSON values as records: the elements of one array, or values one after the other.

Values that follow each other may be written over several lines, several on one line, or each after a record separator
(RFC 7464). Brackets and strings alone tell where one ends, so that a malformed one is rejected and the next one read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

import msgspec

from pik.errors import InputError, Invalid
from pik.inputs import blocks as limits
from pik.inputs.advice import WHOLE, Advice, Option, Read
from pik.inputs.blocks import UTF8_BOM, Block, Problem, UntilError, skip
from pik.model.event import one_line
from pik.model.identity import check_json
from pik.model.layout import JSON_VALUES, READS, Layout

READ = 1 << 16
"""Bytes read at a time."""

# A bracket, and then no JSON value: [table], [[table]], ['it'], [2026-01-31 10:00]. A word may be cut.
_NO_ARRAY = re.compile(rb"\[[\s\[]*(?:\d+[-/:]|(?!(?:true|false|null)\b|[a-z]{0,4}$)[^\s\[\]{},\"\d-])")

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_LINE_STRING = rb'"[^"\\\n\x1e\0]*+(?:\\[^\n\x1e\0][^"\\\n\x1e\0]*+)*+(?:"|\\?(?=[\n\x1e\0]))'
"""A string that ends with its line at the latest: JSON allows no line break in it."""

_decode = msgspec.json.Decoder(msgspec.Raw).decode


def blocks(
    stream: BinaryIO,
    name: str,
    _layout: Layout = JSON_VALUES,
    *,
    max_line: int,
    first_seq: int = 1,
    offset: int = 0,
) -> Iterator[Block]:
    """Yield the values from `first_seq` on, which starts `offset` uncompressed bytes into the input.

    A malformed value, and one of more than `max_line` bytes, is a problem. After a malformed value among others that
    follow each other, reading goes on at the next record separator, or at a brace that JSON does not allow there and
    that begins a line or follows another value directly. Raises InputError where the input ends inside an array or
    continues after it, and where what looks like an array is something else.
    """
    start = stream.read(limits.FIRST_READ).removeprefix(UTF8_BOM)
    white = lines = 0  # bytes of white space before the start, and lines
    while not start.strip() and (more := stream.read(limits.FIRST_READ)):
        white, lines, start = white + len(start), lines + start.count(b"\n"), more
    content = start.lstrip()
    if _NO_ARRAY.match(content):
        line = content.partition(b"\n")[0].strip().decode(errors="replace")
        shown = line if len(line) <= 40 else line[:39] + "…"
        raise InputError(f"{name} is not JSON: it begins with {shown}", hint=READS)
    kind = _Elements if content.startswith(b"[") else _Values
    yield from kind(stream, start, (white, lines), name, max_line).blocks(first_seq, offset)


def problem_of(value: bytes, line: Callable[[], int]) -> Problem | None:
    """Return why a value that begins on that line is not JSON, if it is not."""
    try:
        _decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        try:
            check_json(value, "the record")
        except Invalid as error:
            return Problem(f"{error.message} (line {line()})", value)
    return None


class _Values:
    """Values one after the other. What is not in brackets is a value up to the end of its line."""

    BETWEEN = rb'[^"{\[\n\x1e]++|' + _LINE_STRING, rb"[{\[\n\x1e]"
    INSIDE = rb'[^"{}\[\]\x1e\0]++|' + _LINE_STRING, rb"[{}\[\]\x1e\0]"
    """What precedes the next mark between values and inside of one, and the marks."""

    def __init__(self, stream: BinaryIO, start: bytes, before: tuple[int, int], name: str, max_line: int) -> None:
        self._stream, self._name, self._max_line = stream, name, max_line
        self._between, self._inside = map(_patterns, (self.BETWEEN, self.INSIDE))
        self._buffer = start
        self._base, self._lines = before  # bytes and line breaks before the buffer
        self._begin = self._scanned = self._depth = 0  # of the current value
        self._last = self._before = b" "  # the last byte that is not white space, and the last one, if dropped
        self._cut: tuple[bytes, int] | None = None  # the beginning of a value that is too long, and its line

    def blocks(self, first_seq: int, offset: int) -> Iterator[Block]:
        """Yield the values from an offset on as blocks."""
        if offset > self._base:
            self._buffer = skip(self._stream, self._buffer, offset - self._base, self._count)
            self._base = offset
        lines: list[bytes] = []
        problems: dict[int, Problem] = {}
        size, seq, end = 0, first_seq, self._base
        values = UntilError(self._values())
        for value, problem, end in values:
            if problem is not None:
                problems[seq] = problem
            lines.append(one_line(value))
            size += len(value)
            seq += 1
            if size >= limits.BLOCK or len(lines) == limits.LINES:
                yield Block(first_seq, seq - 1, b"\n".join(lines) + b"\n", end, problems=problems)
                first_seq, lines, problems, size = seq, [], {}, 0
        if lines:
            yield Block(first_seq, seq - 1, b"\n".join(lines) + b"\n", end, problems=problems)
        values.raise_error()
        self._expect_end()

    def _count(self, skipped: bytes) -> None:
        self._lines += skipped.count(b"\n")

    def _expect_end(self) -> None:
        """Raise InputError where the input should not end here."""

    def _values(self) -> Iterator[tuple[bytes, Problem | None, int]]:
        """Yield each value with its problem, if any, and the number of input bytes up to its end."""
        while True:
            found = (self._inside if self._depth else self._between)[0].match(self._buffer, self._scanned)
            if found is None:
                if not self._read():
                    break
                continue
            yield from self._at_mark(found.start(1), found.end(1), found[1])
        end = len(self._buffer)
        yield from self._value(end, end)

    def _at_mark(self, start: int, end: int, mark: bytes) -> Iterator[tuple[bytes, Problem | None, int]]:
        """Yield the value that ends at a mark, and move on."""
        if mark in (b"\n", b"\x1e", b"\0"):
            self._depth = 0
            yield from self._value(start, start if mark == b"\0" else end)
        elif mark in (b"}", b"]"):
            self._depth -= 1
            if not self._depth:
                yield from self._value(end, end)
        elif not self._depth or (mark == b"{" and self._is_next(start)):
            yield from self._value(start, start)
            self._depth = 1
        else:
            self._depth += 1
        self._scanned, self._last, self._before = end, mark, mark

    def _is_next(self, start: int) -> bool:
        """Return whether a brace inside of a value begins the next one, as JSON does not allow it there."""
        gap = self._buffer[self._scanned : start]
        return (gap[-1:] or self._before) in b"\n}" and (gap.rstrip()[-1:] or self._last) not in b",:["

    def _value(self, stop: int, end: int) -> Iterator[tuple[bytes, Problem | None, int]]:
        """Yield the value that ends before `stop`, if there is any; the next one begins at `end`."""
        value = self._buffer[self._begin : stop].strip()
        if self._cut is not None or len(value) > self._max_line:
            head, line = self._cut or (value[: self._max_line + 1], self._line())
            reason = f"the value is longer than {self._max_line} bytes (line {line})"
            yield head, Problem(reason, head), self._base + end
        elif value:
            yield value, problem_of(value, self._line), self._base + end
        self._begin, self._cut = end, None

    def _line(self) -> int:
        """Return the line on which the current value begins."""
        blank = len(self._buffer) - len(self._buffer[self._begin :].lstrip())
        return self._lines + self._buffer.count(b"\n", 0, blank) + 1

    def _read(self) -> bool:
        """Read on. Return whether there is more."""
        if len(self._buffer) - self._begin > self._max_line + limits.BLOCK:
            self._shorten()
        data = self._stream.read(READ)
        self._drop(self._begin)
        self._buffer += data
        return bool(data)

    def _drop(self, size: int) -> None:
        self._lines += self._buffer.count(b"\n", 0, size)
        self._buffer, self._base = self._buffer[size:], self._base + size
        self._begin, self._scanned = max(0, self._begin - size), self._scanned - size

    def _shorten(self) -> None:
        """Keep the beginning of a value that is too long, and what is needed to find its end."""
        if self._cut is None:
            value = self._buffer[self._begin :].lstrip()
            if len(value) <= self._max_line:
                self._begin = len(self._buffer) - len(value)
                self._scanned = max(self._scanned, self._begin)
                return
            self._cut = value[: self._max_line + 1], self._line()
        found = (self._inside if self._depth else self._between)[1].match(self._buffer, self._scanned)
        assert found is not None  # it matches the empty text
        passed = self._buffer[self._scanned : found.end()]
        self._before, self._last = passed[-1:] or self._before, passed.rstrip()[-1:] or self._last
        self._scanned = self._begin = found.end()
        self._drop(found.end())
        if len(self._buffer) > 1:  # a string that does not end: it goes on as one that has just begun
            rest = self._buffer[1:]
            escaped = b"\\" * ((len(rest) - len(rest.rstrip(b"\\"))) % 2)
            self._base += len(rest) - len(escaped)
            self._lines += rest.count(b"\n")
            self._buffer = self._buffer[:1] + escaped


class _Elements(_Values):
    """The elements of an array: what is between its commas."""

    BETWEEN = rb'[^"{}\[\],]++|' + _STRING, rb"[{}\[\],]"
    INSIDE = rb'[^"{}\[\]]++|' + _STRING, rb"[{}\[\]]"

    def __init__(self, stream: BinaryIO, start: bytes, before: tuple[int, int], name: str, max_line: int) -> None:
        super().__init__(stream, start, before, name, max_line)
        self._drop(start.index(b"[") + 1)
        self._scanned = 0
        self._closed = False

    def _values(self) -> Iterator[tuple[bytes, Problem | None, int]]:
        while not self._closed:
            found = (self._inside if self._depth else self._between)[0].match(self._buffer, self._scanned)
            if found is not None:
                yield from self._at_mark(found.start(1), found.end(1), found[1])
            elif not self._read():
                return

    def _at_mark(self, start: int, end: int, mark: bytes) -> Iterator[tuple[bytes, Problem | None, int]]:
        self._scanned = end
        if mark in (b"{", b"["):
            self._depth += 1
        elif self._depth:
            self._depth -= 1
        elif mark == b",":
            if self._cut is None and not self._buffer[self._begin : start].strip():
                yield b",", problem_of(b",", self._line), self._base + end  # a missing element is a malformed one
                self._begin = end
            else:
                yield from self._value(start, end)
        elif mark == b"]":
            self._closed = True
            # A resume after the last element must find the closing bracket.
            yield from self._value(start, start)

    def _expect_end(self) -> None:
        if not self._closed:
            raise InputError(f"{self._name} ends inside its JSON array, before the closing ]", hint=Advice(*WHOLE))
        rest = self._buffer[self._scanned :]
        while not rest.strip() and (data := self._stream.read(READ)):
            rest = data
        if rest := rest.strip():
            shown = rest.partition(b"\n")[0][:40].decode(errors="replace")
            what = f"{self._name} continues after its JSON array with {shown}"
            several = "arrays that follow each other: ", Read((Option("records", "[]"),), instead="jq -c '.[]' {file}")
            raise InputError(what, hint=Advice(several, name=self._name) if rest.startswith(b"[") else READS)


def _patterns(parts: tuple[bytes, bytes]) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Return the pattern of the next mark with what precedes it, and that of the latter alone."""
    return re.compile(rb"(?:%b)*+(%b)" % parts, re.DOTALL), re.compile(rb"(?:%b)*+" % parts[0], re.DOTALL)

"""Inputs cut into blocks of whole records.

A record is a line, or an element of a JSON array; either way a block holds one record per line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from pik.errors import InputError
from pik.inputs.shapes import READS

BLOCK = 6 << 20
"""Bytes of input a block, about: what a worker holds at a time."""

LINES = 1 << 16
"""Records a block, at most: tiny ones take more room as objects than as bytes."""

_MAGIC = 4096  # bytes read at first
_STEP = 1 << 16  # bytes of an array read at a time
_LEADING = 1 << 20  # bytes of white space that may stand before a JSON array
_UTF8_BOM = b"\xef\xbb\xbf"
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\],]', re.DOTALL)

# A bracket, and then what begins no JSON value: [table], [[table]], ['it'], [2026-01-31 10:00]. A word may be cut.
_NO_ARRAY = re.compile(rb"\[[\s\[]*(?:\d+[-/:]|(?!(?:true|false|null)\b|[a-z]{0,4}$)[^\s\[\]{},\"\d-])")


@dataclass(frozen=True, slots=True)
class Block:
    """Records `first_seq` to `last_seq`, one a line; `offset` counts the uncompressed input bytes up to its end.

    An over-long record comes cut to one byte more than is allowed. `prefix_digest` is set for streams.
    """

    first_seq: int
    last_seq: int
    data: bytes
    offset: int
    prefix_digest: str = ""


def blocks(stream: BinaryIO, name: str, *, max_line: int, first_seq: int = 1, offset: int = 0) -> Iterator[Block]:
    """The input's records from `first_seq` on, which starts `offset` uncompressed bytes into it.

    A run of NUL bytes is a record of its own. Memory: a few blocks. Raises InputError where the input ends inside of a
    JSON array, or goes on behind it, and where what looks like an array is something else.
    """
    return unaltered_blocks(
        cast(BinaryIO, NulRuns(stream)), name, max_line=max_line, first_seq=first_seq, offset=offset
    )


def unaltered_blocks(
    stream: BinaryIO, name: str, *, max_line: int, first_seq: int = 1, offset: int = 0
) -> Iterator[Block]:
    """As `blocks`, but a record with NUL bytes in it is one invalid record: no loss of power left them there."""
    start = _skip_to_content(stream)
    if start.lstrip()[:1] == b"[":
        _expect_array(start.lstrip(), name)
        elements = _Elements(stream, start, name, max_line)
        yield from elements.blocks(first_seq, offset)
    else:
        yield from _line_blocks(stream, start, max_line, first_seq, offset)


def _expect_array(start: bytes, name: str) -> None:
    if _NO_ARRAY.match(start):
        line = start.partition(b"\n")[0].strip().decode(errors="replace")
        shown = line if len(line) <= 40 else line[:39] + "…"
        raise InputError(
            f"{name} is not JSON: it begins with {shown}",
            hint=READS,
        )


def _skip_to_content(stream: BinaryIO) -> bytes:
    """The first bytes, up to and including some that are no white space, without a byte order mark."""
    start = stream.read(_MAGIC).removeprefix(_UTF8_BOM)
    while len(start) < _LEADING and not start.strip() and (more := stream.read(_MAGIC)):
        start += more
    return start


def _line_blocks(stream: BinaryIO, start: bytes, max_line: int, first_seq: int, offset: int) -> Iterator[Block]:
    rest = _skip(stream, start, offset)
    while data := stream.read(BLOCK):
        end = data.rfind(b"\n") + 1
        if end:
            lines, rest = b"".join((rest, memoryview(data)[:end])), data[end:]
        else:
            rest += data
            end = rest.rfind(b"\n") + 1
            lines, rest = rest[:end], rest[end:]
        del data  # a block is large: nothing holds it twice
        if lines:
            for block in _cut(lines, first_seq, offset):
                first_seq, offset = block.last_seq + 1, block.offset
                yield block
        elif len(rest) > max_line:
            line, consumed, rest = _overlong(stream, rest, max_line)
            offset += consumed
            yield Block(first_seq, first_seq, line, offset)
            first_seq += 1
    if rest:
        yield from _cut(rest, first_seq, offset)


def _cut(lines: bytes, first_seq: int, offset: int) -> Iterator[Block]:
    """Whole lines as blocks; `offset` is that of the first."""
    last_seq = first_seq + lines.count(b"\n") - lines.endswith(b"\n")
    if last_seq - first_seq < LINES:
        yield Block(first_seq, last_seq, lines, offset + len(lines))
        return
    middle = (lines.rfind(b"\n", 0, len(lines) // 2) + 1) or (lines.find(b"\n") + 1)
    for half in (lines[:middle], lines[middle:]):
        for block in _cut(half, first_seq, offset):
            yield block
        first_seq, offset = block.last_seq + 1, block.offset


def _overlong(stream: BinaryIO, line: bytes, max_line: int) -> tuple[bytes, int, bytes]:
    """Read to the end of a line that is too long: its beginning, its length, and what follows."""
    consumed, kept = len(line), line[: max_line + 1]
    while data := stream.read(BLOCK):
        end = data.find(b"\n") + 1
        if end:
            return kept, consumed + end, data[end:]
        consumed += len(data)
    return kept, consumed, b""


def _skip(stream: BinaryIO, start: bytes, offset: int) -> bytes:
    """Read past `offset` bytes; `start` has been read already. Returns what was read beyond."""
    if offset <= len(start):
        return start[offset:]
    left = offset - len(start)
    while left and (data := stream.read(min(left, BLOCK))):
        left -= len(data)
    return b""


class _Elements:
    """The elements of a JSON array, found by brackets and strings alone, so that a malformed one can be rejected."""

    def __init__(self, stream: BinaryIO, start: bytes, name: str, max_line: int) -> None:
        self.stream, self.name, self.max_line = stream, name, max_line
        opening = start.index(b"[") + 1
        self.buffer = start[opening:]
        self.base = opening  # input bytes before the buffer
        self.closed = False

    def blocks(self, first_seq: int, offset: int) -> Iterator[Block]:
        if offset > self.base:
            self.buffer = _skip(self.stream, self.buffer, offset - self.base)
            self.base = offset
        lines: list[bytes] = []
        size = 0
        end = self.base
        for element, end in self._elements():
            lines.append(element)
            size += len(element)
            if size >= BLOCK or len(lines) == LINES:
                yield self._block(lines, first_seq, end)
                first_seq += len(lines)
                lines, size = [], 0
        if lines:
            yield self._block(lines, first_seq, end)
        if not self.closed:
            raise InputError(f"{self.name} ends inside of its JSON array, which ] should close")
        if self._goes_on():
            raise InputError(f"{self.name} goes on behind its JSON array", hint="one array a file, or one event a line")

    def _block(self, lines: list[bytes], first_seq: int, offset: int) -> Block:
        return Block(first_seq, first_seq + len(lines) - 1, b"\n".join(lines) + b"\n", offset)

    def _elements(self) -> Iterator[tuple[bytes, int]]:
        """Each element on one line, and the number of input bytes up to behind it."""
        depth = scanned = 0
        while True:
            begin = 0
            for token in _TOKEN.finditer(self.buffer, scanned):
                mark = token[0]
                if mark == b'"':  # a string that goes on behind the buffer
                    break
                scanned = token.end()
                if mark in (b"{", b"["):
                    depth += 1
                elif depth and mark in (b"}", b"]"):
                    depth -= 1
                elif not depth and mark in (b",", b"]"):
                    element = self.buffer[begin : token.start()].strip()[: self.max_line + 1]
                    self.closed = mark == b"]"
                    # Whoever goes on behind the last element must find the bracket that closes.
                    begin = token.start() if self.closed else scanned
                    if element or not self.closed:
                        one_line = element.replace(b"\n", b" ").replace(b"\r", b" ")
                        yield one_line or b",", self.base + begin  # no element is a malformed one
                    if self.closed:
                        self.buffer = self.buffer[scanned:]
                        return
            self.buffer, scanned, self.base = self.buffer[begin:], scanned - begin, self.base + begin
            if not self._more():
                return

    def _goes_on(self) -> bool:
        """Whether anything but white space follows the array."""
        while not self.buffer.strip():
            self.buffer = self.stream.read(_STEP)
            if not self.buffer:
                return False
        return True

    def _more(self) -> bool:
        if len(self.buffer) > self.max_line + BLOCK:
            raise InputError(f"{self.name} has an array element of more than {len(self.buffer):,} bytes")
        data = self.stream.read(_STEP)
        self.buffer += data
        return bool(data)


_EDGE = re.compile(rb"(?<=[^\n\0])(?=\0)|(?<=\0)(?=[^\n\0])")


class NulRuns:
    """A stream in which line breaks stand around each run of NUL bytes, wherever reads end.

    So the run is one record, which is no event, and what comes before and after it is read as if it were not there.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._last = b""

    def read(self, size: int) -> bytes:
        """The next bytes: about `size`, none at the end."""
        data = self._stream.read(size)
        if b"\0" in data or self._last == b"\0":
            before = self._last
            self._last = data[-1:]
            return _EDGE.sub(b"\n", before + data)[len(before) :]
        self._last = data[-1:]
        return data

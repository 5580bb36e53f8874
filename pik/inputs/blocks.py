"""Inputs cut into blocks of whole records.

A record is a line, or an element of a JSON array; either way a block holds one record per line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple, cast

from pik.errors import InputError
from pik.model.layout import JSON_LINES, READS, Layout

BLOCK = 6 << 20
"""Bytes of input per block, about: what a worker holds at a time."""

LINES = 1 << 16
"""Records per block, at most: tiny ones take more memory as objects than as bytes."""

FIRST_READ = 4096
"""Bytes read first, to see what the input is."""

ARRAY_READ = 1 << 16
"""Bytes of an array read at a time."""

LEADING_SPACE = 1 << 20
"""Bytes of white space that may precede a JSON array."""

_UTF8_BOM = b"\xef\xbb\xbf"
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\],]', re.DOTALL)

# A bracket, and then no JSON value: [table], [[table]], ['it'], [2026-01-31 10:00]. A word may be cut.
_NO_ARRAY = re.compile(rb"\[[\s\[]*(?:\d+[-/:]|(?!(?:true|false|null)\b|[a-z]{0,4}$)[^\s\[\]{},\"\d-])")


class Problem(NamedTuple):
    """Why a record of another format cannot become JSON, and its bytes as they stand in the input."""

    reason: str
    record: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """Records `first_seq` to `last_seq`, one per line; `offset` counts the uncompressed input bytes up to its end.

    An over-long record is cut to one byte more than is allowed. `prefix_digest` is set for streams. `problems` are the
    records, by their seqs, that cannot become JSON: their lines are not.
    """

    first_seq: int
    last_seq: int
    data: bytes
    offset: int
    prefix_digest: str = ""
    problems: Mapping[int, Problem] = field(default_factory=dict)


def blocks(
    stream: BinaryIO, name: str, _layout: Layout = JSON_LINES, *, max_line: int, first_seq: int = 1, offset: int = 0
) -> Iterator[Block]:
    """Yield the input's records from `first_seq` on, which starts `offset` uncompressed bytes into it.

    Memory: a few blocks. Raises InputError where the input ends inside a JSON array or continues after it, and where
    what looks like an array is something else.
    """
    stream = cast(BinaryIO, NulRuns(stream))
    start = stream.read(FIRST_READ).removeprefix(_UTF8_BOM)
    while len(start) < LEADING_SPACE and not start.strip() and (more := stream.read(FIRST_READ)):
        start += more
    content = start.lstrip()
    if not content.startswith(b"["):
        yield from _line_blocks(stream, start, max_line, first_seq, offset)
        return
    if _NO_ARRAY.match(content):
        line = content.partition(b"\n")[0].strip().decode(errors="replace")
        shown = line if len(line) <= 40 else line[:39] + "…"
        raise InputError(f"{name} is not JSON: it begins with {shown}", hint=READS)
    yield from _Elements(stream, start, name, max_line).blocks(first_seq, offset)


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
    """Yield whole lines as blocks; `offset` is that of the first."""
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
    """Read to the end of a line that is too long. Return its beginning, its length, and what follows."""
    consumed, kept = len(line), line[: max_line + 1]
    while data := stream.read(BLOCK):
        end = data.find(b"\n") + 1
        if end:
            return kept, consumed + end, data[end:]
        consumed += len(data)
    return kept, consumed, b""


def _skip(stream: BinaryIO, start: bytes, offset: int) -> bytes:
    """Read past `offset` bytes, of which `start` has been read already. Return what was read beyond."""
    if offset <= len(start):
        return start[offset:]
    left = offset - len(start)
    while left and (data := stream.read(min(left, BLOCK))):
        left -= len(data)
    return b""


def _block(lines: list[bytes], first_seq: int, offset: int) -> Block:
    return Block(first_seq, first_seq + len(lines) - 1, b"\n".join(lines) + b"\n", offset)


class _Elements:
    """The elements of a JSON array, found by brackets and strings alone, so that malformed ones can be rejected."""

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
                yield _block(lines, first_seq, end)
                first_seq += len(lines)
                lines, size = [], 0
        if lines:
            yield _block(lines, first_seq, end)
        if not self.closed:
            raise InputError(f"{self.name} ends inside its JSON array, before the closing ]")
        while not self.buffer.strip() and (data := self.stream.read(ARRAY_READ)):
            self.buffer = data
        if self.buffer.strip():
            raise InputError(
                f"{self.name} continues after its JSON array", hint="one array per file, or one event per line"
            )

    def _elements(self) -> Iterator[tuple[bytes, int]]:
        """Yield each element on one line, and the number of input bytes up to its end."""
        depth = scanned = 0
        while True:
            begin = 0
            for token in _TOKEN.finditer(self.buffer, scanned):
                mark = token[0]
                if mark == b'"':  # a string that the buffer cuts
                    break
                scanned = token.end()
                if mark in (b"{", b"["):
                    depth += 1
                elif depth and mark in (b"}", b"]"):
                    depth -= 1
                elif not depth and mark in (b",", b"]"):
                    element = self.buffer[begin : token.start()].strip()[: self.max_line + 1]
                    self.closed = mark == b"]"
                    # A resume after the last element must find the closing bracket.
                    begin = token.start() if self.closed else scanned
                    if element or not self.closed:
                        one_line = element.replace(b"\n", b" ").replace(b"\r", b" ")
                        yield one_line or b",", self.base + begin  # a missing element is a malformed one
                    if self.closed:
                        self.buffer = self.buffer[scanned:]
                        return
            self.buffer, scanned, self.base = self.buffer[begin:], scanned - begin, self.base + begin
            if len(self.buffer) > self.max_line + BLOCK:
                raise InputError(f"{self.name} has an array element of more than {len(self.buffer):,} bytes")
            data = self.stream.read(ARRAY_READ)
            self.buffer += data
            if not data:
                return


_EDGE = re.compile(rb"(?<=[^\n\0])(?=\0)|(?<=\0)(?=[^\n\0])")


class NulRuns:
    """A stream with line breaks around each run of NUL bytes, wherever reads end.

    A disk that lost power, or `copytruncate`, leaves such runs in logs. The run becomes one invalid record, and what
    comes before and after it is read as if it were not there.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._last = b""

    def read(self, size: int) -> bytes:
        """Return the next bytes: about `size`, none at the end."""
        data = self._stream.read(size)
        if b"\0" in data or self._last == b"\0":
            before = self._last
            self._last = data[-1:]
            return _EDGE.sub(b"\n", before + data)[len(before) :]
        self._last = data[-1:]
        return data

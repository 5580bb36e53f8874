"""Inputs cut into blocks of whole records, one per line, and the reader of JSON lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import BinaryIO, Generic, NamedTuple, TypeVar

from pik.errors import InputError
from pik.inputs.advice import Advice, Option
from pik.model.layout import JSON_LINES, Layout

BLOCK = 6 << 20
"""Bytes of input per block, about: what a worker holds at a time."""

LINES = 1 << 16
"""Records per block, at most: tiny ones take more memory as objects than as bytes."""

FIRST_READ = 4096
"""Bytes read first, to see what the input is."""

UTF8_BOM = b"\xef\xbb\xbf"


Item = TypeVar("Item")


class Problem(NamedTuple):
    """Why a record of another format cannot become JSON, and its bytes as they stand in the input."""

    reason: str
    record: bytes


class FilePart(NamedTuple):
    """Records up to `last_seq` of a block that come from a file, whose first record is `first_seq`: its name in the
    batch, and its path. Of a buffered request: its id, and who sent it."""

    name: str
    first_seq: int
    last_seq: int
    path: str
    actor: str = ""


class ParentPart(NamedTuple):
    """Records up to `last_seq` of a block that lie in the same objects, and the fields of these that a mapping uses, as
    a JSON object: of two with one name that of the nearest object."""

    fields: bytes
    last_seq: int


@dataclass(frozen=True, slots=True)
class Block:
    """Records `first_seq` to `last_seq`, one per line; `offset` counts the uncompressed input bytes up to its end.

    An over-long record is cut to one byte more than is allowed. `prefix_digest` is set for streams. `problems` are the
    records, by their seqs, that cannot become JSON: their lines are not. `files` are what the records come from, where
    several files are one input; `parents` are the fields around them, where a mapping uses any.
    """

    first_seq: int
    last_seq: int
    data: bytes
    offset: int
    prefix_digest: str = ""
    problems: Mapping[int, Problem] = field(default_factory=dict)
    files: tuple[FilePart, ...] = ()
    parents: tuple[ParentPart, ...] = ()

    def split(self, seq: int) -> tuple[Block, Block]:
        """Return the records up to that one, and those after it."""
        rest = self.data.split(b"\n", seq - self.first_seq + 1).pop() if seq < self.last_seq else b""
        begin = self.data[: len(self.data) - len(rest)]
        before = {at: problem for at, problem in self.problems.items() if at <= seq}
        after = {at: problem for at, problem in self.problems.items() if at > seq}
        files = tuple(part for part in self.files if part.last_seq > seq)
        parents = tuple(part for part in self.parents if part.last_seq > seq)
        return (
            replace(self, last_seq=seq, data=begin, problems=before),
            replace(self, first_seq=seq + 1, data=rest, problems=after, files=files, parents=parents),
        )


def blocks(
    stream: BinaryIO, name: str, _layout: Layout = JSON_LINES, *, max_line: int, first_seq: int = 1, offset: int = 0
) -> Iterator[Block]:
    """Yield the input's records from `first_seq` on, which starts `offset` uncompressed bytes into it.

    Raises InputError for what begins like a JSON array: it is not one record per line.
    """
    expect = partial(_expect_lines, name=name)
    return line_blocks(stream, max_line=max_line, first_seq=first_seq, offset=offset, expect=expect)


def short_blocks(text: bytes, name: str, *, first_seq: int = 1, offset: int = 0) -> Iterator[Block]:
    """Yield the records of a whole text as `blocks` does, faster. It has no NUL bytes, and no line is too long."""
    text = text.removeprefix(UTF8_BOM)
    _expect_lines(text[:FIRST_READ], name)
    if rest := text[offset:]:
        yield from _cut(rest, first_seq, offset)


def _expect_lines(start: bytes, name: str) -> None:
    if start.lstrip().startswith(b"["):
        hint = Advice((Option("input", "json"), " reads one"))
        raise InputError(f"{name} is not JSON lines: it begins like a JSON array", hint=hint)


def line_blocks(
    stream: BinaryIO,
    *,
    max_line: int,
    first_seq: int,
    offset: int,
    expect: Callable[[bytes], object] = lambda _start: None,
) -> Iterator[Block]:
    """Yield the lines of a text from `first_seq` on; `expect` sees its beginning. Memory: a few blocks."""
    start = stream.read(FIRST_READ).removeprefix(UTF8_BOM)
    expect(start)
    rest = skip(stream, start, offset)
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


def skip(stream: BinaryIO, start: bytes, offset: int, see: Callable[[bytes], object] = lambda _skipped: None) -> bytes:
    """Read past `offset` bytes, of which `start` has been read already; `see` gets them. Return what was read
    beyond."""
    see(start[:offset])
    if offset <= len(start):
        return start[offset:]
    left = offset - len(start)
    while left and (data := stream.read(min(left, BLOCK))):
        see(data[:left])
        if len(data) > left:  # line breaks around NUL bytes are added to what is read
            return data[left:]
        left -= len(data)
    return b""


class UntilError(Generic[Item]):
    """Items up to an InputError, such as that compressed data is cut. It is raised when those before it are kept."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._error: InputError | None = None

    def __iter__(self) -> Iterator[Item]:
        try:
            yield from self._items
        except InputError as error:
            self._error = error

    def raise_error(self) -> None:
        """Raise the error, if there was one."""
        if self._error is not None:
            raise self._error


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

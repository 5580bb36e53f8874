"""Dividing a file of lines into parts that are read independently, and joining the blocks of any other input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import msgspec

from pik.inputs.blocks import BLOCK, LINES, UTF8_BOM, Block
from pik.inputs.compression import codec_of
from pik.inputs.opened_file import HEAD, OpenedFile
from pik.model.layout import JSON_LINES, Layout


class Split(msgspec.Struct, frozen=True, array_like=True):
    """Records `first_seq` to `last_seq` of a file: its bytes from `begin` to `end`."""

    first_seq: int
    last_seq: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Content:
    """What reading a whole file shows: the SHA-256 of its bytes, in hex, and its parts; one that can only be read from
    its beginning has none."""

    digest: str
    splits: tuple[Split, ...]


def _records(size: int) -> int:
    """Return how many records a part of so many bytes has, at most, about: as many as so many blocks have."""
    return LINES * max(1, size // BLOCK)


def content_of(opened: OpenedFile, layout: Layout, size: int) -> Content:
    """Read a file and return its content, in parts of about `size` bytes. Parts are those of plain lines of JSON; an
    empty file, and any other, has none."""
    cutter = _Cutter(opened.stored_beginning(HEAD), size)
    cutter.can_cut &= layout == JSON_LINES
    digest = sha256()
    opened.stored.seek(0)
    while data := opened.stored.read(HEAD):
        digest.update(data)
        cutter.add(data)
    return Content(digest.hexdigest(), tuple(cutter.end()))


class _Cutter:
    """Cuts a file into parts as it is read."""

    def __init__(self, start: bytes, size: int) -> None:
        self.can_cut = codec_of(start) is None
        self._size, self._most = size, _records(size)
        self._splits: list[Split] = []
        self._begin = self._line = len(UTF8_BOM) if start.startswith(UTF8_BOM) else 0  # of the part, of the last line
        self._lines = self._position = 0
        self._first_seq = 1

    def add(self, data: bytes) -> None:
        """Go on with these bytes."""
        if not self.can_cut:
            return
        end = data.rfind(b"\n") + 1
        if end:
            self._lines += data.count(b"\n")
            self._line = self._position + end
            if self._line - self._begin >= self._size or self._lines >= self._most:
                self._cut()
        self._position += len(data)
        # Runs of NUL bytes are records, and a line that is too long must not be read as a whole.
        self.can_cut = b"\0" not in data and self._position - self._line <= self._size

    def end(self) -> Sequence[Split]:
        """Return the parts of the file, which ends here."""
        if not self.can_cut:
            return ()
        if self._position > self._line:
            self._lines, self._line = self._lines + 1, self._position
        if self._lines:
            self._cut()
        return self._splits

    def _cut(self) -> None:
        last_seq = self._first_seq + self._lines - 1
        self._splits.append(Split(self._first_seq, last_seq, self._begin, self._line))
        self._begin, self._first_seq, self._lines = self._line, last_seq + 1, 0


def read_split(opened: OpenedFile, split: Split, offset: int) -> Block:
    """Return a part of a file as one block, which ends `offset` bytes into the text. It may be shorter than it was
    where the file was written to meanwhile."""
    opened.stored.seek(split.begin)
    return Block(split.first_seq, split.last_seq, opened.stored.read(split.end - split.begin), offset)


def joined(blocks: Iterable[Block], size: int) -> Iterator[Block]:
    """Yield the blocks of an input, many as one of about `size` bytes. It depends on the input alone which."""
    some: list[Block] = []
    held = 0
    for block in blocks:
        some.append(block)
        held += len(block.data)
        if held >= size or block.last_seq - some[0].first_seq >= _records(size):
            yield _join(some)
            some, held = [], 0
    if some:
        yield _join(some)


def _join(blocks: Sequence[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    whole = (one.data if one.data.endswith(b"\n") else one.data + b"\n" for one in blocks)
    return replace(
        blocks[-1],
        first_seq=blocks[0].first_seq,
        data=b"".join(whole),
        problems={seq: problem for one in blocks for seq, problem in one.problems.items()},
        files=tuple(part for one in blocks for part in one.files),
        parents=tuple(part for one in blocks for part in one.parents),
    )

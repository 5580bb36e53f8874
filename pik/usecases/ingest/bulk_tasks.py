"""What the machines of a fleet do for a bulk ingest: read files once to know them, and make segments of their parts.

The bytes of a segment depend on the plan alone, so that it may be made any number of times: the same key has the same
bytes.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from pik.errors import AlreadyExists, InputError, PikError, StoreError, UsageError
from pik.inputs.archives import is_archive
from pik.inputs.blocks import Block, UntilError
from pik.inputs.opened_file import OpenedFile
from pik.inputs.source import Source
from pik.inputs.splits import Split, content_of, joined, read_split
from pik.model.batch import Chunk, Origin
from pik.ports.engine import Engine
from pik.ports.raw import Object, Raw
from pik.ports.store import Store
from pik.rawlog.reading import Reading
from pik.rawlog.segment_writer import InvalidRecord, SegmentBuilder
from pik.usecases.ingest.batch_ingest import IngestOptions, origin_of

_PIECE = 1 << 20
"""Bytes of a result that travel together."""


class Candidate(NamedTuple):
    """A file that is to be known, its place among all, how it is read, and the bytes of its parts, about."""

    place: int
    source: Source
    options: IngestOptions
    part: int


class Known(NamedTuple):
    """What a file is: its origin and its parts; or an archive, without an origin; or why it cannot be read."""

    place: int
    origin: Origin | None = None
    splits: tuple[Split, ...] = ()
    error: PikError | None = None


def survey(_store: Store, _engine: Engine, some: Sequence[Candidate]) -> Iterator[Known]:
    """Yield what each file is."""
    for one in some:
        try:
            yield _known(*one)
        except (InputError, UsageError) as error:
            yield Known(one.place, error=error)


def _known(place: int, source: Source, options: IngestOptions, part: int) -> Known:
    with source.open() as opened:
        if is_archive(opened):
            return Known(place)
        options = options.of(opened)
        layout = options.reading.layout
        content = content_of(opened, layout, part)
        next(opened.blocks(layout, options.reading.max_line), None)  # what is not of this format shows at once
        opened.expect_unchanged()
    return Known(place, origin_of(source, options, content.digest), content.splits)


class Work(NamedTuple):
    """A part of a file that becomes segments, or all of it: those records that are not recorded yet, from `next_seq`
    on. `number` is that of the part's chunk, or of the first one; `offset` is where the part ends in the text. A file
    without parts becomes chunks of about `part` bytes."""

    place: int
    source: Source
    reading: Reading
    batch_id: str
    ingest_time: int
    next_seq: int
    part: int
    number: int = 1
    split: Split | None = None
    offset: int = 0

    @property
    def size(self) -> int:
        """The bytes that are read for it."""
        return (self.source.size or 0) if self.split is None else self.split.end - self.split.begin


class Built(NamedTuple):
    """A chunk of a file, or why there is none; without either, the end of a piece of work of so many bytes."""

    place: int
    chunk: Chunk | None = None
    error: PikError | None = None
    size: int = 0


def build(store: Store, _engine: Engine, works: Sequence[Work]) -> Iterator[tuple[bool, bytes]]:
    """Create the segments of each piece of work; yield what became of them, cut into pieces."""
    for work in works:
        try:
            for chunk in _chunks(store.raw, work):
                yield from _cut(Built(work.place, chunk))
        except (InputError, UsageError) as error:
            yield from _cut(Built(work.place, error=error))
        yield from _cut(Built(work.place, size=work.size))


def whole(pieces: Iterable[tuple[bool, bytes]]) -> Iterator[Built]:
    """Yield the results that were cut into pieces."""
    held: list[bytes] = []
    for is_last, data in pieces:
        held.append(data)
        if is_last:
            yield pickle.loads(b"".join(held))
            held.clear()


def _cut(result: Any) -> Iterator[tuple[bool, bytes]]:
    data = pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
    for begin in range(0, len(data), _PIECE):
        yield begin + _PIECE >= len(data), data[begin : begin + _PIECE]


def _chunks(raw: Raw, work: Work) -> Iterator[Chunk]:
    with work.source.open() as opened:
        reading = work.reading.of(opened)
        builder = SegmentBuilder(work.batch_id, reading)
        try:
            for number, block in enumerate(_blocks(opened, reading, work), work.number):
                if block.last_seq >= work.next_seq:
                    chunk, objects = builder.build(block, number, work.ingest_time)
                    _create(raw, objects)
                    yield chunk
        except InvalidRecord as error:
            raise InputError(f"{work.source.name}: {error.message}", hint=error.hint) from None
        opened.expect_unchanged()


def _blocks(opened: OpenedFile, reading: Reading, work: Work) -> Iterator[Block]:
    if work.split is None:
        readable = UntilError(opened.blocks(reading.layout, reading.max_line))
        yield from joined(readable, work.part)
        readable.raise_error()
        return
    opened.expect_unchanged()  # else the part is none of whole lines
    yield read_split(opened, work.split, work.offset)


def _create(raw: Raw, objects: Sequence[Object]) -> None:
    """Create objects, some of which an earlier attempt at the same part may have created. Raises StoreError where one
    exists with other bytes."""
    try:
        raw.create_all(objects)
    except AlreadyExists:
        for key, data in objects:
            try:
                raw.create(key, data)
            except AlreadyExists:
                if raw.read(key) != data:
                    raise StoreError(
                        f"raw object {key} is there, and has other bytes than this part of its input makes",
                        hint="pik verify --full",
                    ) from None

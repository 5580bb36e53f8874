"""The sealed records of a batch, from which the index can be rebuilt; docs/format.md specifies them.

A batch of more than one block has an opening record before its first segment (what it is read from), and a block record
per block (how far it has come). A finished batch has one record of everything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from pik.errors import AlreadyExists, Damaged, InputError, StoreError
from pik.inputs.blocks import Block
from pik.model.batch import Batch, BatchState, Chunk, Counts, Origin, RejectFile, Segment, Verdict
from pik.model.window import ALL_TIME
from pik.ports.raw import Object, Raw
from pik.ports.store import Store
from pik.rawlog.keys import RawKind, keys_of
from pik.rawlog.records import packed, record_lines

Runs = tuple[tuple[int, int], ...]
"""Seqs as (first, last) pairs, both included."""


class BatchLine(msgspec.Struct, frozen=True, kw_only=True, tag="batch"):
    """The first line: everything about the batch that its segments do not tell."""

    format: int
    batch_id: str
    origin: Origin
    attempt: int
    started_at: int
    finished_at: int
    counts: Counts
    next_seq: int
    offset: int
    prefix_digest: str
    reasons: dict[str, int]
    lags: dict[int, int]
    sources: dict[str, int]
    replaces: tuple[str, ...] = ()


class SegmentLine(msgspec.Struct, frozen=True, kw_only=True, tag="segment"):
    """A segment, and which of its deliveries are duplicates."""

    segment: Segment
    exact: Runs = ()
    conflict: Runs = ()

    @property
    def verdicts(self) -> dict[int, Verdict]:
        """seq → exact or conflict."""
        verdicts = {seq: Verdict.EXACT for first, last in self.exact for seq in range(first, last + 1)}
        verdicts.update({seq: Verdict.CONFLICT for first, last in self.conflict for seq in range(first, last + 1)})
        return verdicts


class RejectLine(msgspec.Struct, frozen=True, kw_only=True, tag="rejects"):
    """A file of rejects."""

    rejects: RejectFile


Line = BatchLine | SegmentLine | RejectLine

_decode_line = msgspec.json.Decoder(Line).decode


def write_record(store: Store, batch: Batch, finished_at: int, replaces: Sequence[str]) -> int:
    """Create the record of a batch whose every delivery is recorded; the batch's time of finishing is returned.
    `replaces` are the batches that it has closed.

    A crash may have left the record of an earlier attempt to finish: then that one stands.
    """
    try:
        store.raw.create(*record_object(store, batch, finished_at, replaces))
    except AlreadyExists:
        head = next(read_record(store.raw, RawKind.BATCH.key(batch.batch_id)))
        assert isinstance(head, BatchLine)
        if head.counts != batch.counts:
            raise StoreError(
                f"batch {batch.batch_id} has a record with other counts than its index",
                hint="pik verify --rebuild-index",
            ) from None
        return head.finished_at
    return finished_at


def record_object(store: Store, batch: Batch, finished_at: int, replaces: Sequence[str] = ()) -> Object:
    """The record of a batch as an object that is still to be created."""
    return RawKind.BATCH.key(batch.batch_id), packed(_batch_lines(store, batch, finished_at, replaces))


def read_record(raw: Raw, key: str) -> Iterator[Line]:
    """The lines of a record. Raises Damaged, before the first one, if any bit is not as it was written, or it is the
    record of another batch."""
    lines = record_lines(raw, key, _decode_line)
    head = next(lines, None)
    if not isinstance(head, BatchLine) or RawKind.BATCH.key(head.batch_id) != key:
        whose = f"the record of batch {head.batch_id}" if isinstance(head, BatchLine) else "not the record of a batch"
        raise Damaged(f"record {key} is {whose}", hint="pik verify --full")
    yield head
    yield from lines


def restored(line: BatchLine) -> Batch:
    """The batch that a record's first line tells of."""
    return Batch(state=BatchState.COMPLETE, finished_at=line.finished_at, **_common(line))


_COMMON = sorted({one.name for one in dataclasses.fields(Batch)} & {*BatchLine.__struct_fields__} - {"finished_at"})


def _common(source: Batch | BatchLine) -> dict[str, Any]:
    """Return what a batch and the first line of its record have in common."""
    return {name: getattr(source, name) for name in _COMMON}


def _batch_lines(store: Store, batch: Batch, finished_at: int, replaces: Sequence[str]) -> Iterator[Line]:
    common = _common(batch)
    yield BatchLine(format=store.format_version, finished_at=finished_at, replaces=tuple(replaces), **common)
    for segment in store.index.segments(ALL_TIME, batch_id=batch.batch_id):
        yield segment_line(segment, store.index.skipped(segment))
    for rejects in store.index.rejects(batch.batch_id):
        yield RejectLine(rejects=rejects)


def segment_line(segment: Segment, verdicts: Mapping[int, Verdict]) -> SegmentLine:
    """The line of a segment with these duplicates: seq → exact or conflict."""
    return SegmentLine(
        segment=segment, exact=_runs(verdicts, Verdict.EXACT), conflict=_runs(verdicts, Verdict.CONFLICT)
    )


def _runs(verdicts: Mapping[int, Verdict], kind: Verdict) -> Runs:
    return tuple(runs(sorted(seq for seq, verdict in verdicts.items() if verdict == kind)))


def runs(seqs: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Sorted numbers as (first, last) pairs of consecutive ones."""
    first = last = None
    for seq in seqs:
        if last is not None and seq == last + 1:
            last = seq
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = seq
    if first is not None and last is not None:
        yield first, last


ATTEMPT = 1_000_000
"""Numbers of blocks that each attempt at a batch has to itself, so that it never meets what an earlier one left."""


class BlockLine(msgspec.Struct, frozen=True, kw_only=True, tag="block"):
    """The first line: which records the block covers, and where the input goes on after it."""

    format: int
    batch_id: str
    number: int
    first_seq: int
    last_seq: int
    offset: int
    prefix_digest: str

    @property
    def attempt(self) -> int:
        """Which of the batch's writers, counted from 1, made the block."""
        return attempt_of(self.number)

    @property
    def key(self) -> str:
        """The key of the record."""
        return RawKind.BLOCK.key(self.batch_id, self.number)


BlockRecord = tuple[BlockLine, list[SegmentLine], list[RejectLine]]
"""A block with its objects; the verdicts of its deliveries are not known yet."""


@dataclass(slots=True)
class BlockLog:
    """Writes the opening record and the block records of a batch, if it has more than one block."""

    store: Store
    batch: Batch
    begun: bool = False

    def __post_init__(self) -> None:
        self.begun = self.batch.next_seq > 1  # then an earlier attempt has begun the log

    def opened(self, blocks: Iterator[Block], *, is_stream: bool) -> Iterator[Block]:
        """The blocks; before the first of several the opening record is created. A stream always gets one, because
        nobody knows how long it will be."""
        return opened(blocks, self._begin, always=is_stream)

    def add(self, chunk: Chunk, number: int) -> None:
        """Create the record of a block whose objects are durable, and which the index takes next."""
        if self.begun:
            self.store.raw.create(
                RawKind.BLOCK.key(chunk.batch_id, number), packed(_block_lines(self.store, chunk, number))
            )

    def _begin(self) -> None:
        write_opening(self.store, self.batch)
        self.begun = True


def attempt_of(number: int) -> int:
    """Which of a batch's writers, counted from 1, made the objects of this number."""
    return (number - 1) // ATTEMPT + 1


def block_keys(raw: Raw, batch_id: str = "") -> Iterator[tuple[str, str]]:
    """Each block record, of one batch or of all: its key and its batch."""
    return ((str(key), key.id) for key in keys_of(raw, RawKind.BLOCK, batch_id))


def read_block(raw: Raw, key: str) -> BlockRecord:
    """Read a block record. Raises Damaged."""
    lines = record_lines(raw, key, _decode_block_line)
    head = next(lines, None)
    if not isinstance(head, BlockLine) or head.key != key:
        raise Damaged(f"record {key} is that of another block", hint="pik verify --full")
    rest = list(lines)
    segments = [line for line in rest if isinstance(line, SegmentLine)]
    return head, segments, [line for line in rest if isinstance(line, RejectLine)]


def recorded_blocks(blocks: Iterable[BlockLine]) -> list[BlockLine]:
    """Those of a batch's blocks that the index can have recorded, in order, up to the first gap.

    A later attempt began where the index stood, so it never recorded what earlier ones have from there on.
    """
    kept: list[BlockLine] = []
    begin: int | None = None  # where the later attempts began
    newest_first = sorted(blocks, key=lambda block: (-block.attempt, block.first_seq))
    for _, of_attempt in groupby(newest_first, key=attrgetter("attempt")):
        first, *others = of_attempt
        kept += [block for block in (first, *others) if begin is None or block.last_seq < begin]
        begin = first.first_seq if begin is None else min(begin, first.first_seq)
    kept.sort(key=lambda block: block.first_seq)
    for place, block in enumerate(kept):
        if block.first_seq != (kept[place - 1].last_seq + 1 if place else 1):
            return kept[:place]
    return kept


def _block_lines(store: Store, chunk: Chunk, number: int) -> Iterator[BlockLine | SegmentLine | RejectLine]:
    yield BlockLine(
        format=store.format_version,
        batch_id=chunk.batch_id,
        number=number,
        first_seq=chunk.first_seq,
        last_seq=chunk.last_seq,
        offset=chunk.offset,
        prefix_digest=chunk.prefix_digest,
    )
    yield from (SegmentLine(segment=arrived.segment) for arrived in chunk.arrivals)
    if chunk.rejects:
        yield RejectLine(rejects=chunk.rejects)


_decode_block_line = msgspec.json.Decoder(BlockLine | SegmentLine | RejectLine).decode


Item = TypeVar("Item")


class OpeningLine(msgspec.Struct, frozen=True, kw_only=True, tag="opening"):
    """A batch that was begun."""

    format: int
    batch_id: str
    origin: Origin
    started_at: int


def write_opening(store: Store, batch: Batch) -> None:
    """Create the opening record of the batch, unless it is there."""
    line = OpeningLine(
        format=store.format_version, batch_id=batch.batch_id, origin=batch.origin, started_at=batch.started_at
    )
    try:
        store.raw.create(RawKind.OPENING.key(line.batch_id), packed([line]))
    except AlreadyExists:  # left by an earlier attempt
        return


def opening_keys(raw: Raw) -> Iterator[tuple[str, str]]:
    """Each opening record: its key and its batch."""
    return ((str(key), key.id) for key in keys_of(raw, RawKind.OPENING))


def read_opening(raw: Raw, key: str) -> OpeningLine:
    """Read an opening record. Raises Damaged."""
    for line in record_lines(raw, key, _decode_opening):
        if RawKind.OPENING.key(line.batch_id) == key:
            return line
    raise Damaged(f"record {key} is that of another batch", hint="pik verify --full")


def opened(blocks: Iterator[Item], begin: Callable[[], None], *, always: bool) -> Iterator[Item]:
    """The blocks; `begin` is called before the first one is yielded, if there are more than one. With `always` it is
    called for a single one too: of a stream, nobody should have to wait for the second one."""
    first = next(blocks, None)
    if first is None:
        return
    if always:
        begin()
        yield first
        yield from blocks
        return
    try:
        second, failed = next(blocks, None), None
    except InputError as error:
        second, failed = None, error
    if second is not None or failed is not None:
        begin()
    yield first
    if failed is not None:
        raise failed
    if second is not None:
        yield second
        yield from blocks


_decode_opening = msgspec.json.Decoder(OpeningLine).decode

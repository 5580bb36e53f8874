"""The sealed records, of a batch and of the whole store, from which the index can be rebuilt; docs/format.md specifies
them.

A batch of more than one block has an opening record before its first segment (what it is read from), and a block record
per block (how far it has come). A finished batch has one record of everything. A record of the whole store is what was
pulled into a copy; `corrections.py` has the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, groupby
from operator import attrgetter
from typing import Any

import msgspec

from pik.errors import AlreadyExists, Damaged, InputError, StoreError
from pik.inputs.blocks import Block
from pik.model.batch import Batch, BatchState, Chunk, Counts, Origin, RejectFile, Segment, Verdict
from pik.model.window import ALL_TIME, PulledWindow, Window
from pik.ports.raw import Object, ObjectReader, Raw, RawKind, keys_of
from pik.ports.store import Store
from pik.rawlog.objects import packed, record_lines

Runs = tuple[tuple[int, int], ...]
"""Seqs as (first, last) pairs, both included."""


class BatchLine(msgspec.Struct, frozen=True, kw_only=True, tag="batch"):
    """The first line of a batch's record: all of the batch that its segments do not have."""

    format: int
    batch_id: str
    origin: Origin
    attempt: int
    started_at: int
    actor: str = ""
    finished_at: int
    counts: Counts
    next_seq: int
    offset: int
    prefix_digest: str
    reasons: dict[str, int]
    lags: dict[int, int]
    sources: dict[str, int]
    times: dict[str, int] = {}
    replaces: tuple[str, ...] = ()


class SegmentLine(msgspec.Struct, frozen=True, kw_only=True, tag="segment"):
    """A segment, and which of its deliveries are duplicates."""

    segment: Segment
    exact: Runs = ()
    conflict: Runs = ()

    @property
    def verdicts(self) -> dict[int, Verdict]:
        """The verdicts of the duplicates, by seq."""
        kinds = (Verdict.EXACT, self.exact), (Verdict.CONFLICT, self.conflict)
        return {seq: kind for kind, runs in kinds for first, last in runs for seq in range(first, last + 1)}


class RejectLine(msgspec.Struct, frozen=True, kw_only=True, tag="rejects"):
    """A file of rejects."""

    rejects: RejectFile


Line = BatchLine | SegmentLine | RejectLine

_decode_line = msgspec.json.Decoder(Line).decode


def write_record(store: Store, batch: Batch, finished_at: int, replaces: Sequence[str]) -> int:
    """Create the record of a batch whose every delivery is recorded; return the time at which the batch finished.

    `replaces` are the batches that it has closed. A record left by an earlier attempt, before a crash, stands.
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
    """Return the record of a batch as an object that is still to be created."""
    head = BatchLine(format=store.format_version, finished_at=finished_at, replaces=tuple(replaces), **_common(batch))
    listed = store.index.segments(ALL_TIME, batch_id=batch.batch_id)
    segments = (segment_line(segment, store.index.skipped(segment)) for segment in listed)
    rejects = (RejectLine(rejects=rejects) for rejects in store.index.rejects(batch.batch_id))
    return RawKind.BATCH.key(batch.batch_id), packed(chain([head], segments, rejects))


def read_record(raw: ObjectReader, key: str) -> Iterator[Line]:
    """Yield the lines of a batch's record. Raises Damaged, before the first one, if any bit is not as it was written or
    it is the record of another batch."""
    lines = record_lines(raw, key, _decode_line)
    head = next(lines, None)
    if not isinstance(head, BatchLine) or RawKind.BATCH.key(head.batch_id) != key:
        whose = f"the record of batch {head.batch_id}" if isinstance(head, BatchLine) else "not the record of a batch"
        raise Damaged(f"record {key} is {whose}", hint="pik verify --full")
    yield head
    yield from lines


def restored(line: BatchLine) -> Batch:
    """Return the batch of a record's first line."""
    return Batch(state=BatchState.COMPLETE, finished_at=line.finished_at, **_common(line))


_COMMON = sorted({one.name for one in dataclasses.fields(Batch)} & {*BatchLine.__struct_fields__} - {"finished_at"})


def _common(source: Batch | BatchLine) -> dict[str, Any]:
    """Return what a batch and the first line of its record have in common."""
    return {name: getattr(source, name) for name in _COMMON}


def segment_line(segment: Segment, verdicts: Mapping[int, Verdict]) -> SegmentLine:
    """Return the line of a segment with these duplicates, by seq."""
    return SegmentLine(
        segment=segment, exact=_runs(verdicts, Verdict.EXACT), conflict=_runs(verdicts, Verdict.CONFLICT)
    )


def _runs(verdicts: Mapping[int, Verdict], kind: Verdict) -> Runs:
    """Return the seqs with this verdict as (first, last) pairs of consecutive ones."""
    found: list[tuple[int, int]] = []
    for seq in sorted(seq for seq, verdict in verdicts.items() if verdict == kind):
        if found and seq == found[-1][1] + 1:
            found[-1] = found[-1][0], seq
        else:
            found.append((seq, seq))
    return tuple(found)


ATTEMPT = 1_000_000
"""How many block numbers each attempt at a batch has to itself, so that its objects never meet an earlier one's."""


def attempt_of(number: int) -> int:
    """Return which of a batch's writers, counted from 1, made the objects of this number."""
    return (number - 1) // ATTEMPT + 1


class BlockLine(msgspec.Struct, frozen=True, kw_only=True, tag="block"):
    """The first line of a block record: which records the block covers, and where the input goes on after it."""

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


class OpeningLine(msgspec.Struct, frozen=True, kw_only=True, tag="opening"):
    """The line of an opening record: a batch that was begun."""

    format: int
    batch_id: str
    origin: Origin
    started_at: int
    actor: str = ""


BlockRecord = tuple[BlockLine, list[SegmentLine], list[RejectLine]]
"""A block with its objects; the verdicts of its deliveries are not known yet."""

_decode_block_line = msgspec.json.Decoder(BlockLine | SegmentLine | RejectLine).decode
_decode_opening = msgspec.json.Decoder(OpeningLine).decode


class BlockLog:
    """Writes the opening record and the block records of a batch, if it has more than one block.

    Workers make blocks durable in any order, and a block that was ahead of the others when its ingest was killed must
    not count before them. So a block's record is created when all blocks before it are recorded, right before the index
    records it: a block without a record was never recorded.
    """

    def __init__(self, store: Store, batch: Batch) -> None:
        self.store, self.batch = store, batch
        self.begun = batch.next_seq > 1  # then an earlier attempt has begun the log

    def opened(self, blocks: Iterator[Block], *, is_stream: bool) -> Iterator[Block]:
        """Yield the blocks; before the first of several the opening record is created. A stream always gets one: its
        first block must not wait for a second one."""
        first = next(blocks, None)
        if first is None:
            return
        second, failed = None, None
        if not is_stream:
            try:
                second = next(blocks, None)
            except InputError as error:
                failed = error
        if is_stream or second is not None or failed is not None:
            self.begin()
        yield first
        if failed is not None:
            raise failed
        if second is not None:
            yield second
        yield from blocks

    def begin(self) -> None:
        """Create the opening record, before the first of several blocks."""
        batch = self.batch
        line = OpeningLine(
            format=self.store.format_version,
            batch_id=batch.batch_id,
            origin=batch.origin,
            started_at=batch.started_at,
            actor=batch.actor,
        )
        with suppress(AlreadyExists):  # left by an earlier attempt
            self.store.raw.create(RawKind.OPENING.key(batch.batch_id), packed([line]))
        self.begun = True

    def add(self, chunk: Chunk, number: int) -> None:
        """Create the record of a block whose objects are durable, and which the index records next."""
        if not self.begun:
            return
        head = BlockLine(
            format=self.store.format_version,
            batch_id=chunk.batch_id,
            number=number,
            first_seq=chunk.first_seq,
            last_seq=chunk.last_seq,
            offset=chunk.offset,
            prefix_digest=chunk.prefix_digest,
        )
        segments = [SegmentLine(segment=arrived.segment) for arrived in chunk.arrivals]
        rejects = [RejectLine(rejects=chunk.rejects)] if chunk.rejects else []
        self.store.raw.create(head.key, packed([head, *segments, *rejects]))


def read_opening(raw: ObjectReader, key: str) -> OpeningLine:
    """Return the line of an opening record. Raises Damaged."""
    for line in record_lines(raw, key, _decode_opening):
        if RawKind.OPENING.key(line.batch_id) == key:
            return line
    raise Damaged(f"record {key} is that of another batch", hint="pik verify --full")


def read_block(raw: ObjectReader, key: str) -> BlockRecord:
    """Return the lines of a block record. Raises Damaged."""
    lines = record_lines(raw, key, _decode_block_line)
    head = next(lines, None)
    if not isinstance(head, BlockLine) or head.key != key:
        raise Damaged(f"record {key} is that of another block", hint="pik verify --full")
    rest = list(lines)
    segments = [line for line in rest if isinstance(line, SegmentLine)]
    return head, segments, [line for line in rest if isinstance(line, RejectLine)]


def recorded_blocks(blocks: Iterable[BlockLine]) -> list[BlockLine]:
    """Return those of a batch's blocks that the index can have recorded, in order, up to the first gap.

    A later attempt began where the index stood, so blocks of earlier ones from there on were never recorded.
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


class PullLine(msgspec.Struct, frozen=True, kw_only=True, tag="pull"):
    """The first line of a pull. Instants in nanoseconds; `start` and `end` bound whole days; no `entities`: all."""

    format: int
    pull_id: str
    source: str
    pulled_at: int
    start: int
    end: int
    entities: tuple[str, ...] = ()

    @property
    def part(self) -> PulledWindow:
        """What the copy holds by this pull."""
        return PulledWindow(Window(self.start, self.end), self.entities)


class PulledBatch(msgspec.Struct, frozen=True, kw_only=True, tag="batch"):
    """A batch as the source knew it. `counts` are those of all of it."""

    batch_id: str
    origin: Origin
    state: BatchState
    attempt: int
    started_at: int
    actor: str = ""
    finished_at: int | None
    counts: Counts
    rejects: tuple[RejectFile, ...] = ()


PullRecordLine = PullLine | PulledBatch | SegmentLine

_decode_pull = msgspec.json.Decoder(PullRecordLine).decode


def write_pull(raw: Raw, lines: Iterable[PullRecordLine], pull_id: str) -> None:
    """Create the record of a pull."""
    raw.create(RawKind.PULL.key(pull_id), packed(lines))


def read_pull(raw: ObjectReader, key: str) -> Iterator[PullRecordLine]:
    """Yield the lines of the record of a pull. Raises Damaged."""
    return record_lines(raw, key, _decode_pull)


def pulls(raw: Raw) -> list[str]:
    """Return the keys of the records of all pulls, oldest first."""
    return [str(key) for key in keys_of(raw, RawKind.PULL)]


def parts(store: Store) -> list[PulledWindow]:
    """Return what a copy holds, by its pulls. Raises Damaged."""
    first = (next(read_pull(store.raw, key)) for key in pulls(store.raw))
    return [line.part for line in first if isinstance(line, PullLine)]

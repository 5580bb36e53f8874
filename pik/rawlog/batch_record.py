"""The record of a finished batch: a create-only object beside its segments, from which the index can be rebuilt.

`raw/batches/<batch_id>.ndjson.zst`, JSON lines in one zstd frame: first the batch itself, then a line a segment, each
with the duplicates among its deliveries as runs of seqs, then a line a file of rejects; behind it a seal, the digest of
all of that, because nothing else knows it. docs/format.md specifies it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from pik.errors import AlreadyExists, Damaged, StoreError
from pik.model.batch import Batch, BatchState, Counts, Origin, RejectFile, Segment, Verdict
from pik.model.window import ALL_TIME
from pik.ports.raw import Object, Raw
from pik.ports.store import Store
from pik.rawlog.sealed_record import packed, record_lines

PREFIX = "raw/batches/"

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
    counts: tuple[int, int, int, int, int]
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
        head = next(read_record(store.raw, record_key(batch.batch_id)))
        assert isinstance(head, BatchLine)
        if head.counts != batch.counts.astuple():
            raise StoreError(
                f"batch {batch.batch_id} has a record with other counts than its index",
                hint="pik verify --rebuild-index",
            ) from None
        return head.finished_at
    return finished_at


def record_object(store: Store, batch: Batch, finished_at: int, replaces: Sequence[str] = ()) -> Object:
    """The record of a batch as an object that is still to be created."""
    return record_key(batch.batch_id), packed(_lines(store, batch, finished_at, replaces))


def record_key(batch_id: str) -> str:
    """The key of a batch's record."""
    return f"{PREFIX}{batch_id}.ndjson.zst"


def read_record(raw: Raw, key: str) -> Iterator[Line]:
    """The lines of a record. Raises Damaged, before the first one, if any bit is not as it was written, or it is the
    record of another batch."""
    lines = record_lines(raw, key, _decode_line)
    head = next(lines, None)
    if not isinstance(head, BatchLine) or record_key(head.batch_id) != key:
        whose = f"the record of batch {head.batch_id}" if isinstance(head, BatchLine) else "not the record of a batch"
        raise Damaged(f"record {key} is {whose}", hint="pik verify --full")
    yield head
    yield from lines


def restored(line: BatchLine) -> Batch:
    """The batch that a record's first line tells of."""
    return Batch(
        batch_id=line.batch_id,
        origin=line.origin,
        state=BatchState.COMPLETE,
        attempt=line.attempt,
        counts=Counts(*line.counts),
        started_at=line.started_at,
        finished_at=line.finished_at,
        next_seq=line.next_seq,
        offset=line.offset,
        prefix_digest=line.prefix_digest,
        reasons=line.reasons,
        lags=line.lags,
        sources=line.sources,
    )


def _lines(store: Store, batch: Batch, finished_at: int, replaces: Sequence[str]) -> Iterator[Line]:
    yield BatchLine(
        format=store.format_version,
        batch_id=batch.batch_id,
        origin=batch.origin,
        attempt=batch.attempt,
        started_at=batch.started_at,
        finished_at=finished_at,
        counts=batch.counts.astuple(),
        next_seq=batch.next_seq,
        offset=batch.offset,
        prefix_digest=batch.prefix_digest,
        reasons=dict(batch.reasons),
        lags=dict(batch.lags),
        sources=dict(batch.sources),
        replaces=tuple(replaces),
    )
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

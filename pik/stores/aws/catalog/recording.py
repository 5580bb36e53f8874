"""Recording the chunks of batches in a deployed store.

A chunk is recorded in steps, each of which may be repeated: by the same process, by one that takes the batch over, or
by both at the same time.

    the chunk's id file      nothing refers to it yet
    the batch's `pending`    from here on the chunk will be finished, even if its writer dies; one writer at a time
    segments, without `skipped`: what could claim is listed before it claims
    claims, then duplicates
    the batch's `settled_at` the moment at which the chunk is recorded, the same for every process that finishes it
    segments once more, with `skipped` and that moment
    the batch's progress     and nothing is pending any more

A claim is an item that names the first delivery of an event. It can be inserted only once: it decides each verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import time_ns
from typing import NamedTuple

from msgspec import structs

from pik.errors import AlreadyExists, Busy
from pik.model.batch import Chunk, Counts, Verdict
from pik.runtime import exhaust
from pik.stores import conflicting
from pik.stores.aws.catalog import codec, layout
from pik.stores.aws.catalog.deliveries import (
    Header,
    Row,
    claims_of,
    ids_key,
    read_ids,
    rows_of,
    write_ids,
)
from pik.stores.aws.catalog.layout import BatchAttributes, BatchItem
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.table import Item, Key, KeyItem, Table, key_of

NO_DELIVERIES = "-"
"""Stands for the id file as `pending` while a chunk without deliveries is recorded."""

_OF_CHUNK = [name for name in Header.__struct_fields__ if name != "segments"]
"""The fields that a header and a chunk have in common."""


class ChunkResult(NamedTuple):
    """The batch's item after a chunk, the counts of the chunk, and which of its seqs are duplicates."""

    item: BatchItem
    counts: Counts
    verdicts: Mapping[int, Verdict]


@dataclass(frozen=True, slots=True)
class Recording:
    """Records chunks of one batch."""

    table: Table
    raw: AwsRaw
    generation: int
    batch_id: str
    listed_days: set[Key[KeyItem]] = field(default_factory=set)
    """The keys of items of days that are known to be there."""

    def record(self, item: BatchItem, chunk: Chunk, attempt: int, *, refuse_conflicts: bool) -> ChunkResult:
        """Record a chunk of the batch whose item this is. Raises ConflictFound, or Busy where another attempt than this
        one writes the batch."""
        item = self.finish_pending(item)
        if chunk.last_seq < item["next_seq"]:
            return ChunkResult(item, Counts(), {})
        rows: Sequence[Row] = rows_of(chunk.arrivals)
        header = header_of(chunk, item["recorded_at"] + 1)
        if refuse_conflicts:
            self._refuse_conflicts(header, rows)
        pending, header, rows = self._stored(header, rows)
        values: Item = {"attempt": attempt, "next_seq": item["next_seq"], "pending": pending}
        condition = "#attempt = :attempt AND #next_seq = :next_seq AND attribute_not_exists(#pending)"
        begun = self.table.update(self._key, "SET #pending = :pending", values, condition=condition)
        if begun is None:  # after a call whose answer was lost it is pending already
            begun = self._batch()
            if begun.get("pending") != pending or begun["attempt"] != attempt:
                raise Busy(
                    f"another pik process has taken over batch {self.batch_id}",
                    hint="wait until it has ended, then run this again",
                )
        return self._finish(begun, header, rows)

    def record_new(self, item: BatchItem, chunk: Chunk) -> ChunkResult:
        """Record the only chunk of a new batch, whose item this is and is not written yet."""
        pending, header, rows = self._stored(header_of(chunk, item["recorded_at"] + 1), rows_of(chunk.arrivals))
        begun: BatchItem = {**item, "pending": pending}
        self.table.put(begun)
        return self._finish(begun, header, rows)

    def begin(self, item: BatchItem, header: Header, rows: Sequence[Row]) -> BatchItem:
        """Begin to record the only chunk of a new batch: list it, so that it can claim. Return the batch's item."""
        begun: BatchItem = {**item, "pending": self._stored(header, rows)[0]}
        self.table.put(begun)
        self._list(header)
        return begun

    def complete(self, item: BatchItem, header: Header, rows: Sequence[Row], settled_at: int) -> ChunkResult:
        """Record the chunk that was begun, as of this moment, in a generation that a rebuild fills: this may put other
        claims in the place of those that were found, and then judges the duplicates that it finds."""
        segments = header.segments
        recorded = [structs.replace(segment, recorded_at=settled_at) for segment in segments]
        claims = claims_of(self.table, self.generation, self.batch_id, segments)
        verdicts: Mapping[int, Verdict] = {}
        found = claims.make(rows)
        while True:
            gone = {seq: kind for seq, kind in verdicts.items() if seq not in found}
            verdicts = found
            self.table.write_many(
                claims.duplicates(segments, rows, verdicts), map(key_of, claims.duplicates(segments, rows, gone))
            )
            self.table.write_many(claims.settled(recorded, rows, verdicts))
            found = claims.verdicts(rows) if verdicts else {}
            if found == verdicts:
                break
        counts = chunk_counts(header, verdicts)
        return ChunkResult(self._advance(item, settled_at, header, counts), counts, verdicts)

    def _stored(self, header: Header, rows: Sequence[Row]) -> tuple[str, Header, Sequence[Row]]:
        """Store a chunk in its id file; return what is `pending` with it, and the chunk as it is there."""
        if not header.segments:
            return NO_DELIVERIES, header, rows
        pending = ids_key(self.generation, header, rows)
        try:
            write_ids(self.raw, pending, header, rows)
        except AlreadyExists:  # left by a call that failed after it, and nothing refers to it yet
            header, rows = read_ids(self.raw, pending)
        return pending, header, rows

    def finish_pending(self, item: BatchItem) -> BatchItem:
        """Record the chunk that the batch has begun, if any, and return the batch's item after it."""
        pending = item.get("pending")
        if pending is None:
            return item
        if pending == NO_DELIVERIES:  # only the progress is missing; the chunk comes again
            change, condition = "REMOVE #pending", "#pending = :pending"
            return self.table.update(self._key, change, {"pending": pending}, condition=condition) or self._batch()
        return self._finish(item, *read_ids(self.raw, pending)).item

    def _finish(self, item: BatchItem, header: Header, rows: Sequence[Row]) -> ChunkResult:
        """Take all steps after `pending`."""
        segments = header.segments
        self._list(header)
        claims = claims_of(self.table, self.generation, self.batch_id, segments)
        verdicts = claims.make(rows)
        self.table.write_many(claims.duplicates(segments, rows, verdicts))
        counts = chunk_counts(header, verdicts)
        settled_at = self._settle(item)
        if settled_at is None:  # another process has finished it meanwhile
            return ChunkResult(self._batch(), counts, verdicts)
        recorded = [structs.replace(segment, recorded_at=settled_at) for segment in segments]
        self.table.write_many(claims.settled(recorded, rows, verdicts))
        return ChunkResult(self._advance(item, settled_at, header, counts), counts, verdicts)

    def _list(self, header: Header) -> None:
        """List what the pending chunk has: all that could claim."""
        g, segments = self.generation, header.segments
        days = {key_of(item): item for item in (layout.day_of_segment(g, segment) for segment in segments)}
        listed = [
            *(codec.segment_item(g, segment) for segment in segments),  # one that is settled stays so
            *(layout.reference(g, segment) for segment in segments),
            *(item for key, item in days.items() if key not in self.listed_days),
            *([codec.reject_item(g, self.batch_id, header.rejects)] if header.rejects else []),
        ]
        exhaust(self.table.insert_many(listed))
        self.listed_days.update(days)

    def _settle(self, item: BatchItem) -> int | None:
        """Return the moment at which the pending chunk is recorded; None if it is not pending any more.

        Of several processes that finish a chunk the first to come here decides, so that all its segments have one
        moment. A request is finished by one process only, so its moment is not written."""
        now = max(time_ns(), item["recorded_at"] + 1)
        if codec.batch_of(item).is_request:
            return now
        change = "SET #settled_at = if_not_exists(#settled_at, :settled_at)"
        values: Item = {"settled_at": now, "pending": item["pending"]}
        settled = self.table.update(self._key, change, values, condition="#pending = :pending")
        return None if settled is None else settled["settled_at"]

    def _refuse_conflicts(self, header: Header, rows: Sequence[Row]) -> None:
        """Raise ConflictFound before anything is written. A conflict with what another batch records at the same moment
        is not seen here; it is recorded."""
        claims = claims_of(self.table, self.generation, self.batch_id, header.segments)
        keyed = [row for row in rows if row.content is not None]
        winners = claims.look_up(keyed)
        conflicts = 0
        for delivery in map(claims.delivery, keyed):
            winner = winners.setdefault(delivery.row.event_id, delivery.claim)
            conflicts += delivery.verdict(winner) == Verdict.CONFLICT
        if conflicts:
            raise conflicting(header.first_seq, header.last_seq, conflicts)

    def _advance(self, item: BatchItem, settled_at: int, header: Header, counts: Counts) -> BatchItem:
        """Move the batch past the chunk, unless another process that finished it at the same time did."""
        values: Item = {**advance(item, settled_at, header, counts), "pending": item["pending"]}
        if codec.batch_of(item).is_request:  # which is one chunk
            values["complete"] = True
        change = "SET " + ", ".join(f"#{name} = :{name}" for name in values if name != "pending")
        change += " REMOVE #pending, #settled_at"
        return self.table.update(self._key, change, values, condition="#pending = :pending") or self._batch()

    def _batch(self) -> BatchItem:
        item = self.table.get(self._key)
        assert item is not None, "a batch that is recorded has been opened"
        return item

    @property
    def _key(self) -> Key[BatchItem]:
        return layout.batch_key(self.generation, self.batch_id)


def header_of(chunk: Chunk, after: int) -> Header:
    """Return a chunk without its deliveries. Until its claims are settled its segments count as recorded now, not
    before `after`."""
    now = max(time_ns(), after)
    segments = tuple(structs.replace(arrived.segment, recorded_at=now) for arrived in chunk.arrivals)
    return Header(**{name: getattr(chunk, name) for name in _OF_CHUNK}, segments=segments)


def chunk_counts(header: Header, verdicts: Mapping[int, Verdict]) -> Counts:
    """Return what the chunk adds to the batch's counts."""
    kinds = Counter(verdicts.values())
    rejected = header.rejects.records if header.rejects else 0
    accepted = sum(segment.deliveries for segment in header.segments) - len(verdicts)
    return Counts(header.read, accepted, kinds[Verdict.EXACT], kinds[Verdict.CONFLICT], rejected)


def advance(item: BatchItem, settled_at: int, header: Header, counts: Counts) -> BatchAttributes:
    """Return the attributes of the batch that the chunk changes, as they are after it."""
    segments = header.segments
    firsts = [item["first_event"]] if "first_event" in item else []
    lasts = [item["last_event"]] if "last_event" in item else []
    chunk = Chunk(**{name: getattr(header, name) for name in _OF_CHUNK}, arrivals=())
    after = replace(
        codec.batch_of(item).advanced(chunk, counts, settled_at),
        first_event=min([*firsts, *(segment.first_event for segment in segments)], default=None),
        last_event=max([*lasts, *(segment.last_event for segment in segments)], default=None),
    )
    return {
        **codec.progress(after),
        "segments": item["segments"] + len(segments),
        "bytes": item["bytes"] + sum(segment.size for segment in segments),
        "recorded_at": settled_at if segments else item["recorded_at"],
    }

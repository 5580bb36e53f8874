"""Recording a chunk in steps, each of which may be repeated: by the same process, by one that takes the batch over, or
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

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import time_ns
from typing import NamedTuple

from msgspec import structs

from pik.errors import AlreadyExists, Busy, StoreError
from pik.model.batch import Chunk, Counts, Segment, Verdict, duplicate_kind
from pik.ports.raw import number_of
from pik.stores import conflicting
from pik.stores.aws.catalog import layout
from pik.stores.aws.catalog.id_files import Header, Row, ids_key, read_ids, rows_of, write_ids
from pik.stores.aws.catalog.layout import BatchAttributes, BatchItem, ClaimItem
from pik.stores.aws.raw import AwsRaw
from pik.stores.aws.table import Item, Key, Table

NO_DELIVERIES = "-"
"""Stands for the id file as `pending` while a chunk without deliveries is recorded."""

_OF_CHUNK = [name for name in Header.__struct_fields__ if name != "segments"]
"""The fields that a header and a chunk have in common."""


class Claim(NamedTuple):
    """The first delivery of an event; `content` is None without an idempotency key."""

    batch_id: str
    seq: int
    content: bytes | None


def claim_of(item: ClaimItem) -> Claim:
    """Return the claim of an item."""
    return Claim(item["batch"], item["seq"], item.get("content"))


def verdict(delivery: Claim, first: Claim | None) -> Verdict:
    """Return what a delivery is, given the first one of its event; UNRECORDED if its event is not claimed."""
    if first is None:
        return Verdict.UNRECORDED
    # A claim that names this delivery was made by a call whose answer was lost, or by a writer that died.
    is_first = (first.batch_id, first.seq) == (delivery.batch_id, delivery.seq)
    return Verdict.ACCEPTED if is_first else duplicate_kind(delivery.content, first.content)


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of one batch's deliveries. `segments` are the (day, n) of the segments that rows refer to."""

    table: Table
    generation: int
    batch_id: str
    segments: Sequence[tuple[int, int]]

    def make(self, rows: Sequence[Row], known: Mapping[int, Verdict] | None = None) -> dict[int, Verdict]:
        """Claim the events of a chunk, in the order of its rows, and return the seqs that are duplicates, each with its
        kind. The seqs in `known` are duplicates already and claim nothing. May be repeated."""
        known = known or {}
        first: dict[bytes, Row] = {}
        for row in rows:
            if row.seq not in known:
                first.setdefault(row.event_id, row)
        claiming = list(first.values())
        inserted = self.table.insert_many(self.item(row) for row in claiming)
        there = [row for row, new in zip(claiming, inserted, strict=True) if not new]
        found = self.look_up(there)
        if len(found) != len(there):
            raise StoreError("a claim that was there is gone", hint="pik verify --rebuild-index")
        winners = {row.event_id: self.claim(row) for row in claiming} | found
        kinds = ((row.seq, known.get(row.seq) or verdict(self.claim(row), winners[row.event_id])) for row in rows)
        return {seq: kind for seq, kind in kinds if kind != Verdict.ACCEPTED}

    def verdicts(self, rows: Sequence[Row]) -> dict[int, Verdict]:
        """Return the seqs that are not accepted, each with its verdict, by the claims that there are."""
        winners = self.look_up(rows)
        kinds = ((row.seq, verdict(self.claim(row), winners.get(row.event_id))) for row in rows)
        return {seq: kind for seq, kind in kinds if kind != Verdict.ACCEPTED}

    def claim(self, row: Row) -> Claim:
        """Return the claim that this delivery is the first of its event."""
        return Claim(self.batch_id, row.seq, row.content)

    def look_up(self, rows: Iterable[Row]) -> dict[bytes, Claim]:
        """Return the claims of the rows' events, as far as there are any."""
        keys = {self.key(row): row.event_id for row in rows}
        found = self.table.get_many(keys)
        return {keys[Key(key)]: claim_of(item) for key, item in found.items()}

    def key(self, row: Row) -> Key[ClaimItem]:
        """Return the key of the claim of the row's event."""
        day, _ = self.segments[row.segment]
        return layout.claim_key(self.generation, day, row.entity, row.event_id, keyed=row.content is not None)

    def item(self, row: Row) -> ClaimItem:
        """Return the item of the claim that this delivery is the first of its event."""
        pk, sk = self.key(row)
        day, n = self.segments[row.segment]
        item: ClaimItem = {"pk": pk, "sk": sk, "batch": self.batch_id, "n": n, "frame": row.frame, "seq": row.seq}
        return item if row.content is None else {**item, "day": day, "content": row.content}


def claims_of(table: Table, generation: int, batch_id: str, segments: Iterable[Segment]) -> Claims:
    """Return the claims of a batch's deliveries in these segments."""
    return Claims(table, generation, batch_id, [(segment.day, number_of(segment.key)) for segment in segments])


@dataclass(frozen=True, slots=True)
class ChunkResult:
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

    def record(self, item: BatchItem, chunk: Chunk, attempt: int, *, refuse_conflicts: bool) -> ChunkResult:
        """Record a chunk of the batch whose item this is. Raises ConflictFound, or Busy where another attempt than this
        one writes the batch."""
        item = self.finish_pending(item)
        if chunk.last_seq < item["next_seq"]:
            return ChunkResult(item, Counts(), {})
        rows, header = rows_of(chunk.arrivals), _header(chunk, item["recorded_at"] + 1)
        if refuse_conflicts:
            self._refuse_conflicts(header, rows)
        pending = NO_DELIVERIES
        if header.segments:
            pending = ids_key(self.generation, header, rows)
            try:
                write_ids(self.raw, pending, header, rows)
            except AlreadyExists:  # left by a call that failed after it, and nothing refers to it yet
                header, rows = read_ids(self.raw, pending)
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
        g, segments = self.generation, header.segments
        listed = [
            *(layout.segment_item(g, segment) for segment in segments),  # one that is settled stays so
            *(layout.reference(g, segment) for segment in segments),
            *(layout.day_item(g, day, layout.FILE) for day in {segment.day for segment in segments}),
            *([layout.reject_item(g, self.batch_id, header.rejects)] if header.rejects else []),
        ]
        deque(self.table.insert_many(listed), maxlen=0)
        verdicts = claims_of(self.table, g, self.batch_id, segments).make(rows)
        self.write_duplicates(segments, rows, verdicts)
        counts = chunk_counts(header, verdicts)
        settled_at = self._settle(item)
        if settled_at is None:  # another process has finished it meanwhile
            return ChunkResult(self._batch(), counts, verdicts)
        self.write_settled([_recorded(segment, settled_at) for segment in segments], rows, verdicts)
        return ChunkResult(self._advance(item, settled_at, header, counts), counts, verdicts)

    def write_duplicates(
        self, segments: Sequence[Segment], rows: Iterable[Row], verdicts: Mapping[int, Verdict]
    ) -> None:
        """Write the items of a chunk's duplicates."""
        self.table.write_many(
            layout.duplicate_item(self.generation, segments[row.segment], row, verdicts[row.seq])
            for row in rows
            if row.seq in verdicts
        )

    def write_settled(self, segments: Sequence[Segment], rows: Iterable[Row], verdicts: Mapping[int, Verdict]) -> None:
        """List the segments with their duplicates, once their claims are settled."""
        skipped: list[dict[int, Verdict]] = [{} for _ in segments]
        for row in rows:
            if kind := verdicts.get(row.seq):
                skipped[row.segment][row.seq] = kind
        self.table.write_many(
            layout.segment_item(self.generation, segment, of_segment)
            for segment, of_segment in zip(segments, skipped, strict=True)
        )

    def _settle(self, item: BatchItem) -> int | None:
        """Return the moment at which the pending chunk is recorded; None if it is not pending any more.

        Of several processes that finish a chunk the first to come here decides, so that all its segments have one
        moment. A request is finished by one process only, so its moment is not written."""
        now = max(time_ns(), item["recorded_at"] + 1)
        if layout.batch_of(item).is_request:
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
        for row in keyed:
            claim = claims.claim(row)
            conflicts += verdict(claim, winners.setdefault(row.event_id, claim)) == Verdict.CONFLICT
        if conflicts:
            raise conflicting(header.first_seq, header.last_seq, conflicts)

    def _advance(self, item: BatchItem, settled_at: int, header: Header, counts: Counts) -> BatchItem:
        """Move the batch past the chunk, unless another process that finished it at the same time did."""
        values: Item = {**advance(item, settled_at, header, counts), "pending": item["pending"]}
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


def _header(chunk: Chunk, after: int) -> Header:
    """Return a chunk without its deliveries. Until its claims are settled its segments count as recorded now, not
    before `after`."""
    now = max(time_ns(), after)
    segments = tuple(_recorded(arrived.segment, now) for arrived in chunk.arrivals)
    return Header(**{name: getattr(chunk, name) for name in _OF_CHUNK}, segments=segments)


def _recorded(segment: Segment, recorded_at: int) -> Segment:
    return structs.replace(segment, recorded_at=recorded_at)


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
        layout.batch_of(item).advanced(chunk, counts, settled_at),
        first_event=min([*firsts, *(segment.first_event for segment in segments)], default=None),
        last_event=max([*lasts, *(segment.last_event for segment in segments)], default=None),
    )
    return {
        **layout.progress(after),
        "segments": item["segments"] + len(segments),
        "bytes": item["bytes"] + sum(segment.size for segment in segments),
        "recorded_at": settled_at if segments else item["recorded_at"],
    }

"""Recording a chunk in steps, of which each may be repeated: by the same process, by whoever takes the batch over, or
by both at the same time.

    the chunk's id file      nothing refers to it yet
    the batch's `pending`    from here on the chunk will be finished, whoever dies; one writer at a time gets here
    segments, without `skipped`: what could claim is listed before it claims
    claims, then duplicates
    the batch's `settled_at` the moment at which the chunk is recorded, one for all who finish it
    segments once more, with `skipped` and that moment
    the batch's progress     and nothing is pending any more
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import time_ns

from msgspec import structs

from pik.errors import AlreadyExists, Busy
from pik.model.batch import Batch, Chunk, Counts, Segment, Verdict, with_lags, with_names
from pik.stores.aws.catalog.claims import Claims, places
from pik.stores.aws.catalog.id_files import Header, Row, ids_key, read_ids, rows_of, write_ids
from pik.stores.aws.catalog.items import (
    FILE,
    batch_key,
    batch_of,
    day_item,
    duplicate_item,
    progress_fields,
    reference,
    reject_item,
    segment_item,
)
from pik.stores.aws.raw import AwsRaw
from pik.stores.aws.table import Item, Table
from pik.stores.common import conflicting

NO_DELIVERIES = "-"
"""What is pending while a chunk without any is recorded, instead of its id file."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was recorded of a chunk: the batch's item as it is now, and which seqs are duplicates."""

    item: Item
    counts: Counts
    verdicts: Mapping[int, Verdict]


@dataclass(frozen=True, slots=True)
class Recording:
    """Records chunks of one batch."""

    table: Table
    raw: AwsRaw
    generation: int
    batch_id: str

    def record(self, item: Item, chunk: Chunk, attempt: int, *, refuse_conflicts: bool) -> Recorded:
        """Record a chunk of the batch whose item this is. Raises ConflictFound, or Busy where another attempt than this
        one writes the batch."""
        item = self.finished(item)
        if chunk.last_seq < item["next_seq"]:
            return Recorded(item, Counts(), {})
        rows, header = rows_of(chunk.arrivals), header_of(chunk, item["recorded_at"] + 1)
        if refuse_conflicts:
            self._refuse_conflicts(header, rows)
        pending = NO_DELIVERIES
        if header.segments:
            pending = ids_key(self.generation, header, rows)
            try:
                write_ids(self.raw, pending, header, rows)
            except AlreadyExists:  # left by a call that failed behind it, and nothing refers to it yet
                header, rows = read_ids(self.raw, pending)
        values = {"attempt": attempt, "next_seq": item["next_seq"], "pending": pending}
        condition = "#attempt = :attempt AND #next_seq = :next_seq AND attribute_not_exists(#pending)"
        begun = self.table.update(self._key, "SET #pending = :pending", values, condition=condition)
        if begun is None:  # where a call's answer was lost, it is pending already
            begun = self._batch()
            if begun.get("pending") != pending or begun["attempt"] != attempt:
                raise Busy(
                    f"another pik process has taken over batch {self.batch_id}",
                    hint="wait until it has ended, then run this again",
                )
        return self.finish(begun, header, rows)

    def finished(self, item: Item) -> Item:
        """The batch's item once the chunk that it has begun, if any, is recorded."""
        pending = item.get("pending")
        if pending is None:
            return item
        if pending == NO_DELIVERIES:
            # Nothing of it is missing but the progress; it comes again.
            gone = self.table.update(
                self._key, "REMOVE #pending", {"pending": pending}, condition="#pending = :pending"
            )
            return gone or self._batch()
        header, rows = read_ids(self.raw, pending)
        return self.finish(item, header, rows).item

    def finish(self, item: Item, header: Header, rows: Sequence[Row]) -> Recorded:
        """Do all that follows once the chunk is pending."""
        segments = header.segments
        days = {segment.day for segment in segments}
        listed = [
            *(segment_item(self.generation, segment) for segment in segments),  # one that is settled stays so
            *(reference(self.generation, segment) for segment in segments),
            *(day_item(self.generation, day, FILE) for day in days),
            *([reject_item(self.generation, self.batch_id, header.rejects)] if header.rejects else []),
        ]
        deque(self.table.insert_many(listed), maxlen=0)
        verdicts = self._claims(segments).make(rows)
        self.write_duplicates(segments, rows, verdicts)
        counts = counts_of(header, verdicts)
        settled = self._settled(item)
        if settled is None:  # another has finished it meanwhile
            return Recorded(self._batch(), counts, verdicts)
        self.settle([recorded(segment, settled["settled_at"]) for segment in segments], rows, verdicts)
        return Recorded(self._advance(settled, header, counts), counts, verdicts)

    def write_duplicates(
        self, segments: Sequence[Segment], rows: Iterable[Row], verdicts: Mapping[int, Verdict]
    ) -> None:
        """Write down the duplicates of a chunk."""
        self.table.write_many(self._duplicates(segments, rows, verdicts))

    def settle(self, segments: Sequence[Segment], rows: Iterable[Row], verdicts: Mapping[int, Verdict]) -> None:
        """List the segments with their duplicates: their claims are finished."""
        skipped: list[dict[int, Verdict]] = [{} for _ in segments]
        for row in rows:
            if kind := verdicts.get(row.seq):
                skipped[row.segment][row.seq] = kind
        self.table.write_many(
            segment_item(self.generation, segment, of_segment)
            for segment, of_segment in zip(segments, skipped, strict=True)
        )

    def _settled(self, item: Item) -> Item | None:
        """The batch's item with the moment at which what is pending is recorded; None if it is not pending any more.
        Of several that finish it the first to come here decides, so that all segments of a chunk have one. A request is
        finished by nobody else, so its moment need not be written down."""
        now = max(time_ns(), item["recorded_at"] + 1)
        if batch_of(item).is_request:
            return {**item, "settled_at": now}
        change = "SET #settled_at = if_not_exists(#settled_at, :settled_at)"
        values = {"settled_at": now, "pending": item["pending"]}
        return self.table.update(self._key, change, values, condition="#pending = :pending")

    def _duplicates(
        self, segments: Sequence[Segment], rows: Iterable[Row], verdicts: Mapping[int, Verdict]
    ) -> Iterator[Item]:
        for row in rows:
            if kind := verdicts.get(row.seq):
                yield duplicate_item(self.generation, segments[row.segment], row, kind)

    def _refuse_conflicts(self, header: Header, rows: Sequence[Row]) -> None:
        """Look before anything is written. A conflict with what another batch records at this very moment is not seen,
        and recorded."""
        claims = self._claims(header.segments)
        keyed = [row for row in rows if row.content is not None]
        winners = claims.look_up(keyed)
        conflicts = 0
        for row in keyed:
            first = winners.setdefault(row.event_id, claims.mine(row))
            conflicts += first.content != row.content
        if conflicts:
            raise conflicting(header.first_seq, header.last_seq, conflicts)

    def _advance(self, item: Item, header: Header, counts: Counts) -> Item:
        """Move the batch on by the chunk, unless another did, who finished it at the same time."""
        fields: Item = {
            **progress_fields(advanced(batch_of(item), header, counts)),
            "segments": item["segments"] + len(header.segments),
            "bytes": item["bytes"] + sum(segment.size for segment in header.segments),
            "recorded_at": item["settled_at"] if header.segments else item["recorded_at"],
        }
        change = "SET " + ", ".join(f"#{name} = :{name}" for name in fields) + " REMOVE #pending, #settled_at"
        values = {**fields, "pending": item["pending"]}
        return self.table.update(self._key, change, values, condition="#pending = :pending") or self._batch()

    def _claims(self, segments: Iterable[Segment]) -> Claims:
        return Claims(self.table, self.generation, self.batch_id, places(segments))

    def _batch(self) -> Item:
        item = self.table.get(self._key)
        assert item is not None, "a batch that is recorded has been opened"
        return item

    @property
    def _key(self) -> tuple[str, str]:
        return batch_key(self.generation, self.batch_id)


def header_of(chunk: Chunk, after: int) -> Header:
    """What a chunk is, but for its deliveries. Until its claims are settled its segments count as recorded now, not
    before `after`."""
    now = max(time_ns(), after)
    return Header(
        batch_id=chunk.batch_id,
        first_seq=chunk.first_seq,
        last_seq=chunk.last_seq,
        read=chunk.read,
        offset=chunk.offset,
        prefix_digest=chunk.prefix_digest,
        segments=tuple(recorded(arrived.segment, now) for arrived in chunk.arrivals),
        rejects=chunk.rejects,
        reasons=dict(chunk.reasons),
        lags=dict(chunk.lags),
        sources=dict(chunk.sources),
    )


def recorded(segment: Segment, recorded_at: int) -> Segment:
    """The segment, recorded at this moment."""
    return structs.replace(segment, recorded_at=recorded_at)


def counts_of(header: Header, verdicts: Mapping[int, Verdict]) -> Counts:
    """What the chunk adds to the batch's counts."""
    kinds = Counter(verdicts.values())
    rejected = header.rejects.records if header.rejects else 0
    accepted = sum(segment.deliveries for segment in header.segments) - len(verdicts)
    return Counts(header.read, accepted, kinds[Verdict.EXACT], kinds[Verdict.CONFLICT], rejected)


def advanced(batch: Batch, header: Header, counts: Counts) -> Batch:
    """The batch behind the chunk."""
    firsts = [segment.first_event for segment in header.segments]
    lasts = [segment.last_event for segment in header.segments]
    return replace(
        batch,
        counts=batch.counts + counts,
        next_seq=header.last_seq + 1,
        offset=header.offset,
        prefix_digest=header.prefix_digest,
        first_event=min([*firsts, *([] if batch.first_event is None else [batch.first_event])], default=None),
        last_event=max([*lasts, *([] if batch.last_event is None else [batch.last_event])], default=None),
        reasons=with_names(batch.reasons, header.reasons),
        lags=with_lags(batch.lags, header.lags),
        sources=with_names(batch.sources, header.sources),
    )

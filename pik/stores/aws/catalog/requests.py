"""API requests with one event: one item lists the delivery, another is the batch, the third its claim or, if the event
has another one, what says that it is a duplicate. They exist together or not at all, and the verdict is always the
claim's.

All that knows of this second layout is here: the index, the audit and the rebuild ask `Requests`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from time import time_ns
from typing import Any, NamedTuple, TypeVar

from pik.errors import StoreError
from pik.model.batch import OF_REQUEST, Batch, Chunk, Counts, Frame, Segment, Verdict
from pik.ports.raw import RawKind, number_of
from pik.runtime.retries import attempts
from pik.stores.aws.catalog import codec, layout
from pik.stores.aws.catalog.deliveries import Delivery, Row, duplicate_items, rows_of
from pik.stores.aws.catalog.layout import BatchAttributes, BatchItem, ClaimItem, Listed, RequestItem
from pik.stores.aws.state.layout import US
from pik.stores.aws.table import Item, Key, KeyItem, Table, key_of

INLINE = 4096
"""Bytes of an object, at most, that its item has a copy of: reading 4 KB from S3 costs as much as writing them here."""

_ItemT = TypeVar("_ItemT", RequestItem, BatchItem)


class RecordedRequest(NamedTuple):
    """The duplicates of a request, the claim of its event, and when it was recorded."""

    duplicates: dict[int, Verdict]
    claim: ClaimItem
    recorded_at: int


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests with one event of a generation."""

    table: Table
    generation: int
    listed_days: set[Key[KeyItem]] = field(default_factory=set)
    """The keys of items of days that are known to be there."""

    def record(
        self,
        batch: Batch,
        chunk: Chunk,
        copies: Mapping[str, bytes],
        also: Sequence[KeyItem],
        *,
        made: int = 0,
        recorded_at: int | None = None,
    ) -> RecordedRequest:
        """Record a request together with other items, as of that moment if one is given. `made` is the generation that
        a rebuild fills, if there is one: then the request is recorded there, too."""
        segment, (row,) = chunk.arrivals[0].segment, rows_of(chunk.arrivals)
        delivery = Delivery(self.generation, segment.day, number_of(segment.key), segment.batch_id, row)
        now = recorded_at or time_ns()
        alone = replace(
            batch, counts=Counts(read=1), recorded_at=now, lags=chunk.lags, sources=chunk.sources, times=chunk.times
        )
        listing, place = self._items(segment, row, now, copies.get(segment.key, b""))
        of_batch: Item = {**codec.batch_item(self.generation, alone), **place}
        listed: list[Item] = [{**listing}, {**of_batch, "made": made} if made else of_batch]
        day = layout.day_item(self.generation, segment.day, Listed.REQUEST)
        of_day = [] if key_of(day) in self.listed_days else [day]
        for _ in attempts():
            there = self.table.put_together([*listed, delivery.claim], [*also, *of_day])
            if there is None:
                self.listed_days.add(key_of(day))
                return RecordedRequest({}, delivery.claim, now)
            first: ClaimItem | None = next((item for item in there if key_of(item) == delivery.claim_key), None)
            if first := first or self.table.get_many([delivery.claim_key]).get(delivery.claim_key):
                kind = delivery.verdict(first)
                if kind == Verdict.ACCEPTED:  # it was this very call whose answer was lost
                    return RecordedRequest({}, first, now)
                # Recorded after the delivery that it is a duplicate of, as far as clocks agree.
                now = recorded_at or time_ns()
                again = duplicate_items(segment.ingest_time, delivery, kind)
                items = [*({**item, "recorded_at": now} for item in listed), *again, *also, *of_day]
                if self.table.put_together([], items) is None:
                    self.listed_days.add(key_of(day))
                    if made == self.generation:
                        first = self._judged(segment, delivery, first)
                    return RecordedRequest(delivery.skipped(delivery.verdict(first)), first, now)
            if key_of(listing) in map(
                key_of, there
            ):  # another request copied this one, and died before it had its claim
                self.table.put(delivery.claim, unless_exists=True)
            # Another request with this event, or the first ones of the day, are recorded at this very moment.
            self.table.write_many(of_day)
            of_day = []
        raise StoreError("too much contention on this event", hint="send this one again")

    def _judged(self, segment: Segment, delivery: Delivery, first: ClaimItem) -> ClaimItem:
        """Return the claim by which the items of a duplicate are right, given that by which they were written. A
        rebuild may put another claim in its place; then it judges the duplicates that it finds."""
        while (claim := self.table.get(delivery.claim_key)) and delivery.verdict(claim) != delivery.verdict(first):
            first = claim
            self.table.write_many(duplicate_items(segment.ingest_time, delivery, delivery.verdict(first)))
        return claim or first

    def restored(self, batch: BatchItem, segment: Segment, row: Row) -> list[Mapping[str, Any]]:
        """Return the items of a request, but not its claim, for a generation that is being rebuilt, given its batch as
        it was added. The segment has a copy of its object."""
        listing, place = self._items(segment, row, segment.recorded_at, segment.inline)
        day = layout.day_item(self.generation, segment.day, Listed.REQUEST)
        return [listing, day, {**batch, **place, "recorded_at": segment.recorded_at}]

    def segments(self, items: Iterable[RequestItem]) -> Iterator[tuple[Segment, bytes | dict[int, Verdict]]]:
        """Yield the segments of requests, each with its duplicates."""
        for is_packed, some in groupby(items, key=lambda item: "skipped" in item):
            if is_packed:
                yield from ((self.segment(item), item["skipped"]) for item in some)
            else:
                yield from ((self.segment(item), found.skipped(kind)) for item, found, kind in self.with_verdicts(some))

    def segment(self, item: RequestItem) -> Segment:
        """Return the segment of a request."""
        delivery = self.delivery(item)
        return Segment(
            key=RawKind.SEGMENT.key(delivery.batch_id, OF_REQUEST, delivery.day),
            batch_id=delivery.batch_id,
            day=delivery.day,
            size=item["size"],
            digest=item["digest"].hex(),
            deliveries=1,
            ingest_time=item["ingest_time"],
            first_event=item["event_time"],
            last_event=item["event_time"],
            frames=(Frame(0, item["size"], 1, delivery.row.entity, delivery.row.entity),),
            recorded_at=item["recorded_at"],
            guessed=item.get("guessed", False),
            inline=item.get("inline", b""),
            packed=item.get("packed"),
        )

    def skipped(self, batches: Iterable[BatchItem]) -> dict[str, dict[int, Verdict]]:
        """Return the duplicates of the batch of each request, by batch id."""
        return {delivery.batch_id: delivery.skipped(kind) for _, delivery, kind in self.with_verdicts(batches)}

    def batches(self, items: Iterable[BatchItem]) -> dict[str, Batch]:
        """Return the batches of requests by id, with the counts that follow from their claims; a batch that was never
        claimed is missing."""
        return {
            delivery.batch_id: replace(
                codec.batch_of(item),
                counts=Counts(1, *(int(kind == each) for each in (Verdict.ACCEPTED, Verdict.EXACT, Verdict.CONFLICT))),
            )
            for item, delivery, kind in self.with_verdicts(filter(is_single, items))
        }

    def keys(self, segment: Segment, row: Row) -> tuple[Key[RequestItem], Key[BatchItem]]:
        """Return the keys of the items that a request consists of, besides its claim."""
        key = layout.request_key(self.generation, segment.day, row.entity, row.event_id, segment.batch_id)
        return key, layout.batch_key(self.generation, segment.batch_id)

    def is_as_recorded(self, segment: Segment, row: Row, items: Mapping[tuple[str, str], Item]) -> bool:
        """Return whether a request's items, read by their keys, have what follows from raw. A missing batch is another
        check's finding."""
        listed, batch = map(items.get, self.keys(segment, row))
        listing, place = self._items(segment, row, segment.recorded_at, b"")
        if listed is None or not listing.items() <= listed.items():
            return False
        return batch is None or place.items() <= batch.items()

    def _items(self, segment: Segment, row: Row, recorded_at: int, copy: bytes) -> tuple[RequestItem, BatchAttributes]:
        """Return the item that lists a request, and those attributes of its batch that follow from its segment."""
        pk, sk = self.keys(segment, row)[0]
        item: RequestItem = {
            "pk": pk,
            "sk": sk,
            "recorded_at": segment.recorded_at or recorded_at,
            "ingest_time": segment.ingest_time,
            "event_time": segment.first_event,
            "size": segment.size,
            "digest": bytes.fromhex(segment.digest),
            "seq": row.seq,
        }
        place: BatchAttributes = {
            "segments": 1,
            "bytes": segment.size,
            "first_event": segment.first_event,
            "last_event": segment.last_event,
            "listed": pk,
            "listed_as": sk,
            "seq": row.seq,
        }
        if segment.guessed:
            item["guessed"] = True
        if row.content is not None:
            item["content"] = place["content"] = row.content
        if 0 < len(copy) <= INLINE:
            item["inline"] = copy
        return item, place

    def with_verdicts(self, items: Iterable[_ItemT]) -> Iterator[tuple[_ItemT, Delivery, Verdict]]:
        """Yield requests' items, those of the segments or those of the batches, each with its delivery and what that
        is. Requests that were never claimed are left out."""
        deliveries = ((item, self.delivery(item)) for item in items)
        for (item, delivery), first in self.table.join(deliveries, lambda each: each[1].claim_key):
            if first is not None:
                yield item, delivery, delivery.verdict(first)

    def delivery(self, item: Mapping[str, Any]) -> Delivery:
        """Return the only delivery of a request, given the item of its segment or that of its batch."""
        pk, sk = item.get("listed", item["pk"]), item.get("listed_as", item["sk"])
        entity, event_id, batch_id = sk.split(US)
        row = Row(item["seq"], bytes.fromhex(event_id), item.get("content"), 0, 0, entity)
        return Delivery(self.generation, layout.day_number(pk.split("/")[2]), OF_REQUEST, batch_id, row)


def listed_key(batch: BatchItem) -> Key[RequestItem]:
    """Return the key of the item that lists the segment of a request, given its batch."""
    return Key((batch["listed"], batch["listed_as"]))


def is_single(batch: BatchItem) -> bool:
    """Return whether a batch is an API request with one event."""
    return "listed" in batch

"""API requests with one event: one item lists the delivery, another is the batch, the third its claim. They exist
together or not at all, and the verdict is always the claim's.

All that knows of this second layout is here: the index, the audit and the rebuild ask `Requests`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, product
from time import time_ns
from typing import Any, TypeVar

from pik.errors import Damaged, StoreError
from pik.model.batch import OF_REQUEST, Batch, Chunk, Counts, Frame, Location, Segment, Verdict
from pik.model.instant import day_text
from pik.ports.raw import Raw, RawKind, number_of
from pik.runtime.storage import attempts
from pik.stores.aws.catalog import layout
from pik.stores.aws.catalog.deliveries import Delivery, Row, rows_of
from pik.stores.aws.catalog.layout import BatchAttributes, BatchItem, ClaimItem, RequestItem
from pik.stores.aws.state.layout import US
from pik.stores.aws.table import READS, Item, Key, KeyItem, Partition, Table, batched, key_of

_BY_EVENT = ("by_event", "event_prefix", "event_id")
_PREFIX = 2  # hex digits of an event_id that are the partition of a request in that index

_INLINE = 4096
"""Bytes of an object, at most, that its item has a copy of: reading 4 KB from S3 costs as much as writing them here."""

_ItemT = TypeVar("_ItemT", RequestItem, BatchItem)


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests with one event of a generation."""

    table: Table
    generation: int
    listed_days: set[tuple[int, int]] = field(default_factory=set)
    """The (generation, day) that are known to be listed as having requests."""

    def record(self, batch: Batch, chunk: Chunk, copies: Mapping[str, bytes]) -> dict[int, Verdict]:
        """Record a request, and return its duplicates."""
        segment, (row,), now = chunk.arrivals[0].segment, rows_of(chunk.arrivals), time_ns()
        delivery = Delivery(self.generation, segment.day, number_of(segment.key), segment.batch_id, row)
        alone = replace(
            batch, counts=Counts(read=1), recorded_at=now, lags=chunk.lags, sources=chunk.sources, times=chunk.times
        )
        listing, place = self._items(segment, row, now, copies.get(segment.key, b""))
        listed: list[Item] = [{**listing}, {**layout.batch_item(self.generation, alone), **place}]
        day = self.generation, segment.day
        of_day = [] if day in self.listed_days else [layout.day_item(*day, layout.REQUEST)]
        for _ in attempts():
            there = self.table.put_together([*listed, delivery.claim], of_day)
            if there is None:
                self.listed_days.add(day)
                return {}
            first: ClaimItem | None = next((item for item in there if key_of(item) == delivery.claim_key), None)
            if first := first or self.table.get_many([delivery.claim_key]).get(delivery.claim_key):
                duplicates = delivery.skipped(delivery.verdict(first))
                if duplicates:  # else it was this very call whose answer was lost
                    # Recorded after the delivery that it is a duplicate of, as far as clocks agree.
                    later = {"recorded_at": time_ns()}
                    self.table.write_many([*({**item, **later} for item in listed), *of_day])
                return duplicates
            # Another request with this event, or the first ones of the day, are recorded at this very moment.
            self.table.write_many(of_day)
            of_day = []
        raise StoreError("too much contention on this event", hint="send this one again")

    def restore(self, raw: Raw, segment: Segment, row: Row) -> None:
        """Add the items of a request, but not its claim, to a generation that is being rebuilt."""
        copy = segment.inline
        if not copy and segment.size <= _INLINE:
            with suppress(Damaged):
                copy = raw.read(segment.key)
        listing, place = self._items(segment, row, segment.recorded_at, copy)
        batch: Item = {**(self.table.get(layout.batch_key(self.generation, segment.batch_id)) or {})}
        batch |= {**place, "recorded_at": segment.recorded_at}
        self.table.write_many([listing, layout.day_item(self.generation, segment.day, layout.REQUEST), batch])

    def claim_again(self, day: int) -> Iterator[Location]:
        """Claim each event of the day's requests that has no claim, because its accepted delivery is lost, for the
        first of its requests. Yield these."""
        for items in batched(self._of_day(day), READS):
            for item in sorted(items, key=lambda item: (item["ingest_time"], item["sk"])):
                delivery = self.delivery(item)
                if next(iter(self.table.insert_many([delivery.claim]))):
                    yield delivery.location(Verdict.ACCEPTED)

    def segments(self, day: int, entities: Sequence[str] = ()) -> Iterator[tuple[Segment, dict[int, Verdict]]]:
        """Yield the segments of a day's requests, each with its duplicates; those about some entities, if any are
        named."""
        return self._segments(self._of_entities(day, entities) if entities else self._of_day(day))

    def segments_of(self, batch: BatchItem, first: str, last: str) -> Iterator[tuple[Segment, dict[int, Verdict]]]:
        """Yield the segment of a batch, with its duplicates, if the batch is such a request on one of these days."""
        if is_single(batch) and first <= batch["listed"].split("/")[2] <= last:
            key: Key[RequestItem] = Key((batch["listed"], batch["listed_as"]))
            item = self.table.get(key)
            yield from self._segments([item] if item else [])

    def skipped(self, batch: BatchItem) -> dict[int, Verdict]:
        """Return the duplicates of the batch of a request."""
        return next((delivery.skipped(kind) for _, delivery, kind in self._judge([batch])), {})

    def batches(self, items: Iterable[BatchItem]) -> dict[str, Batch]:
        """Return the batches of requests by id, with the counts that follow from their claims; a batch that was never
        claimed is missing."""
        return {
            delivery.batch_id: replace(
                layout.batch_of(item),
                counts=Counts(1, *(int(kind == each) for each in (Verdict.ACCEPTED, Verdict.EXACT, Verdict.CONFLICT))),
            )
            for item, delivery, kind in self._judge(filter(is_single, items))
        }

    def exist(self) -> bool:
        """Return whether there are any."""
        return any(True for _ in self.days())

    def claims(self, prefix: str) -> dict[str, Key[ClaimItem]]:
        """Return the claims' keys of the requests' events whose id begins so, by event_id."""
        return {item["event_id"]: self.delivery(item).claim_key for item in self._of_events(prefix)}

    def duplicates(self, event_id: str) -> Iterator[Location]:
        """Yield the duplicates of an event among requests."""
        for item, delivery, kind in self._judge(self._of_events(event_id)):
            if kind != Verdict.ACCEPTED:
                yield delivery.location(kind, item["recorded_at"])

    def duplicates_of(self, event: Delivery, claim: ClaimItem) -> list[Location]:
        """Return the duplicates of an event among requests, given a delivery of it and its claim."""
        row = event.row
        if row.content is None:
            pk = layout.entity_requests_pk(self.generation, event.day, row.entity)
            items = self.table.query(pk, prefix=f"{row.entity}{US}{row.event_id.hex()}{US}")
        else:
            items = self._of_events(row.event_id.hex())
        found = ((item, self.delivery(item)) for item in items)
        verdicts = ((item, delivery, delivery.verdict(claim)) for item, delivery in found)
        return [one.location(kind, item["recorded_at"]) for item, one, kind in verdicts if kind != Verdict.ACCEPTED]

    def duplicates_on(self, day: int, *, keyed: bool) -> Iterator[tuple[Delivery, ClaimItem, Location]]:
        """Yield the day's duplicates among requests, each with its event's claim: of events with an idempotency key, or
        of the others, then those of one event one after the other."""
        deliveries = ((item, self.delivery(item)) for item in self._of_day(day) if ("content" in item) == keyed)
        for (item, delivery), claim in self.table.join(deliveries, lambda each: each[1].claim_key):
            if claim is not None and (kind := delivery.verdict(claim)) != Verdict.ACCEPTED:
                yield delivery, claim, delivery.location(kind, item["recorded_at"])

    def days(self) -> Iterator[int]:
        """Yield the days that have any."""
        for item in self.table.query(layout.days_pk(self.generation)):
            day, _, kind = item["sk"].partition("/")
            if kind == layout.REQUEST:
                yield layout.day_number(day)

    def rows(self, segment: Segment) -> list[Row]:
        """Return the row of a request's segment, if it is listed."""
        deliveries = map(self.delivery, self._of_entities(segment.day, {frame.first for frame in segment.frames}))
        return [delivery.row for delivery in deliveries if delivery.batch_id == segment.batch_id]

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
        event_id, (pk, sk) = row.event_id.hex(), self.keys(segment, row)[0]
        item: RequestItem = {
            "pk": pk,
            "sk": sk,
            "event_prefix": f"{self.generation}/{event_id[:_PREFIX]}",
            "event_id": event_id,
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
        if 0 < len(copy) <= _INLINE:
            item["inline"] = copy
        return item, place

    def _of_entities(self, day: int, entities: Iterable[str]) -> Iterator[RequestItem]:
        """Yield the items about each entity."""
        return self.table.query_each(
            (layout.entity_requests_pk(self.generation, day, entity), f"{entity}{US}") for entity in entities
        )

    def _of_day(self, day: int) -> Iterator[RequestItem]:
        partitions = (layout.requests_pk(self.generation, day_text(day), shard) for shard in layout.DAY_SHARDS)
        return self.table.query_each((pk, "") for pk in partitions)

    def _of_events(self, prefix: str) -> Iterator[RequestItem]:
        """Yield the requests with an event whose id begins so."""
        heads = [prefix[:_PREFIX]]
        if len(prefix) < _PREFIX:
            if not self.exist():
                return
            heads = [prefix + "".join(rest) for rest in product(layout.DAY_SHARDS, repeat=_PREFIX - len(prefix))]
        partitions: Iterator[Partition[KeyItem]] = (Partition(f"{self.generation}/{head}") for head in heads)
        found = (self.table.query(partition, prefix=prefix, index=_BY_EVENT) for partition in partitions)
        keys: Iterator[Key[RequestItem]] = map(key_of, chain.from_iterable(found))
        for some in batched(keys, READS):
            yield from self.table.get_many(some).values()

    def _segments(self, items: Iterable[RequestItem]) -> Iterator[tuple[Segment, dict[int, Verdict]]]:
        for item, delivery, kind in self._judge(items):
            segment = Segment(
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
            )
            yield segment, delivery.skipped(kind)

    def _judge(self, items: Iterable[_ItemT]) -> Iterator[tuple[_ItemT, Delivery, Verdict]]:
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


def is_single(batch: BatchItem) -> bool:
    """Return whether a batch is an API request with one event."""
    return "listed" in batch

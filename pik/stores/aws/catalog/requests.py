"""API requests with one event: one item lists the delivery, another is the batch, the third its claim. They exist
together or not at all, and the verdict is always the claim's.

All that knows of this second layout is here: the index, the audit and the rebuild ask `Requests`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice, product
from time import time_ns
from typing import NamedTuple, TypeVar

from pik.errors import Damaged, StoreError
from pik.model.batch import OF_REQUEST, Arrivals, Batch, Chunk, Counts, Frame, Location, Segment, Verdict
from pik.model.instant import day_text
from pik.ports.raw import RawKind
from pik.runtime.storage import attempts
from pik.stores.aws.catalog import layout
from pik.stores.aws.catalog.deliveries import Claim, Claims, Row, claim_of, claims_of, rows_of, verdict
from pik.stores.aws.catalog.layout import BatchAttributes, BatchItem, ClaimItem, RequestItem
from pik.stores.aws.clients import Flow
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.state.layout import US
from pik.stores.aws.table import READS, Item, Key, KeyItem, Partition, Table, batched, key_of

_BY_EVENT = ("by_event", "event_prefix", "event_id")
_PREFIX = 2  # hex digits of an event_id that are the partition of a request in that index
_HEX = "0123456789abcdef"

_AHEAD = 500
"""Requests of an entity that are read before those of the entities before it have been."""

_INLINE = 4096
"""Bytes of an object, at most, that its item has a copy of: reading 4 KB from S3 costs as much as writing them here."""

_ItemT = TypeVar("_ItemT", RequestItem, BatchItem)


class _Delivery(NamedTuple):
    """The only delivery of a request."""

    day: int
    entity: str
    event_id: str
    batch_id: str
    seq: int
    content: bytes | None

    @property
    def row(self) -> Row:
        return Row(self.seq, bytes.fromhex(self.event_id), self.content, 0, 0, self.entity)

    def skipped(self, kind: Verdict) -> dict[int, Verdict]:
        """Return the request's duplicates, given what its delivery is."""
        return {} if kind == Verdict.ACCEPTED else {self.seq: kind}


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests with one event of a generation."""

    table: Table
    generation: int
    listed_days: set[tuple[int, int]] = field(default_factory=set)
    """The (generation, day) that are known to be listed as having requests."""

    def record(self, batch: Batch, chunk: Chunk, copy: bytes) -> Verdict:
        """Record a request and return what its event is: accepted, exact or conflict."""
        arrived, (row,) = chunk.arrivals[0], rows_of(chunk.arrivals)
        day, now = arrived.segment.day, time_ns()
        claims = claims_of(self.table, self.generation, batch.batch_id, [arrived.segment])
        alone = replace(batch, counts=Counts(read=1), recorded_at=now, lags=chunk.lags, sources=chunk.sources)
        listed: list[Item] = [
            {**self._listing(arrived, row, now, copy)},
            {**layout.batch_item(self.generation, alone), **self._place(arrived, row)},
        ]
        of_day = (
            []
            if (self.generation, day) in self.listed_days
            else [layout.day_item(self.generation, day, layout.REQUEST)]
        )
        for _ in attempts():
            there = self.table.put_together([*listed, claims.item(row)], of_day)
            if there is None:
                self.listed_days.add((self.generation, day))
                return Verdict.ACCEPTED
            first = next((claim_of(item) for item in there if key_of(item) == claims.key(row)), None)
            if first := first or claims.look_up([row]).get(row.event_id):
                kind = verdict(claims.claim(row), first)
                if kind != Verdict.ACCEPTED:  # else it was this very call whose answer was lost
                    # Recorded after the delivery that it is a duplicate of, as far as clocks agree.
                    later = {"recorded_at": time_ns()}
                    self.table.write_many([*({**item, **later} for item in listed), *of_day])
                return kind
            # Another request with this event, or the first ones of the day, are recorded at this very moment.
            self.table.write_many(of_day)
            of_day = []
        raise StoreError("too much contention on this event", hint="send this one again")

    def restore(self, raw: AwsRaw, arrived: Arrivals, row: Row) -> None:
        """Add the items of a request, but not its claim, to a generation that is being rebuilt."""
        segment, copy = arrived.segment, arrived.segment.inline
        if not copy and segment.size <= _INLINE:
            with suppress(Damaged):
                copy = raw.read(segment.key)
        batch: Item = {**(self.table.get(layout.batch_key(self.generation, segment.batch_id)) or {})}
        batch |= {**self._place(arrived, row), "recorded_at": segment.recorded_at}
        listing = self._listing(arrived, row, segment.recorded_at, copy)
        self.table.write_many([listing, layout.day_item(self.generation, segment.day, layout.REQUEST), batch])

    def claim_again(self, day: int) -> Iterator[Location]:
        """Claim each event of the day's requests that has no claim, because its accepted delivery is lost, for the
        first of its requests. Yield these."""
        for items in batched(self._of_day(day), READS):
            for item in sorted(items, key=lambda item: (item["ingest_time"], item["sk"])):
                delivery = _delivery(item)
                claims = Claims(self.table, self.generation, delivery.batch_id, [(day, OF_REQUEST)])
                if next(iter(self.table.insert_many([claims.item(delivery.row)]))):
                    yield _location(delivery, Verdict.ACCEPTED)

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
        return next((delivery.skipped(kind) for _, delivery, kind in self._judge([batch], _delivery_of_batch)), {})

    def batches(self, items: Iterable[BatchItem]) -> dict[str, Batch]:
        """Return the batches of requests by id, with the counts that follow from their claims; a batch that was never
        claimed is missing."""
        return {
            delivery.batch_id: replace(
                layout.batch_of(item),
                counts=Counts(1, *(int(kind == each) for each in (Verdict.ACCEPTED, Verdict.EXACT, Verdict.CONFLICT))),
            )
            for item, delivery, kind in self._judge(filter(is_single, items), _delivery_of_batch)
        }

    def exist(self) -> bool:
        """Return whether there are any."""
        return any(
            item["sk"].endswith(f"/{layout.REQUEST}") for item in self.table.query(layout.days_pk(self.generation))
        )

    def claims(self, prefix: str) -> dict[str, Key[ClaimItem]]:
        """Return the claims' keys of the requests' events whose id begins so, by event_id."""
        found = {}
        for some in batched(self._by_event(prefix), READS):
            for item in self.table.get_many(some).values():
                delivery = _delivery(item)
                found[delivery.event_id] = self._claim_key(delivery)
        return found

    def duplicates(self, event_id: str) -> Iterator[Location]:
        """Yield the duplicates of an event among requests."""
        for some in batched(self._by_event(event_id), READS):
            for _, delivery, kind in self._judge(self.table.get_many(some).values(), _delivery):
                if kind != Verdict.ACCEPTED:
                    yield _location(delivery, kind)

    def rows(self, segment: Segment) -> list[Row]:
        """Return the row of a request's segment, if it is listed."""
        items = self._of_entities(segment.day, {frame.first for frame in segment.frames})
        deliveries = map(_delivery, items)
        return [delivery.row for delivery in deliveries if delivery.batch_id == segment.batch_id]

    def keys(self, segment: Segment, row: Row) -> tuple[Key[RequestItem], Key[BatchItem]]:
        """Return the keys of the items that a request consists of, besides its claim."""
        key = layout.request_key(self.generation, segment.day, row.entity, row.event_id, segment.batch_id)
        return key, layout.batch_key(self.generation, segment.batch_id)

    def is_as_recorded(
        self, arrived: Arrivals, row: Row, items: Mapping[tuple[str, str], Mapping[str, object]]
    ) -> bool:
        """Return whether a request's items, read by their keys, have what follows from raw. A missing batch is another
        check's finding."""
        listing, batch = map(items.get, self.keys(arrived.segment, row))
        expected = self._listing(arrived, row, arrived.segment.recorded_at, b"")
        return (
            listing is not None
            and _includes(listing, expected)
            and (batch is None or _includes(batch, self._place(arrived, row)))
        )

    def _listing(self, arrived: Arrivals, row: Row, recorded_at: int, copy: bytes) -> RequestItem:
        segment, event_id = arrived.segment, row.event_id.hex()
        pk, sk = layout.request_key(self.generation, segment.day, row.entity, row.event_id, segment.batch_id)
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
        if segment.guessed:
            item["guessed"] = True
        if row.content is not None:
            item["content"] = row.content
        if 0 < len(copy) <= _INLINE:
            item["inline"] = copy
        return item

    def _place(self, arrived: Arrivals, row: Row) -> BatchAttributes:
        """Return the attributes of the request's batch that depend on its segment."""
        segment = arrived.segment
        pk, sk = layout.request_key(self.generation, segment.day, row.entity, row.event_id, segment.batch_id)
        place: BatchAttributes = {
            "segments": 1,
            "bytes": segment.size,
            "first_event": segment.first_event,
            "last_event": segment.last_event,
            "listed": pk,
            "listed_as": sk,
            "seq": row.seq,
        }
        if row.content is not None:
            place["content"] = row.content
        return place

    def _of_entities(self, day: int, entities: Iterable[str]) -> Iterator[RequestItem]:
        """Yield the items about each entity, reading several entities at a time."""

        def begin(entity: str) -> Iterator[RequestItem]:
            pk = layout.entity_requests_pk(self.generation, day, entity)
            items = self.table.query(pk, prefix=f"{entity}{US}")
            return chain(list(islice(items, _AHEAD)), items)

        return chain.from_iterable(Flow().map(begin, entities))

    def _of_day(self, day: int) -> Iterator[RequestItem]:
        for shard in layout.DAY_SHARDS:
            yield from self.table.query(layout.requests_pk(self.generation, day_text(day), shard))

    def _by_event(self, prefix: str) -> Iterator[Key[RequestItem]]:
        """Yield the keys of requests with an event whose id begins so."""
        heads = [prefix[:_PREFIX]]
        if len(prefix) < _PREFIX:
            if not self.exist():
                return
            heads = [prefix + "".join(rest) for rest in product(_HEX, repeat=_PREFIX - len(prefix))]
        for head in heads:
            partition: Partition[KeyItem] = Partition(f"{self.generation}/{head}")
            yield from map(key_of, self.table.query(partition, prefix=prefix, index=_BY_EVENT))

    def _segments(self, items: Iterable[RequestItem]) -> Iterator[tuple[Segment, dict[int, Verdict]]]:
        for item, delivery, kind in self._judge(items, _delivery):
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
                frames=(Frame(0, item["size"], 1, delivery.entity, delivery.entity),),
                recorded_at=item["recorded_at"],
                guessed=item.get("guessed", False),
                inline=item.get("inline", b""),
            )
            yield segment, delivery.skipped(kind)

    def _judge(
        self, items: Iterable[_ItemT], delivery_of: Callable[[_ItemT], _Delivery]
    ) -> Iterator[tuple[_ItemT, _Delivery, Verdict]]:
        """Yield requests' items, those of the segments or those of the batches, each with its delivery and what that
        is. Requests that were never claimed are left out."""
        for some in batched(items, READS):
            deliveries = list(map(delivery_of, some))
            keys = list(map(self._claim_key, deliveries))
            found = self.table.get_many(dict.fromkeys(keys))
            for item, delivery, key in zip(some, deliveries, keys, strict=True):
                if key in found:
                    mine = Claim(delivery.batch_id, delivery.seq, delivery.content)
                    yield item, delivery, verdict(mine, claim_of(found[key]))

    def _claim_key(self, delivery: _Delivery) -> Key[ClaimItem]:
        event_id, keyed = bytes.fromhex(delivery.event_id), delivery.content is not None
        return layout.claim_key(self.generation, delivery.day, delivery.entity, event_id, keyed=keyed)


def has_one_event(chunk: Chunk) -> bool:
    """Return whether a request has one event, and nothing else."""
    return chunk.read == 1 and len(chunk.arrivals) == 1


def is_single(batch: BatchItem) -> bool:
    """Return whether a batch is an API request with one event."""
    return "listed" in batch


def _delivery(item: RequestItem) -> _Delivery:
    return _delivery_at(item["pk"], item["sk"], item["seq"], item.get("content"))


def _delivery_of_batch(item: BatchItem) -> _Delivery:
    return _delivery_at(item["listed"], item["listed_as"], item["seq"], item.get("content"))


def _delivery_at(pk: str, sk: str, seq: int, content: bytes | None) -> _Delivery:
    entity, event_id, batch_id = sk.split(US)
    return _Delivery(layout.day_number(pk.split("/")[2]), entity, event_id, batch_id, seq, content)


def _location(delivery: _Delivery, kind: Verdict) -> Location:
    key = RawKind.SEGMENT.key(delivery.batch_id, OF_REQUEST, delivery.day)
    return Location(delivery.event_id, delivery.day, key, delivery.batch_id, 0, delivery.seq, kind)


def _includes(item: Mapping[str, object], expected: Mapping[str, object]) -> bool:
    return all(item.get(name) == value for name, value in expected.items() if name not in ("pk", "sk"))

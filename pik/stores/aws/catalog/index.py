"""Reading the index table."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import chain
from operator import itemgetter

from pik.errors import NotFound
from pik.model.batch import ACCEPTED, CONFLICT, EXACT, UNRECORDED, Batch, Counts, Location, RejectFile, Segment
from pik.model.instant import day_text
from pik.model.window import Window
from pik.ports.index import Totals
from pik.stores.aws.catalog.batches import living
from pik.stores.aws.catalog.claims import Claims, places
from pik.stores.aws.catalog.events import Events
from pik.stores.aws.catalog.generation import Generation
from pik.stores.aws.catalog.id_files import read_ids
from pik.stores.aws.catalog.items import (
    BATCH_SHARDS,
    FILE,
    batch_key,
    batch_of,
    day_number,
    listing_key,
    referred,
    reject_file,
    segment_of,
    unpack_skipped,
)
from pik.stores.aws.catalog.record_chunk import NO_DELIVERIES, advanced, counts_of
from pik.stores.aws.catalog.requests import Requests, request_segment
from pik.stores.aws.raw import AwsRaw
from pik.stores.aws.table import READS, Item, Table, batched

_REMEMBERED, _MEMORABLE = 2000, 8192
"""Segments whose duplicates are remembered, because they came along when the segments were listed, and the bytes that
these may take."""

_ULID = 26


@dataclass(slots=True)
class AwsIndex:
    """Implements the port on the items of the index table, and the id files."""

    table: Table
    raw: AwsRaw
    generation: Generation
    _skipped: dict[str, bytes | dict[int, str]] = field(default_factory=dict, repr=False, compare=False)
    """By segment: its duplicates, or what `pack_skipped` made of them."""

    def segments(
        self, window: Window, *, batch_id: str | None = None, entities: Sequence[str] = ()
    ) -> Iterator[Segment]:
        g = self.generation.current()
        first, last = map(day_text, window.days)
        if batch_id is not None:
            return self._of_batch(g, batch_id, first, last)
        days = [item["sk"].split("/") for item in self.table.query(f"{g}/days", between=(first, f"{last}/~"))]
        wanted = sorted(set(entities))
        return chain.from_iterable(
            self._of_files(g, day, wanted) if kind == FILE else self._of_requests(g, day, wanted) for day, kind in days
        )

    def skipped(self, segment: Segment) -> dict[int, str]:
        came = self._skipped.get(segment.key)
        if came is None:
            came = self._look_up(segment)
        return unpack_skipped(came) if isinstance(came, bytes) else dict(came)

    def locate(self, event_id_prefix: str, limit: int = 10) -> list[Location]:
        return self._events.locate(event_id_prefix, limit)

    def deliveries(self, event_id: str, limit: int | None = None) -> list[Location]:
        return self._events.deliveries(event_id)[:limit]

    def repeats(self, events: Sequence[tuple[int, str]]) -> list[int]:
        return self._events.repeats(events)

    def batches(self, prefix: str = "") -> Iterator[Batch]:
        g = self.generation.current()
        return (living(self.table, batch) for batch, _ in self._batches(g, prefix))

    def rejects(self, batch_id: str) -> list[RejectFile]:
        g = self.generation.current()
        return [reject_file(item) for item in self.table.query(f"{g}/reject/{batch_id}")]

    def totals(self) -> Totals:
        g = self.generation.current()
        return reduce(_added, self._batches(g, ""), Totals(0, 0, 0, 0, 0, None, None))

    @property
    def _events(self) -> Events:
        return Events(self.table, self.raw, self.generation.current())

    def _of_batch(self, g: int, batch_id: str, first: str, last: str) -> Iterator[Segment]:
        known = False
        for some in batched(self.table.query(f"{g}/segment/{batch_id}", between=(first, f"{last}/~")), READS):
            known = True
            keys = [referred(g, item) for item in some]
            found = self.table.get_many(keys)
            yield from self._listed(found[key] for key in keys if key in found)
        batch = None if known else self.table.get(batch_key(g, batch_id))
        if batch and "listed" in batch and first <= batch["listed"].split("/")[2] <= last:
            item = self.table.get((batch["listed"], batch["listed_as"]))
            yield from self._judged(g, [item] if item else [])

    def _of_files(self, g: int, day: str, entities: Sequence[str]) -> Iterator[Segment]:
        for segment in self._listed(self.table.query(f"{g}/day/{day}")):
            if not entities or any(f.first <= entity <= f.last for f in segment.frames for entity in entities):
                yield segment

    def _listed(self, items: Iterable[Item]) -> Iterator[Segment]:
        for item in items:
            segment = segment_of(item)
            if "skipped" in item:
                self._remember(segment, item["skipped"])
            yield segment

    def _of_requests(self, g: int, day: str, entities: Sequence[str]) -> Iterator[Segment]:
        requests, number = Requests(self.table, g, set()), day_number(day)
        items = requests.of_entities(number, entities) if entities else requests.of_day(number)
        return self._judged(g, items)

    def _judged(self, g: int, items: Iterable[Item]) -> Iterator[Segment]:
        for item, kind in Requests(self.table, g, set()).judged(items):
            segment = request_segment(item)
            self._remember(segment, {} if kind == ACCEPTED else {item["seq"]: kind})
            yield segment

    def _remember(self, segment: Segment, skipped: bytes | dict[int, str]) -> None:
        if len(skipped) <= _MEMORABLE:
            self._skipped[segment.key] = skipped
        while len(self._skipped) > _REMEMBERED:
            del self._skipped[next(iter(self._skipped))]

    def _look_up(self, segment: Segment) -> bytes | dict[int, str]:
        g = self.generation.current()
        item = self.table.get(listing_key(g, segment))
        if item is None or "skipped" not in item:
            batch = self.table.get(batch_key(g, segment.batch_id)) or {}
            if "listed" in batch:
                kind = next((kind for _, kind in Requests(self.table, g, set()).judged([batch])), ACCEPTED)
                return {} if kind == ACCEPTED else {batch["seq"]: kind}
            pending = self._pending(g, segment, batch.get("pending", NO_DELIVERIES))
            if pending is not None:
                return pending
            item = self.table.get(listing_key(g, segment))  # it was settled while the batch was looked at
        if item is None or "skipped" not in item:
            raise NotFound(f"segment {segment.key} is not in the index", hint="pik verify --rebuild-index")
        skipped: bytes = item["skipped"]
        return skipped

    def _pending(self, g: int, segment: Segment, pending: str) -> dict[int, str] | None:
        """The duplicates of a segment whose claims may not be finished, by the claims that there are; None if it is not
        what is pending."""
        if pending == NO_DELIVERIES:
            return None
        header, rows = read_ids(self.raw, pending)
        keys = [one.key for one in header.segments]
        if segment.key not in keys:
            return None
        claims = Claims(self.table, g, segment.batch_id, places(header.segments))
        mine = [row for row in rows if keys[row.segment] == segment.key]
        winners = claims.look_up(mine)
        kinds = ((row.seq, claims.verdict(row, winners)) for row in mine)
        return {seq: kind for seq, kind in kinds if kind != ACCEPTED}

    def _batches(self, g: int, prefix: str) -> Iterator[tuple[Batch, Item]]:
        """Batches and their items, newest first."""
        for items in batched(self._batch_items(g, prefix), READS):
            of_requests = [item for item in items if "listed" in item]
            requests = {batch.batch_id: batch for batch in Requests(self.table, g, set()).counted(of_requests)}
            for item in items:
                if "listed" not in item:
                    yield self._as_claimed(g, batch_of(item), item)
                elif item["sk"] in requests:
                    yield requests[item["sk"]], item

    def _as_claimed(self, g: int, batch: Batch, item: Item) -> tuple[Batch, Item]:
        """The batch with what is pending, where that is recorded. Of a request that died nobody goes on with it: what
        it had claimed counts, and no more."""
        pending = item.get("pending", NO_DELIVERIES)
        if pending == NO_DELIVERIES or not (batch.is_request or "settled_at" in item):
            return batch, item
        header, rows = read_ids(self.raw, pending)
        claims = Claims(self.table, g, batch.batch_id, places(header.segments))
        winners = claims.look_up(rows)
        if not batch.is_request:  # all of it is recorded, but its writer has not said so yet
            verdicts = {row.seq: kind for row in rows if (kind := claims.verdict(row, winners)) != ACCEPTED}
            more = {"segments": len(header.segments), "bytes": sum(segment.size for segment in header.segments)}
            now = replace(advanced(batch, header, counts_of(header, verdicts)), recorded_at=item["settled_at"])
            return now, {**item, **{name: item[name] + count for name, count in more.items()}}
        kinds = Counter(claims.verdict(row, winners) for row in rows)
        counts = Counts(len(rows) - kinds[UNRECORDED], kinds[ACCEPTED], kinds[EXACT], kinds[CONFLICT])
        firsts = [segment.first_event for segment in header.segments]
        lasts = [segment.last_event for segment in header.segments]
        sizes = {"segments": len(header.segments), "bytes": sum(segment.size for segment in header.segments)}
        return replace(batch, counts=counts, first_event=min(firsts), last_event=max(lasts)), {**item, **sizes}

    def _batch_items(self, g: int, prefix: str) -> Iterator[Item]:
        if len(prefix) == _ULID:
            item = self.table.get(batch_key(g, prefix))
            return iter([item] if item else [])
        shards = [self.table.query(f"{g}/batch/{s}", prefix=prefix, descending=True) for s in BATCH_SHARDS]
        return heapq.merge(*shards, key=itemgetter("sk"), reverse=True)


def _added(totals: Totals, of_batch: tuple[Batch, Item]) -> Totals:
    batch, item = of_batch
    firsts = [time for time in (totals.first_event, batch.first_event) if time is not None]
    lasts = [time for time in (totals.last_event, batch.last_event) if time is not None]
    return Totals(
        events=totals.events + batch.counts.accepted,
        deliveries=totals.deliveries + batch.counts.accepted + batch.counts.duplicates,
        segments=totals.segments + item["segments"],
        batches=totals.batches + 1,
        raw_bytes=totals.raw_bytes + item["bytes"],
        first_event=min(firsts, default=None),
        last_event=max(lasts, default=None),
    )

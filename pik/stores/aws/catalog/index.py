"""Reading the index table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from pik.errors import NotFound
from pik.model.batch import Batch, Location, RejectFile, Segment, Verdict
from pik.model.instant import day_text
from pik.model.window import Window
from pik.ports.index import RebuildUnderWay, Summary, Totals
from pik.stores.aws.catalog import codec, layout
from pik.stores.aws.catalog.batch_list import BatchList
from pik.stores.aws.catalog.batches import with_state
from pik.stores.aws.catalog.deliveries import accepted_of, claims_of, duplicate_location, read_ids
from pik.stores.aws.catalog.generation import Generation
from pik.stores.aws.catalog.layout import Listed, SegmentItem
from pik.stores.aws.catalog.listing import Listing
from pik.stores.aws.catalog.recording import NO_DELIVERIES
from pik.stores.aws.catalog.recording_times import (
    NOTHING_LISTED,
    ListedItems,
    RecordingTimes,
    listed_items,
    packed_items,
)
from pik.stores.aws.catalog.requests import Requests, is_single, listed_key
from pik.stores.aws.catalog.totals import summary
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.table import READS, Key, Table, batched

_REMEMBERED, _MEMORABLE = 2000, 8192
"""Segments whose duplicates are remembered, because they came along when the segments were listed, and the bytes that
these may take."""


@dataclass(slots=True)
class AwsIndex:
    """Implements `Index` and `Overview` on the items of the index table."""

    table: Table
    raw: AwsRaw
    generation: Generation
    _skipped: dict[str, bytes | dict[int, Verdict]] = field(default_factory=dict, repr=False, compare=False)
    """By segment: its duplicates, or what `pack_skipped` made of them."""
    _located: tuple[int, ListedItems] = field(default=(0, NOTHING_LISTED), repr=False, compare=False)
    """The items that were read last for `deliveries`, of which `segments_of` is asked next, and their generation."""

    def segments(
        self, window: Window, *, batch_id: str | None = None, entities: Sequence[str] = ()
    ) -> Iterator[Segment]:
        g = self.generation.current()
        first, last = map(day_text, window.days)
        if batch_id is not None:
            return self._of_batch(g, batch_id, first, last)
        days = [item["sk"].split("/") for item in self.table.query(layout.days_pk(g), between=(first, f"{last}/~"))]
        wanted = sorted(set(entities))
        listing, requests = self.listing(g), Requests(self.table, g)
        return chain.from_iterable(
            map(self._remember, requests.segments(listing.of_day(day, Listed.REQUEST, wanted)))
            if kind == Listed.REQUEST
            else self._of_blocks(listing.of_day(day, Listed(kind)), wanted)
            for day, kind in days
        )

    def listing(self, g: int) -> Listing:
        """Return the lists of segments of a generation."""
        return Listing(self.table, self.raw, g, self.generation)

    def skipped(self, segment: Segment) -> dict[int, Verdict]:
        known = self._skipped.get(segment.key)
        if known is None:
            known = self._look_up(segment)
        return codec.unpack_skipped(known) if isinstance(known, bytes) else dict(known)

    def locate(self, event_id_prefix: str, limit: int = 10) -> list[str]:
        g = self.generation.current()
        partitions = ((pk, event_id_prefix) for pk in layout.claims_beginning(g, event_id_prefix))
        return [claim["sk"] for claim in islice(self.table.query_each(partitions, first=limit), limit)]

    def deliveries(self, event_id: str, limit: int | None = None) -> list[Location]:
        g = self.generation.current()
        claim = self.table.get(layout.claim_key(g, event_id))
        if claim is None:
            return []
        day = layout.KEYED_DAY if "content" in claim else day_text(claim["day"])
        items = self.table.query(layout.duplicates_of(g, day, event_id), prefix=f"{event_id}/", first=limit)
        others = (duplicate_location(g, item) for item in items)
        found = list(islice(chain([accepted_of(claim)], others), limit))
        times = RecordingTimes(self.listing(g))
        located = next(times.added([found]))
        self._located = g, times.last
        return located

    def segments_of(self, deliveries: Collection[Location]) -> dict[str, Segment]:
        g = self.generation.current()
        listing, requests = self.listing(g), Requests(self.table, g)
        keys, (of, known) = {one.segment_key for one in deliveries}, self._located
        found = (known.settled(keys) if of == g else None) or listed_items(listing, keys)
        single = listing.under(map(listed_key, found.single.values())).values()
        of_blocks = map(codec.segment_of, [*found.segments.values(), *packed_items(listing, found).values()])
        return {segment.key: segment for segment in chain(of_blocks, map(requests.segment, single))}

    def batches(self, prefix: str = "") -> Iterator[Batch]:
        return (with_state(self.table, batch) for batch, _ in self._batches().newest_first(prefix))

    def rejects(self, batch_id: str) -> list[RejectFile]:
        return [
            codec.reject_file(item) for item in self.table.query(layout.rejects_pk(self.generation.current(), batch_id))
        ]

    def totals(self) -> Totals:
        return self.summary().totals

    def rebuilding(self) -> RebuildUnderWay | None:
        return self.generation.rebuilding()

    def summary(self) -> Summary:
        return summary(self.table, self._batches())

    def _of_batch(self, g: int, batch_id: str, first: str, last: str) -> Iterator[Segment]:
        known, listing = False, self.listing(g)
        references = self.table.query(layout.references_pk(g, batch_id), between=(first, f"{last}/~"))
        for some in batched(references, READS):
            known = True
            yield from self._listed(listing.under(layout.referred(g, one) for one in some).values())
        batch = None if known else self.table.get(layout.batch_key(g, batch_id))
        if batch is not None and is_single(batch) and first <= batch["listed"].split("/")[2] <= last:
            items = listing.under([listed_key(batch)]).values()
            yield from map(self._remember, Requests(self.table, g).segments(items))

    def _of_blocks(self, items: Iterable[SegmentItem], entities: Sequence[str]) -> Iterator[Segment]:
        for segment in self._listed(items):
            if not entities or any(f.first <= entity <= f.last for f in segment.frames for entity in entities):
                yield segment

    def _listed(self, items: Iterable[SegmentItem]) -> Iterator[Segment]:
        for item in items:
            segment = codec.segment_of(item)
            yield self._remember((segment, item["skipped"])) if "skipped" in item else segment

    def _remember(self, listed: tuple[Segment, bytes | dict[int, Verdict]]) -> Segment:
        """Remember the duplicates of a segment, and return it."""
        segment, skipped = listed
        if len(skipped) <= _MEMORABLE:
            self._skipped[segment.key] = skipped
        while len(self._skipped) > _REMEMBERED:
            del self._skipped[next(iter(self._skipped))]
        return segment

    def _look_up(self, segment: Segment) -> bytes | dict[int, Verdict]:
        g = self.generation.current()
        key: Key[Any] = layout.listing_key(g, segment)
        of_batch: Key[Any] = layout.batch_key(g, segment.batch_id)
        found = self.table.get_many([key, of_batch])
        item = found.get(key)
        if item is None or "skipped" not in item:
            batch = found.get(of_batch)
            if batch is not None and is_single(batch):
                return Requests(self.table, g).skipped([batch]).get(segment.batch_id, {})
            pending = batch.get("pending", NO_DELIVERIES) if batch is not None else NO_DELIVERIES
            if pending != NO_DELIVERIES:  # its claims may not be finished: those that there are decide
                header, rows = read_ids(self.raw, pending)
                keys = [one.key for one in header.segments]
                if segment.key in keys:
                    mine = [row for row in rows if keys[row.segment] == segment.key]
                    return claims_of(self.table, g, segment.batch_id, header.segments).verdicts(mine)
            # It was settled while the batch was looked at, or is in a pack.
            item = self.listing(g).under([key]).get(key)
        if item is None or "skipped" not in item:
            raise NotFound(f"segment {segment.key} is not in the index", hint="pik verify --rebuild-index")
        skipped: bytes = item["skipped"]
        return skipped

    def _batches(self) -> BatchList:
        return BatchList(self.table, self.raw, self.generation.current())

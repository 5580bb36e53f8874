"""Reading the index table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice

from pik.errors import NotFound
from pik.model.batch import Batch, Location, RejectFile, Segment, Verdict
from pik.model.instant import Window, day_text
from pik.ports.store import Summary, Totals
from pik.stores.aws.catalog import layout
from pik.stores.aws.catalog.batch_list import BatchList
from pik.stores.aws.catalog.batches import NO_DELIVERIES, with_state
from pik.stores.aws.catalog.deliveries import (
    RecordingTimes,
    accepted_of,
    claims_of,
    duplicate_location,
    listings,
    read_ids,
)
from pik.stores.aws.catalog.layout import Listed, SegmentItem
from pik.stores.aws.catalog.requests import Requests, is_single
from pik.stores.aws.catalog.totals import summary
from pik.stores.aws.lease import Generation
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.table import Table

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

    def segments(
        self, window: Window, *, batch_id: str | None = None, entities: Sequence[str] = ()
    ) -> Iterator[Segment]:
        g = self.generation.current()
        first, last = map(day_text, window.days)
        if batch_id is not None:
            return self._of_batch(g, batch_id, first, last)
        days = [item["sk"].split("/") for item in self.table.query(layout.days_pk(g), between=(first, f"{last}/~"))]
        wanted = sorted(set(entities))
        requests = Requests(self.table, g)
        return chain.from_iterable(
            map(self._remember, requests.segments(layout.day_number(day), wanted))
            if kind == Listed.REQUEST
            else self._of_blocks(g, day, Listed(kind), wanted)
            for day, kind in days
        )

    def skipped(self, segment: Segment) -> dict[int, Verdict]:
        known = self._skipped.get(segment.key)
        if known is None:
            known = self._look_up(segment)
        return layout.unpack_skipped(known) if isinstance(known, bytes) else dict(known)

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
        return next(RecordingTimes(self.table, g).added([found]))

    def segments_of(self, deliveries: Collection[Location]) -> dict[str, Segment]:
        g = self.generation.current()
        items = listings(self.table, g, deliveries).values()
        of_files = (layout.segment_of(item) for item in items if not is_single(item))
        of_requests = Requests(self.table, g).listed(filter(is_single, items))
        return {segment.key: segment for segment in chain(of_files, of_requests)}

    def batches(self, prefix: str = "") -> Iterator[Batch]:
        return (with_state(self.table, batch) for batch, _ in self._batches().newest_first(prefix))

    def rejects(self, batch_id: str) -> list[RejectFile]:
        return [
            layout.reject_file(item)
            for item in self.table.query(layout.rejects_pk(self.generation.current(), batch_id))
        ]

    def totals(self) -> Totals:
        return self.summary().totals

    def summary(self) -> Summary:
        return summary(self.table, self._batches())

    def _of_batch(self, g: int, batch_id: str, first: str, last: str) -> Iterator[Segment]:
        known = False
        references = self.table.query(layout.references_pk(g, batch_id), between=(first, f"{last}/~"))
        for _, item in self.table.join(references, partial(layout.referred, g)):
            known = True
            if item is not None:
                yield from self._listed([item])
        batch = None if known else self.table.get(layout.batch_key(g, batch_id))
        if batch is not None:
            yield from map(self._remember, Requests(self.table, g).segments_of(batch, first, last))

    def _of_blocks(self, g: int, day: str, kind: Listed, entities: Sequence[str]) -> Iterator[Segment]:
        for segment in self._listed(self.table.query_each((pk, "") for pk in layout.listed_pks(g, day, kind))):
            if not entities or any(f.first <= entity <= f.last for f in segment.frames for entity in entities):
                yield segment

    def _listed(self, items: Iterable[SegmentItem]) -> Iterator[Segment]:
        for item in items:
            segment = layout.segment_of(item)
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
        key = layout.listing_key(g, segment)
        item = self.table.get(key)
        if item is None or "skipped" not in item:
            batch = self.table.get(layout.batch_key(g, segment.batch_id))
            if batch is not None and is_single(batch):
                return Requests(self.table, g).skipped([batch]).get(segment.batch_id, {})
            pending = batch.get("pending", NO_DELIVERIES) if batch is not None else NO_DELIVERIES
            if pending != NO_DELIVERIES:  # its claims may not be finished: those that there are decide
                header, rows = read_ids(self.raw, pending)
                keys = [one.key for one in header.segments]
                if segment.key in keys:
                    mine = [row for row in rows if keys[row.segment] == segment.key]
                    return claims_of(self.table, g, segment.batch_id, header.segments).verdicts(mine)
            item = self.table.get(key)  # it was settled while the batch was looked at
        if item is None or "skipped" not in item:
            raise NotFound(f"segment {segment.key} is not in the index", hint="pik verify --rebuild-index")
        return item["skipped"]

    def _batches(self) -> BatchList:
        return BatchList(self.table, self.raw, self.generation.current())

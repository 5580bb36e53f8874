"""Events with several deliveries, of a batch and among conflicts.

The duplicates of an event without idempotency key are of its day, listed there by event_id; so a day's lists are read
once, and its claims. Those of an event with a key may be of any day: each such event of the batch is counted, and asked
for if it has any.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, NamedTuple

from pik.model.batch import Arrivals, Location, Verdict
from pik.model.instant import day_text
from pik.stores.aws.catalog import layout
from pik.stores.aws.catalog.deliveries import (
    Delivery,
    accepted_of,
    claims_of,
    duplicate_location,
    duplicate_of,
    keyed_rows,
    prefix_of,
    read_ids,
    rows_of,
)
from pik.stores.aws.catalog.generation import Generation
from pik.stores.aws.catalog.layout import ClaimItem, DuplicateItem
from pik.stores.aws.catalog.listing import Listing
from pik.stores.aws.catalog.recording_times import RecordingTimes
from pik.stores.aws.catalog.requests import Requests, is_single
from pik.stores.aws.clients import Flow
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.table import Partition, Table, batched, key_of

_PAGE = 1000
"""Duplicates that a call reads of a partition: fewer than DynamoDB returns at a time."""

_COUNTED = 500
"""Events with an idempotency key whose duplicates are counted at once."""


@dataclass(frozen=True, slots=True)
class AwsRepeats:
    """Implements the port on the items of the index table, and the id files of the batch."""

    table: Table
    raw: AwsRaw
    generation: Generation

    def counts(self, events: Sequence[tuple[int | None, str]]) -> list[int]:
        return _Generation(self.table, self.raw, self.generation.current()).counts(events)

    def conflicted(self, event_ids: Collection[str]) -> set[str]:
        g = self.generation.current()
        found = self.table.get_many(key_of(layout.conflict_item(g, event_id)) for event_id in event_ids)
        return {event_id for _, event_id in found}

    def repeated_from(self, batch_id: str, days: tuple[int, int] | None = None) -> Iterator[list[Location]]:
        g = self.generation.current()
        return self._in_order(g, _Generation(self.table, self.raw, g).repeated_from(batch_id, days))

    def conflicting(self) -> Iterator[list[Location]]:
        g = self.generation.current()
        return self._in_order(g, _Generation(self.table, self.raw, g).conflicting())

    def verdicts(self, arrivals: Sequence[Arrivals]) -> dict[int, Verdict]:
        claims = claims_of(self.table, self.generation.current(), "", [arrived.segment for arrived in arrivals])
        verdicts = claims.verdicts(rows_of(arrivals))
        return {seq: kind for seq, kind in verdicts.items() if kind != Verdict.UNRECORDED}

    def _listing(self, g: int) -> Listing:
        return Listing(self.table, self.raw, g, self.generation)

    def _in_order(self, g: int, events: Iterable[list[Location]]) -> Iterator[list[Location]]:
        for deliveries in RecordingTimes(self._listing(g)).added(events):
            yield sorted(deliveries, key=lambda one: one.order)


class _Repeated(NamedTuple):
    """An event: a delivery of it, its claim, and duplicates of it."""

    event: Delivery
    claim: ClaimItem
    duplicates: list[Location]

    @property
    def deliveries(self) -> list[Location]:
        """The accepted delivery and the duplicates."""
        return [accepted_of(self.claim), *self.duplicates]


@dataclass(frozen=True, slots=True)
class _Generation:
    """Reads one generation of the index. The deliveries of an event come in no order, and without times."""

    table: Table
    raw: AwsRaw
    generation: int

    def counts(self, events: Iterable[tuple[int | None, str]]) -> list[int]:
        """Return how many duplicates each event has."""
        events = list(events)
        lists: dict[Partition[DuplicateItem], set[str]] = defaultdict(set)
        for day, event_id in events:
            of_day = layout.KEYED_DAY if day is None else day_text(day)
            lists[layout.duplicates_of(self.generation, of_day, event_id)].add(event_id)
        found: Counter[str] = Counter()
        for some in Flow().map(lambda one: self._count(*one), lists.items()):
            found.update(some)
        return [found[event_id] for _, event_id in events]

    def _count(self, pk: Partition[DuplicateItem], events: Collection[str]) -> Counter[str]:
        """Return how many duplicates a partition has of each of these events. Each call passes over one of the events
        or more, so there are never more calls than events, except for pages of the duplicates of one."""
        found: Counter[str] = Counter()
        left = sorted(events)
        start = f"{left[0]}/"
        while left:
            items = self.table.query(pk, between=(start, f"{left[-1]}/~"), first=_PAGE)
            keys = [item["sk"] for item in islice(items, _PAGE)]
            found.update(key.partition("/")[0] for key in keys)
            if len(keys) < _PAGE:
                break
            # What comes before the next event is passed over; nothing is between a key and what follows it with `!`.
            left = left[bisect_left(left, keys[-1].partition("/")[0]) :]
            start = max(f"{keys[-1]}!", f"{left[0]}/") if left else ""
        return Counter({event_id: found[event_id] for event_id in events})

    def repeated_from(self, batch_id: str, wanted: tuple[int, int] | None) -> Iterator[list[Location]]:
        """Yield the events whose accepted delivery is in the batch; of those without idempotency key only the ones of
        the wanted days, from the first to the last."""
        batch = self.table.get(layout.batch_key(self.generation, batch_id))
        if batch is None:
            return
        keyed: Iterable[tuple[Delivery, ClaimItem]]
        if is_single(batch):
            delivery = Requests(self.table, self.generation).delivery(batch)
            claims = self.table.get_many([delivery.claim_key]).values()
            keyed = [(delivery, claim) for claim in claims if delivery.verdict(claim) == Verdict.ACCEPTED]
        else:
            references = self.table.query(layout.references_pk(self.generation, batch_id))
            for day in dict.fromkeys(layout.day_number(item["sk"].partition("/")[0]) for item in references):
                if wanted is None or wanted[0] <= day <= wanted[1]:
                    found = self._all_listed(day_text(day))
                    yield from (one.deliveries for one in found if one.claim["batch"] == batch_id)
            keyed = self._with_key(batch_id)
        for some in batched(keyed, _COUNTED):
            counts = self.counts((None if one.row.content else one.day, one.event_id) for one, _ in some)
            repeated = (one for one, count in zip(some, counts, strict=True) if count)
            for each in Flow().map(lambda one: _Repeated(*one, self._listed(one[0])), repeated):
                yield each.deliveries

    def conflicting(self) -> Iterator[list[Location]]:
        """Yield the events of which a delivery is a conflict."""
        found = self._all_listed(layout.KEYED_DAY)
        return (one.deliveries for one in found if any(place.kind == Verdict.CONFLICT for place in one.duplicates))

    def _with_key(self, batch_id: str) -> Iterator[tuple[Delivery, ClaimItem]]:
        """Yield the deliveries of a batch that are the accepted ones of events with an idempotency key."""
        for found in self.raw.objects(f"{prefix_of(self.generation)}{batch_id}-"):
            if keyed_rows(found.key):
                header, rows = read_ids(self.raw, found.key)
                claims = claims_of(self.table, self.generation, batch_id, header.segments)
                keyed = [claims.delivery(row) for row in rows if row.content is not None]
                for delivery, claim in self.table.join(keyed, lambda one: one.claim_key):
                    if claim is not None and delivery.verdict(claim) == Verdict.ACCEPTED:
                        yield delivery, claim

    def _all_listed(self, day: str) -> Iterator[_Repeated]:
        """Yield the events with duplicates, with all of these, that are listed under a day."""
        shards = (layout.duplicates_pk(self.generation, day, shard) for shard in layout.DAY_SHARDS)
        items = self.table.query_each((pk, "") for pk in shards)
        groups = (list(group) for _, group in groupby(map(self._duplicate, items), key=_event_of))
        for group, claim in self.table.join(groups, lambda group: group[0][0].claim_key):
            if claim is not None:
                yield _Repeated(group[0][0], claim, [place for _, place in group])

    def _listed(self, event: Delivery) -> list[Location]:
        """Return an event's duplicates."""
        day = day_text(event.day) if event.row.content is None else layout.KEYED_DAY
        pk = layout.duplicates_of(self.generation, day, event.event_id)
        items = self.table.query(pk, prefix=f"{event.event_id}/")
        return [place for _, place in map(self._duplicate, items)]

    def _duplicate(self, item: DuplicateItem) -> tuple[Delivery, Location]:
        return duplicate_of(self.generation, item), duplicate_location(self.generation, item)


def _event_of(found: tuple[Delivery, *tuple[Any, ...]]) -> bytes:
    return found[0].row.event_id

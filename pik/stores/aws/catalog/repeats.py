"""Events with several deliveries, of a batch and among conflicts.

The duplicates of an event without idempotency key are of its day, listed there by event_id; so a day's lists are read
once, and its claims. Those of an event with a key may be of any day: each such event of the batch is asked for. Among
API requests with one event, a duplicate is known by its claim only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from pik.model.batch import Arrivals, Location, Verdict
from pik.model.instant import day_text
from pik.stores.aws.catalog import layout
from pik.stores.aws.catalog.deliveries import (
    Delivery,
    RecordingTimes,
    accepted_of,
    claims_of,
    duplicate_location,
    duplicate_of,
    id_file,
    prefix_of,
    read_ids,
    rows_of,
)
from pik.stores.aws.catalog.layout import ClaimItem, DuplicateItem
from pik.stores.aws.catalog.requests import Requests, is_single
from pik.stores.aws.clients import Flow
from pik.stores.aws.lease import Generation
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.table import Table


@dataclass(frozen=True, slots=True)
class AwsRepeats:
    """Implements the port on the items of the index table, and the id files of the batch."""

    table: Table
    raw: AwsRaw
    generation: Generation

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

    def _in_order(self, g: int, events: Iterable[list[Location]]) -> Iterator[list[Location]]:
        for deliveries in RecordingTimes(self.table, g).added(events):
            yield sorted(deliveries, key=lambda one: one.order)


class _Repeated(NamedTuple):
    """An event: a delivery of it, its claim, and duplicates of it."""

    event: Delivery
    claim: ClaimItem
    duplicates: list[Location]

    @property
    def deliveries(self) -> list[Location]:
        """The accepted delivery and the duplicates."""
        return [accepted_of(self.event.row.event_id.hex(), self.claim), *self.duplicates]

    @property
    def conflicts(self) -> list[Location]:
        """Those duplicates that are conflicts."""
        return [one for one in self.duplicates if one.kind == Verdict.CONFLICT]


@dataclass(frozen=True, slots=True)
class _Generation:
    """Reads one generation of the index. The deliveries of an event come in no order, and without times."""

    table: Table
    raw: AwsRaw
    generation: int

    def repeated_from(self, batch_id: str, wanted: tuple[int, int] | None) -> Iterator[list[Location]]:
        """Yield the events whose accepted delivery is in the batch; of those without idempotency key only the ones of
        the wanted days, from the first to the last."""
        batch = self.table.get(layout.batch_key(self.generation, batch_id))
        if batch is None:
            return
        days = set(self._requests.days())
        keyed: Iterable[tuple[Delivery, ClaimItem]]
        if is_single(batch):
            delivery = self._requests.delivery(batch)
            claims = self.table.get_many([delivery.claim_key]).values()
            keyed = [(delivery, claim) for claim in claims if delivery.verdict(claim) == Verdict.ACCEPTED]
        else:
            references = self.table.query(layout.references_pk(self.generation, batch_id))
            for day in dict.fromkeys(layout.day_number(item["sk"].partition("/")[0]) for item in references):
                if wanted is None or wanted[0] <= day <= wanted[1]:
                    yield from self._of_day(batch_id, day, with_requests=day in days)
            keyed = self._with_key(batch_id)

        def repeated(one: tuple[Delivery, ClaimItem]) -> _Repeated:
            found = _Repeated(*one, self._listed(one[0]))
            return self._with_requests(found) if days else found

        for each in Flow().map(repeated, keyed):
            if each.duplicates:
                yield each.deliveries

    def conflicting(self) -> Iterator[list[Location]]:
        """Yield the events of which a delivery is a conflict."""
        days = list(self._requests.days())
        found = (one for one in self._all_listed(layout.KEYED_DAY) if one.conflicts)
        for each in Flow().map(self._with_requests, found) if days else found:
            yield each.deliveries
        for day in days:
            among_requests = (one for one in self._among_requests(day, keyed=True) if one.conflicts)
            yield from filter(None, Flow().map(self._new_conflict, among_requests))

    def _new_conflict(self, found: _Repeated) -> list[Location]:
        """Return all deliveries of an event that conflicts among a day's requests were found of; none if these are not
        its first ones, so that it is yielded for others."""
        listed = _Repeated(found.event, found.claim, self._listed(found.event))
        if listed.conflicts:
            return []
        whole = self._with_requests(found)
        if min(whole.conflicts, key=_BY_BATCH) != min(found.conflicts, key=_BY_BATCH):
            return []
        return [*listed.deliveries, *whole.duplicates]

    def _of_day(self, batch_id: str, day: int, *, with_requests: bool) -> Iterator[list[Location]]:
        """Yield the events of a day that have no idempotency key."""
        found = (one for one in self._all_listed(day_text(day)) if one.claim["batch"] == batch_id)
        for each in Flow().map(self._with_requests, found) if with_requests else found:
            yield each.deliveries
        if with_requests:
            repeated = (one for one in self._among_requests(day, keyed=False) if one.claim["batch"] == batch_id)
            for each, listed in Flow().map(lambda one: (one, self._listed(one.event)), repeated):
                if not listed:  # else it was yielded with these
                    yield each.deliveries

    def _with_key(self, batch_id: str) -> Iterator[tuple[Delivery, ClaimItem]]:
        """Yield the deliveries of a batch that are the accepted ones of events with an idempotency key."""
        for found in self.raw.objects(f"{prefix_of(self.generation)}{batch_id}-"):
            if id_file(found.key).keyed:
                header, rows = read_ids(self.raw, found.key)
                claims = claims_of(self.table, self.generation, batch_id, header.segments)
                keyed = [claims.delivery(row) for row in rows if row.content is not None]
                for delivery, claim in self.table.join(keyed, lambda one: one.claim_key):
                    if claim is not None and delivery.verdict(claim) == Verdict.ACCEPTED:
                        yield delivery, claim

    def _all_listed(self, day: str) -> Iterator[_Repeated]:
        """Yield the events with duplicates of files and streams, with all of these, that are listed under a day."""
        shards = (layout.duplicates_pk(self.generation, day, shard) for shard in layout.DAY_SHARDS)
        items = self.table.query_each((pk, "") for pk in shards)
        groups = (list(group) for _, group in groupby(map(self._duplicate, items), key=_event_of))
        for group, claim in self.table.join(groups, lambda group: group[0][0].claim_key):
            if claim is not None:
                yield _Repeated(group[0][0], claim, [place for _, place in group])

    def _listed(self, event: Delivery) -> list[Location]:
        """Return an event's duplicates of files and streams."""
        row, event_id = event.row, event.row.event_id.hex()
        day = day_text(event.day) if row.content is None else layout.KEYED_DAY
        items = self.table.query(layout.duplicates_pk(self.generation, day, event_id[0]), prefix=f"{event_id}/")
        return [place for _, place in map(self._duplicate, items)]

    def _duplicate(self, item: DuplicateItem) -> tuple[Delivery, Location]:
        return duplicate_of(self.generation, item), duplicate_location(self.generation, item)

    def _among_requests(self, day: int, *, keyed: bool) -> Iterator[_Repeated]:
        """Yield the events with duplicates among a day's requests, with those of that day."""
        for _, group in groupby(self._requests.duplicates_on(day, keyed=keyed), key=_event_of):
            (event, claim, place), *rest = group
            yield _Repeated(event, claim, [place, *(each for _, _, each in rest)])

    def _with_requests(self, found: _Repeated) -> _Repeated:
        """Add an event's duplicates among all requests."""
        more = self._requests.duplicates_of(found.event, found.claim)
        return found._replace(duplicates=list(dict.fromkeys([*found.duplicates, *more])))

    @property
    def _requests(self) -> Requests:
        return Requests(self.table, self.generation)


_BY_BATCH = attrgetter("batch_id")


def _event_of(found: tuple[Delivery, *tuple[Any, ...]]) -> bytes:
    return found[0].row.event_id

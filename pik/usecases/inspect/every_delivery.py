"""Every delivery of a window, duplicates and what does not count included, oldest first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pik.model.batch import Verdict
from pik.model.delivery import Delivery, Filter
from pik.model.instant import parse_instant
from pik.ports.store import Store
from pik.rawlog.selection import RecordedDelivery
from pik.runtime import SILENT
from pik.usecases import Listing, ListingExtent
from pik.usecases.availability import expect_held
from pik.usecases.inspect.conditions import ACCEPTED, Conditions
from pik.usecases.inspect.events import ordered


@dataclass(frozen=True, slots=True)
class ListedDelivery:
    """A delivery, its verdict, whether it counts, and when the index recorded it (nanoseconds). Corrections hold:
    `received_event_time` is the time that one replaced, `corrections` are the ids of those that concern it."""

    delivery: Delivery
    verdict: Verdict
    counts: bool
    recorded_at: int
    received_event_time: int | None
    corrections: tuple[str, ...]


_Sorted = tuple[int, str, str, int, ListedDelivery]


def list_deliveries(
    store: Store,
    wanted: Filter,
    limit: int | None = None,
    *,
    verdict: Verdict | None = None,
    within: Conditions = ACCEPTED,
) -> Listing[ListedDelivery, ListingExtent]:
    """List the deliveries that the filter selects, or those of them with this verdict, by event_time, event_id, batch
    and seq; with a limit, the oldest ones. They are of the batch and recorded in the time that `within` names; what
    else it asks for is not looked at. Raises NotHeld, and Damaged while iterating."""
    expect_held(store, wanted.window, wanted.entities)

    def items(found: Iterable[RecordedDelivery]) -> Iterator[_Sorted]:
        for one in found:
            if (verdict is None or one.kind == verdict) and within.holds(one.segment):
                delivery = one.delivery
                yield delivery.event_instant, delivery.event_id, delivery.batch_id, delivery.seq, _listed(one)

    return Listing(
        ordered(
            *(store, wanted, limit, items, lambda item: item[:4], lambda page: (item[4] for item in page)),
            holds=within.holds if within.chooses_segments else None,
            as_received=within.as_received,
            progress=SILENT,
        )
    )


def _listed(found: RecordedDelivery) -> ListedDelivery:
    received = found.received_event_time
    return ListedDelivery(
        found.delivery,
        found.kind,
        found.counts,
        found.segment.recorded_at,
        None if received is None else parse_instant(received),
        found.corrections,
    )

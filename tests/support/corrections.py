"""Corrections, recorded without the command, and their lists from deliveries in any order."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pik.model.correction import Correction, CorrectionKind, CorrectionList, ListedDelivery
from pik.model.delivery import Filter
from pik.model.ids import new_id
from pik.model.instant import day_of, parse_instant
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.correction_lists import MOST, pack_lists, write_lists
from pik.rawlog.corrections import record
from pik.rawlog.deliveries import deliveries
from tests.support.stores import window


def listed_order(one: ListedDelivery) -> tuple[str, str, str, int]:
    """What the lines of a list are sorted by."""
    return one.entity_id, one.time or one.event_time, one.batch_id, one.seq


def written_lists(
    raw: Raw, correction_id: str, deliveries: Iterable[ListedDelivery], most: int = MOST
) -> tuple[CorrectionList, ...]:
    """Create the lists of a correction with these deliveries."""
    ordered = sorted(deliveries, key=lambda one: (one.event_time[:10], listed_order(one)))
    lines = (
        (
            day_of(parse_instant(one.event_time)),
            one.entity_id,
            parse_instant(one.time or one.event_time),
            msgspec.json.encode(one),
        )
        for one in ordered
    )
    return write_lists(raw, pack_lists(correction_id, lines, most))


def moved(
    store: Store, of: str, to: str, kind: CorrectionKind = CorrectionKind.SHIFT, *, entity: str = "a"
) -> Correction:
    """Record that the event of an entity on one day of January 2026 happened on another one, at 01:00."""
    made = new_id()
    listed = []
    for found in deliveries(store, Filter(window(of, f"{int(of) + 1:02}"), (entity,)), as_received=True):
        line = msgspec.json.decode(found.line)
        names = ("event_id", "entity_id", "batch_id", "seq", "event_time")
        time = f"2026-01-{to}T01:00:00.000000000Z"
        listed.append(ListedDelivery(**{name: line[name] for name in names}, time=time))
    assert len(listed) == 1
    draft = Correction(
        format=0,
        correction_id=made,
        kind=kind,
        recorded_at=0,
        reason="INC-1",
        events=1,
        lists=written_lists(store.raw, made, listed),
    )
    return record(store, [draft])[0]

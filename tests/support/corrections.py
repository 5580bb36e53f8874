"""Corrections, recorded without the command."""

from __future__ import annotations

import msgspec

from pik.model.correction import Correction, CorrectionKind, ListedDelivery
from pik.model.delivery import Filter
from pik.model.ids import new_id
from pik.ports.store import Store
from pik.rawlog.correction_lists import write_lists
from pik.rawlog.corrections import record
from pik.rawlog.selection import deliveries
from tests.support.stores import window


def moved(
    store: Store, of: str, to: str, kind: CorrectionKind = CorrectionKind.SHIFT, *, entity: str = "a"
) -> Correction:
    """Record that the event of an entity on one day of January 2026 happened on another one, at 01:00."""
    made = new_id()
    listed = []
    for found in deliveries(store, Filter(window(of, f"{int(of) + 1:02}"), (entity,))):
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
        lists=write_lists(store.raw, made, listed),
    )
    return record(store, [draft])[0]

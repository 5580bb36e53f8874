"""In what the events of a producer's log differ from those that the store has under the same idempotency keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from pik.model.delivery import Delivery, read_delivery
from pik.ports.engine import Tables
from pik.rawlog.objects import raw_lines
from pik.usecases.inspect.duplicates import delivery_changes

_TOGETHER = 10_000
"""Events that are compared at a time: one side of them is in memory."""

_PLACES = 1000
"""Places that are counted one by one: the first that are met."""

_SHOWN = 20
"""Places that are listed."""

OTHERS = "(other places)"
"""Stands for all places that are not listed; an event may differ in several of them."""


class ChangedPlace(msgspec.Struct):
    """A place in which events differ, in how many (None: not counted), and the values of one as JSON (None: absent)."""

    place: str
    events: int | None
    event_id: str | None = None
    log_value: bytes | None = None
    store_value: bytes | None = None


def changed_places(
    tables: Tables, different: int, stored: Sequence[Path], logged: Sequence[Path]
) -> list[ChangedPlace]:
    """Return in which places the events of the table `compared` that are different differ, those of the most events
    first; of an event which has one of its sides outside the scope that is not known."""
    found: dict[str, ChangedPlace] = {}
    parts = different // _TOGETHER + 1
    for part in range(parts):
        for event_id, log_value, store_value in _pairs(tables, part, parts, stored, logged):
            for change in delivery_changes(log_value, store_value):
                path = change.path if change.path in found or len(found) < _PLACES else OTHERS
                example = (None, None, None) if path == OTHERS else (event_id, change.accepted, change.conflicting)
                place = found.setdefault(path, ChangedPlace(path, 0, *example))
                place.events = (place.events or 0) + 1
    ordered = sorted(found.values(), key=lambda one: (one.place == OTHERS, -(one.events or 0), one.place))
    shown = [one for one in ordered if one.place != OTHERS][:_SHOWN]
    return [*shown, *([ChangedPlace(OTHERS, None)] if len(shown) < len(ordered) else [])]


def _pairs(
    tables: Tables, part: int, parts: int, stored: Sequence[Path], logged: Sequence[Path]
) -> Iterator[tuple[str, Delivery, Delivery]]:
    """Yield events of a part of those that differ, as the log and as the store has them."""
    rows = tables.rows(
        "SELECT event_id, log_batch, log_seq, stored_batch, stored_seq FROM compared WHERE finding = 'different'"
        " AND log_batch IS NOT NULL AND stored_batch IS NOT NULL AND hash(event_id) % ? = ?",
        [parts, part],
    )
    places = {event_id: ((log, log_seq), (batch, seq)) for event_id, log, log_seq, batch, seq in rows}
    wanted = {event_id.encode() for event_id in places}
    log_value = {
        one.event_id: one
        for one in map(read_delivery, raw_lines(logged, wanted))
        if places[one.event_id][0] == (one.batch_id, one.seq)
    }
    for one in map(read_delivery, raw_lines(stored, wanted)):
        if places[one.event_id][1] == (one.batch_id, one.seq) and one.event_id in log_value:
            yield one.event_id, log_value[one.event_id], one

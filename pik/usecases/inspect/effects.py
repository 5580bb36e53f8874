"""How many events of a window corrections took out, moved, or count by another delivery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pik.model.delivery import Filter
from pik.ports.store import Store
from pik.rawlog.corrected import concerning, corrected_until
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.selection import Selection

if TYPE_CHECKING:
    from pik.ports.engine import Engine, Tables

EFFECT_COLUMNS = frozenset({"event_id", "verdict", "event_ns", "received_ns", "correction"})
"""The columns of the tables that `count_effects` reads."""


@dataclass(frozen=True, slots=True)
class Effects:
    """What corrections changed of the events of a window: those `taken_out` of it, that do not count any more; those
    `moved` to another time, within it, into it or out of it; those `replaced`, that count by another delivery than the
    one that was accepted. An event may be moved and replaced."""

    taken_out: int = 0
    moved: int = 0
    replaced: int = 0

    def __bool__(self) -> bool:
        return bool(self.taken_out or self.moved or self.replaced)


def are_concerned(store: Store, wanted: Filter) -> bool:
    """Return whether a correction that holds may change what counts in the window."""
    return bool(concerning(store, corrected_until(store).active, wanted.window))


def corrected_effects(store: Store, engine: Engine, wanted: Filter) -> Effects | None:
    """Return what corrections changed of the events that the filter selects; None: none concerns its window. Reads the
    window's raw then. Raises Damaged."""
    if not are_concerned(store, wanted):
        return None
    given = _given(wanted)
    with (
        gather_deliveries(Selection(store, wanted.window, wanted.entities)) as files,
        engine.tables(files, {*EFFECT_COLUMNS, *given}, wanted.window, wanted.entities) as tables,
    ):
        return count_effects(tables, wanted)


def _given(wanted: Filter) -> dict[str, str]:
    pairs = {"source": wanted.source, "event_type": wanted.event_type}
    return {name: text for name, text in pairs.items() if text is not None}


def count_effects(tables: Tables, wanted: Filter) -> Effects:
    """Return what corrections changed of the events in these tables, which have EFFECT_COLUMNS and those on which the
    filter has a condition."""
    given = _given(wanted)
    condition = " AND ".join(["correction IS NOT NULL", *(f"{name} = ?" for name in given)])
    [(taken_out, moved, replaced)] = tables.rows(
        f"WITH counted AS (SELECT event_id, verdict, event_ns, received_ns FROM events WHERE {condition})"
        f" SELECT (SELECT count(*) FROM deliveries WHERE {condition} AND verdict = 'accepted'"
        " AND event_id NOT IN (SELECT event_id FROM counted)),"
        " (SELECT count(*) FROM counted WHERE event_ns <> received_ns)"
        f" + (SELECT count(*) FROM moved_away WHERE {condition}),"
        " (SELECT count(*) FROM counted WHERE verdict <> 'accepted')",
        [*given.values()] * 3,
    )
    return Effects(taken_out, moved, replaced)

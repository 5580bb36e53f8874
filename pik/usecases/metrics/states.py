"""A value as it would be under several scenarios, and the deliveries that it counts then: what `explain` compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from pik.errors import Damaged, EngineError, command
from pik.model.aggregate import Computed
from pik.model.metric import Definition, Metric, entities_of
from pik.model.scenario import Scenario
from pik.ports.engine import CountedDeliveries, Engine, Tables
from pik.ports.store import Store
from pik.rawlog.exact_copies import readable_part, tells_copies_apart
from pik.rawlog.gathering import gather_together, unreadable_frames
from pik.rawlog.selection import Selection
from pik.usecases.metrics.chain import value_of
from pik.usecases.metrics.definitions import pin
from pik.usecases.metrics.scenario import applied
from pik.usecases.metrics.unread import NOTHING_UNREAD, Unread, unread_deliveries
from pik.usecases.metrics.winners import Winners


class Change(NamedTuple):
    """A delivery that counts in the one state only, or in both at another time. `event_time` is the first of its times,
    in microseconds; `counted_at` is when it counts in the later state, or else in the earlier one."""

    event_id: str
    batch_id: str
    seq: int
    event_time: int
    before: bool
    after: bool
    counted_at: int


@dataclass(frozen=True, slots=True)
class State:
    """A value between the two sides."""

    computed: Computed | None
    moves: tuple[int, int]
    """By how much (in nanoseconds) its scenario moves deliveries to a later and to an earlier time, at most."""
    table: str
    """The table of the deliveries that it counts."""

    @property
    def value(self) -> Decimal:
        return value_of(self.computed)


NOTHING = State(None, (0, 0), "")
"""Nothing counts."""


@dataclass(frozen=True, slots=True)
class States:
    """The states asked for, by definition and scenario. `unreadable` are the frames that cannot be read, by the key of
    their segment and their offset: none counts anything of them."""

    states: Mapping[tuple[Definition, Scenario], State]
    unreadable: Mapping[str, frozenset[int]]
    tables: Tables | None
    unread: Unread = NOTHING_UNREAD
    """What the last of the states leaves out because of that."""

    def at(self, metric: Metric, scenario: Scenario) -> State:
        """Return the state of this definition under this scenario."""
        return self.states[metric.definition, scenario]

    def changed(self, before: State, after: State) -> int:
        """Return how many deliveries count in one of two states only, or at another time."""
        [row] = self._rows(f"SELECT count(*) FROM ({_changes(before, after)})")
        return int(row[0])

    def changed_events(self, before: State, after: State) -> int:
        """Return of how many events they are."""
        [row] = self._rows(f"SELECT count(DISTINCT event_id) FROM ({_changes(before, after)})")
        return int(row[0])

    def changes(self, before: State, after: State) -> Iterator[Change]:
        """Yield those deliveries, by event_id."""
        rows = self._rows(f"{_changes(before, after)} ORDER BY event_id, batch_id, seq")
        yield from map(Change._make, rows)

    def batches_of_new(self, before: State, after: State) -> list[tuple[str, int]]:
        """Return the batches of the deliveries that only `after` counts, or at another time, and how many they are."""
        rows = self._rows(
            f"SELECT batch_id, count(*) FROM (FROM {after.table} EXCEPT FROM {before.table}) GROUP BY 1 ORDER BY 1"
        )
        return list(rows)

    def _rows(self, sql: str) -> Iterator[tuple[Any, ...]]:
        return iter(()) if self.tables is None else self.tables.rows(sql)


def _changes(before: State, after: State) -> str:
    """Return the SQL of the rows of `Change`."""
    sides = f"SELECT *, true AS is_after FROM {after.table}"
    if before.table:
        sides += f" UNION ALL SELECT *, false FROM {before.table}"
    return (
        "SELECT event_id, batch_id, seq, min(event_time), bool_or(was), bool_or(now),"
        " coalesce(min(event_time) FILTER (WHERE now), min(event_time)) FROM ("
        f"SELECT event_id, batch_id, seq, event_time, bool_or(NOT is_after) AS was, bool_or(is_after) AS now"
        f" FROM ({sides}) GROUP BY ALL HAVING was <> now) GROUP BY event_id, batch_id, seq"
    )


@contextmanager
def computed_states(
    store: Store,
    engine: Engine,
    wanted: Sequence[tuple[Metric, Scenario]],
    bucket: int,
    entity: str,
    winners: Winners,
) -> Iterator[States]:
    """Compute the value of the bucket with this start by each of these definitions, which may have other buckets,
    under the scenario beside it, resolved ones, from what can be read; exact copies count in the place of what cannot.
    Raises EngineError if a definition fails on the
    events."""
    if not wanted:
        yield States({}, {}, None)
        return
    entities = entities_of(entity)
    each = {_key(one): one[0] for one in wanted}
    with ExitStack() as stack:
        windows = [metric.buckets.around(bucket) for metric in each.values()]
        overrides = [
            stack.enter_context(applied(store, engine, scenario, window, entities, winners))
            for (_, scenario), window in zip(each, windows, strict=True)
        ]
        whole = [Selection(store, window, entities, one) for window, one in zip(windows, overrides, strict=True)]
        definitions = [definition for definition, _ in each]
        # Either in all of the states or in none: a copy that counts in one of them only would be a part of some share.
        moments: list[int] | None = [scenario.as_of for _, scenario in each if scenario.as_of is not None]
        if any(map(tells_copies_apart, overrides)) or any(map(engine.reads_delivery, definitions)):
            moments = None
        unreadable: dict[str, frozenset[int]] = {}
        while True:
            selections = [readable_part(one, unreadable, moments=moments) for one in whole]
            try:
                counted = stack.enter_context(_counted(engine, definitions, selections, bucket, entities))
                break
            except Damaged:
                found = unreadable_frames(selections)
                if not found:
                    raise
                unreadable |= found
        states: dict[tuple[Definition, Scenario], State] = {}
        for (key, metric), value, one in zip(each.items(), counted.values, overrides, strict=True):
            if value is not None and value.failure is not None:
                raise EngineError(
                    f"{pin(metric)} cannot be computed: {value.failure.reason}",
                    hint=command("diff", "aggregates", "--metric", metric.name, *options_of(entity)),
                )
            states[key] = State(value, (one.later, one.earlier), f"counted_{len(states)}")
        unread = unread_deliveries(selections[list(each).index(_key(wanted[-1]))], unreadable)
        yield States(states, unreadable, counted.tables, unread)


def _key(wanted: tuple[Metric, Scenario]) -> tuple[Definition, Scenario]:
    metric, scenario = wanted
    return metric.definition, scenario


@contextmanager
def _counted(
    engine: Engine,
    definitions: Sequence[Definition],
    selections: Sequence[Selection],
    bucket: int,
    entities: Sequence[str],
) -> Iterator[CountedDeliveries]:
    with gather_together(selections) as raws:
        states = [(raw.inputs, definition) for raw, definition in zip(raws, definitions, strict=True)]
        with engine.compared(states, bucket, entities) as counted:
            yield counted


def options_of(entity: str) -> list[str]:
    """Return the options of a command that select the values of an entity, or of all."""
    return [word for one in entities_of(entity) for word in ("--entity", one)]

"""Looking for the deliveries that an assumption selects or names, as the table `selected` in the engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from pik.errors import EngineError, UsageError
from pik.model.batch import Location, Verdict
from pik.model.correction import Correction, CorrectionKind
from pik.model.criteria import Criteria
from pik.model.delivery import Filter
from pik.model.instant import DAY, MAX_INSTANT, MIN_INSTANT
from pik.model.scenario import (
    CountedConflict,
    CountedDelivery,
    LocalTime,
    Shift,
    Which,
    Without,
    WithoutBatch,
    WithoutSelected,
    WithoutSuspects,
)
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Engine, Tables
from pik.ports.store import Store
from pik.rawlog.corrected import Corrected
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.selection import Overrides, RecordedDelivery, Selection
from pik.runtime.storage import Spool
from pik.usecases.availability import expect_held
from pik.usecases.inspect.deliveries import read_locations
from pik.usecases.inspect.where import Places, selected
from pik.usecases.metrics.assumed_suspects import assumed_suspects
from pik.usecases.metrics.selections import criteria_sql

_TYPES = {
    "event_id": "VARCHAR",
    "source": "VARCHAR",
    "event_type": "VARCHAR",
    "entity_id": "VARCHAR",
    "idempotency_key": "VARCHAR",
    "batch_id": "VARCHAR",
    "seq": "BIGINT",
    "event_ns": "BIGINT",
    "received_ns": "BIGINT",
}
"""The columns of `hit` that are those of `deliveries`, with their SQL types."""

_COLUMNS = f"{', '.join(_TYPES)}, NULL::BIGINT AS time_ns, NULL::BOOLEAN AS counts"
_SELECTED = f"SELECT {_COLUMNS} FROM deliveries"

_OfEvents = Without | WithoutSuspects | CountedDelivery | CountedConflict

_FEW = 20
"""Events up to which their entities are looked up first, so that whole days are not read for them."""

_TOWARD = 2 * DAY
"""How far a zone may move a time, and more."""


class Found(NamedTuple):
    """Where deliveries were looked for, how many the index knew there, and these as tables."""

    selection: Selection
    known: int
    tables: Tables


class _Place(NamedTuple):
    """A delivery, whether it is to count, and whether its content is not that of the accepted one."""

    batch_id: str
    seq: int
    counts: bool
    is_conflict: bool


@dataclass(frozen=True, slots=True)
class Search:
    """A search among all that was recorded until a moment, at the times that corrections give it, whether it counts or
    not: what takes an event out, or withdraws a batch, may be revoked later. The table `listed` has what some
    corrections list."""

    store: Store
    engine: Engine
    until: int
    corrected: Corrected
    listed: Sequence[Correction]

    @contextmanager
    def of_deliveries(self, assumption: WithoutBatch | WithoutSelected | Shift | LocalTime) -> Iterator[Found]:
        """Provide the deliveries that a selection hits, as the table `selected`; where events are to be out, all
        deliveries of each."""
        criteria = Criteria(batch=assumption.batch_id) if isinstance(assumption, WithoutBatch) else assumption.criteria
        # Where deliveries move to is read as well, so that the plan knows what they meet there.
        by = assumption.by if isinstance(assumption, Shift) else 0
        reach = _TOWARD if isinstance(assumption, LocalTime) else 0
        start = max(criteria.window.start + min(by, -reach), MIN_INSTANT)
        end = min(criteria.window.end + max(by, reach), MAX_INSTANT + 1)
        entities, more = (criteria.entity,) if criteria.entity else (), ("verdict",) if criteria.batch else ()
        moved = ("lag_ns",) if isinstance(assumption, Shift | LocalTime) else ()
        with_out = isinstance(assumption, WithoutSelected)
        with self._tables(Window(start, end), entities, (*more, *moved), with_out=with_out) as found:
            tables = found.tables
            condition = self._condition(tables, criteria)
            if isinstance(assumption, WithoutSelected):
                ids = f"SELECT event_id FROM events WHERE {condition}"
                tables.keep("selected", f"{_SELECTED} WHERE event_id IN ({ids})")
                self._add_elsewhere(tables)
            else:
                tables.define("selected", f"SELECT {', '.join([*moved, _COLUMNS])} FROM deliveries WHERE {condition}")
            yield found

    @contextmanager
    def of_events(self, assumption: _OfEvents) -> Iterator[Found]:
        """Provide all known deliveries of the events that the assumption names, or selects among those with conflicts,
        as the table `selected`."""
        places, window, entities = self._places(assumption)
        criteria = assumption.criteria if isinstance(assumption, CountedConflict) else Criteria()
        with self._tables(window, entities, with_out=True) as found:
            tables = found.tables
            columns = {"batch_id": "VARCHAR", "seq": "BIGINT", "chosen": "BOOLEAN", "is_conflict": "BOOLEAN"}
            tables.add("place", columns, places)
            condition = "(batch_id, seq) IN (SELECT batch_id, seq FROM place)"
            if criteria != Criteria():
                met = f"SELECT event_id FROM events WHERE {condition} AND {self._condition(tables, criteria)}"
                condition += f" AND event_id IN ({met})"
            sql = f"{_SELECTED} WHERE {condition}"
            if not isinstance(assumption, Without | WithoutSuspects):
                sql = f"SELECT hit.* REPLACE (chosen AS counts) FROM ({sql}) AS hit JOIN place USING (batch_id, seq)"
            tables.keep("selected", sql)
            yield found

    def _places(self, assumption: _OfEvents) -> tuple[Spool[_Place], Window, Sequence[str]]:
        """Return the known deliveries of the events, the window that they lie in, and of few their entities."""
        places, days, entities, number = Spool(_Place), set[int](), set[str](), 0
        withdrawn = self.corrected.withdrawn
        for deliveries in self._events(assumption):
            known = [one for one in deliveries if self._is_known(one)]
            left = [one for one in known if one.batch_id not in withdrawn]
            if not (known if isinstance(assumption, Without | WithoutSuspects) else left):
                continue
            number, chosen = number + 1, _chosen(assumption, left)
            for one in known:
                places.add(_Place(one.batch_id, one.seq, one is chosen, one.kind == Verdict.CONFLICT))
                days.add(one.day)
            if number <= _FEW:
                entities |= {found.delivery.entity_id for found in read_locations(self.store, known[:1])}
        return places, self._times_of(days), sorted(entities) if number <= _FEW else ()

    def _times_of(self, days: AbstractSet[int]) -> Window:
        """Return a window with all times at which deliveries of these days of raw happened."""
        if not days:
            return ALL_TIME
        raw = Window(Window.of_day(min(days)).start, Window.of_day(max(days)).end)
        lists = [listed for one in self.corrected.moving for listed in one.lists if listed.day in days]
        start = min([raw.start, *(listed.first_event for listed in lists)])
        end = max([raw.end, *(listed.last_event + 1 for listed in lists)])
        return Window(start, end)

    def _events(self, assumption: _OfEvents) -> Iterator[list[Location]]:
        """Yield all deliveries of each event, in recording order."""
        if isinstance(assumption, CountedConflict):
            yield from self.store.repeats.conflicting()
            return
        ids: Iterable[str]
        if isinstance(assumption, WithoutSuspects):
            shown = Overrides(until=self.until, corrected=self.corrected)
            ids = (row.event_id for row in assumed_suspects(self.store, self.engine, assumption, shown))
        elif isinstance(assumption, Without):
            ids = assumption.event_ids
        else:
            ids = (assumption.event_id,)
        for event_id in ids:
            yield sorted(self.store.index.deliveries(event_id), key=lambda one: one.order)

    def _is_known(self, one: Location) -> bool:
        return _is_known(one, self.until)

    @contextmanager
    def _tables(
        self, window: Window, entities: Sequence[str], more: Sequence[str] = (), *, with_out: bool
    ) -> Iterator[Found]:
        """Provide the deliveries; `with_out`, `events` has those that are out as well."""
        expect_held(self.store, window, entities)
        holding = [one for one in self.corrected.active if not (with_out and one.kind is CorrectionKind.WITHOUT)]
        overrides = Overrides(until=self.until, corrected=Corrected(self.store, holding))
        selection = Selection(self.store, window, entities, overrides)
        known = known_deliveries(selection)
        with (
            gather_deliveries(selection, self.listed) as files,
            self.engine.tables(files, (*_TYPES, *more), window, entities) as tables,
        ):
            yield Found(selection, known, tables)

    def _condition(self, tables: Tables, criteria: Criteria) -> str:
        """Return the criteria as a condition on a row of `deliveries` in their window. Raises UsageError."""
        bounds = f"event_ns >= {criteria.window.start} AND event_ns < {criteria.window.end}"
        if criteria.condition is None:
            return f"{bounds} AND {criteria_sql(criteria)}"
        wanted = Filter(criteria.window, (criteria.entity,) if criteria.entity else ())
        moved = Corrected(self.store, self.corrected.moving)
        overrides = Overrides(until=self.until, duplicates=True, corrected=moved)
        try:
            met = selected(self.store, self.engine, wanted, criteria_sql(criteria), overrides)
        except EngineError as error:
            what = f"where={criteria.where}: {error.message.partition(': ')[2]}"
            raise UsageError(what, hint="TRY_CAST in place of a cast") from None
        tables.add("met", {"batch_id": "VARCHAR", "seq": "BIGINT"}, met)
        return "(batch_id, seq) IN (FROM met)"

    def _add_elsewhere(self, tables: Tables) -> None:
        """Add the deliveries outside of the window of the events in `selected`."""
        if not add_conflicting(tables, self.store, "selected", self.until):
            return
        left = "SELECT batch_id, seq FROM conflicting SEMI JOIN selected USING (event_id)"
        places = Places(tables.rows(f"{left} ANTI JOIN selected USING (batch_id, seq)"))
        rows = (
            _row(found)
            for deliveries in self.store.repeats.conflicting()
            for found in read_locations(self.store, [one for one in deliveries if (one.batch_id, one.seq) in places])
        )
        tables.add("elsewhere", _TYPES, rows)
        tables.keep("selected", "FROM selected UNION ALL BY NAME FROM elsewhere")


def _chosen(assumption: _OfEvents, known: Sequence[Location]) -> Location | None:
    """Return which of the known deliveries of an event, in recording order, is to count."""
    if isinstance(assumption, CountedConflict):
        return known[0 if assumption.which == Which.FIRST else -1]
    if isinstance(assumption, CountedDelivery):
        return next((one for one in known if (one.batch_id, one.seq) == assumption.delivery), None)
    return None


def _row(found: RecordedDelivery) -> tuple[object, ...]:
    one = found.delivery
    instant = one.event_instant
    key = one.idempotency_key
    return one.event_id, one.source, one.event_type, one.entity_id, key, one.batch_id, one.seq, instant, instant


def known_deliveries(selection: Selection) -> int:
    """Return how many deliveries the index knows now where the selection looks."""
    again = Selection(selection.store, selection.window, selection.entities, selection.overrides)
    return sum(segment.deliveries for segment in again.recorded_segments())


def _is_known(one: Location, until: int) -> bool:
    return one.recorded_at <= until and one.kind != Verdict.UNRECORDED


def add_conflicting(tables: Tables, store: Store, name: str, until: int) -> bool:
    """Add a table `conflicting` with event_id, batch_id and seq of the known deliveries of events with conflicts: only
    these have deliveries at different times. Return whether the table of this name may have some of them."""
    [[keyed]] = tables.rows(f"SELECT count(idempotency_key) FROM {name}")
    if not keyed:
        return False
    rows = (
        (one.event_id, one.batch_id, one.seq)
        for deliveries in store.repeats.conflicting()
        for one in deliveries
        if _is_known(one, until)
    )
    tables.add("conflicting", {"event_id": "VARCHAR", "batch_id": "VARCHAR", "seq": "BIGINT"}, rows)
    return True

"""Which deliveries an assumption is about: what a correction that records it lists, and what its plan counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import NamedTuple

from pik.errors import EngineError, NothingSelected, UsageError
from pik.model.batch import Location, Verdict
from pik.model.correction import Correction, CorrectionKind, active, log_order
from pik.model.delivery import Filter
from pik.model.instant import (
    ALL_TIME,
    DAY,
    MAX_INSTANT,
    MIN_INSTANT,
    SECOND,
    Window,
    load_zone,
    parse_instant,
)
from pik.model.scenario import (
    Assumption,
    CountedConflict,
    CountedDelivery,
    CountedDuplicates,
    Criteria,
    LocalTime,
    OtherDefinition,
    Shift,
    Which,
    With,
    Without,
    WithoutBatch,
    WithoutSelected,
)
from pik.ports.engine import Engine, Offset, Tables
from pik.ports.store import Store
from pik.rawlog.corrected import Corrected, corrected_until
from pik.rawlog.correction_lists import ListLine
from pik.rawlog.corrections import read_list, with_frames
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.selection import Overrides, RecordedDelivery, Selection
from pik.runtime.storage import Spool
from pik.usecases.availability import expect_held
from pik.usecases.inspect.conditions import selected
from pik.usecases.inspect.deliveries import read_locations
from pik.usecases.metrics.offsets import shift_offsets, zone_offsets
from pik.usecases.metrics.scenario import criteria_sql

KINDS: dict[type, CorrectionKind] = {
    WithoutBatch: CorrectionKind.WITHOUT_BATCH,
    CountedDelivery: CorrectionKind.DELIVERY,
    CountedConflict: CorrectionKind.CONFLICTS,
    Without: CorrectionKind.WITHOUT,
    WithoutSelected: CorrectionKind.WITHOUT,
    Shift: CorrectionKind.SHIFT,
    LocalTime: CorrectionKind.ZONE,
}
"""The kind of correction that records an assumption of each type."""

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

_FEW = 20
"""Events up to which their entities are looked up first, so that whole days are not read for them."""

_SORTED = 100_000
"""Lines that are sorted at a time, unless a day has more."""

_TOWARD = 2 * DAY
"""How far a zone may move a time, and more."""


class _Place(NamedTuple):
    """A delivery, and whether it is to count."""

    batch_id: str
    seq: int
    counts: bool


@dataclass(frozen=True, slots=True)
class Hits:
    """The deliveries that an assumption is about, as the table `hit`: their columns, and what a correction says of
    each: `time_ns`, when it happened (NULL: as before), and `counts` (NULL: as before).

    `events` counts the events that they are of. `window` is that of the times at which they happened so far. `counting`
    is the SQL of the rows of the table `events` without events that are out, which may be among them.
    """

    kind: CorrectionKind
    tables: Tables
    deliveries: int
    events: int
    window: Window
    counting: str = "events"

    def lines(self) -> Iterator[ListLine]:
        """Yield what the correction lists, by day of raw, entity, time, batch and seq."""
        if self.kind is CorrectionKind.WITHOUT_BATCH:
            return
        said = f""" || ',"time":"' || {_time_text("time_ns")} || '"'""" if self.kind.moves else ""
        if self.kind.chooses:
            said = """ || ',"counts":' || CAST(counts AS VARCHAR)"""
        # The engine writes the lines: with a million of them Python would take half as long as ingesting them.
        text = (
            """'{"event_id":"' || event_id || '","entity_id":' || CAST(to_json(entity_id) AS VARCHAR)"""
            """ || ',"batch_id":"' || batch_id || '","seq":' || CAST(seq AS VARCHAR)"""
            f""" || ',"event_time":"' || {_time_text("received_ns")} || '"'{said} || '}}'"""
        )
        for first, last in self._days():
            yield from self.tables.rows(
                f"SELECT day, entity_id, coalesce(time_ns, received_ns) AS time, encode({text})"
                f" FROM (SELECT *, {day_sql('received_ns')} AS day FROM hit)"
                f" WHERE day BETWEEN {first} AND {last} ORDER BY day, entity_id, time, batch_id, seq"
            )

    def _days(self) -> Iterator[tuple[int, int]]:
        """Yield the first and the last of some days, in order, so that few lines at a time are sorted."""
        counts = list(
            self.tables.rows(f"SELECT {day_sql('received_ns')} AS day, count(*) FROM hit GROUP BY 1 ORDER BY 1")
        )
        sums = accumulate(count for _, count in counts)
        for _, some in groupby(zip(counts, sums, strict=True), lambda one: one[1] // _SORTED):
            days = [day for (day, _), _ in some]
            yield days[0], days[-1]


def day_sql(nanoseconds: str) -> str:
    """Return the SQL of the day (since 1970-01-01) of a time."""
    return f"(({nanoseconds} - {_rest(nanoseconds, DAY)}) // {DAY})"


def _time_text(nanoseconds: str) -> str:
    """Return the SQL of a time as raw has it."""
    rest = _rest(nanoseconds, 1000)
    seconds = f"strftime(make_timestamp(({nanoseconds} - {rest}) // 1000), '%Y-%m-%dT%H:%M:%S.%f')"
    return f"{seconds} || lpad(CAST({rest} AS VARCHAR), 3, '0') || 'Z'"


def _rest(number: str, divisor: int) -> str:
    """Return the SQL of what is left of a number over the next lower multiple of the divisor, exactly: a quotient would
    be a DOUBLE."""
    return f"(({number} % {divisor} + {divisor}) % {divisor})"


@contextmanager
def hits(
    store: Store, engine: Engine, assumption: Assumption, until: int, *, unlike: Correction | None = None
) -> Iterator[Hits]:
    """Provide the deliveries that a resolved assumption is about, of all recorded until a moment (nanoseconds); with
    `unlike` only those that have come since that correction, and that no other one of the same statement lists.

    Raises NothingSelected where there are none, UsageError for one that cannot be recorded, a selection that cannot be
    evaluated, or times that cannot be known; NotHeld, Damaged and EngineError.
    """
    search = _Search(store, engine, until, corrected_until(store))
    if isinstance(assumption, Without | CountedDelivery | CountedConflict):
        found = search.of_events(assumption)
    elif isinstance(assumption, WithoutBatch | WithoutSelected | Shift | LocalTime):
        found = search.of_deliveries(assumption)
    else:
        raise not_recordable(assumption)
    kind = KINDS[type(assumption)]
    with found as tables:
        if unlike is not None:
            _leave_out(tables, store, unlike)
        if isinstance(assumption, Shift):
            by = assumption.by
            _move(tables, lambda times: shift_offsets(by, times.start, times.end - 1))
        elif isinstance(assumption, LocalTime):
            zone, fold = load_zone(assumption.zone), assumption.fold
            _move(tables, lambda times: zone_offsets(zone, fold, times))
        [[deliveries, events, first, last]] = tables.rows(
            "SELECT count(*), count(DISTINCT event_id), min(event_ns), max(event_ns) FROM hit"
        )
        if not deliveries:
            beside = f" beside those of correction {unlike.correction_id}" if unlike else ""
            raise NothingSelected(f"{assumption} selects no delivery{beside}", hint="pik events")
        counting = "events"
        if search.corrected.removing and (kind.chooses or kind.removes):
            add_listed(tables, store, "out", search.corrected.removing)
            counting = "(FROM events ANTI JOIN out USING (event_id)) AS events"
        yield Hits(kind, tables, deliveries, events, Window(first, last + 1), counting)


_INSTEAD = {
    With: ("events that are missing are ingested", "pik ingest FILE"),
    OtherDefinition: ("a definition is applied", "pik metrics apply FILE"),
    CountedDuplicates: ("duplicates count in a replay only", "pik replay --assume duplicates=counted"),
}


def not_recordable(assumption: Assumption) -> UsageError:
    """Return the error for an assumption that no correction records, with what to do in its place."""
    why, hint = _INSTEAD.get(type(assumption), ("it is only an assumption", "pik diff aggregates --assume"))
    return UsageError(f"--assume {assumption}: it cannot be recorded as a correction; {why}", hint=hint)


@dataclass(frozen=True, slots=True)
class _Search:
    """A search among all that was recorded until a moment, at the times that corrections give it, whether it counts or
    not: what takes an event out, or withdraws a batch, may be revoked later."""

    store: Store
    engine: Engine
    until: int
    corrected: Corrected

    @contextmanager
    def of_deliveries(self, assumption: WithoutBatch | WithoutSelected | Shift | LocalTime) -> Iterator[Tables]:
        """Provide the deliveries that a selection hits; where events are to be out, all deliveries of each."""
        criteria = Criteria(batch=assumption.batch_id) if isinstance(assumption, WithoutBatch) else assumption.criteria
        # Where deliveries move to is read as well, so that the plan knows what they meet there.
        by = assumption.by if isinstance(assumption, Shift) else 0
        reach = _TOWARD if isinstance(assumption, LocalTime) else 0
        start = max(criteria.window.start + min(by, -reach), MIN_INSTANT)
        end = min(criteria.window.end + max(by, reach), MAX_INSTANT + 1)
        entities, more = (criteria.entity,) if criteria.entity else (), ("verdict",) if criteria.batch else ()
        with_out = isinstance(assumption, WithoutSelected)
        with self._tables(Window(start, end), entities, more, with_out=with_out) as tables:
            condition = self._condition(tables, criteria)
            if isinstance(assumption, WithoutSelected):
                _keep(tables, f"event_id IN (SELECT event_id FROM events WHERE {condition})")
                self._add_elsewhere(tables)
            else:
                _keep(tables, condition)
            yield tables

    @contextmanager
    def of_events(self, assumption: Without | CountedDelivery | CountedConflict) -> Iterator[Tables]:
        """Provide all known deliveries of the events that the assumption names, or selects among those with
        conflicts."""
        places, window, entities = self._places(assumption)
        criteria = assumption.criteria if isinstance(assumption, CountedConflict) else Criteria()
        with self._tables(window, entities, with_out=True) as tables:
            tables.add("place", {"batch_id": "VARCHAR", "seq": "BIGINT", "chosen": "BOOLEAN"}, places)
            condition = "(batch_id, seq) IN (SELECT batch_id, seq FROM place)"
            if criteria != Criteria():
                met = f"SELECT event_id FROM events WHERE {condition} AND {self._condition(tables, criteria)}"
                condition += f" AND event_id IN ({met})"
            _keep(tables, condition)
            if not isinstance(assumption, Without):
                tables.keep("hit", "SELECT hit.* REPLACE (chosen AS counts) FROM hit JOIN place USING (batch_id, seq)")
            yield tables

    def _places(
        self, assumption: Without | CountedDelivery | CountedConflict
    ) -> tuple[Spool[_Place], Window, Sequence[str]]:
        """Return the known deliveries of the events, the window that they lie in, and of few their entities."""
        places, days, entities, number = Spool(_Place), set[int](), set[str](), 0
        withdrawn = self.corrected.withdrawn
        for deliveries in self._events(assumption):
            known = [one for one in deliveries if self._is_known(one)]
            left = [one for one in known if one.batch_id not in withdrawn]
            if not (known if isinstance(assumption, Without) else left):
                continue
            number, chosen = number + 1, _chosen(assumption, left)
            for one in known:
                places.add(_Place(one.batch_id, one.seq, one is chosen))
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

    def _events(self, assumption: Without | CountedDelivery | CountedConflict) -> Iterator[list[Location]]:
        """Yield all deliveries of each event, in recording order."""
        if isinstance(assumption, CountedConflict):
            yield from self.store.repeats.conflicting()
            return
        ids = assumption.event_ids if isinstance(assumption, Without) else (assumption.event_id,)
        for event_id in ids:
            yield sorted(self.store.index.deliveries(event_id), key=lambda one: one.order)

    def _is_known(self, one: Location) -> bool:
        return one.recorded_at <= self.until and one.kind != Verdict.UNRECORDED

    @contextmanager
    def _tables(
        self, window: Window, entities: Sequence[str], more: Sequence[str] = (), *, with_out: bool
    ) -> Iterator[Tables]:
        """Provide the deliveries; `with_out`, `events` has those that are out as well."""
        expect_held(self.store, window, entities)
        holding = [one for one in self.corrected.active if not (with_out and one.kind is CorrectionKind.WITHOUT)]
        overrides = Overrides(until=self.until, corrected=Corrected(self.store, holding))
        selection = Selection(self.store, window, entities, overrides)
        with (
            gather_deliveries(selection) as files,
            self.engine.tables(files, (*_TYPES, *more), window, entities) as tables,
        ):
            yield tables

    def _condition(self, tables: Tables, criteria: Criteria) -> str:
        """Return the criteria as a condition on a row of `deliveries` in their window. Raises UsageError."""
        bounds = f"event_ns >= {criteria.window.start} AND event_ns < {criteria.window.end}"
        if criteria.where is None:
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
        """Add the deliveries at other times of the events in `hit`: only those of an event with conflicts differ in
        theirs, and may lie outside of the window."""
        keyed = "FROM hit WHERE idempotency_key IS NOT NULL"
        hit = {event_id for [event_id] in tables.rows(f"SELECT DISTINCT event_id {keyed}")}
        places = set(tables.rows(f"SELECT batch_id, seq {keyed}"))
        if not hit:
            return
        rows = (
            _row(found)
            for deliveries in self.store.repeats.conflicting()
            if deliveries[0].event_id in hit
            for found in read_locations(
                self.store, [one for one in deliveries if self._is_known(one) and (one.batch_id, one.seq) not in places]
            )
        )
        tables.add("elsewhere", _TYPES, rows)
        tables.keep("hit", "FROM hit UNION ALL BY NAME FROM elsewhere")


def _chosen(assumption: Without | CountedDelivery | CountedConflict, known: Sequence[Location]) -> Location | None:
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


def _keep(tables: Tables, condition: str) -> None:
    tables.keep(
        "hit",
        f"SELECT {', '.join(_TYPES)}, NULL::BIGINT AS time_ns, NULL::BOOLEAN AS counts FROM deliveries"
        f" WHERE {condition}",
    )


def _leave_out(tables: Tables, store: Store, correction: Correction) -> None:
    """Leave out of `hit` the deliveries, or where none is moved the events, that a correction lists, or another one of
    the same statement that was recorded before it or holds; and where events are to be out those that are. Events whose
    last delivery is to count stay where one of their deliveries is not listed."""
    log = store.corrections.recorded()
    holding = active(log)
    alike = [
        one
        for one in log
        if (
            (one.kind, one.statement) == (correction.kind, correction.statement)
            and (log_order(one) <= log_order(correction) or one in holding)
        )
        or (one.kind is correction.kind is CorrectionKind.WITHOUT and one in holding)
    ]
    add_listed(tables, store, "before", alike)
    if correction.kind.moves:
        tables.keep("hit", "SELECT hit.* FROM hit ANTI JOIN before USING (batch_id, seq)")
    elif correction.statement.startswith(f"conflicts={Which.LAST}"):
        new = "SELECT event_id FROM hit ANTI JOIN before USING (batch_id, seq)"
        tables.keep("hit", f"SELECT hit.* FROM hit SEMI JOIN ({new}) USING (event_id)")
    else:
        tables.keep("hit", "SELECT hit.* FROM hit ANTI JOIN before USING (event_id)")


def add_listed(tables: Tables, store: Store, name: str, corrections: Sequence[Correction]) -> None:
    """Add a table of this name with what corrections list: number of the correction among them, event_id, batch_id,
    seq. Raises Damaged."""
    rows = (
        (number, one.event_id, one.batch_id, one.seq)
        for number, correction in enumerate(corrections)
        for listed in with_frames(store.raw, correction).lists
        for one in read_list(store.raw, listed)
    )
    columns = {"number": "INTEGER", "event_id": "VARCHAR", "batch_id": "VARCHAR", "seq": "BIGINT"}
    tables.add(name, columns, rows)


def _move(tables: Tables, offsets_of: Callable[[Window], Sequence[Offset]]) -> None:
    """Say of each row of `hit` when it happened, by how much times move. Raises UsageError, with how many they are, for
    times that cannot be known."""
    [[first, last]] = tables.rows("SELECT min(event_ns), max(event_ns) FROM hit")
    if first is None:
        return
    offsets = offsets_of(Window(first, last + 1))
    for offset in offsets:
        if offset.seconds is None:
            [[count]] = tables.rows(f"SELECT count(*) FROM hit WHERE {_within(offset)}")
            if count:
                raise UsageError(f"{count:,} of the selected times {offset.reason}")
    cases = " ".join(
        f"WHEN {_within(offset)} THEN event_ns + {offset.seconds * SECOND}"
        for offset in offsets
        if offset.seconds is not None
    )
    tables.keep("hit", f"SELECT * REPLACE (CASE {cases} END AS time_ns) FROM hit")


def _within(offset: Offset) -> str:
    bounds = [
        f"event_ns {operator} {parse_instant(f'{text}Z')}"
        for operator, text in ((">=", offset.start), ("<", offset.end))
        if text is not None
    ]
    return " AND ".join(bounds) or "true"

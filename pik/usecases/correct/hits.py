"""Which deliveries an assumption is about: what a correction that records it lists, and what its plan counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, groupby

from pik.errors import NothingSelected, UsageError, command
from pik.model.correction import Correction, CorrectionKind, active, log_order
from pik.model.instant import DAY, SECOND, parse_instant
from pik.model.scenario import (
    Assumption,
    CountedConflict,
    CountedDelivery,
    CountedDuplicates,
    LocalTime,
    OtherDefinition,
    Shift,
    Which,
    With,
    Without,
    WithoutBatch,
    WithoutCorrection,
    WithoutSelected,
    WithoutSuspects,
)
from pik.model.window import Window
from pik.model.zone import load_zone
from pik.ports.engine import Engine, Offset, Tables
from pik.ports.store import Store
from pik.rawlog.corrected import corrected_until
from pik.rawlog.correction_lists import ListLine
from pik.rawlog.selection import Selection
from pik.usecases.correct.search import Search
from pik.usecases.metrics.offsets import shift_offsets, zone_offsets
from pik.usecases.metrics.selections import no_suspects

EVENT = "CAST('0x' || event_id AS UHUGEINT)"
"""The SQL of an event_id as a number, of which many take less memory."""

KINDS: dict[type, CorrectionKind] = {
    WithoutBatch: CorrectionKind.WITHOUT_BATCH,
    CountedDelivery: CorrectionKind.DELIVERY,
    CountedConflict: CorrectionKind.CONFLICTS,
    Without: CorrectionKind.WITHOUT,
    WithoutSelected: CorrectionKind.WITHOUT,
    WithoutSuspects: CorrectionKind.WITHOUT,
    Shift: CorrectionKind.SHIFT,
    LocalTime: CorrectionKind.ZONE,
}
"""The kind of correction that records an assumption of each type."""

_SORTED = 100_000
"""Lines that are sorted at a time, unless a day has more."""


@dataclass(frozen=True, slots=True)
class Hits:
    """The deliveries that an assumption is about, as the table `hit`: their columns, and what a correction says of
    each: `time_ns`, when it happened (NULL: as before), and `counts` (NULL: as before).

    `events` counts the events that they are of. `window` is that of the times at which they happened so far. They were
    looked for in `selection`, where the index knew so many deliveries. `counting` is the SQL of the rows of the table
    `events` without events that are out, which may be among them.
    """

    kind: CorrectionKind
    tables: Tables
    deliveries: int
    events: int
    window: Window
    selection: Selection
    known: int
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
    store: Store,
    engine: Engine,
    assumption: Assumption,
    until: int,
    *,
    unlike: Correction | None = None,
    listed: Sequence[Correction] = (),
) -> Iterator[Hits]:
    """Provide the deliveries that a resolved assumption is about, of all recorded until a moment (nanoseconds); with
    `unlike` only those that have come since that correction, and that no other one of the same statement lists. The
    table `listed` has what others list.

    Raises NothingSelected where there are none, UsageError for one that cannot be recorded, a selection that cannot be
    evaluated, or times that cannot be known; NotHeld, Damaged and EngineError.
    """
    kind, corrected = KINDS.get(type(assumption)), corrected_until(store)
    before = _alike(store, unlike) if unlike is not None else []
    out = corrected.removing if kind is not None and (kind.chooses or kind.removes) else []
    listed = list({one.correction_id: one for one in (*before, *out, *listed)}.values())
    search = Search(store, engine, until, corrected, listed)
    if isinstance(assumption, Without | WithoutSuspects | CountedDelivery | CountedConflict):
        found = search.of_events(assumption)
    elif isinstance(assumption, WithoutBatch | WithoutSelected | Shift | LocalTime):
        found = search.of_deliveries(assumption)
    else:
        raise not_recordable(assumption)
    assert kind is not None
    with found as (selection, known, tables):
        hit = "FROM selected" if unlike is None else _without_listed(unlike, before)
        if isinstance(assumption, Shift):
            by = assumption.by
            hit = _moved(tables, hit, lambda times: shift_offsets(by, times.start, times.end - 1))
        elif isinstance(assumption, LocalTime):
            zone, fold = load_zone(assumption.zone), assumption.fold
            hit = _moved(tables, hit, lambda times: zone_offsets(zone, fold, times))
        tables.define("hit", hit)
        [[deliveries, events, first, last]] = tables.rows(
            f"SELECT count(*), count(DISTINCT {EVENT}), min(event_ns), max(event_ns) FROM hit"
        )
        if not deliveries:
            if unlike is None and isinstance(assumption, WithoutSuspects):
                raise no_suspects(assumption)
            if unlike is None:
                raise NothingSelected(f"{assumption} selects no delivery", hint="pik events")
            raise NothingSelected(
                f"{assumption} selects no delivery beside those of correction {unlike.correction_id}",
                hint=f"{command('corrections', 'show', unlike.correction_id)} tells what it is about",
            )
        counting = f"(FROM events ANTI JOIN ({listed_by(out)}) USING (event_id)) AS events" if out else "events"
        yield Hits(kind, tables, deliveries, events, Window(first, last + 1), selection, known, counting)


_INSTEAD = {
    With: ("events that are missing are ingested", "pik ingest FILE"),
    OtherDefinition: ("a definition is applied", "pik metrics apply FILE"),
    WithoutCorrection: ("a correction is revoked", "pik corrections revoke CORRECTION"),
    CountedDuplicates: ("duplicates count in a replay only", "pik replay --assume duplicates=counted"),
}


def not_recordable(assumption: Assumption) -> UsageError:
    """Return the error for an assumption that no correction records, with what to do in its place."""
    why, hint = _INSTEAD.get(type(assumption), ("it is only an assumption", "pik diff aggregates --assume"))
    return UsageError(f"--assume {assumption}: it cannot be recorded as a correction; {why}", hint=hint)


def _alike(store: Store, correction: Correction) -> list[Correction]:
    """Return the correction, and others of the same statement that were recorded before it or hold; where events are to
    be out all that take some out."""
    log = store.corrections.recorded()
    holding = active(log)
    return [
        one
        for one in log
        if (
            (one.kind, one.statement) == (correction.kind, correction.statement)
            and (log_order(one) <= log_order(correction) or one in holding)
        )
        or (one.kind is correction.kind is CorrectionKind.WITHOUT and one in holding)
    ]


def _without_listed(correction: Correction, before: Sequence[Correction]) -> str:
    """Return the SQL of the rows of `selected` that these corrections do not list: of one that moves, deliveries,
    otherwise events. Events whose last delivery is to count stay where one of their deliveries is not listed."""
    listed = f"({listed_by(before)})"
    if correction.kind.moves:
        return f"SELECT selected.* FROM selected ANTI JOIN {listed} USING (batch_id, seq)"
    if correction.statement.startswith(f"conflicts={Which.LAST}"):
        new = f"SELECT event_id FROM selected ANTI JOIN {listed} USING (batch_id, seq)"
        return f"SELECT selected.* FROM selected SEMI JOIN ({new}) USING (event_id)"
    return f"SELECT selected.* FROM selected ANTI JOIN {listed} USING (event_id)"


def listed_by(corrections: Sequence[Correction]) -> str:
    """Return the SQL of what these corrections list: `number` of the correction among them, event_id, batch_id, seq."""
    ids = ", ".join(f"'{one.correction_id}'" for one in corrections)
    number = f"CAST(list_position([{ids}], correction_id) - 1 AS INTEGER)"
    return f"SELECT {number} AS number, event_id, batch_id, seq FROM listed WHERE correction_id IN ({ids})"


def _moved(tables: Tables, rows: str, offsets_of: Callable[[Window], Sequence[Offset]]) -> str:
    """Return the SQL of these rows with the time at which each happened, given by how much times move. Raises
    UsageError, with how many they are, for times that cannot be known."""
    [[first, last]] = tables.rows(f"SELECT min(event_ns), max(event_ns) FROM ({rows})")
    if first is None:
        return rows
    offsets = offsets_of(Window(first, last + 1))
    for offset in offsets:
        if offset.seconds is None:
            [[count]] = tables.rows(f"SELECT count(*) FROM ({rows}) WHERE {_within(offset)}")
            if count:
                raise UsageError(f"{count:,} of the selected times {offset.reason}")
    cases = " ".join(
        f"WHEN {_within(offset)} THEN event_ns + {offset.seconds * SECOND}"
        for offset in offsets
        if offset.seconds is not None
    )
    return f"SELECT * REPLACE (CASE {cases} END AS time_ns) FROM ({rows})"


def _within(offset: Offset) -> str:
    bounds = [
        f"event_ns {operator} {parse_instant(f'{text}Z')}"
        for operator, text in ((">=", offset.start), ("<", offset.end))
        if text is not None
    ]
    return " AND ".join(bounds) or "true"

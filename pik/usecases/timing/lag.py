"""How long events took to arrive: percentiles, a histogram, and which groups are slow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from pik.model.calendar import UTC_DAYS
from pik.model.delivery import Filter
from pik.model.instant import DAY, HOUR, MINUTE, SECOND
from pik.model.share import Share
from pik.model.window import Window
from pik.ports.engine import Engine, Tables
from pik.ports.fleet import Fleet, Keyed
from pik.ports.store import Store
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.selection import NO_OVERRIDES, Overrides, Selection
from pik.runtime.storage import Sorter, scratch
from pik.usecases.availability import expect_held
from pik.usecases.metrics.computation import stretches
from pik.usecases.timing.grouping import Grouping

GROUPS = ("source", "type", "hour", "batch")
"""What lags are grouped by, beside paths into the payload."""

_MS = SECOND // 1000
_POSITIVE = (
    *(count * _MS for count in (1, 10, 100)),
    *(count * SECOND for count in (1, 2, 5, 10, 30)),
    *(count * MINUTE for count in (1, 2, 5, 10, 30)),
    *(count * HOUR for count in (1, 2, 6, 12)),
    *(count * DAY for count in (1, 2, 7, 30)),
)
_NEGATIVE = (-DAY, -HOUR, -MINUTE, -SECOND)
EDGES = (*_NEGATIVE, 0, *_POSITIVE)
"""Lags in nanoseconds at which a bar of the histogram ends and the next one begins."""


SHARE_BYTES = 64 << 20
"""Raw that a task of a fleet reads, about."""


class State(StrEnum):
    """How slow a group is: by its slowest event."""

    PASS = "pass"
    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Limits:
    """An event with a lag above `warn` or `error` (nanoseconds) is slow; None: no such limit."""

    warn: int | None = None
    error: int | None = None

    def state(self, slow: int, very_slow: int) -> State | None:
        """Return the state of a group with so many events above the limits; None without limits."""
        if self.warn is None and self.error is None:
            return None
        return State.ERROR if very_slow else State.WARN if slow else State.PASS


@dataclass(frozen=True, slots=True)
class Distribution:
    """The lags (nanoseconds) of some events. A percentile is the smallest lag that at least so many percent of the
    events do not exceed (nearest rank). `negative` counts those below 0, `at_ingest` those without a received_time;
    `warn` is above the limit for warnings only, `error` above that for errors."""

    group: str | None
    events: int
    least: int
    p50: int
    p90: int
    p95: int
    p99: int
    most: int
    negative: int
    at_ingest: int
    warn: int
    error: int
    state: State | None


@dataclass(frozen=True, slots=True)
class Bar:
    """Events with a lag from `start` (included) to `end` (excluded) in nanoseconds; None: no bound."""

    start: int | None
    end: int | None
    events: int


@dataclass(frozen=True, slots=True)
class LagReport:
    """The lags of the events that were asked for: of all of them (None: there are none), by group, and as a
    histogram from the first to the last bar with events."""

    total: Distribution | None
    groups: Iterable[Distribution]
    histogram: tuple[Bar, ...]


def measure_lag(
    store: Store,
    engine: Engine,
    wanted: Filter,
    grouping: Grouping,
    limits: Limits = Limits(),
    overrides: Overrides = NO_OVERRIDES,
    fleet: Fleet | None = None,
) -> LagReport:
    """Measure the lags of the events that the filter selects; a `fleet` does, if there is one. Groups with the most
    slow events come first, then those with the greatest 99th percentile; hours in their order. Raises NotHeld and
    Damaged."""
    expect_held(store, wanted.window, wanted.entities)
    selection = Selection(store, wanted.window, wanted.entities, overrides)
    if fleet is not None and fleet.slots > 1:
        return _measure_on(fleet, _Asked(selection, wanted, grouping, limits, fleet.slots))
    with (
        gather_deliveries(selection) as files,
        engine.tables(files, lag_columns(wanted, grouping), wanted.window, wanted.entities) as tables,
    ):
        return lag_in(tables, wanted, grouping, limits)


def lag_columns(wanted: Filter, grouping: Grouping) -> set[str]:
    """Return the columns that `lag_in` reads."""
    return {"lag_ns", "received_time", *filtered(wanted), *grouping.columns}


def lag_in(tables: Tables, wanted: Filter, grouping: Grouping, limits: Limits = Limits()) -> LagReport:
    """Measure the lags of the events in these tables, which are those of the filter's window and entities, with the
    `lag_columns`."""
    measured = _Measured(tables, *_lags(wanted, grouping))
    total = next(_distributions(measured, "NULL", limits), None)
    groups: Sorter[Distribution] = Sorter(_order(grouping))
    for one in _distributions(measured, "grp", limits):
        groups.add(one)
    return LagReport(total, groups, _histogram(dict(measured.rows(f"SELECT {_BAR}, count(*)"))))


def _lags(wanted: Filter, grouping: Grouping) -> tuple[str, list[object]]:
    """Return the SQL of the lag of each event, and its parameters."""
    condition, parameters = filter_sql(wanted)
    sql = f"SELECT {grouping.sql} AS grp, lag_ns AS lag, received_time IS NULL AS at_ingest FROM events"
    return f"({sql} WHERE {condition})", parameters


@dataclass(frozen=True, slots=True)
class _Measured:
    """The lags, as SQL that is read again for each question: that costs less than a table of them."""

    tables: Tables
    sql: str
    parameters: list[object]

    def rows(self, select: str) -> Iterator[tuple[Any, ...]]:
        """Yield what they come to by the first column."""
        return self.tables.rows(f"{select} FROM {self.sql} GROUP BY 1", self.parameters)


def filter_sql(wanted: Filter) -> tuple[str, list[object]]:
    """Return the condition on source and type, and its parameters; window and entities are the tables'."""
    given = filtered(wanted)
    return " AND ".join(f"{name} = ?" for name in given) or "true", list(given.values())


def filtered(wanted: Filter) -> dict[str, str]:
    """Return the columns on which there is a condition, and the text that each must have."""
    pairs = {"source": wanted.source, "event_type": wanted.event_type}
    return {name: text for name, text in pairs.items() if text is not None}


def _distributions(measured: _Measured, group: str, limits: Limits) -> Iterator[Distribution]:
    warn, error = _slow(limits)
    sql = (  # quantile_disc is the nearest rank
        f"SELECT {group}, count(*), min(lag), quantile_disc(lag, [0.5, 0.9, 0.95, 0.99]), max(lag),"
        f" count(*) FILTER (lag < 0), count(*) FILTER (at_ingest), count(*) FILTER ({warn}), count(*) FILTER ({error})"
    )
    return (_distribution(row, limits) for row in measured.rows(sql))


def _slow(limits: Limits) -> tuple[str, str]:
    """Return the conditions of lags above the limits: for warnings only, and for errors."""
    error = f"lag > {limits.error}" if limits.error is not None else "false"
    return f"lag > {limits.warn} AND NOT ({error})" if limits.warn is not None else "false", error


def _distribution(row: tuple[Any, ...], limits: Limits) -> Distribution:
    name, events, least, (p50, p90, p95, p99), most, negative, at_ingest, slow, very_slow = row
    return Distribution(
        *(name, events, least, p50, p90, p95, p99, most, negative, at_ingest, slow, very_slow),
        state=limits.state(slow, very_slow),
    )


def _order(grouping: Grouping) -> Callable[[Distribution], Any]:
    return _by_hour if grouping.by == "hour" else _slowest_first


def _slowest_first(one: Distribution) -> tuple[Any, ...]:
    return -one.error, -one.warn, -one.p99, one.group is None, one.group or ""


def _by_hour(one: Distribution) -> int:
    return int(one.group or 0)


_BAR = f"CASE {' '.join(f'WHEN lag < {edge} THEN {number}' for number, edge in enumerate(EDGES))} ELSE {len(EDGES)} END"
"""The SQL of the number of a lag's bar."""


def _histogram(counts: Mapping[int, int]) -> tuple[Bar, ...]:
    if not counts:
        return ()
    bounds = list(pairwise((None, *EDGES, None)))
    return tuple(Bar(*bounds[place], counts.get(place, 0)) for place in range(min(counts), max(counts) + 1))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the tasks of a fleet measure together. Groups are merged by one of so many `keys`, all events by that
    before."""

    selection: Selection
    wanted: Filter
    grouping: Grouping
    limits: Limits
    keys: int


class _Total(NamedTuple):
    distribution: Distribution
    bars: Mapping[int, int]


def _measure_on(fleet: Fleet, asked: _Asked) -> LagReport:
    """Measure lags with the tasks of a fleet: how many events have each lag, of a share of raw each, and of all of it
    by group. Events count as far as they are recorded now."""
    asked = replace(asked, selection=asked.selection.fixed())
    merge = partial(_merged, asked.limits)
    total, groups = None, Sorter[Distribution](_order(asked.grouping))
    for found in fleet.map_reduce(partial(_counted, asked), _shares(asked.selection), merge, asked.keys + 1):
        if isinstance(found, _Total):
            total = found
        else:
            groups.add(found)
    return LagReport(total and total.distribution, groups, _histogram(total.bars if total else {}))


def _shares(selection: Selection) -> Iterator[tuple[Window, Share]]:
    """Yield what tasks measure: days of the selection, and of days with more raw a share."""
    for window in stretches(selection, UTC_DAYS, size=SHARE_BYTES):
        within = selection.within(window)
        count = 1 + sum(within.size_of(one) for one in within.segments()) // (2 * SHARE_BYTES)
        yield from ((window, Share(number, count)) for number in range(count))


def _counted(asked: _Asked, _store: Store, engine: Engine, task: tuple[Window, Share]) -> Iterator[Keyed]:
    """Yield how many events of a share have each lag, by group; with the key 0 in all groups."""
    window, share = task
    selection = asked.selection.within(window).sharing(share)
    columns, (lags, parameters) = lag_columns(asked.wanted, asked.grouping), _lags(asked.wanted, asked.grouping)
    key = f"1 + hash(grp) % {asked.keys}"
    with scratch() as directory:
        path = directory / "lags"
        path.touch()
        with (
            gather_deliveries(selection) as files,
            engine.tables(files, columns, window, selection.entities, output=path) as tables,
        ):
            counts = "count(*) AS events, count(*) FILTER (at_ingest) AS at_ingest"
            tables.keep("counted", f"SELECT grp, lag, {counts} FROM {lags} GROUP BY grp, lag", parameters)
            found = [number for (number,) in tables.rows(f"SELECT DISTINCT {key} FROM counted")]
            for number in sorted(found):
                tables.write(
                    f"SELECT grp, lag, events, at_ingest FROM counted WHERE {key} = {number} ORDER BY ALL", path
                )
                yield number, path.read_bytes()
            if found:
                sums = "CAST(sum(events) AS BIGINT) AS events, CAST(sum(at_ingest) AS BIGINT) AS at_ingest"
                tables.write(
                    f"SELECT CAST(NULL AS VARCHAR) AS grp, lag, {sums} FROM counted GROUP BY lag ORDER BY lag", path
                )
                yield 0, path.read_bytes()


def _merged(
    limits: Limits, _store: Store, engine: Engine, key: int, values: Iterator[bytes]
) -> Iterator[Distribution | _Total]:
    """Yield what the counts of all shares come to, for each group of a key."""
    warn, error = _slow(limits)
    lags = "(SELECT grp, CAST(lag AS HUGEINT) AS lag, sum(events) AS events, sum(at_ingest) AS at_ingest FROM written"
    ranked = (
        "(SELECT *, sum(events) OVER (PARTITION BY grp ORDER BY lag) AS up_to,"
        f" sum(events) OVER (PARTITION BY grp) AS of_group FROM {lags} GROUP BY ALL))"
    )
    percentiles = ", ".join(f"min(lag) FILTER (up_to * 100 >= of_group * {percent})" for percent in (50, 90, 95, 99))
    sums = ", ".join(f"coalesce(sum(events) FILTER ({condition}), 0)" for condition in (warn, error))
    sql = (
        f"SELECT grp, sum(events), min(lag), [{percentiles}], max(lag),"
        f" coalesce(sum(events) FILTER (lag < 0), 0), sum(at_ingest), {sums} FROM {ranked} GROUP BY grp"
    )
    with scratch() as directory:
        files: list[Path] = []
        for number, value in enumerate(values):
            files.append(directory / f"{number}.parquet")
            files[-1].write_bytes(value)
        with engine.written(files) as tables:
            distributions = (_distribution(row, limits) for row in tables.rows(sql))
            if key:
                yield from distributions
                return
            [total] = distributions
            bars = tables.rows(f"SELECT {_BAR}, sum(events) FROM written GROUP BY 1")
            yield _Total(total, dict(bars))

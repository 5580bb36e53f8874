"""How long events took to arrive: percentiles, a histogram, and which groups are slow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

from pik.model.delivery import Filter
from pik.model.instant import DAY, HOUR, MINUTE, SECOND
from pik.ports.engine import Engine, Tables
from pik.ports.store import Store
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.selection import NO_OVERRIDES, Overrides, Selection
from pik.runtime.storage import Sorter
from pik.usecases.availability import expect_held
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
) -> LagReport:
    """Measure the lags of the events that the filter selects. Groups with the most slow events come first, then those
    with the greatest 99th percentile; hours in their order. Raises NotHeld and Damaged."""
    expect_held(store, wanted.window, wanted.entities)
    with (
        gather_deliveries(Selection(store, wanted.window, wanted.entities, overrides)) as files,
        engine.tables(files, lag_columns(wanted, grouping), wanted.window, wanted.entities) as tables,
    ):
        return lag_in(tables, wanted, grouping, limits)


def lag_columns(wanted: Filter, grouping: Grouping) -> set[str]:
    """Return the columns that `lag_in` reads."""
    return {"lag_ns", "received_time", *filtered(wanted), *grouping.columns}


def lag_in(tables: Tables, wanted: Filter, grouping: Grouping, limits: Limits = Limits()) -> LagReport:
    """Measure the lags of the events in these tables, which are those of the filter's window and entities, with the
    `lag_columns`."""
    condition, parameters = filter_sql(wanted)
    measured = _Measured(
        tables,
        f"(SELECT {grouping.sql} AS grp, lag_ns AS lag, received_time IS NULL AS at_ingest FROM events"
        f" WHERE {condition})",
        parameters,
    )
    total = next(_distributions(measured, "NULL", limits), None)
    groups: Sorter[Distribution] = Sorter(_by_hour if grouping.by == "hour" else _slowest_first)
    for one in _distributions(measured, "grp", limits):
        groups.add(one)
    return LagReport(total, groups, _histogram(measured))


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
    error = f"lag > {limits.error}" if limits.error is not None else "false"
    warn = f"lag > {limits.warn} AND NOT ({error})" if limits.warn is not None else "false"
    sql = (  # quantile_disc is the nearest rank
        f"SELECT {group}, count(*), min(lag), quantile_disc(lag, [0.5, 0.9, 0.95, 0.99]), max(lag),"
        f" count(*) FILTER (lag < 0), count(*) FILTER (at_ingest), count(*) FILTER ({warn}), count(*) FILTER ({error})"
    )
    for name, events, least, (p50, p90, p95, p99), most, negative, at_ingest, slow, very_slow in measured.rows(sql):
        state = limits.state(slow, very_slow)
        yield Distribution(
            *(name, events, least, p50, p90, p95, p99, most, negative, at_ingest, slow, very_slow), state=state
        )


def _slowest_first(one: Distribution) -> tuple[Any, ...]:
    return -one.error, -one.warn, -one.p99, one.group is None, one.group or ""


def _by_hour(one: Distribution) -> int:
    return int(one.group or 0)


def _histogram(measured: _Measured) -> tuple[Bar, ...]:
    cases = " ".join(f"WHEN lag < {edge} THEN {number}" for number, edge in enumerate(EDGES))
    counts = dict(measured.rows(f"SELECT CASE {cases} ELSE {len(EDGES)} END, count(*)"))
    if not counts:
        return ()
    bounds = list(pairwise((None, *EDGES, None)))
    return tuple(Bar(*bounds[place], counts.get(place, 0)) for place in range(min(counts), max(counts) + 1))

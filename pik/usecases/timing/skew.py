"""Clocks that are off: lags that are shifted by a constant from some moment on, and single negative ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby, pairwise
from operator import attrgetter
from statistics import median_low

from pik.model.criteria import Criteria
from pik.model.delivery import Filter
from pik.model.instant import HOUR, MINUTE, SECOND
from pik.model.scenario import Shift
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Engine, Tables
from pik.ports.store import Store
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.selection import NO_OVERRIDES, Overrides, Selection
from pik.runtime.storage import Sorter
from pik.usecases.availability import expect_held
from pik.usecases.timing.grouping import Grouping
from pik.usecases.timing.lag import filter_sql, filtered

LEAST = 30 * SECOND
SPREADS = 6
HOURS = 3
EVENTS = 20
ZONE_STEP = 30 * MINUTE
ZONE_TOLERANCE = 2 * MINUTE
_WIDEST_ZONE = 14 * HOUR
_RECENT = 24

RULE = (
    f"shift: the median lag of {HOURS} or more successive hours of arrival with {EVENTS} or more events differs from"
    f" that of the level nearest to 0 by more than the limit, which is {SPREADS} times the spread, and at least"
    f" {LEAST // SECOND}s. It begins within an hour, and is no more spread than {HOURS} times the spread (or"
    f" {LEAST // SECOND}s). Spread: the greater of the median of the hours' MAD and of the change from hour to hour. A"
    " group without another level is compared with 0: if its lag is negative, or near half an hour or a multiple of it"
    f" with a spread of {LEAST // SECOND}s at most. Zone: within {ZONE_TOLERANCE // MINUTE}m of a multiple of half an"
    f" hour, with a spread of {ZONE_TOLERANCE // MINUTE}m at most."
)
"""How shifts are found, with its figures."""


class Verdict(StrEnum):
    """What is known of a group: `unknown` where it has too few hours or events."""

    STEADY = "steady"
    SHIFTED = "shifted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CheckedGroup:
    """A group that was looked at: its events, the hours in which they arrived, its median lag (of the hours' medians),
    the spread, and by more than which `limit` a level is shifted (nanoseconds)."""

    group: str | None
    events: int
    hours: int
    lag: int
    spread: int
    limit: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class LagShift:
    """Events of a group whose lag is `shift` greater than `base`, the group's other level (None: it has no other, and
    is compared with 0): negative where their times are too late.

    They arrived from `since` until `until` (None: until the last arrival). `zone` is the multiple of half an hour that
    the shift is near, if any. `event_id` is the first one.
    """

    group: str | None
    shift: int
    base: int | None
    spread: int
    events: int
    since: int
    until: int | None
    zone: int | None
    event_id: str


@dataclass(frozen=True, slots=True)
class NegativeLags:
    """The other events of a group with a lag below 0, the least lag, and the event that has it."""

    group: str | None
    events: int
    least: int
    event_time: int
    event_id: str


@dataclass(frozen=True, slots=True)
class SkewReport:
    """The shifts, by group and time; the negative lags that are not among them; all groups that were looked at."""

    shifts: tuple[LagShift, ...]
    negative: Iterable[NegativeLags]
    groups: Iterable[CheckedGroup]


@dataclass(frozen=True, slots=True)
class _Hour:
    """The events of a group that arrived in an hour: their number, median lag and median absolute deviation."""

    number: int
    start: int
    events: int
    lag: int
    mad: int


@dataclass(frozen=True, slots=True)
class _Level:
    """Hours with about the same median lag."""

    hours: list[_Hour]

    @property
    def lag(self) -> int:
        return median_low(hour.lag for hour in self.hours)

    @property
    def recent(self) -> int:
        return median_low(hour.lag for hour in self.hours[-_RECENT:])

    @property
    def mad(self) -> int:
        return median_low(hour.mad for hour in self.hours)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A level that is shifted, from its first to its last hour; `ended`: the group has hours after it.
    `is_sharp`: the spread allows to tell half hours apart."""

    group: str | None
    level: _Level
    base: int | None
    spread: int
    ended: bool
    is_sharp: bool

    @property
    def is_shifted(self) -> str:
        """The SQL of whether an event has this lag, rather than the other level's."""
        return f"abs(lag - {self.level.lag}) < abs(lag - {self.base or 0})"


def find_skew(
    store: Store, engine: Engine, wanted: Filter, grouping: Grouping, overrides: Overrides = NO_OVERRIDES
) -> SkewReport:
    """Find constant shifts and negative lags of the events that the filter selects. Raises NotHeld and Damaged."""
    expect_held(store, wanted.window, wanted.entities)
    with (
        gather_deliveries(Selection(store, wanted.window, wanted.entities, overrides)) as files,
        engine.tables(files, skew_columns(wanted, grouping), wanted.window, wanted.entities) as tables,
    ):
        return skew_in(tables, wanted, grouping)


def skew_columns(wanted: Filter, grouping: Grouping) -> set[str]:
    """Return the columns that `skew_in` reads."""
    return {"event_id", "event_ns", "lag_ns", *filtered(wanted), *grouping.columns}


def skew_in(tables: Tables, wanted: Filter, grouping: Grouping) -> SkewReport:
    """Find shifts and negative lags in these tables, which are those of the filter's window and entities, with the
    `skew_columns`."""
    condition, parameters = filter_sql(wanted)
    measured = (
        f"(SELECT {grouping.sql} AS grp, lag_ns AS lag, event_ns, event_ns + lag_ns AS arrival, event_id,"
        f" arrival - ((arrival % {HOUR}) + {HOUR}) % {HOUR} AS hour FROM events WHERE {condition})"
    )
    groups: Sorter[CheckedGroup] = Sorter(lambda one: (one.group is None, one.group or ""))
    candidates: list[_Candidate] = []
    for group, hours in _hours(tables, measured, parameters):
        checked, shifted = _checked(group, hours)
        groups.add(checked)
        candidates += shifted
    # Only to locate shifts are all events kept: it takes as much memory as the tables themselves.
    tables.keep("measured", f"FROM {measured} WHERE {'true' if candidates else 'lag < 0'}", parameters)
    located = [(one, found) for one in candidates if (found := _located(tables, one)) is not None]
    return SkewReport(tuple(shift for _, shift in located), _negative(tables, located), groups)


def _hours(tables: Tables, measured: str, parameters: Sequence[object]) -> Iterator[tuple[str | None, list[_Hour]]]:
    """Yield the hours of each group of what is measured, which is SQL that is read again for each question."""
    tables.keep(
        "hours",
        f"SELECT grp, hour, count(*) AS n, quantile_disc(lag, 0.5) AS mid FROM {measured} GROUP BY 1, 2",
        parameters,
    )
    rows = tables.rows(
        "SELECT hours.grp, hours.hour, any_value(n), any_value(mid), quantile_disc(abs(lag - mid), 0.5)"
        f" FROM {measured} AS measured JOIN hours"
        " ON hours.grp IS NOT DISTINCT FROM measured.grp AND hours.hour = measured.hour GROUP BY 1, 2 ORDER BY 1, 2",
        parameters,
    )
    for group, of_group in groupby(rows, key=lambda row: row[0]):
        yield group, [_Hour(number, *row[1:]) for number, row in enumerate(of_group)]


def _checked(group: str | None, hours: list[_Hour]) -> tuple[CheckedGroup, list[_Candidate]]:
    changes = [abs(one.lag - other.lag) for one, other in pairwise(hours)]
    spread = max(median_low(hour.mad for hour in hours), median_low(changes) if changes else 0)
    limit = max(LEAST, SPREADS * spread)
    checked = CheckedGroup(
        group,
        sum(hour.events for hour in hours),
        len(hours),
        median_low(hour.lag for hour in hours),
        spread,
        limit,
        Verdict.STEADY,
    )
    found = _levels(hours, limit)
    if not found:
        return replace(checked, verdict=Verdict.UNKNOWN), []
    is_sharp = spread <= ZONE_TOLERANCE
    base = min(found, key=lambda level: abs(level.lag))
    shifted = [
        _Candidate(group, level, base.lag, level.mad, level.hours[-1] is not hours[-1], is_sharp)
        for before, level in zip((None, *found), found, strict=False)
        if abs(level.lag - base.lag) > limit
        and level.mad <= max(HOURS * spread, LEAST)
        and (before is None or level.hours[0].number - before.hours[-1].number <= 2)
    ]
    is_odd = base.lag < -limit or (zone_of(base.lag) is not None and spread <= LEAST)
    if is_odd and base.mad <= max(HOURS * spread, LEAST):
        shifted.append(_Candidate(group, base, None, base.mad, base.hours[-1] is not hours[-1], is_sharp))
    return (replace(checked, verdict=Verdict.SHIFTED) if shifted else checked), shifted


def _levels(hours: Sequence[_Hour], limit: int) -> list[_Level]:
    """Cut the hours into levels. Hours that belong to none, since too few agree, are left out."""
    found: list[_Level] = []
    pending: list[_Hour] = []
    for hour in hours:
        if found and abs(hour.lag - found[-1].recent) <= limit:
            found[-1].hours.append(hour)
            pending = []
            continue
        pending = [one for one in pending if abs(one.lag - hour.lag) <= limit] + [hour]
        if len(pending) >= HOURS and sum(one.events for one in pending) >= EVENTS:
            found.append(_Level(pending))
            pending = []
    return found


def zone_of(shift: int) -> int | None:
    """Return the multiple of half an hour that a shift is near, None if there is none between 0 and 14 hours."""
    steps = (abs(shift) + ZONE_STEP // 2) // ZONE_STEP
    near = steps * ZONE_STEP
    if not steps or near > _WIDEST_ZONE or abs(abs(shift) - near) > ZONE_TOLERANCE:
        return None
    return near if shift > 0 else -near


def _located(tables: Tables, one: _Candidate) -> LagShift | None:
    """Return the shift with the first and the last arrival that have it: where the fewest events are on the wrong
    side."""
    first, last = one.level.hours[0].start, one.level.hours[-1].start + HOUR

    def split(start: int, end: int, order: str) -> tuple[int, str] | None:
        sql = (
            "SELECT arrival, event_id FROM (SELECT *, coalesce(sum(CASE WHEN shifted THEN 1 ELSE -1 END) OVER"
            f" (ORDER BY arrival {order}, event_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before"
            f" FROM (SELECT arrival, event_id, {one.is_shifted} AS shifted FROM measured"
            " WHERE grp IS NOT DISTINCT FROM ? AND arrival >= ? AND arrival < ?))"
            f" WHERE shifted ORDER BY before, arrival {order}, event_id LIMIT 1"
        )
        return next(tables.rows(sql, [one.group, start, end]), None)

    begin = split(first - HOUR, first + HOUR, "ASC")
    end = split(last - HOUR, last + HOUR, "DESC")
    if begin is None or end is None:
        return None
    sql = (
        "SELECT count(*) FROM measured WHERE grp IS NOT DISTINCT FROM ? AND arrival BETWEEN ? AND ?"
        f" AND {one.is_shifted}"
    )
    [(events,)] = tables.rows(sql, [one.group, begin[0], end[0]])
    shift = one.level.lag - (one.base or 0)
    until = end[0] if one.ended else None
    zone = zone_of(shift) if one.is_sharp else None
    return LagShift(one.group, shift, one.base, one.spread, events, begin[0], until, zone, begin[1])


def _negative(tables: Tables, shifts: Iterable[tuple[_Candidate, LagShift]]) -> Iterable[NegativeLags]:
    """Return the negative lags that no shift explains, by group, the least first."""
    conditions, parameters = ["lag < 0"], list[object]()
    for one, shift in shifts:
        until = "true" if shift.until is None else f"arrival <= {shift.until}"
        conditions.append(
            f"NOT (grp IS NOT DISTINCT FROM ? AND arrival >= {shift.since} AND {until} AND {one.is_shifted})"
        )
        parameters.append(shift.group)
    found: Sorter[NegativeLags] = Sorter(attrgetter("least"))
    for group, events, least in tables.rows(
        "SELECT grp, count(*), min((lag, event_ns, event_id)) FROM measured"
        f" WHERE {' AND '.join(conditions)} GROUP BY 1",
        parameters,
    ):
        found.add(NegativeLags(group, events, *least))
    return found


def righting(found: LagShift, wanted: Filter, grouping: Grouping) -> Shift | None:
    """Return the assumption that gives the events of a shift, which was found where the filter looked, their right
    times; None for one of less than a second, or of events that have no group."""
    seconds = round((found.zone or found.shift) / SECOND)
    if found.group is None or not seconds:
        return None
    by, where = grouping.by, None
    if by not in ("source", "type", "batch"):
        quoted = found.group.replace("'", "''")
        where = f"{grouping.sql} = '{quoted}'"
    criteria = Criteria(
        source=found.group if by == "source" else wanted.source,
        event_type=found.group if by == "type" else wanted.event_type,
        entity=wanted.entities[0] if wanted.entities else None,
        batch=found.group if by == "batch" else None,
        window=wanted.window,
        received=Window(found.since, ALL_TIME.end if found.until is None else found.until + 1),
        where=where,
    )
    return Shift(seconds * SECOND, criteria)

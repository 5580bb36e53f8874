"""What did not come: silences, drops and spikes of the volume, and missing numbers of a sequence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from itertools import groupby
from statistics import median
from time import time_ns
from typing import Any

from pik.errors import NotHeld, NothingSelected
from pik.model.delivery import Filter
from pik.model.instant import DAY, HOUR, MAX_INSTANT, MIN_INSTANT, Window, format_duration
from pik.ports.engine import Engine, Tables
from pik.ports.store import Store
from pik.rawlog.selection import Selection
from pik.runtime.storage import Sorter
from pik.usecases.availability import expect_held
from pik.usecases.inspect.events import nothing_selected
from pik.usecases.inspect.grouping import HOUR_OF_EVENT, Grouping
from pik.usecases.inspect.lag import filter_sql
from pik.usecases.inspect.sequence import MARGIN, MissingNumbers, NumberSequence, missing_numbers

GROUPS = ("source", "type", "entity")
"""What is looked at separately, beside paths into the payload."""

HISTORY = 28 * DAY
LEAST_DAYS = 7
SILENT = 20
LEAST_DISPERSION = Decimal("0.2")
LEAST_HOURS = 100
DROP = 5
SPIKE = 6
FACTOR = 2
LEAST_SPIKE = 12
_MAD = 1.4826  # standard deviations of normal values in a MAD
_CHANGE = 1.0484  # and in the median change between two of them
_DAY_HOURS = 24
_WEEK_DAYS = 7


@dataclass(frozen=True, slots=True)
class Silence:
    """A time without any event of the group. `expected` is how many events were, as learned; None: by --every.
    `ended` is False where it lasts until the end of what was looked at."""

    group: str | None
    start: int
    end: int
    expected: Decimal | None
    ended: bool


@dataclass(frozen=True, slots=True)
class VolumeChange:
    """Successive hours, or a day, with far fewer events (`drop`) or far more (`spike`) than `expected`."""

    kind: str
    group: str | None
    start: int
    end: int
    events: int
    expected: Decimal


@dataclass(frozen=True, slots=True)
class LearnedGroup:
    """A group that was looked at: its events, and from when on there are enough earlier days to learn from; None: it
    cannot be known what is usual."""

    group: str | None
    events: int
    first: int
    last: int
    learned_from: int | None


@dataclass(slots=True)
class GapsReport:
    """What was found in `scope`; `history` is what was read to learn from (None: nothing was learned)."""

    scope: Window
    history: Window | None
    rule: str
    silences: Sorter[Silence]
    changes: Sorter[VolumeChange]
    groups: Sorter[LearnedGroup]
    missing_ranges: Iterable[MissingNumbers] = ()
    sequences: tuple[NumberSequence, ...] = ()
    unknown: int = 0
    found: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: events that the filter selects, by group; silences longer than `every` (None: learned); drops and
    spikes against the `history` before the window (None: not asked); the SQL of a sequence's number, if any."""

    wanted: Filter
    grouping: Grouping
    every: int | None = None
    history: int | None = HISTORY
    sequence: str | None = None


def find_gaps(store: Store, engine: Engine, question: Question) -> GapsReport:
    """Find silences, drops, spikes and missing numbers. Raises NothingSelected where there are no events, NotHeld and
    Damaged."""
    wanted = question.wanted
    expect_held(store, wanted.window, wanted.entities)
    learned = _learned_window(store, question)
    read = learned or wanted.window
    if question.sequence:
        read = Window(max(read.start - MARGIN, MIN_INSTANT), min(read.end + MARGIN, MAX_INSTANT + 1))
    columns = {"event_ns", "source", "event_type", *question.grouping.columns}
    columns |= {"payload"} if question.sequence else set()
    with (
        Selection(store, read, wanted.entities).gather_deliveries() as files,
        engine.tables(files, columns, read, wanted.entities) as tables,
    ):
        condition, parameters = filter_sql(wanted)
        tables.keep(
            "measured",
            f"SELECT {question.grouping.sql} AS grp, event_ns AS instant, {HOUR_OF_EVENT} AS hour"
            f" {f', {question.sequence} AS number' if question.sequence else ''} FROM events WHERE {condition}",
            parameters,
        )
        scope = _scope(tables, wanted, (learned or wanted.window).start)
        if scope is None:
            return _empty(store, question)
        report = GapsReport(scope, learned, _rule(question), *_sorters())
        search = _Search(question, report)
        for group, hours, gaps in _groups(tables, question, learned or wanted.window, scope):
            search.look_at(group, hours, gaps)
        if question.sequence:
            report.missing_ranges, report.sequences = missing_numbers(tables, wanted.window)
            report.found += sum(1 for one in report.sequences if one.missing)
        return report


def _learned_window(store: Store, question: Question) -> Window | None:
    """Return the window with the history before it, as far as the store holds it."""
    window = question.wanted.window
    if question.history is None:
        return None
    start = max(window.start - question.history, MIN_INSTANT) if window.start > MIN_INSTANT else window.start
    with suppress(NotHeld):
        expect_held(store, Window(start, window.end), question.wanted.entities)
        return Window(start, window.end)
    return window


def _scope(tables: Tables, wanted: Filter, start: int) -> Window | None:
    """Return the time to look at: the window, without an end until the last event, without a beginning from the first
    one, and never the future; None without events."""
    window = wanted.window
    end = min(window.end, MAX_INSTANT)
    [(first, last)] = tables.rows(
        f"SELECT min(instant), max(instant) FROM measured WHERE instant >= {start} AND instant < {end}"
    )
    if first is None:
        return None
    begin = window.start if window.start > MIN_INSTANT else first
    until = min(window.end, time_ns()) if window.end <= MAX_INSTANT else last + 1
    return Window(begin, max(until, begin + 1))


def _empty(store: Store, question: Question) -> GapsReport:
    """Return the silence of a group that was named and has no event at all. Raises NothingSelected without one."""
    wanted, every = question.wanted, question.every
    names = {"source": wanted.source, "type": wanted.event_type, "entity": next(iter(wanted.entities), None)}
    name, window = names.get(question.grouping.by), wanted.window
    end = min(window.end, time_ns())
    if name is None or every is None or window.start == MIN_INSTANT or end - window.start <= every:
        raise _nothing(store, wanted)
    report = GapsReport(Window(window.start, end), None, _rule(question), *_sorters(), found=1)
    report.silences.add(Silence(name, window.start, end, None, ended=False))
    return report


def _nothing(store: Store, wanted: Filter) -> NothingSelected:
    if wanted.source is None and wanted.event_type is None:
        return nothing_selected(store, "nothing to look at", wanted.window, wanted.entities)
    named = " and ".join(
        f"{kind} {name!r}" for kind, name in (("source", wanted.source), ("type", wanted.event_type)) if name
    )
    return NothingSelected(
        f"nothing to look at: no event of {named} {wanted.window.within}", hint="pik events --limit 20"
    )


def _sorters() -> tuple[Sorter[Silence], Sorter[VolumeChange], Sorter[LearnedGroup]]:
    def by_time(one: Silence | VolumeChange) -> tuple[Any, ...]:
        return one.start, one.group is None, one.group or ""

    return Sorter(by_time), Sorter(by_time), Sorter(lambda one: (one.group is None, one.group or ""))


def _rule(question: Question) -> str:
    parts = []
    if question.every is not None:
        parts.append(f"silence: longer than {format_duration(question.every)} without an event")
    if question.history is not None:
        learned = (
            f"usual for an hour: the median of the same hour on each of the up to {HISTORY // DAY} earlier days, and of"
            f" the same weekday among them; at least {LEAST_DAYS} days are needed. Of the two, what makes a finding"
            " less likely counts"
        )
        parts.append(learned)
        if question.every is None:
            parts.append(
                f"silence: {SILENT} times the dispersion (variance / mean, by MAD; at least {LEAST_DISPERSION}, learned"
                f" from fewer than {LEAST_HOURS} hours at least 1) events were usual in it"
            )
        parts.append(
            f"drop, spike: an hour or a day is at most half or at least twice the usual, and off by more than {DROP}"
            f" (drop) or {SPIKE} (spike, {LEAST_SPIKE} events or more) deviations: the greater of √(usual + 1) and of"
            f" the spread, which is {_MAD} MAD of the days, from {2 * _WEEK_DAYS} days on at most {_CHANGE} times the"
            " median change from week to week"
        )
    else:
        parts.append("drops and spikes are not looked for (--history 28d does)")
    if question.sequence:
        parts.append(
            "missing numbers: between the least and the greatest number of a group in the window; events up to"
            f" {format_duration(MARGIN)} around it count as present"
        )
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


@dataclass(frozen=True, slots=True)
class _Hour:
    start: int
    events: int
    first: int
    last: int


def _groups(
    tables: Tables, question: Question, read: Window, scope: Window
) -> Iterator[tuple[str | None, list[_Hour], list[tuple[int, int]]]]:
    """Yield each group with its hours, and the gaps between its events that may be silences."""
    within = f"instant >= {read.start} AND instant < {min(read.end, MAX_INSTANT)}"
    tables.keep(
        "hours",
        "SELECT grp, hour, count(*) AS n, min(instant) AS first, max(instant) AS last FROM measured"
        f" WHERE {within} GROUP BY 1, 2",
    )
    if question.every is not None:
        long = f"instant - before > {question.every}"
    else:  # fewer events can never have been usual in it
        long = f"(instant - before) * most >= {math.ceil(SILENT * LEAST_DISPERSION)} * {HOUR}"
    rows = tables.rows(
        "SELECT grp, 0 AS kind, hour, n, first, last FROM hours UNION ALL"
        " SELECT gap.grp, 1, before, instant, NULL, NULL FROM"
        " (SELECT grp, instant, lag(instant) OVER (PARTITION BY grp ORDER BY instant) AS before FROM measured"
        f" WHERE {within}) AS gap"
        " JOIN (SELECT grp, max(n)::HUGEINT AS most FROM hours GROUP BY 1) AS peak"
        " ON peak.grp IS NOT DISTINCT FROM gap.grp"
        f" WHERE instant > {scope.start} AND {long} ORDER BY 1 NULLS LAST, 2, 3"
    )
    for group, of_group in groupby(rows, key=lambda row: row[0]):
        hours: list[_Hour] = []
        gaps: list[tuple[int, int]] = []
        for _, is_gap, *values in of_group:
            if is_gap:
                gaps.append((values[0], values[1]))
            else:
                hours.append(_Hour(*values))
        yield group, hours, gaps


@dataclass(frozen=True, slots=True)
class _Search:
    """Looks at one group after the other."""

    question: Question
    report: GapsReport

    def look_at(self, group: str | None, hours: list[_Hour], gaps: list[tuple[int, int]]) -> None:
        """Add what is found in a group."""
        scope, report, every = self.report.scope, self.report, self.question.every
        last, first = hours[-1].last, hours[0].first
        usual = Usual.of_hours(hours)
        inside = sum(hour.events for hour in hours if hour.start + HOUR > scope.start)
        learned_from = usual.learned_from if self.question.history is not None else None
        if learned_from is not None and learned_from >= scope.end:
            learned_from = None
        report.unknown += self.question.history is not None and learned_from is None
        report.groups.add(LearnedGroup(group, inside, first, last, learned_from))
        if first > scope.start > MIN_INSTANT and self.question.wanted.window.start > MIN_INSTANT:
            gaps = [(scope.start, first), *gaps]
        if last < scope.end:
            gaps = [*gaps, (last, scope.end)]
        silences: list[Silence] = []
        for start, end in gaps:
            expected = None if every is not None else usual.within(start, end)
            limit = every if every is not None else 0
            is_silence = end - start > limit if expected is None else usual.is_silence(expected)
            if is_silence:
                silences.append(Silence(group, start, end, expected, ended=end < scope.end))
        changes = [] if learned_from is None else list(self._changes(group, usual, silences))
        for silence in silences:
            report.silences.add(silence)
        for change in changes:
            report.changes.add(change)
        report.found += len(silences) + len(changes)

    def _changes(self, group: str | None, usual: Usual, silences: Sequence[Silence]) -> Iterator[VolumeChange]:
        """Yield drops and spikes that no silence explains: of successive hours, and of days without such hours."""
        scope = self.report.scope
        found: list[VolumeChange] = []
        for unit, volumes in ((HOUR, usual), (DAY, usual.days)):
            of_unit: list[VolumeChange] = []
            for place in volumes.candidates(-(-scope.start // unit), scope.end // unit):
                kind, expected = volumes.change(place)
                if kind is None:
                    continue
                start, end = place * unit, (place + 1) * unit
                known: list[Silence | VolumeChange] = [*silences, *found]
                if any(one.start < end and one.end > start for one in known):
                    continue
                before = of_unit[-1] if of_unit else None
                events = volumes.counts.get(place, 0)
                if before is not None and before.end == start and before.kind == kind:
                    start, events, expected = before.start, before.events + events, before.expected + expected
                    of_unit.pop()
                of_unit.append(VolumeChange(kind, group, start, end, events, expected))
            found += of_unit
        yield from found


@dataclass
class Usual:
    """What is usual for a group: its counts by number of the hour (or day) since 1970, from the first whole one on, and
    how many of them make a day and a week."""

    counts: dict[int, int]
    first: int
    per_day: int
    per_week: int
    unit: int
    _memory: dict[int, tuple[Decimal, Decimal, float] | None] = field(default_factory=dict)

    @classmethod
    def of_hours(cls, hours: Sequence[_Hour]) -> Usual:
        """Return what is usual for each hour."""
        counts = {hour.start // HOUR: hour.events for hour in hours}
        return cls(counts, min(counts) + 1, _DAY_HOURS, _DAY_HOURS * _WEEK_DAYS, HOUR)

    @cached_property
    def days(self) -> Usual:
        """What is usual for each day."""
        counts: dict[int, int] = {}
        for hour, events in self.counts.items():
            counts[hour // _DAY_HOURS] = counts.get(hour // _DAY_HOURS, 0) + events
        return Usual(counts, min(counts) + 1, 1, _WEEK_DAYS, DAY)

    @property
    def learned_from(self) -> int:
        """The first instant with enough earlier days."""
        return (self.first + LEAST_DAYS * self.per_day) * self.unit

    def candidates(self, start: int, end: int) -> Iterable[int]:
        """Return the places that may be drops or spikes, in their order. Most groups are too small for drops."""
        if max(self.counts.values()) > DROP**2:
            return range(start, end)
        return sorted(place for place, count in self.counts.items() if count >= LEAST_SPIKE and start <= place < end)

    @cached_property
    def busy(self) -> frozenset[int]:
        """The hours of the day in which any events may be usual: of the fewest days, more than half have some."""
        days = Counter(place % self.per_day for place in self.counts)
        return frozenset(hour for hour, count in days.items() if count > LEAST_DAYS // 2)

    def at(self, place: int) -> tuple[Decimal, Decimal, float] | None:
        """Return the lower and the higher of the medians of earlier days and weekdays, and the deviation of the days;
        None where there are too few days."""
        if place not in self._memory:
            self._memory[place] = self._at(place)
        return self._memory[place]

    def _at(self, place: int) -> tuple[Decimal, Decimal, float] | None:
        days = min(HISTORY // DAY, (place - self.first) // self.per_day)
        if days < LEAST_DAYS:
            return None
        get = self.counts.get
        of_days = [get(place - self.per_day * day, 0) for day in range(1, days + 1)]
        of_weekday = of_days[_WEEK_DAYS - 1 :: _WEEK_DAYS]
        middle = median(of_days)
        medians = sorted((middle, median(of_weekday)))
        deviation = _MAD * median(abs(one - middle) for one in of_days)
        if len(of_days) >= 2 * _WEEK_DAYS:  # weekends are usual
            changes = (abs(one - before) for one, before in zip(of_days, of_days[_WEEK_DAYS:], strict=False))
            deviation = min(deviation, _CHANGE * median(changes))
        return Decimal(medians[0]), Decimal(medians[1]), deviation

    def change(self, place: int) -> tuple[str | None, Decimal]:
        """Return whether the count is a drop or a spike, and what is usual."""
        count = self.counts.get(place, 0)
        nothing = None, Decimal(0)
        found = self.at(place)
        if found is None:
            return nothing
        low, high, deviation = found
        if count * FACTOR <= low and float(low) - count > DROP * max(deviation, math.sqrt(low + 1)):
            return "drop", low
        is_more = count >= LEAST_SPIKE and count >= FACTOR * high
        if is_more and count - float(high) > SPIKE * max(deviation, math.sqrt(high + 1)):
            return "spike", high
        return nothing

    def within(self, start: int, end: int) -> Decimal:
        """Return how many events were usual in a time, as far as that is known; to two digits after the point."""
        total = Decimal(0)
        if not self.busy:
            return total
        place = max(start // HOUR, self.first + LEAST_DAYS * self.per_day)
        while place * HOUR < end:
            found = self.at(place) if place % self.per_day in self.busy else None
            if found is not None:
                overlap = min(end, (place + 1) * HOUR) - max(start, place * HOUR)
                total += found[0] * overlap / HOUR
            place += 1
        return total.quantize(Decimal("0.01"))

    def is_silence(self, expected: Decimal) -> bool:
        """Return whether no event at all is unusual where so many were expected."""
        if expected < SILENT * LEAST_DISPERSION:
            return False
        return float(expected) >= SILENT * max(self.dispersion, float(LEAST_DISPERSION))

    @cached_property
    def dispersion(self) -> float:
        """The variance of the hours' counts divided by their mean, by medians; about 1 for independent events."""
        ratios = []
        for place in range(self.first + LEAST_DAYS * self.per_day, max(self.counts)):
            found = self.at(place)
            if found is not None and found[0] >= FACTOR:
                middle = float(found[0] + found[1]) / 2
                ratios.append(abs(self.counts.get(place, 0) - middle) / math.sqrt(middle))
        learned = (_MAD * median(ratios)) ** 2 if ratios else 1.0
        return learned if len(ratios) >= LEAST_HOURS else max(learned, 1.0)

"""What did not come: silences, drops and spikes of the volume, and missing numbers of a sequence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from time import time_ns
from typing import Any

from pik.errors import NotHeld, NothingSelected, command
from pik.model.delivery import Filter
from pik.model.duration import format_duration
from pik.model.instant import DAY, HOUR, MAX_INSTANT, MIN_INSTANT
from pik.model.window import Window
from pik.ports.engine import Engine, Tables
from pik.ports.store import Store
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.selection import NO_OVERRIDES, Overrides, Selection
from pik.runtime.storage import Sorter
from pik.usecases.availability import expect_held
from pik.usecases.inspect.events import nothing_selected
from pik.usecases.inspect.near_names import meant_names
from pik.usecases.timing.grouping import HOUR_OF_EVENT, Grouping
from pik.usecases.timing.lag import filter_sql, filtered
from pik.usecases.timing.sequence import MARGIN, MissingNumbers, NumberSequence, missing_numbers
from pik.usecases.timing.usual import (
    CHANGE,
    DROP,
    HISTORY,
    LEAST_DAYS,
    LEAST_DISPERSION,
    LEAST_HOURS,
    LEAST_SILENCE,
    LEAST_SPIKE,
    MAD,
    SILENT,
    SPIKE,
    WEEK_DAYS,
    Usual,
)

_BUSY = 64

GROUPS = ("source", "type", "entity")
"""What is looked at separately, beside paths into the payload."""


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


STRETCHES = 24
"""Stretches of whole hours that what was looked at is divided into, at most."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """How many events there are from `start` to where the next stretch starts."""

    start: int
    events: int


@dataclass(frozen=True, slots=True)
class LearnedGroup:
    """A group that was looked at: its events, and from when on there are enough earlier days to learn from; None: it
    cannot be known what is usual. `volume` is how the events are spread: over stretches of one length each."""

    group: str | None
    events: int
    first: int
    last: int
    learned_from: int | None
    volume: tuple[Stretch, ...]


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


def find_gaps(store: Store, engine: Engine, question: Question, overrides: Overrides = NO_OVERRIDES) -> GapsReport:
    """Find silences, drops, spikes and missing numbers, of what counts under the overrides. Raises NothingSelected
    where there are no events, NotHeld and Damaged."""
    wanted = question.wanted
    expect_held(store, wanted.window, wanted.entities)
    learned = learned_window(store, question)
    read = learned or wanted.window
    if question.sequence:
        read = Window(max(read.start - MARGIN, MIN_INSTANT), min(read.end + MARGIN, MAX_INSTANT + 1))
    with (
        gather_deliveries(Selection(store, read, wanted.entities, overrides)) as files,
        engine.tables(files, gaps_columns(question), read, wanted.entities) as tables,
    ):
        return gaps_in(store, tables, question, learned)


def gaps_columns(question: Question) -> set[str]:
    """Return the columns that `gaps_in` reads."""
    columns = {"event_ns", *filtered(question.wanted), *question.grouping.columns}
    return columns | {"payload"} if question.sequence else columns


def gaps_in(store: Store, tables: Tables, question: Question, learned: Window | None) -> GapsReport:
    """Find them in these tables, of the filter's entities, with the `gaps_columns`, for the window that is `learned`
    from (None: for the filter's; for a sequence the MARGIN around it as well). Raises NothingSelected."""
    wanted = question.wanted
    condition, parameters = filter_sql(wanted)
    tables.keep(
        "measured",
        f"SELECT {question.grouping.sql} AS grp, event_ns AS instant, {HOUR_OF_EVENT} AS hour"
        f" {f', {question.sequence} AS number' if question.sequence else ''} FROM events WHERE {condition}",
        parameters,
    )
    scope = _scope(tables, wanted.window, (learned or wanted.window).start)
    if scope is None:
        return _empty(store, question)
    report = GapsReport(scope, learned, _rule(question), *_sorters())
    search = _Search(question, report)
    for group, hours, gaps in _groups(tables, question, learned or wanted.window, scope):
        search.look_at(group, hours, gaps)
    if question.sequence:
        report.missing_ranges, report.sequences = missing_numbers(tables, wanted.window)
        if report.sequences and all(one.least is None for one in report.sequences):
            raise NothingSelected(
                "no event in the window has an integer in the field of --sequence-field",
                hint=f"names are as sent, capitals too: {command('events', '--limit', '1', '--format', 'json')}",
            )
        report.found += sum(1 for one in report.sequences if one.missing)
    return report


def learned_window(store: Store, question: Question) -> Window | None:
    """Return the window with the history before it, as far as the store holds it; None where nothing is learned."""
    window = question.wanted.window
    if question.history is None:
        return None
    start = max(window.start - question.history, MIN_INSTANT) if window.start > MIN_INSTANT else window.start
    with suppress(NotHeld):
        expect_held(store, Window(start, window.end), question.wanted.entities)
        return Window(start, window.end)
    return window


def _scope(tables: Tables, window: Window, start: int) -> Window | None:
    """Return the time to look at: the window, without an end until the last event, without a beginning from the first
    one, those that the filter leaves out too, and never the future; None where it selects none."""
    within = f"BETWEEN {start} AND {min(window.end, MAX_INSTANT) - 1}"
    if not next(tables.rows(f"SELECT 1 FROM measured WHERE instant {within} LIMIT 1"), None):
        return None
    [(first, last)] = tables.rows(f"SELECT min(event_ns), max(event_ns) FROM events WHERE event_ns {within}")
    begin = window.start if window.start > MIN_INSTANT else first
    until = min(window.end if window.end <= MAX_INSTANT else last + 1, time_ns())
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
    meant = "" if store.deployed else meant_names(store, wanted).removeprefix("; ")
    return NothingSelected(
        f"nothing to look at: no event of {named} {wanted.window.within}", hint=meant or "pik events --limit 20"
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
            f" the same weekday among them; at least {LEAST_DAYS} days are needed, after a silence of {HISTORY // DAY}"
            " days anew. Of the two, what makes a finding less likely counts"
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
            f" the spread, which is {MAD} MAD of the days, from {2 * WEEK_DAYS} days on at most {CHANGE} times the"
            " median change from week to week. Not listed: a drop of which silences explain half or more, and a day"
            " with hours of the same kind"
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
        shortest = f"{question.every} + 1"
    else:  # fewer events can never have been usual in it
        shortest = f"greatest({math.ceil(LEAST_SILENCE) * HOUR} // max(n), 1)"
    tables.keep("peaks", f"SELECT grp, max(n) AS most, {shortest} AS shortest FROM hours GROUP BY 1")
    tables.add("known", {"grp": "VARCHAR", "shortest": "BIGINT"}, () if question.every is not None else _known(tables))
    tables.keep(
        "reach",
        "SELECT peaks.grp, coalesce(known.shortest, peaks.shortest) AS shortest FROM peaks"
        " LEFT JOIN known ON known.grp IS NOT DISTINCT FROM peaks.grp",
    )
    # A gap that is long enough never lies within one such stretch, so only their first and last events are sorted.
    rows = tables.rows(
        "SELECT grp, 0 AS kind, hour, n, first, last FROM hours UNION ALL"
        " SELECT grp, 1, before, instant, NULL, NULL FROM (SELECT grp, shortest, min(instant) AS instant,"
        " lag(max(instant)) OVER (PARTITION BY grp ORDER BY min(instant)) AS before FROM"
        " (SELECT measured.grp, shortest, instant, instant // shortest - CAST(instant % shortest < 0 AS BIGINT) AS"
        f" stretch FROM measured JOIN reach ON reach.grp IS NOT DISTINCT FROM measured.grp WHERE {within})"
        f" GROUP BY grp, shortest, stretch) WHERE instant > {scope.start} AND before < {scope.end}"
        " AND instant - before::HUGEINT >= shortest ORDER BY 1 NULLS LAST, 2, 3"
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


def _known(tables: Tables) -> list[tuple[str | None, int]]:
    """Return which time is shorter than any silence, for the groups with the most events in an hour, which have the
    most gaps. In these, every hour is compared with what is usual in any case."""
    rows = tables.rows(
        "SELECT hours.grp, hour, n FROM hours JOIN (FROM peaks WHERE most > ? ORDER BY most DESC, grp LIMIT ?) AS busy"
        " ON busy.grp IS NOT DISTINCT FROM hours.grp ORDER BY 1",
        [DROP**2, _BUSY],
    )
    return [
        (group, max(Usual.of_hours((start, events) for _, start, events in of_group).shortest_silence, 1))
        for group, of_group in groupby(rows, key=lambda row: row[0])
    ]


def _volume(scope: Window, hours: Sequence[_Hour]) -> tuple[Stretch, ...]:
    """Return how the events of the hours are spread over the scope."""
    begin = scope.start - scope.start % HOUR
    size = -(-(scope.end - begin) // (STRETCHES * HOUR)) * HOUR
    counts = dict.fromkeys(range(begin, scope.end, size), 0)
    for hour in hours:
        if begin <= hour.start < scope.end:
            counts[hour.start - (hour.start - begin) % size] += hour.events
    return tuple(Stretch(start, events) for start, events in counts.items())


@dataclass(frozen=True, slots=True)
class _Search:
    """Looks at one group after the other."""

    question: Question
    report: GapsReport

    def look_at(self, group: str | None, hours: list[_Hour], gaps: list[tuple[int, int]]) -> None:
        """Add what is found in a group."""
        scope, report, every = self.report.scope, self.report, self.question.every
        last, first = hours[-1].last, hours[0].first
        usual = Usual.of_hours((hour.start, hour.events) for hour in hours)
        inside = sum(hour.events for hour in hours if scope.start - HOUR < hour.start < scope.end)
        learned_from = usual.learned_from(scope.end) if self.question.history is not None else None
        report.unknown += self.question.history is not None and learned_from is None
        report.groups.add(LearnedGroup(group, inside, first, last, learned_from, _volume(scope, hours)))
        if first > scope.start > MIN_INSTANT and self.question.wanted.window.start > MIN_INSTANT:
            gaps = [(scope.start, first), *gaps]
        if last < scope.end:
            gaps = [*gaps, (last, scope.end)]
        silences: list[Silence] = []
        for start, after in gaps:
            end = min(after, scope.end)
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
        """Yield drops and spikes: of successive hours, and of days without such hours."""
        scope = self.report.scope
        found: list[VolumeChange] = []
        for unit, volumes in ((HOUR, usual), (DAY, usual.days)):
            of_unit: list[VolumeChange] = []
            for place in volumes.candidates(-(-scope.start // unit), scope.end // unit):
                kind, expected = volumes.change(place)
                if kind is None:
                    continue
                start, end = place * unit, (place + 1) * unit
                events = volumes.counts.get(place, 0)
                if any(one.kind == kind and one.start < end and one.end > start for one in found):
                    continue
                silent = (usual.within(max(one.start, start), min(one.end, end)) for one in silences)
                if kind == "drop" and 2 * sum(silent) >= expected - events:
                    continue
                before = of_unit[-1] if of_unit else None
                if before is not None and before.end == start and before.kind == kind:
                    start, events, expected = before.start, before.events + events, before.expected + expected
                    of_unit.pop()
                of_unit.append(VolumeChange(kind, group, start, end, events, expected))
            found += of_unit
        yield from found

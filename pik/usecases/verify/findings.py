"""What a verification finds and has seen: problems, the ledger of segments, and the report that they come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple, TypeVar

from pik.model.batch import Counts, Frame, Segment, Verdict
from pik.model.instant import day_text
from pik.model.window import Window
from pik.ports.index import Index, Totals
from pik.runtime.spool import Sorter

MISSING, MODIFIED, INDEX, AGGREGATE = "missing", "modified", "index differs", "aggregate differs"
UNKNOWN, STATE = "unknown object", "state damaged"

RANGES = 20
"""Affected entities, and ranges of them, that a problem names; with more it names one from the first to the last."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written. `day` and `entities` say what is affected, as the index has
    it; `remedy`, which `detail` ends with, what recomputes or restores it, where that is not the same for all."""

    kind: str
    what: str
    detail: str
    day: str | None = None
    entities: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification came to.

    Objects in raw that are not damage: `superseded` ones are copies of deliveries that the index lists elsewhere, left
    by a crash; `unacknowledged` ones hold deliveries that nobody was told to be recorded (a refused request, what an
    interrupted batch had not recorded yet); `in_progress` ones belong to a batch that is being written; `expired`
    segments are gone because the store keeps raw for some days only.

    `aggregates` is None where none was checked: of a quick check, or where raw or index lack events, which would make
    every aggregate of those look wrong. Aggregates of the `expired_days` are not checked either.
    """

    window: Window
    full: bool
    segments: int
    valid: int
    missing: int
    expired: int
    modified: int
    not_indexed: int
    superseded: int
    unacknowledged: int
    in_progress: int
    deliveries: int
    aggregates: int | None
    damage: int
    kinds: frozenset[str]
    expired_days: int


@dataclass(slots=True)
class Tally:
    """What has been counted so far."""

    window: Window
    full: bool
    counts: Counter[str] = field(default_factory=Counter)
    kinds: set[str] = field(default_factory=set)
    expired_days: set[int] = field(default_factory=set)
    short: set[str] = field(default_factory=set)
    """The batches of which the index is known to lack something: their counts would be a second problem of it."""
    unsettled: bool = False
    """Whether a writer in a deployed store died while it recorded, so that counts may be behind the segments."""
    state_is_sound: bool = True
    """Whether what is current can be relied on: damage of versions that are not is no reason to leave aggregates."""
    aggregates: int | None = None

    def counted(self, problems: Iterator[Problem]) -> Iterator[Problem]:
        """The problems, each counted as it is read."""
        for problem in problems:
            self.counts["damage"] += 1
            self.kinds.add(problem.kind)
            yield problem

    @property
    def lacks_events(self) -> bool:
        """Whether raw or the index has lost deliveries."""
        return any(self.counts[name] for name in ("missing", "modified", "not_indexed"))

    def expire(self, segment: Segment) -> None:
        """Count a segment that is gone as it should be."""
        self.counts["expired"] += 1
        self.expired_days.add(segment.day)

    def report(self) -> VerifyReport:
        """What it comes to."""
        names = ("segments", "valid", "missing", "expired", "modified", "not_indexed", "superseded", "unacknowledged")
        counts = {name: self.counts[name] for name in (*names, "in_progress", "deliveries", "damage")}
        return VerifyReport(
            window=self.window,
            full=self.full,
            aggregates=self.aggregates,
            kinds=frozenset(self.kinds),
            expired_days=len(self.expired_days),
            **counts,
        )


def segment_problem(kind: str, segment: Segment, detail: str, frames: tuple[Frame, ...]) -> Problem:
    """A problem of a segment, that affects these frames."""
    return Problem(kind, segment.key, detail, day_text(segment.day), entity_ranges(frames))


def entity_ranges(frames: tuple[Frame, ...]) -> tuple[str, ...]:
    """The entities in these frames: by name where the index has their names, otherwise as a range from the first to the
    last of a frame, with the number of deliveries in it, of which not all entities in between need have one."""
    names = dict.fromkeys(name for frame in frames for name in frame.entities)
    unnamed = [frame for frame in frames if not frame.entities]
    ranges = [f"{frame.first} … {frame.last} ({frame.lines} deliveries)" for frame in unnamed]
    if len(names) + len(ranges) <= RANGES:
        return (*names, *ranges)
    return (f"{frames[0].first} … {frames[-1].last} ({sum(frame.lines for frame in frames)} deliveries)",)


_Name = TypeVar("_Name", int, str)


class Told(NamedTuple):
    """What a batch says of its deliveries: how many there are of each lag, and of each source."""

    lags: Mapping[int, int]
    sources: Mapping[str, int]


NOTHING_TOLD = Told({}, {})


class Holding(NamedTuple):
    """What the segments of one batch hold, as far as they were seen; times in nanoseconds. `sound`: all of them are
    there and as they were written. `told` is known of requests only. `recorded_last` is when the last of them
    was recorded, `recorded_first` when the first was of those whose time is not guessed."""

    segments: int = 0
    counts: Counts = Counts()
    first_event: int | None = None
    last_event: int | None = None
    sound: bool = True
    told: Told = NOTHING_TOLD
    recorded_first: int | None = None
    recorded_last: int | None = None


class _Entry(NamedTuple):
    batch_id: str
    deliveries: int
    exact: int
    conflict: int
    first_event: int
    last_event: int
    sound: bool
    told: Told
    recorded_at: int
    guessed: bool


@dataclass(slots=True, init=False)
class Ledger:
    """Takes in the segments day by day; gives them back by key, and summed up by batch."""

    _by_batch: Sorter[_Entry]
    _by_key: Sorter[tuple[str, int]]
    totals: Totals
    """Of all segments; batches are not counted."""
    unsettled: set[str]
    """The batches of which `other_rows` found segments that somebody is recording, or died at recording."""

    def __init__(self) -> None:
        self.totals = Totals(0, 0, 0, 0, 0, None, None)
        self.unsettled = set()
        self._by_batch = Sorter(itemgetter(0), reverse=True)
        self._by_key = Sorter(itemgetter(0))

    def add(self, index: Index, segment: Segment, told: Told, *, sound: bool) -> None:
        """Note a segment that the index lists."""
        entry = _entry(index, segment, told, sound)
        self._by_batch.add(entry)
        seen = self.totals
        times = (seen.first_event, seen.last_event, segment.first_event, segment.last_event)
        known = [time for time in times if time is not None]
        self.totals = Totals(
            events=seen.events + entry.deliveries - entry.exact - entry.conflict,
            deliveries=seen.deliveries + entry.deliveries,
            segments=seen.segments + 1,
            batches=0,
            raw_bytes=seen.raw_bytes + segment.size,
            first_event=min(known),
            last_event=max(known),
        )

    def expect_rows(self, segment: Segment) -> None:
        """Note that the index should have a row for each of the segment's deliveries."""
        self._by_key.add((segment.key, segment.deliveries))

    def batches(self) -> Iterator[tuple[str, Holding]]:
        """Each batch with what its segments hold, the newest first."""
        for batch_id, entries in groupby(self._by_batch, key=itemgetter(0)):
            yield batch_id, _summed(entries)

    def other_rows(self, rows: Iterable[tuple[str, int | None]]) -> Iterator[tuple[str, int, int]]:
        """The segments of which there are not as many rows as deliveries: key, deliveries, rows. Of those that were not
        seen as sound there are none."""
        sorter: Sorter[tuple[str, int | None]] = Sorter(itemgetter(0))
        for row in rows:
            sorter.add(row)
        counted = groupby(sorter, key=itemgetter(0))
        expecting = iter(self._by_key)
        there, expected = next(counted, None), next(expecting, None)
        while there is not None or expected is not None:
            key = min(one[0] for one in (there, expected) if one is not None)
            counts: list[int | None] = [0]
            deliveries = 0
            if there is not None and there[0] == key:
                counts, there = [count for _, count in there[1]], next(counted, None)
            if expected is not None and expected[0] == key:
                deliveries, expected = expected[1], next(expecting, None)
            of_key = sum(count for count in counts if count is not None)
            if None in counts:
                self.unsettled.add(key.rpartition("/")[2].partition("-")[0])
            elif of_key != deliveries:
                yield key, deliveries, of_key


def holding_of(index: Index, segments: Iterable[Segment]) -> Holding:
    """What these segments of one batch hold."""
    return _summed(_entry(index, segment, NOTHING_TOLD, True) for segment in segments)


def _entry(index: Index, segment: Segment, told: Told, sound: bool) -> _Entry:
    kinds = Counter(index.skipped(segment).values())
    times = segment.first_event, segment.last_event
    # What is not recorded yet does not count.
    recorded = segment.deliveries - kinds[Verdict.UNRECORDED]
    return _Entry(
        segment.batch_id,
        recorded,
        kinds[Verdict.EXACT],
        kinds[Verdict.CONFLICT],
        *times,
        sound,
        told,
        segment.recorded_at,
        segment.guessed,
    )


def _summed(entries: Iterable[_Entry]) -> Holding:
    holding = Holding()
    for entry in entries:
        accepted = entry.deliveries - entry.exact - entry.conflict
        holding = Holding(
            holding.segments + 1,
            holding.counts + Counts(entry.deliveries, accepted, entry.exact, entry.conflict),
            min(entry.first_event, entry.first_event if holding.first_event is None else holding.first_event),
            max(entry.last_event, entry.last_event if holding.last_event is None else holding.last_event),
            holding.sound and entry.sound,
            Told(_added(holding.told.lags, entry.told.lags), _added(holding.told.sources, entry.told.sources)),
            holding.recorded_first if entry.guessed else _least(holding.recorded_first, entry.recorded_at),
            max(entry.recorded_at, holding.recorded_last or 0),
        )
    return holding


def _least(known: int | None, another: int) -> int:
    return another if known is None else min(known, another)


def _added(some: Mapping[_Name, int], others: Mapping[_Name, int]) -> Mapping[_Name, int]:
    return Counter(some) + Counter(others) if others else some

"""What a verification has seen and found: problems, a ledger of the index's segments, and the report."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal
from enum import StrEnum
from functools import reduce
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

from pik.errors import Damaged, NotFound, Unreadable
from pik.model.batch import Batch, Counts, Frame, Segment, Verdict
from pik.model.correction import Correction
from pik.model.instant import ALL_TIME, Window, day_text
from pik.ports.raw import RawKey
from pik.ports.store import Index, Store, Totals
from pik.runtime import Progress
from pik.runtime.storage import Sorter

_NAMED_RANGES = 20
"""Affected entities, and ranges of them, that a problem names; with more it names one from the first to the last."""

_Name = TypeVar("_Name", int, str)


class ProblemKind(StrEnum):
    """What is wrong."""

    MISSING = "missing"
    MODIFIED = "modified"
    UNREADABLE = "unreadable"
    """It is there, and could not be read: no permission, a disk that fails. Whether it is damaged is not known."""
    INDEX = "index differs"
    AGGREGATE = "aggregate differs"
    UNKNOWN = "unknown object"
    STATE = "state damaged"
    UNPROVEN = "not proven"
    """An aggregate of which raw has lost inputs; the damage is that of raw."""
    UNCERTAIN = "not provable"
    """An aggregate of which it is not certain what it counted: others recorded while it was computed, or which of equal
    deliveries counted was lost with the index; not damage."""
    INCOMPLETE = "incomplete"
    """An aggregate that was computed before deliveries were recorded which raw has lost: what it should be is not
    known; the damage is that of raw."""
    EXPIRED = "expired"
    """Gone as it should be, which matters to a pull only."""

    @classmethod
    def of(cls, error: Damaged) -> ProblemKind:
        """Return the kind of an object that is there and gave this error."""
        return cls.UNREADABLE if isinstance(error, Unreadable) else cls.MODIFIED


DAMAGE = frozenset({ProblemKind.MISSING, ProblemKind.MODIFIED, ProblemKind.UNREADABLE})
"""What a whole copy of the object mends."""


@dataclass(frozen=True, slots=True)
class InQuestion:
    """A current value whose recorded inputs are not those that raw holds, and what those give by the same definition
    and knowledge. It may have counted so many lost deliveries, the `candidates`; where its digest tells which of them
    it did count, the problem has their ids. One that is `incomplete` may lack so many candidates, which were recorded
    after it was computed; what remains is not asked then."""

    metric: str
    entity_id: str
    bucket: int
    run_id: str
    recorded: Decimal | None
    remaining: Decimal | None
    candidates: int
    incomplete: bool = False

    @property
    def difference(self) -> Decimal | None:
        """remaining - recorded; a missing value counts as 0. None: of an incomplete one."""
        if self.incomplete:
            return None
        return Context(prec=200).subtract(self.remaining or Decimal(0), self.recorded or Decimal(0))


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written. `day` and `entities` are what is affected, as far as the index knows;
    `remedy`, which `detail` ends with, recomputes or restores it, where that is not the same for all. `value` is that
    of an aggregate that is not proven; `lost_events` are the ids of the deliveries that raw has lost of it, or of a
    segment, as far as they are known."""

    kind: ProblemKind
    what: str
    detail: str
    day: str | None = None
    entities: tuple[str, ...] = ()
    remedy: str = ""
    value: InQuestion | None = None
    lost_events: tuple[str, ...] = ()


def batch_problem(batch_id: str, detail: str) -> Problem:
    """Return a problem with the index's entry of a batch."""
    return Problem(ProblemKind.INDEX, f"batch {batch_id}", detail)


def differing(found: object, expected: object, names: Iterable[str]) -> str:
    """Return the names of the fields in which the two differ, as a phrase; none is the empty text."""
    return " and ".join(name for name in names if getattr(found, name) != getattr(expected, name))


def segment_problem(kind: ProblemKind, segment: Segment, detail: str, frames: tuple[Frame, ...] = ()) -> Problem:
    """Return a problem with a segment, which affects these frames."""
    return Problem(kind, segment.key, detail, day_text(segment.day), entity_ranges(frames))


def entity_ranges(frames: tuple[Frame, ...]) -> tuple[str, ...]:
    """Return the entities in these frames: by name where the index has their names, otherwise as a range from the first
    to the last of a frame, with the number of its deliveries; not all entities in between need have one."""
    names = dict.fromkeys(name for frame in frames for name in frame.entities)
    unnamed = [frame for frame in frames if not frame.entities]
    ranges = [f"{frame.first} … {frame.last} ({frame.lines} deliveries)" for frame in unnamed]
    if len(names) + len(ranges) <= _NAMED_RANGES:
        return (*names, *ranges)
    return (f"{frames[0].first} … {frames[-1].last} ({sum(frame.lines for frame in frames)} deliveries)",)


@dataclass(frozen=True, slots=True)
class NotProvable:
    """Current values of a metric that a run imported: how many, and their first and last bucket (nanoseconds). What
    they count is not known. They are of the file with this SHA-256, in hex; its `name` is not known in a copy."""

    run_id: str
    metric: str
    file_digest: str
    values: int
    first: int
    last: int
    name: str = ""

    def plus(self, other: NotProvable) -> NotProvable:
        """Return both together."""
        first, last = min(self.first, other.first), max(self.last, other.last)
        return replace(self, values=self.values + other.values, first=first, last=last)


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of a verification.

    `unreadable` segments are there and could not be read: whether they are damaged is not known.

    Objects in raw that are not damage: `superseded` ones are copies of deliveries that the index lists elsewhere, left
    by a crash; `unacknowledged` ones hold deliveries that were never reported as recorded (a refused request, what an
    interrupted batch had not recorded yet), or are parts of corrections that were not; `in_progress` ones belong to a
    batch or a correction that is being written; `expired` segments are gone because the store keeps raw for some days
    only.

    `replaced` are the keys of damaged objects of which a whole copy is read instead.

    `aggregates` is None where none was checked: by a quick check, or where the index lacks events, which would make
    every aggregate of those look wrong. Aggregates of the `expired_days` are not checked either. Of those that were
    checked, `proven` ones counted exactly what raw still holds; of `unproven` ones raw has lost inputs; of `uncertain`
    ones it cannot be said. Whichever they are, `incomplete` ones lack deliveries that were recorded later and are lost.
    Those that were imported are `not_provable`, which is not damage. Those of `retired` metrics are not checked.
    """

    window: Window
    full: bool
    segments: int
    valid: int
    missing: int
    expired: int
    modified: int
    unreadable: int
    not_indexed: int
    superseded: int
    unacknowledged: int
    in_progress: int
    replaced: tuple[str, ...]
    deliveries: int
    aggregates: int | None
    proven: int | None
    unproven: int
    uncertain: int
    incomplete: int
    damage: int
    kinds: frozenset[str]
    expired_days: int
    not_provable: tuple[NotProvable, ...] = ()
    retired: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LostFrames:
    """A segment, and the numbers of its frames that cannot be read as they were written."""

    segment: Segment
    frames: frozenset[int]


@dataclass(frozen=True, slots=True)
class UnreadableCorrection:
    """A correction that cannot be read, or a list of it: the days that its deliveries were received on or happened on
    according to it, and the frames that name their entities; none: they may be of any."""

    correction: Correction
    days: Set[int]
    frames: tuple[Frame, ...] = ()


@dataclass(slots=True)
class Verification:
    """A verification under way: what its checks look at, and what they have counted so far."""

    store: Store
    window: Window
    full: bool
    progress: Progress
    ledger: Ledger = field(default_factory=lambda: Ledger())
    counts: Counter[str] = field(default_factory=Counter)
    """By the names of the report's fields."""
    kinds: set[str] = field(default_factory=set)
    expired_days: set[int] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)
    incomplete: set[str] = field(default_factory=set)
    """Batches of which the index is known to lack something: their counts would be a second problem of it."""
    unsettled: bool = False
    """Whether a writer in a deployed store died while it recorded, so that counts may be older than segments."""
    state_is_sound: bool = True
    """Whether what is current can be relied on: damage of versions that are not is no reason to skip aggregates."""
    aggregates: int | None = None
    retired: tuple[str, ...] = ()
    not_provable: dict[tuple[str, str], NotProvable] = field(default_factory=dict)
    """By run and metric."""
    lost: dict[str, LostFrames] = field(default_factory=dict)
    """Of damaged and missing segments, by key."""
    unreadable: list[UnreadableCorrection] = field(default_factory=list)
    knows_corrections: bool = True
    """Whether the index could say which corrections it follows."""
    unknown_losses: set[int] = field(default_factory=set)
    """Days of lost segments of which the index does not know what they held."""

    def note_imported(self, found: Iterable[NotProvable]) -> None:
        """Count values that were imported."""
        for one in found:
            key = one.run_id, one.metric
            before = self.not_provable.get(key)
            self.not_provable[key] = before.plus(one) if before else replace(one, name=self._file_name(one.run_id))

    def _file_name(self, run_id: str) -> str:
        with suppress(NotFound):  # a copy has no runs
            file = self.store.runs.get(run_id).request.file
            return file.name if file else ""
        return ""

    def note_lost(self, segment: Segment, frames: Iterable[Frame]) -> LostFrames:
        """Note and return frames of a segment that cannot be read as they were written."""
        offsets = {frame.offset for frame in frames}
        numbers = frozenset(number for number, frame in enumerate(segment.frames) if frame.offset in offsets)
        lost = self.lost[segment.key] = LostFrames(segment, numbers)
        return lost

    def count_expired(self, segment: Segment) -> None:
        """Count a segment whose object is gone as it should be."""
        self.counts["expired"] += 1
        self.expired_days.add(segment.day)

    def find_batch(self, batch_id: str) -> Batch | None:
        """Return the batch of exactly this id."""
        return next(self.store.index.batches(batch_id), None)

    def segments(self, batch_id: str) -> Iterator[Segment]:
        """Yield all segments of a batch that the index lists."""
        return self.store.index.segments(ALL_TIME, batch_id=batch_id)

    def includes(self, day: int) -> bool:
        """Return whether the window touches this day."""
        first, last = self.window.days
        return first <= day <= last

    def report(self) -> VerifyReport:
        """Return the report so far."""
        names = ("segments", "valid", "missing", "expired", "modified", "unreadable", "not_indexed", "superseded")
        return VerifyReport(
            window=self.window,
            full=self.full,
            replaced=tuple(sorted(self.replaced)),
            aggregates=self.aggregates,
            proven=None if self.aggregates is None else self.aggregates - self.counts["not_proven"],
            unproven=self.counts["unproven"],
            uncertain=self.counts["uncertain"],
            incomplete=self.counts["incomplete"],
            kinds=frozenset(self.kinds),
            expired_days=len(self.expired_days),
            retired=self.retired,
            not_provable=tuple(one for _, one in sorted(self.not_provable.items())),
            **{name: self.counts[name] for name in (*names, "unacknowledged", "in_progress", "deliveries", "damage")},
        )


@dataclass(frozen=True, slots=True)
class Holding:
    """What segments of one batch hold; times in nanoseconds. `sound`: all of them are there and as they were written.
    `lags`, `sources` and `actor` are known of requests only. `recorded_last` is when the last of them was recorded,
    `recorded_first` when the first was of those whose time is not guessed."""

    segments: int = 0
    counts: Counts = field(default_factory=Counts)
    first_event: int | None = None
    last_event: int | None = None
    sound: bool = True
    recorded_first: int | None = None
    recorded_last: int | None = None
    lags: Mapping[int, int] = field(default_factory=dict)
    sources: Mapping[str, int] = field(default_factory=dict)
    actor: str = ""

    def plus(self, other: Holding) -> Holding:
        """Return what both hold together."""
        return Holding(
            self.segments + other.segments,
            self.counts + other.counts,
            min(_known(self.first_event, other.first_event), default=None),
            max(_known(self.last_event, other.last_event), default=None),
            self.sound and other.sound,
            min(_known(self.recorded_first, other.recorded_first), default=None),
            max(_known(self.recorded_last, other.recorded_last), default=None),
            _sum(self.lags, other.lags),
            _sum(self.sources, other.sources),
            max(self.actor, other.actor),
        )


def _known(*times: int | None) -> list[int]:
    return [time for time in times if time is not None]


def _sum(some: Mapping[_Name, int], others: Mapping[_Name, int]) -> Mapping[_Name, int]:
    return Counter(some) + Counter(others) if others else some


def segment_holding(index: Index, segment: Segment) -> Holding:
    """Return what one sound segment holds. Deliveries that are not recorded yet do not count."""
    kinds = Counter(index.skipped(segment).values())
    recorded = segment.deliveries - kinds[Verdict.UNRECORDED]
    accepted = recorded - kinds[Verdict.EXACT] - kinds[Verdict.CONFLICT]
    return Holding(
        1,
        Counts(recorded, accepted, kinds[Verdict.EXACT], kinds[Verdict.CONFLICT]),
        segment.first_event,
        segment.last_event,
        recorded_first=None if segment.guessed else segment.recorded_at,
        recorded_last=segment.recorded_at,
    )


class Ledger:
    """Collects the index's segments day by day, and yields them by key, and summed up by batch. It sorts them on disk,
    so that memory does not grow with them.

    `totals` are those of all segments, without a number of batches; `unsettled` the batches of which `other_rows` found
    segments that are being recorded, or whose writer died while it recorded them.
    """

    def __init__(self) -> None:
        self._by_batch: Sorter[tuple[str, Holding]] = Sorter(itemgetter(0), reverse=True)
        self._expected: Sorter[tuple[str, int, int | None]] = Sorter(itemgetter(0))
        self._all, self._raw_bytes = Holding(), 0
        self.unsettled: set[str] = set()

    def add(self, segment: Segment, holding: Holding) -> None:
        """Note a segment that the index lists, and what it holds."""
        self._by_batch.add((segment.batch_id, holding))
        self._all = self._all.plus(replace(holding, lags={}, sources={}))
        self._raw_bytes += segment.size

    def totals(self, batches: int) -> Totals:
        """Return the totals of all segments, which belong to so many batches."""
        counts = self._all.counts
        times = self._all.first_event, self._all.last_event
        return Totals(counts.accepted, counts.read, self._all.segments, batches, self._raw_bytes, *times)

    def expect_rows(self, segment: Segment) -> None:
        """Note that the index should have a row for each of the segment's deliveries."""
        self._expected.add((segment.key, segment.deliveries, 0))

    def batches(self) -> Iterator[tuple[str, Holding]]:
        """Yield each batch with what its segments hold, the newest first."""
        for batch_id, entries in groupby(self._by_batch, key=itemgetter(0)):
            yield batch_id, reduce(Holding.plus, map(itemgetter(1), entries))

    def other_rows(self, rows: Iterable[tuple[str, int | None]]) -> Iterator[tuple[str, int, int]]:
        """Yield the segments that have not as many rows as deliveries: key, deliveries, rows. Those that were not seen
        as sound should have no rows."""
        counted: Sorter[tuple[str, int, int | None]] = Sorter(itemgetter(0))
        for key, count in rows:
            counted.add((key, 0, count))
        both = heapq.merge(self._expected, counted, key=itemgetter(0))
        for key, entries in groupby(both, key=itemgetter(0)):
            deliveries = found = 0
            is_settled = True
            for _, expected, count in entries:
                deliveries += expected
                found += count or 0
                is_settled &= count is not None
            if not is_settled:
                parsed = RawKey.parse(key)
                self.unsettled.add(parsed.id if parsed else key)
            elif found != deliveries:
                yield key, deliveries, found

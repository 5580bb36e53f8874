"""What a verification has seen and found: problems, and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal
from enum import StrEnum

from pik.errors import Damaged, NotFound, Unreadable
from pik.model.batch import Batch, Frame, Segment
from pik.model.correction import Correction
from pik.model.instant import ALL_TIME, Window, day_text
from pik.ports.store import Audit, Store
from pik.runtime import Progress
from pik.usecases.care.verify_earlier import Earlier, TakenOver
from pik.usecases.care.verify_ledger import Ledger

_NAMED_RANGES = 20
"""Affected entities, and ranges of them, that a problem names; with more it names one from the first to the last."""


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


class Depth(StrEnum):
    """How much a verification looks at."""

    QUICK = "quick"
    """Presence and sizes."""
    STORED = "stored"
    """Everything; but a segment is not read where the storage keeps the SHA-256 that it computed itself."""
    FULL = "full"
    """Every byte."""


def depth_of(*, quick: bool, full: bool) -> Depth:
    """Return the depth that the options of a command ask for."""
    return Depth.QUICK if quick else Depth.FULL if full else Depth.STORED


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

    Of the segments, `read` ones were read; of `vouched` ones the storage's own SHA-256 was taken instead. `depth` is
    STORED only where there are such.

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

    `taken_over` are segments that an earlier verification, which was interrupted, has checked; all counts include them.
    """

    window: Window
    depth: Depth
    segments: int
    read: int
    vouched: int
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
    taken_over: TakenOver | None = None


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
    depth: Depth
    progress: Progress
    earlier: Earlier | None = None
    """What keeps which segments were found to be sound, and knows those of an earlier verification."""
    audit: Audit = field(init=False)
    ledger: Ledger = field(default_factory=Ledger)
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

    def __post_init__(self) -> None:
        self.audit = self.store.audit.anew()

    @property
    def quick(self) -> bool:
        """Whether only presence and sizes are looked at."""
        return self.depth is Depth.QUICK

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
        names = ("segments", "read", "vouched", "valid", "missing", "expired", "modified", "unreadable", "not_indexed")
        others = ("superseded", "unacknowledged", "in_progress", "deliveries", "damage")
        return VerifyReport(
            window=self.window,
            depth=Depth.FULL if self.depth is Depth.STORED and not self.counts["vouched"] else self.depth,
            replaced=tuple(sorted(self.replaced)),
            aggregates=self.aggregates,
            proven=None if self.aggregates is None else self.aggregates - self.counts["not_proven"],
            unproven=self.counts["unproven"],
            uncertain=self.counts["uncertain"],
            incomplete=self.counts["incomplete"],
            kinds=frozenset(self.kinds),
            expired_days=len(self.expired_days),
            retired=self.retired,
            taken_over=self.earlier.taken_over if self.earlier else None,
            not_provable=tuple(one for _, one in sorted(self.not_provable.items())),
            **{name: self.counts[name] for name in (*names, *others)},
        )

"""What a verification finds: problems, and the report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from enum import StrEnum

from pik.errors import Damaged, Unreadable
from pik.model.batch import Frame, Segment
from pik.model.instant import day_text
from pik.model.window import Window
from pik.usecases.care.verify_continue import TakenOver

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

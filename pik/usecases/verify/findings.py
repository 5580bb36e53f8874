"""What a verification finds: problems, and the report that they come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pik.model.batch import Frame, Segment
from pik.model.instant import day_text
from pik.model.window import Window

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

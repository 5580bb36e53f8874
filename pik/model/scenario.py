"""Scenarios: what a number is computed from, where that is not what counts today.

The order in which assumptions take effect is fixed (docs/investigating.md); within a step they add up as given.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pik.model.criteria import Criteria
from pik.model.duration import format_duration
from pik.model.event import MAX_LINE
from pik.model.instant import DAY, HOUR, MINUTE, SECOND, format_instant
from pik.model.layout import AUTO, Layout
from pik.model.pairs import typed_pairs
from pik.model.times import AS_EVENTS, Times


@dataclass(frozen=True, slots=True)
class Without:
    """These events are out."""

    event_ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"without={self.event_ids[0]}" if len(self.event_ids) == 1 else f"without {len(self.event_ids):,} events"


@dataclass(frozen=True, slots=True)
class WithoutSelected:
    """The events whose counting delivery is selected are out."""

    criteria: Criteria

    def __str__(self) -> str:
        return f"without=selected,{self.criteria}"


RETRIED_WITHIN = 5 * SECOND
"""How long after an event one that looks like it is taken for a retry, where nothing else is said (nanoseconds)."""

MOST_WITHIN = HOUR
"""The longest that can be said."""


@dataclass(frozen=True, slots=True)
class WithoutSuspects:
    """The selected events that look like an earlier one, at most `within` nanoseconds before or at the same time, are
    out: it has the same source, type and entity, and the same payload or, where there are paths, the same values
    there."""

    criteria: Criteria
    within: int = RETRIED_WITHIN
    same: tuple[str, ...] = ()

    def __str__(self) -> str:
        within = [] if self.within == RETRIED_WITHIN else [("within", format_duration(self.within))]
        rule = typed_pairs([*within, *(("same", path) for path in self.same)])
        return ",".join([WITHOUT_SUSPECTS, *rule, *([str(self.criteria)] if self.criteria != Criteria() else [])])


WITHOUT_SUSPECTS = "without=suspects"


@dataclass(frozen=True, slots=True)
class WithoutBatch:
    """The batch never arrived."""

    batch_id: str

    def __str__(self) -> str:
        return f"without-batch={self.batch_id}"


ASSUMED_BATCH = "00000000000000000000000000"
"""The batch_id of events that are only assumed."""


@dataclass(frozen=True, slots=True)
class With:
    """The events of a file, which are not in the store, are added. The others are options of `ingest`, by which it is
    read; `mapping` has fields and their expressions, `named` is the name of a mapping."""

    path: str
    mapping: tuple[tuple[str, str], ...] = ()
    times: Times = AS_EVENTS
    max_line: int = MAX_LINE
    layout: Layout = AUTO
    named: str | None = None
    max_window: int | None = None

    def __str__(self) -> str:
        return ",".join(typed_pairs([("with", f"@{self.path}"), *self.options]))

    @property
    def options(self) -> list[tuple[str, str]]:
        """The options as they are typed, without dashes, and their values."""
        longest = [] if self.max_line == MAX_LINE else [("max-line", str(self.max_line))]
        longest += [] if self.max_window is None else [("max-window", str(self.max_window))]
        maps = [("map", "=".join(pair)) for pair in self.mapping]
        times = [(name, text) for name, texts in self.times.given.items() for text in texts]
        named = [] if self.named is None else [("mapping", self.named)]
        return named + maps + list(self.layout.given.items()) + times + longest


@dataclass(frozen=True, slots=True)
class CountedDelivery:
    """This delivery of the event counts: (batch_id, seq), or its number, from 1, in recording order."""

    event_id: str
    delivery: tuple[str, int] | int

    def __str__(self) -> str:
        place = self.delivery if isinstance(self.delivery, int) else "/".join(map(str, self.delivery))
        return f"delivery={self.event_id}:{place}"


class Which(StrEnum):
    """One of several deliveries, in recording order; or one of two instants with the same local time."""

    FIRST = "first"
    LAST = "last"
    EARLIER = "earlier"
    LATER = "later"


@dataclass(frozen=True, slots=True)
class CountedConflict:
    """Of events with conflicts, whose counting delivery is selected, the first or the last delivery counts."""

    which: Which
    criteria: Criteria

    def __str__(self) -> str:
        return f"conflicts={self.which}" + (f",{self.criteria}" if self.criteria != Criteria() else "")


_UNITS = (("w", 7 * DAY), ("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND))


@dataclass(frozen=True, slots=True)
class Shift:
    """Selected deliveries happened this much later (nanoseconds, whole seconds; negative: earlier)."""

    by: int
    criteria: Criteria

    def __str__(self) -> str:
        size, unit = next((size, unit) for unit, size in _UNITS if self.by % size == 0)
        return f"shift={self.by // size}{unit},{self.criteria}"


@dataclass(frozen=True, slots=True)
class LocalTime:
    """The digits of selected deliveries' times are the wall clock of a time zone, not UTC. `fold` chooses where clocks
    showed a time twice; None: such a time is an error."""

    zone: str
    fold: Which | None
    criteria: Criteria

    def __str__(self) -> str:
        return f"zone={self.zone}{f':{self.fold}' if self.fold else ''},{self.criteria}"


COUNTED_DUPLICATES = "duplicates=counted"


@dataclass(frozen=True, slots=True)
class CountedDuplicates:
    """Every delivery counts, not only the accepted ones."""

    def __str__(self) -> str:
        return COUNTED_DUPLICATES


@dataclass(frozen=True, slots=True)
class WithoutCorrections:
    """No recorded correction holds; what rebuilds of the index changed stays."""

    def __str__(self) -> str:
        return "corrections=none"


@dataclass(frozen=True, slots=True)
class WithoutCorrection:
    """The correction, or revocation, was never recorded."""

    correction_id: str

    def __str__(self) -> str:
        return f"without-correction={self.correction_id}"


@dataclass(frozen=True, slots=True)
class OtherDefinition:
    """The metric of a definition file is computed with that file."""

    path: str

    def __str__(self) -> str:
        return f"definition=@{self.path}"


Assumption = (
    Without
    | WithoutSelected
    | WithoutSuspects
    | WithoutBatch
    | With
    | CountedDelivery
    | CountedConflict
    | Shift
    | LocalTime
    | CountedDuplicates
    | WithoutCorrections
    | WithoutCorrection
    | OtherDefinition
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a number is computed from: the deliveries recorded until `as_of` (nanoseconds; None: all), under
    assumptions, in the order given. Which delivery of each event counts is as rebuilds of the index had left it at
    `corrected`, other corrections hold as they did at `corrections_until` (None, both: at `as_of`)."""

    as_of: int | None = None
    assumptions: tuple[Assumption, ...] = ()
    corrected: int | None = None
    corrections_until: int | None = None

    def __bool__(self) -> bool:
        """Return whether it assumes anything."""
        moments = self.as_of, self.corrected, self.corrections_until
        return any(moment is not None for moment in moments) or bool(self.assumptions)

    @property
    def corrections_at(self) -> int | None:
        """The moment whose corrections hold (nanoseconds; None: now, 0: none does)."""
        if any(isinstance(one, WithoutCorrections) for one in self.assumptions):
            return 0
        return self.as_of if self.corrections_until is None else self.corrections_until

    @property
    def texts(self) -> list[str]:
        """The assumptions as they are typed, resolved."""
        as_of = [] if self.as_of is None else [f"as-of={format_instant(self.as_of)}"]
        return as_of + [str(one) for one in self.assumptions]


PLAIN = Scenario()

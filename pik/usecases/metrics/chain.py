"""The causes between two sides of a comparison, in their order, and what their values were computed from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from enum import StrEnum

from pik.model.aggregate import Aggregate, Computed
from pik.model.metric import Metric
from pik.model.scenario import CountedDuplicates, Scenario
from pik.usecases.metrics.sides import RecordedSide
from pik.usecases.metrics.winners import Winners

EXACT = Context(prec=200)
"""Sums and differences of values, without rounding."""


class Cause(StrEnum):
    """Why two sides differ."""

    NOT_COMPUTED = "not computed"
    IMPORTED = "imported"
    LOST = "lost"
    DUPLICATES = "duplicates"
    DEFINITION = "definition"
    LATE = "late"
    VERDICT = "verdict"
    CORRECTED = "corrected"
    ASSUMED = "assumed"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a value is computed from: a definition, the deliveries recorded until then (nanoseconds; None: all), up to
    when rebuilds have changed which delivery of an event counts (see Winners.moment), until when other corrections were
    recorded (see Winners.correction_moment), and whether duplicates count."""

    metric: Metric
    until: int | None
    corrected: int
    corrections: int = 0
    duplicates: bool = False

    @property
    def scenario(self) -> Scenario:
        """The scenario under which raw gives the value."""
        assumptions = (CountedDuplicates(),) if self.duplicates else ()
        return Scenario(self.until, assumptions, self.corrected, self.corrections)


def knowledge_of(version: Aggregate, metric: Metric, side: RecordedSide | None, winners: Winners) -> Knowledge:
    """Return what a version of a side (None: of what is current) was computed from, by this definition."""
    counts = side is not None and side.run is not None and side.run.request.counts_duplicates
    run_id = version.run_id
    return Knowledge(
        *(metric, version.known_until, winners.known_to(run_id), winners.corrections_known_to(run_id), counts)
    )


def knowledge_at(metric: Metric, as_of: int | None, winners: Winners) -> Knowledge:
    """Return what a value is computed from at that moment (None: now)."""
    return Knowledge(metric, as_of, winners.moment(as_of), winners.correction_moment(as_of))


def steps(left: Knowledge, right: Knowledge, winners: Winners) -> Iterator[tuple[Cause, Knowledge]]:
    """Yield the causes between two computed sides, each with what the value is computed from once it is applied; the
    last one is what the right side is computed from."""
    at = left
    if at.duplicates != right.duplicates:
        at = replace(at, duplicates=right.duplicates)
        yield Cause.DUPLICATES, at
    if at.metric.definition != right.metric.definition:
        at = replace(at, metric=right.metric)
        yield Cause.DEFINITION, at
    if at.until != right.until:
        at = replace(at, until=right.until)
        yield Cause.LATE, at
    for moment in winners.moments(at.corrected, right.corrected):
        at = replace(at, corrected=moment)
        yield Cause.VERDICT, at
    for moment in winners.correction_moments(at.corrections, right.corrections):
        at = replace(at, corrections=moment)
        yield Cause.CORRECTED, at


def counts_same(found: Computed | None, version: Computed) -> bool:
    """Return whether what was found counts exactly the deliveries that the version counted."""
    return version.inputs == 0 if found is None else found.counted == version.counted


def is_short(found: Computed | None, version: Computed) -> bool:
    """Return whether raw holds fewer deliveries than the version counted."""
    return inputs_of(found) < inputs_of(version)


def inputs_of(computed: Computed | None) -> int:
    """Return how many deliveries a computed value counts; 0 where there is none."""
    return 0 if computed is None or computed.inputs is None else computed.inputs


def value_of(computed: Computed | None) -> Decimal:
    """Return the value; 0 where there is none."""
    return Decimal(0) if computed is None or computed.value is None else computed.value

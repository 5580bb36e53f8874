"""Tolerances: which differences of two values do not matter. All in decimal arithmetic, nothing rounded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal

from pik.errors import UsageError

EXACT = Context(prec=200)
"""Sums, differences and products of what a DECIMAL or a HUGEINT can hold, without rounding."""

_TOLERANCE = re.compile(r"(?:([a-z][a-z0-9_]*)=)?(\d+(?:\.\d+)?)(%?)")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The absolute difference that does not matter, or the one in percent of the current value."""

    amount: Decimal = Decimal(0)
    relative: bool = False

    def covers(self, current: Decimal, delta: Decimal) -> bool:
        """Whether a difference of `delta` from `current` does not matter."""
        if not self.relative:
            return delta.copy_abs() <= self.amount
        return EXACT.multiply(delta.copy_abs(), Decimal(100)) <= EXACT.multiply(self.amount, current.copy_abs())


@dataclass(frozen=True, slots=True)
class Tolerances:
    """A tolerance for some metrics, and one for all the others."""

    others: Tolerance = Tolerance()
    metrics: Mapping[str, Tolerance] = field(default_factory=dict)

    def of(self, metric: str) -> Tolerance:
        """The tolerance for this metric."""
        return self.metrics.get(metric, self.others)


def read_tolerances(texts: Iterable[str]) -> Tolerances:
    """The tolerances written as `[METRIC=]ABS` or `[METRIC=]REL%`. Raises UsageError."""
    others, metrics = Tolerance(), dict[str, Tolerance]()
    for text in texts:
        match = _TOLERANCE.fullmatch(text)
        if match is None:
            raise UsageError(f"--tolerance {text}: this is no tolerance", hint="such as 0.01, 1%, revenue=0.5%")
        tolerance = Tolerance(Decimal(match[2]), relative=bool(match[3]))
        if match[1]:
            metrics[match[1]] = tolerance
        else:
            others = tolerance
    return Tolerances(others, metrics)

"""Tolerances: which differences of two values do not matter. All in decimal arithmetic, nothing rounded."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal

from pik.errors import UsageError

WIDE_DECIMAL = Context(prec=200)
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
        return WIDE_DECIMAL.multiply(delta.copy_abs(), Decimal(100)) <= WIDE_DECIMAL.multiply(
            self.amount, current.copy_abs()
        )


@dataclass(frozen=True, slots=True)
class Tolerances:
    """Tolerances for every metric, and further ones for some; a difference may be covered by any of them."""

    every: Sequence[Tolerance] = ()
    metrics: Mapping[str, Sequence[Tolerance]] = field(default_factory=dict)

    def cover(self, metric: str, current: Decimal, delta: Decimal) -> bool:
        """Whether a tolerance for this metric, or one for every metric, covers the difference."""
        return any(each.covers(current, delta) for each in (*self.every, *self.metrics.get(metric, ())))


def read_tolerances(texts: Iterable[str]) -> Tolerances:
    """The tolerances written as `[METRIC=]ABS` or `[METRIC=]REL%`. Raises UsageError."""
    every, metrics = list[Tolerance](), defaultdict[str, list[Tolerance]](list)
    for text in texts:
        match = _TOLERANCE.fullmatch(text)
        if match is None:
            raise UsageError(f"--tolerance: invalid tolerance {text!r}", hint="such as 0.01, 1%, revenue=0.5%")
        target = metrics[match[1]] if match[1] else every
        target.append(Tolerance(Decimal(match[2]), relative=bool(match[3])))
    return Tolerances(every, dict(metrics))

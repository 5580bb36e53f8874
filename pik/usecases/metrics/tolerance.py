"""How much two values may differ. Checked in decimal arithmetic, nothing is rounded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Context, Decimal

from pik.errors import Invalid, UsageError

_WIDE = Context(prec=200)
"""Products of what a DECIMAL or a HUGEINT can hold, without rounding."""

_TOLERANCE = re.compile(r"(?:([a-z][a-z0-9_]*)=)?([^=%\s]+)(%?)")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The absolute difference that does not matter, or the one in percent of the current value; of one metric or, where
    none is named, of all."""

    amount: Decimal = Decimal(0)
    relative: bool = False
    metric: str | None = None

    def covers(self, current: Decimal, delta: Decimal) -> bool:
        """Return whether a difference of `delta` from `current` does not matter."""
        if not self.relative:
            return delta.copy_abs() <= self.amount
        return _WIDE.multiply(delta.copy_abs(), Decimal(100)) <= _WIDE.multiply(self.amount, current.copy_abs())


def read_tolerances(texts: Iterable[str]) -> list[Tolerance]:
    """Return the tolerances written as `[METRIC=]ABS` or `[METRIC=]REL%`. Raises UsageError."""
    from pik.inputs.figures import number_text  # imports csv

    tolerances: list[Tolerance] = []
    for text in texts:
        match = _TOLERANCE.fullmatch(text)
        number = None
        with suppress(Invalid):
            number = number_text(match[2]) if match else None
        if match is None or number is None or number.startswith("-"):
            raise UsageError(f"--tolerance: invalid tolerance {text!r}", hint="such as 0.01, 1%, revenue=0.5%")
        tolerances.append(Tolerance(Decimal(number), relative=bool(match[3]), metric=match[1]))
    return tolerances

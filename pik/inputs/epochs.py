"""Times that are numbers since 1970, in seconds, milli-, micro- or nanoseconds, and what a number tells by itself."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from pik.errors import Invalid
from pik.model.identity import UNBOUNDED, canonical_number
from pik.model.instant import MAX_INSTANT, SECOND, checked_instant, parse_instant

UNITS = {"epoch": SECOND, "epoch_ms": 10**6, "epoch_us": 10**3, "epoch_ns": 1}
"""Nanoseconds of the unit of each format."""

NUMBER = re.compile(r"[+-]?[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?|[+-]?[0-9]+\.", re.ASCII)


def read_number(value: Any) -> Decimal:
    """Return the number that a value is, or says. Raises Invalid."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise Invalid(f"'{value!s:.60}' is not a number") from None
    if isinstance(value, bool) or not number.is_finite():
        raise Invalid(f"'{value!s:.60}' is not a number")
    return number


def read_epoch(value: Any, unit: int) -> int:
    """Return the instant of a number of units of so many nanoseconds since 1970. Raises Invalid.

    -1 is not an instant: Kafka, C's `mktime` and what is built on them say by it that they know no time.
    """
    number = read_number(value)
    if number == -1:
        raise Invalid(f"'{value!s:.60}' stands for an unknown time, of Kafka and of C, not for the last of 1969")
    return checked_instant(instant_of(number, unit, value), value)


def instant_of(number: Decimal, unit: int, value: Any, since: int = 0) -> int:
    """Return the instant that is `number` units of so many nanoseconds after `since`. Raises Invalid naming `value`."""
    if number.copy_abs() > MAX_INSTANT:
        return checked_instant(MAX_INSTANT + 1, value)  # which no unit makes smaller
    nanos = UNBOUNDED.multiply(number, unit)
    if nanos != int(nanos):
        raise Invalid(f"'{value!s:.60}' is finer than a nanosecond")
    return int(nanos) + since


# In these years a number of seconds, milli-, micro- or nanoseconds has only one reading: it is not a date such as
# 20260302 or 2026030210, a spreadsheet's serial day, or a count from another epoch still in use. They cannot end later:
# as seconds, 2026030210 is in 2034, and the present counted from 1960 (SAS, and in ms Stata), 1904 or 1900 (NTP) is in
# 2036, 2092 and 2096.
PLAUSIBLE = parse_instant("2000-01-01T00:00:00Z"), parse_instant("2033-01-01T00:00:00Z")


def evident_unit(number: Decimal) -> str | None:
    """Return the only unit, by the name of its format, in which a number is a time of these years."""
    if number.copy_abs() > MAX_INSTANT:
        return None
    start, end = PLAUSIBLE
    return next((name for name, unit in UNITS.items() if start <= number * unit < end), None)


COUNTS = {
    "excel": (36_526, 48_580),
    "dotnet_ticks": (630_822_816_000_000_000, 641_293_632_000_000_000),
    "filetime": (125_911_584_000_000_000, 136_386_720_000_000_000),
}
"""The range of numbers, first and end, that formats with another epoch or unit have for these years. They are only
suggested: a small number can be anything."""


def evident_count(number: Decimal) -> str | None:
    """Return the format in COUNTS whose range has the number."""
    return next((name for name, (first, end) in COUNTS.items() if first <= number < end), None)


def ambiguous_number(number: Decimal, value: Any) -> Invalid:
    """Return the error for a number whose unit is not evident."""
    # Only the value is quoted: counts of reasons leave out what is in quotes.
    digits = canonical_number(str(number))
    other = f"%Y%m%d{'%H%M%S'[: len(digits) - 8]}" if _is_date(digits) else evident_count(number) or "a strptime format"
    return Invalid(
        f"'{value!s:.60}' is ambiguous: as an epoch number in s, ms, us or ns it is not in the years 2000 to 2032;"
        f" --time-format epoch, epoch_ms, epoch_us, epoch_ns or {other} tells what it is",
        option="time-format",
    )


def _is_date(digits: str) -> bool:
    """Return whether a number is a date, and maybe a time of day, written without separators."""
    if len(digits) not in (8, 10, 12, 14) or not digits.isdigit():
        return False
    try:
        date.fromisoformat(digits[:8])
    except ValueError:
        return False
    return True

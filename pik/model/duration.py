"""Durations, as they are typed and as they are shown."""

from __future__ import annotations

import re

from pik.errors import Invalid
from pik.model.instant import DAY, HOUR, MINUTE, SECOND, shown

_UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_DURATION = re.compile(r"(\d{1,9})(s|m|h|d|w)", re.ASCII)


def parse_duration(text: str) -> int:
    """Return nanoseconds of `90s`, `15m`, `2h`, `7d` or `1w`. Raises Invalid."""
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise Invalid(f"{shown(text)} is not a duration such as 90s, 15m, 2h, 7d")
    return int(match[1]) * _UNITS[match[2]]


_SHOWN_UNITS = (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", 1_000_000), ("µs", 1000), ("ns", 1))


def format_about(nanos: int) -> str:
    """Return a duration of which three significant digits are known, in its greatest unit: `~5,070d`, `~1.39h`,
    `~-12ms`."""
    if not nanos:
        return "~0s"
    unit, size = next(one for one in _SHOWN_UNITS if abs(nanos) >= one[1])
    count = nanos / size
    digits = 3 - len(str(int(abs(count))))  # after the point
    return f"~{round(count, digits):,.{max(0, digits)}f}{unit}"


def format_duration(nanos: int) -> str:
    """Return a duration for people, two units at most: `1d 2h`, `3m 20s`, `1.250s`, `-12ms`."""
    sign, rest = ("-", -nanos) if nanos < 0 else ("", nanos)
    if not rest:
        return "0s"
    if rest < SECOND:
        unit, size = next(one for one in _SHOWN_UNITS if rest >= one[1])
        return f"{sign}{rest / size:.3g}{unit}"
    if rest < MINUTE:
        return f"{sign}{rest / SECOND:.3f}".rstrip("0").rstrip(".") + "s"
    parts: list[str] = []
    for unit, size in _SHOWN_UNITS[:4]:
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
        if len(parts) == 2:
            break
    return sign + " ".join(part for part in parts if part)

"""Buckets of the calendar, found by looking at a zone's clock minute by minute."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 10**9
UNITS = ("1h", "1d", "1w", "1mo")


def zone_names() -> list[str]:
    return (files("tzdata") / "zones").read_text(encoding="ascii").split()


@cache
def zone_info(zone: str) -> ZoneInfo:
    with files("tzdata").joinpath("zoneinfo", *zone.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file)


def clock(zone: str, second: int) -> datetime:
    return (EPOCH + timedelta(seconds=second)).astimezone(zone_info(zone))


def starts(unit: str, zone: str, first: int, end: int, step: int = 60) -> Iterator[int]:
    """The seconds at which buckets begin, among each `step` seconds after the first one."""
    shown = clock(zone, first)
    reached = _date(unit, shown)
    for second in range(first + step, end, step):
        before, shown = shown, clock(zone, second)
        if unit == "1h":
            begins = shown.minute == shown.second == 0 or (shown.date(), shown.hour) != (before.date(), before.hour)
        else:
            begins = _date(unit, shown) > reached
            reached = max(reached, _date(unit, shown))
        if begins:
            yield second


def _date(unit: str, shown: datetime) -> tuple[int, ...]:
    return {
        "1h": (),
        "1d": (shown.toordinal(),),
        "1w": shown.isocalendar()[:2],
        "1mo": (shown.year, shown.month),
    }[unit]


@cache
def _starts_around(unit: str, zone: str, day: int) -> list[int]:
    return list(starts(unit, zone, (day - 35) * 86400, (day + 2) * 86400))


def start_of(unit: str, zone: str, instant: int) -> int:
    """The start of the bucket that contains an instant (nanoseconds), where offsets are whole minutes."""
    found = _starts_around(unit, zone, instant // SECOND // 86400)
    return found[bisect_right(found, instant // SECOND) - 1] * SECOND

"""The texts by which tables of other systems name a bucket: a time, a date, and the month or ISO week of one that is
such."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import date, timedelta
from functools import cache, lru_cache
from itertools import product
from typing import NamedTuple

from pik.errors import Invalid
from pik.inputs.strptime import Strptime
from pik.model.calendar import UTC_DAYS, Buckets
from pik.model.instant import format_instant
from pik.model.zone import load_zone

_DAY = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})", re.ASCII)
_MONTH = re.compile(r"(\d{4})[-/](\d{1,2})", re.ASCII)
_WEEK = re.compile(r"(\d{4})-?W(\d{1,2})", re.ASCII | re.IGNORECASE)

_DAYS = ("%d.%m.%Y", *("%d %B %Y", "%B %d, %Y"), *("%d-%b-%Y", "%d/%b/%Y", "%d %b %Y", "%b %d, %Y", "%a, %d %b %Y"))
_CLOCKS = ("", " %H:%M", " %H:%M:%S", ", %H:%M", ", %H:%M:%S", ", %I:%M %p", " %I:%M:%S %p")
_SWAPPED = re.compile(r"(\d\d?)(?:([-/])(\d\d?)\2\d{4}|([/.])(\d\d?)\4\d\d)", re.ASCII)


class _Span(NamedTuple):
    """A month or week: what it is called, its first day and the day after it."""

    kind: str
    first: date
    after: date


def bucket_named(text: str, metric: str, buckets: Buckets) -> int:
    """Return the instant that a text names. Dates that are numbers begin with their year, or have points between them,
    since 03/02 is two dates. Raises Invalid."""
    read = _read(text)
    if isinstance(read, str):
        return buckets.named(read)
    start = buckets.named(read.first.isoformat())
    if buckets.start_of(start) != start or buckets.end_of(start) != buckets.named(read.after.isoformat()):
        raise Invalid(f"{text!r} is a {read.kind}, and the buckets of {metric} are not {read.kind}s")
    return start


def expect_bucket(text: str) -> None:
    """Raise Invalid for a text that names a bucket of no metric."""
    read = _read(text)
    if isinstance(read, str):
        UTC_DAYS.named(read)


def _read(text: str) -> str | _Span:
    """Return the time or date that a text is, as Buckets.named takes it, or the month or week. Raises Invalid."""
    try:
        if not text[:4].isdigit() and (spelled := _spelled(text)):
            return spelled
        if day := _DAY.fullmatch(text):
            return f"{day[1]}-{int(day[3]):02d}-{int(day[4]):02d}"
        if month := _MONTH.fullmatch(text):
            return _month(date(int(month[1]), int(month[2]), 1))
        if re.fullmatch(r"[A-Za-z]{3,9},? \d{4}", text) and (spelled := _spelled(f"1 {text.replace(',', '')}")):
            return _month(date.fromisoformat(spelled))
        if week := _WEEK.fullmatch(text):
            monday = date.fromisocalendar(int(week[1]), int(week[2]), 1)
            return _Span("week", monday, monday + timedelta(days=7))
    except (ValueError, OverflowError):
        raise Invalid(f"{text!r} is not of the calendar") from None
    if re.fullmatch(r"\d{8}", text, re.ASCII):
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    return text


def _month(first: date) -> _Span:
    return _Span("month", first, (first + timedelta(days=31)).replace(day=1))


def order_of_day(text: str) -> str | None:
    """Return `day` or `month`, the one of which a date of numbers that ends with its year has first; '' where both can
    be, None where it is not such a date."""
    found = _SWAPPED.fullmatch(text)
    if found is None:
        return None
    return "day" if int(found[1]) > 12 else "month" if int(found[3] or found[5]) > 12 else ""


@cache
def _formats() -> tuple[tuple[Strptime, bool], ...]:
    """Return the formats, each with whether it has a clock."""
    utc = load_zone("UTC")
    return tuple((Strptime(day + clock, utc), bool(clock)) for day, clock in product(_DAYS, _CLOCKS))


@lru_cache(4096)  # rows of one bucket have one text
def _spelled(text: str) -> str | None:
    """Return the date, or the time, that a text is, as people write it so that it has one meaning."""
    for read, has_clock in _formats():
        with suppress(Invalid):
            local = format_instant(read(text)).removesuffix("Z")
            return local if has_clock else local.removesuffix("T00:00:00")
    return None

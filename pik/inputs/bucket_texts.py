"""The texts by which tables of other systems name a bucket: a time, a date, and the month or ISO week of one that is
such."""

from __future__ import annotations

import re
from datetime import date, timedelta

from pik.errors import Invalid
from pik.model.calendar import Buckets

_DAY = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})", re.ASCII)
_MONTH = re.compile(r"(\d{4})[-/](\d{1,2})", re.ASCII)
_WEEK = re.compile(r"(\d{4})-?W(\d{1,2})", re.ASCII | re.IGNORECASE)


def bucket_named(text: str, metric: str, buckets: Buckets) -> int:
    """Return the instant that a text names. Dates begin with their year, since 03/02 is two dates. Raises Invalid."""
    try:
        if day := _DAY.fullmatch(text):
            return buckets.named(f"{day[1]}-{int(day[3]):02d}-{int(day[4]):02d}")
        if month := _MONTH.fullmatch(text):
            first = date(int(month[1]), int(month[2]), 1)
            return _whole(text, "month", metric, buckets, first, (first + timedelta(days=31)).replace(day=1))
        if week := _WEEK.fullmatch(text):
            monday = date.fromisocalendar(int(week[1]), int(week[2]), 1)
            return _whole(text, "week", metric, buckets, monday, monday + timedelta(days=7))
    except (ValueError, OverflowError):
        raise Invalid(f"{text!r} is not of the calendar") from None
    if re.fullmatch(r"\d{8}", text, re.ASCII):
        return buckets.named(f"{text[:4]}-{text[4:6]}-{text[6:]}")
    return buckets.named(text)


def _whole(text: str, kind: str, metric: str, buckets: Buckets, first: date, after: date) -> int:
    """Return where the bucket begins that lasts from one date to another. Raises Invalid if there is none."""
    start = buckets.named(first.isoformat())
    if buckets.start_of(start) != start or buckets.end_of(start) != buckets.named(after.isoformat()):
        raise Invalid(f"{text!r} is a {kind}, and the buckets of {metric} are not {kind}s")
    return start

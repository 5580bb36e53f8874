"""Buckets: how a metric divides time, into stretches of one length or by the calendar of a zone."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from pik.errors import Invalid
from pik.model.duration import parse_duration
from pik.model.instant import DAY, HOUR, MAX_INSTANT, MIN_INSTANT, SECOND, day_text, parse_instant, parse_local
from pik.model.typed_times import local_instant
from pik.model.window import Window
from pik.model.zone import load_zone
from pik.model.zone_changes import offset_changes


class Span(NamedTuple):
    """From `start` on, to where the next span starts, a bucket begins every `size` nanoseconds."""

    start: int
    size: int

    def start_of(self, instant: int) -> int:
        """Return the start of the bucket that contains the instant."""
        return self.start + (instant - self.start) // self.size * self.size

    def goes_on_with(self, other: Span) -> bool:
        """Return whether the other span, which starts later or together, has the buckets that this one would have."""
        return other.start == self.start or (self.size == other.size and self.start_of(other.start) == other.start)


ONE_BUCKET = 1 << 62
"""The size of a span that is a single bucket."""


class Buckets(ABC):
    """What a metric divides time into. A bucket is known by its start; the first and the last one end where time does:
    what lies beyond is not an instant.

    `size` is how long most of them are, in nanoseconds.
    """

    size: int

    @abstractmethod
    def spans(self, window: Window) -> Sequence[Span]:
        """Return the spans of the buckets that the window touches. The first one may start before time does."""

    @abstractmethod
    def start_of(self, instant: int) -> int:
        """Return the start of the bucket that contains the instant."""

    @abstractmethod
    def end_of(self, instant: int) -> int:
        """Return the end of the bucket that contains the instant."""

    def around(self, instant: int) -> Window:
        """Return the bucket that contains the instant."""
        return Window(self.start_of(instant), self.end_of(instant))

    def widened(self, window: Window) -> Window:
        """Return the smallest window of whole buckets that contains this one."""
        return Window(self.start_of(window.start), self.end_of(window.end - 1))

    def named(self, text: str) -> int:
        """Return the instant that a text names: a time (RFC 3339), or the first instant of a date. Raises Invalid."""
        return parse_instant(text, date_only=True)

    def offset_at(self, instant: int) -> int:  # noqa: ARG002 - of others
        """Return how far the clock of the buckets is ahead of UTC, in nanoseconds."""
        return 0

    def local_text(self, start: int) -> str | None:  # noqa: ARG002 - of others
        """Return what a bucket's start is called where the metric has a timezone; None: it has none, or no bucket
        begins there."""
        return None

    @property
    def order(self) -> tuple[int, str]:
        """What a list of different buckets is ordered by: the larger ones are later."""
        return self.size, repr(self)


@dataclass(frozen=True, slots=True)
class FixedBuckets(Buckets):
    """Buckets of one size. One of them begins at `origin` nanoseconds after 1970-01-01T00:00:00Z."""

    size: int
    origin: int = 0

    def spans(self, window: Window) -> Sequence[Span]:
        """See Buckets.spans."""
        return [Span(window.start - (window.start - self.origin) % self.size, self.size)]

    def start_of(self, instant: int) -> int:
        """See Buckets.start_of."""
        return max(instant - (instant - self.origin) % self.size, MIN_INSTANT)

    def end_of(self, instant: int) -> int:
        """See Buckets.end_of."""
        return min(instant - (instant - self.origin) % self.size + self.size, MAX_INSTANT + 1)


_CHUNK = 400 * DAY
"""So much time's spans are computed together, and remembered."""


@dataclass(frozen=True, slots=True)
class CalendarBuckets(Buckets):
    """Hours, days, weeks or months of a zone's calendar.

    A day begins at the first instant of its date: where clocks skip midnight that is the first time that exists, and
    where they show it twice the first of the two. A date that was skipped is not a bucket. A week begins with its
    Monday, a month with its first day. An hour begins whenever the clock begins one, so a repeated hour is two buckets;
    where the clock is set into the midst of another hour, that one begins there.
    """

    unit: str
    zone: str

    @property
    def size(self) -> int:  # type: ignore[override]
        """See Buckets."""
        return _SIZES[self.unit]

    def spans(self, window: Window) -> Sequence[Span]:
        """See Buckets.spans."""
        spans: list[Span] = []
        start = window.start
        while start < window.end:
            chunk = start // _CHUNK
            end = min(window.end, (chunk + 1) * _CHUNK)
            starts, of_chunk = _spans_of(self.unit, self.zone, chunk)
            for span in of_chunk[bisect_right(starts, start) - 1 : bisect_right(starts, end - 1)]:
                if not spans or not spans[-1].goes_on_with(span):
                    spans.append(span)
            start = end
        return spans

    def start_of(self, instant: int) -> int:
        """See Buckets.start_of."""
        starts, spans = _spans_of(self.unit, self.zone, instant // _CHUNK)
        return max(spans[bisect_right(starts, instant) - 1].start_of(instant), MIN_INSTANT)

    def end_of(self, instant: int) -> int:
        """See Buckets.end_of."""
        starts, spans = _spans_of(self.unit, self.zone, instant // _CHUNK)
        number = bisect_right(starts, instant)
        span = spans[number - 1]
        return min(span.start_of(instant) + span.size, *starts[number : number + 1], MAX_INSTANT + 1)

    def named(self, text: str) -> int:
        """See Buckets.named. A date, and a time without an offset, are those of the zone; a date may be written as in
        `local_text`."""
        plain = _DATE_WITH_OFFSET.sub("", text)
        instant = parse_instant(plain, date_only=True)
        local, offset = parse_local(plain, date_only=True)
        names_day = self.unit != "1h" and offset is None and local % DAY == 0  # clocks may skip or repeat midnight
        if ("T" in plain.upper() or ":" in plain) and not names_day:
            return local_instant(plain, load_zone(self.zone))
        days = CalendarBuckets("1d", self.zone)
        start = days.start_of(instant - DAY)
        while start < instant + DAY:
            if load_zone(self.zone).local_at(start).toordinal() - _EPOCH == instant // DAY:
                shown = days.local_text(start)
                if text not in (plain, shown):
                    raise Invalid(f"{text!r} has the wrong offset: in {self.zone} that day is {shown}")
                return start
            start = days.end_of(start)
        raise Invalid(f"{text!r} does not exist in {self.zone}: its calendar skipped that date")

    def offset_at(self, instant: int) -> int:
        """See Buckets.offset_at."""
        return load_zone(self.zone).offset_at(instant)

    def local_text(self, start: int) -> str | None:
        """Return the date on which a bucket begins, of an hour its time as well, with the offset: `2026-03-29+01:00`,
        `2026-03-29T03:00:00+02:00`."""
        if self.zone == "UTC" or self.start_of(start) != start:
            return None
        local = load_zone(self.zone).local_at(start)
        text = local.isoformat()
        return text if self.unit == "1h" else text[:10] + text[19:]


_EPOCH = date(1970, 1, 1).toordinal()
_DATE_WITH_OFFSET = re.compile(r"(?<=^\d{4}-\d\d-\d\d)[+-]\d\d:\d\d$", re.ASCII)

_MONDAY = 4
"""Days from 1970-01-01 to the first Monday after it."""

_SIZES = {"1h": HOUR, "1d": DAY, "1w": 7 * DAY, "1mo": 31 * DAY}
"""How long buckets of the calendar are, most of them."""

UTC_DAYS = FixedBuckets(DAY)


@lru_cache(maxsize=256)
def buckets_of(text: str, zone: str | None = None) -> Buckets:
    """Return the buckets of a definition's `bucket` and `timezone`. Raises Invalid."""
    if zone is not None:
        if text not in _SIZES:
            raise Invalid(
                f"invalid bucket {text!r}: with a timezone it is one of {', '.join(_SIZES)}",
                hint="leave timezone out for buckets of a fixed size",
            )
        return CalendarBuckets(text, load_zone(zone).name)
    if text == "1mo":
        return CalendarBuckets(text, "UTC")
    if text == "1w":
        return FixedBuckets(7 * DAY, _MONDAY * DAY)
    if re.fullmatch(r"\d+(w|mo)", text):
        raise Invalid(f"invalid bucket {text!r}: weeks and months are buckets one by one", hint="1w, 1mo, or 14d")
    try:
        size = parse_duration(text)
    except Invalid:
        raise Invalid(f"invalid bucket {text!r}: not a duration such as 15m or 1d, nor 1w or 1mo") from None
    if (size < DAY and DAY % size) or (size > DAY and size % DAY):
        raise Invalid(f"invalid bucket {text!r}: it must divide a day or be whole days", hint="such as 1h, 1d, 7d, 1mo")
    return FixedBuckets(size)


def covering(window: Window, each: Iterable[Buckets]) -> Window:
    """Return what the whole buckets of all of these cover that the window touches."""
    windows = [window, *(one.widened(window) for one in each)]
    return Window(min(one.start for one in windows), max(one.end for one in windows))


@lru_cache(maxsize=4096)
def _spans_of(unit: str, zone: str, chunk: int) -> tuple[list[int], list[Span]]:
    """Return the spans of a chunk of time, from the one in which it begins to one after it, and their starts."""
    first, end = chunk * _CHUNK // SECOND, (chunk + 1) * _CHUNK // SECOND
    margin = _SIZES[unit] // SECOND + _MARGIN
    changes = offset_changes(zone, first - margin, end + margin)
    found = (_hours if unit == "1h" else _dates)(unit, changes, end + margin)
    spans = [Span(start * SECOND, size * SECOND if size else ONE_BUCKET) for start, size in found]
    return [span.start for span in spans], spans


_MARGIN = 3 * 86400
"""Seconds before a bucket begins in which a date may already have begun."""


def _hours(_unit: str, changes: Sequence[tuple[int, int]], end: int) -> Iterator[tuple[int, int]]:
    """Yield the start of each span of hours (seconds), and the size of its buckets; 0: there is a single one. An offset
    (seconds) holds from each of the changes on."""
    before = None
    for (start, offset), (until, _) in pairwise([*changes, (end, 0)]):
        hour = (start + offset) // 3600
        jumps = before is not None and (start - 1 + before) // 3600 != hour
        if jumps and (start + offset) % 3600:
            yield start, 0
        begin = -(-(start + offset) // 3600) * 3600 - offset
        yield from _run(begin, 3600, until)
        before = offset


def _dates(unit: str, changes: Sequence[tuple[int, int]], end: int) -> Iterator[tuple[int, int]]:
    """Yield the spans of days, weeks or months as `_hours` does."""
    reached = None
    for (start, offset), (until, _) in pairwise([*changes, (end, 0)]):
        number = _number(unit, (start + offset) // 86400)
        if reached is None:
            reached = number
        elif number > reached:  # clocks were set forward into it
            yield start, 0
            reached = number
        last = _number(unit, (until - 1 + offset) // 86400)
        if unit == "1mo":
            for each in range(reached + 1, last + 1):
                yield _first_day(unit, each) * 86400 - offset, 0
        elif last > reached:
            yield from _run(_first_day(unit, reached + 1) * 86400 - offset, _SIZES[unit] // SECOND, until)
        reached = max(reached, last)


def _run(begin: int, size: int, until: int) -> Iterator[tuple[int, int]]:
    """Yield the spans of buckets that begin every `size` seconds before `until`, the last of which may have another
    size."""
    if begin < until:
        last = begin + (until - 1 - begin) // size * size
        if begin < last:
            yield begin, size
        yield last, 0


def _number(unit: str, day: int) -> int:
    """Return the number of the day, week or month of a day number (days since 1970-01-01)."""
    if unit == "1d":
        return day
    if unit == "1w":
        return (day - _MONDAY) // 7
    year, month = map(int, day_text(day).split("-")[:2])
    return year * 12 + month - 1


def _first_day(unit: str, number: int) -> int:
    """Return the first day of a day, week or month."""
    if unit == "1d":
        return number
    if unit == "1w":
        return number * 7 + _MONDAY
    return date(number // 12, number % 12 + 1, 1).toordinal() - _EPOCH

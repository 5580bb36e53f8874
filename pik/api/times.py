"""Times of the API: what it gives, and what it takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from pik.errors import Invalid, UsageError
from pik.model.duration import parse_duration
from pik.model.instant import MAX_INSTANT, MIN_INSTANT, checked_instant, format_instant
from pik.model.typed_times import typed_instant
from pik.model.window import Window
from pik.model.zone import Zone, load_zone

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, order=True)
class Instant:
    """A moment, to the nanosecond: `nanos` since 1970-01-01T00:00:00Z. Its `str()` is RFC 3339 in UTC, as the command
    line prints it."""

    nanos: int

    def __str__(self) -> str:
        return format_instant(self.nanos)

    def __repr__(self) -> str:
        return f"Instant({str(self)!r})"

    def to_datetime(self) -> datetime:
        """Return it as a datetime in UTC, which has microseconds: the nanoseconds after the last one are cut off."""
        return _EPOCH + (self.nanos // 1000) * _MICROSECOND


When = Instant | datetime | date | str
"""A moment that a method takes: an `Instant`; a datetime with a time zone (pandas' Timestamp too); a date, which is its
midnight in UTC or in the zone of `timezone=`; RFC 3339 text or a date as text. A datetime without a time zone is
refused unless `timezone=` names one."""

Duration = timedelta | str
"""A span of time that a method takes: a timedelta, or text such as `90s`, `15m`, `2h`, `7d`."""


def zone_of(timezone: str | None) -> Zone | None:
    """Return the zone of this IANA name. Raises UsageError."""
    try:
        return None if timezone is None else load_zone(timezone)
    except UsageError as error:
        raise UsageError(f"timezone: {error.message}", hint=error.hint) from None


def nanos_of(name: str, when: When, zone: Zone | None = None) -> int:
    """Return the nanoseconds since 1970 of a moment, the argument of this name. Raises UsageError."""
    try:
        match when:
            case Instant():
                return when.nanos
            case datetime() if when.tzinfo is not None:
                nanos = (when - _EPOCH) // _MICROSECOND * 1000 + getattr(when, "nanosecond", 0)
                return checked_instant(nanos, when)
            case datetime() if zone is None:
                raise UsageError(
                    f"{name}: {when!r} has no time zone",
                    hint="timezone='Europe/Berlin' (or 'UTC') says which it is in, or give it a tzinfo",
                )
            case date():
                return typed_instant(when.isoformat(), zone, now=time.time_ns())
            case str():
                return typed_instant(when, zone, now=time.time_ns())
    except Invalid as error:
        raise UsageError(f"{name}: {error.message}", hint=error.hint or "or a date: 2026-01-31") from None
    raise UsageError(
        f"{name}: expected a datetime, a date, or text, not {when!r}", hint="such as '2026-01-31T08:00:00Z'"
    )


def duration_of(name: str, span: Duration) -> int:
    """Return the nanoseconds of a span, the argument of this name. Raises UsageError."""
    if isinstance(span, timedelta):
        if span <= timedelta(0):
            raise UsageError(f"{name}: {span} is not a positive duration", hint="such as timedelta(hours=2) or '2h'")
        return span // _MICROSECOND * 1000 + int(getattr(span, "nanoseconds", 0))
    try:
        return parse_duration(span)
    except Invalid as error:
        raise UsageError(f"{name}: {error.message}", hint=error.hint) from None
    except TypeError:
        raise UsageError(f"{name}: expected a timedelta or text, not {span!r}", hint="such as '2h'") from None


def window_of(from_: When | None, to: When | None, since: Duration | None, timezone: str | None) -> Window:
    """Return the window that these arguments describe; all of time without them. Raises UsageError."""
    if since is not None and from_ is not None:
        raise UsageError("since and from_ exclude each other: both begin the window", hint="leave one of them out")
    zone = zone_of(timezone)
    start = MIN_INSTANT if from_ is None else nanos_of("from_", from_, zone)
    if since is not None:
        start = time.time_ns() - duration_of("since", since)
    end = MAX_INSTANT + 1 if to is None else nanos_of("to", to, zone)
    if start >= end:
        raise UsageError(
            f"the window from {format_instant(start)} to {format_instant(end)} is empty",
            hint="from_ is in the window, to is not; to must be later",
        )
    return Window(start, end)

"""What producers write of ISO 8601, with zones in brackets (RFC 9557, Java's ZonedDateTime) or after a space (Trino).

Beside what `parse_event_time` reads: week and ordinal dates, 24:00, fractions of minutes and hours, hours alone. What
has no single instant is refused with the reason: a date alone, leap seconds, expanded years.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from functools import lru_cache

from pik.errors import Invalid, UsageError
from pik.model.instant import (
    DAY,
    HOUR,
    IN_WORDS,
    MINUTE,
    OFFSET,
    SECOND,
    checked_instant,
    offset_nanos,
    resolved,
    shown,
    time_of_day,
)
from pik.model.zone import TimeNotes, Zone, load_zone

_FRACTION = r"(?:[.,](?P<fraction>\d+))?"
_END = rf"(?: ?(?P<offset>{IN_WORDS}|{OFFSET}|\u2212\d\d(?::?\d\d)?))?(?P<zones>(?:\[[^\[\]]+\])*| [a-z]+(?:/[\w+-]+)+)"
_EXTENDED = re.compile(
    r"(?P<year>\d{4})-(?:(?P<month>\d\d)-(?P<day>\d\d)|W(?P<week>\d\d)-(?P<weekday>\d)|(?P<ordinal>\d{3}))"
    rf"(?:[T ](?P<hour>\d\d)(?::(?P<minute>\d\d)(?::(?P<second>\d\d))?)?{_FRACTION}{_END})?",
    re.ASCII | re.IGNORECASE,
)
_BASIC = re.compile(
    r"(?P<year>\d{4})(?:(?P<month>\d\d)(?P<day>\d\d)|W(?P<week>\d\d)(?P<weekday>\d)|(?P<ordinal>\d{3}))"
    rf"(?:T(?P<hour>\d\d)(?:(?P<minute>\d\d)(?P<second>\d\d)?)?{_FRACTION}{_END})?",
    re.ASCII | re.IGNORECASE,
)
_EXPANDED = re.compile(r"[+\-\u2212]\d{5,}-?\d\d-?\d\d.*", re.ASCII)


def read_iso8601(text: str, zone: Zone | None, notes: TimeNotes | None = None) -> int:
    """Return the instant of a text; without an offset it is a local time of `zone`. `notes` are those of a zone in
    the text. Raises Invalid."""
    match = _EXTENDED.fullmatch(text) or _BASIC.fullmatch(text)
    if match is None:
        if _EXPANDED.fullmatch(text):
            raise Invalid(f"{shown(text)} has an expanded year; years have four digits")
        raise Invalid(f"{shown(text)} is not an ISO 8601 time such as 2026-01-31T23:59:59Z")
    found = match.groupdict()
    day = _day(found, text)
    if found["hour"] is None:
        reads = (
            f"; --time-format {'%Y-%m-%d' if '-' in text else '%Y%m%d'} reads its midnight" if found["month"] else ""
        )
        raise Invalid(f"{shown(text)} is a date without a time of day{reads}", option="time-format" if reads else "")
    local = day * DAY + _clock(found, text)
    offset = offset_nanos((found["offset"] or "").replace("\u2212", "-"), text)
    if names := [name for name in re.findall(r"[^\[\] ]+", found["zones"]) if "=" not in name]:
        return _in_zone(local, offset, found["offset"] or "", names, text, notes)
    return resolved(local, offset, zone, text)


def _day(found: dict[str, str], text: str) -> int:
    """Return the number of the day since 1970. Raises Invalid."""
    year = int(found["year"])
    try:
        if found["week"]:
            day = date.fromisocalendar(year, int(found["week"]), int(found["weekday"]))
        elif found["ordinal"]:
            day = date(year, 1, 1) + timedelta(days=int(found["ordinal"]) - 1)
            if day.year != year:
                raise ValueError
        else:
            day = date(year, int(found["month"]), int(found["day"]))
    except (ValueError, OverflowError):
        raise Invalid(f"{shown(text)} has an impossible date") from None
    return (day - date(1970, 1, 1)).days


def _clock(found: dict[str, str], text: str) -> int:
    """Return nanoseconds since midnight. The fraction is that of the smallest unit there is. Raises Invalid."""
    hour, minute, second = (int(found[name] or 0) for name in ("hour", "minute", "second"))
    unit = SECOND if found["second"] else MINUTE if found["minute"] else HOUR
    digits = (found["fraction"] or "").rstrip("0")
    scale: int = 10 ** len(digits)
    fraction, inexact = divmod(int(digits or 0) * unit, scale)
    if inexact:
        raise Invalid(f"{shown(text)} is finer than a nanosecond")
    if hour == 24 and not (minute or second or fraction):
        return DAY
    return time_of_day(hour, minute, second, text) + fraction


def _in_zone(local: int, offset: int | None, written: str, names: list[str], text: str, notes: TimeNotes | None) -> int:
    """Return the instant of a local time whose zone is in the text. Raises Invalid unless the offset is that of the
    zone then; `Z` is none (RFC 9557): it says that the instant is known, and nothing of the zone's offset."""
    zone = _known_zone(names[0].removeprefix("!"))
    if zone is None or len(names) > 1:
        raise Invalid(f"{shown(text)} names a zone that is not known")
    if offset is None:
        return resolved(local, None, zone._replace(notes=notes), text)
    instant = checked_instant(local - offset, text)
    if written not in "Zz" and zone.offset_at(instant) != offset:
        raise Invalid(f"{shown(text)} has an offset that is not its zone's at that time")
    return instant


@lru_cache(maxsize=256)
def _known_zone(name: str) -> Zone | None:
    try:
        return load_zone(name)
    except UsageError:
        return None

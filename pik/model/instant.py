"""Instants: whole nanoseconds since 1970-01-01T00:00:00Z, and their text.

Text is RFC 3339 (https://www.rfc-editor.org/rfc/rfc3339), to the nanosecond, and the other forms of ISO 8601 that
producers write. An instant fits a signed 64-bit integer, so the range is 1677-09-22 to 2262-04-10, cut to whole days.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from pik.errors import Invalid

if TYPE_CHECKING:
    from pik.model.zone import Zone

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_EPOCH = date(1970, 1, 1)
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_DAY = (date(1677, 9, 22) - _EPOCH).days
LAST_DAY = (date(2262, 4, 10) - _EPOCH).days
MIN_INSTANT = FIRST_DAY * DAY
MAX_INSTANT = (LAST_DAY + 1) * DAY - 1

_CLOCK = r"(?::(\d\d)(?:[.,](\d+))?)?"
OFFSET = r"Z|z|[+-]\d\d(?::?\d\d)?"
IN_WORDS = r"(?<= )(?:\+0000 )?UTC"
_EXTENDED = re.compile(rf"(\d{{4}}-\d\d-\d\d)(?:[Tt ](\d\d):(\d\d){_CLOCK} ?({IN_WORDS}|{OFFSET})?)?", re.ASCII)
_BASIC = re.compile(rf"(\d{{8}})[Tt](\d\d)(\d\d){_CLOCK.replace(':(', '(', 1)}({OFFSET})?", re.ASCII)


@lru_cache(maxsize=4096)
def _day_number(text: str) -> int:
    try:
        return (date.fromisoformat(text) - _EPOCH).days
    except ValueError:
        raise Invalid(f"'{text}' is not a date of the calendar") from None


def parse_instant(text: str, *, date_only: bool = False) -> int:
    """Return nanoseconds since the epoch of an RFC 3339 text; without an offset it is UTC.

    `date_only` also takes a bare date, as its midnight in UTC. Raises Invalid for anything else, for impossible dates,
    for digits finer than a nanosecond, for leap seconds and for instants that 64 bits do not hold.
    """
    local, offset = parse_local(text, date_only)
    return checked_instant(local - (offset or 0), text)


def parse_event_time(text: str, zone: Zone | None) -> int:
    """As `parse_instant`, but a text without an offset is a local time of `zone`. Raises Invalid without a zone."""
    local, offset = parse_local(text, date_only=False)
    return resolved(local, offset, zone, text)


def resolved(local: int, offset: int | None, zone: Zone | None, text: str) -> int:
    """Return the instant of a local time, in nanoseconds, with its offset or else in `zone`. Raises Invalid naming
    `text`."""
    if offset is None and zone is None:
        raise Invalid(
            f"{shown(text)} has no offset from UTC; --timezone ZONE tells which time zone it is in"
            " (in a stack: parameter TimeZone)",
            option="timezone",
        )
    if offset is None and zone is not None and MIN_INSTANT <= local <= MAX_INSTANT:
        try:
            offset = zone.offset(local)
        except Invalid as error:
            raise Invalid(f"{shown(text)} {error.message}", option=error.option) from None
    return checked_instant(local - (offset or 0), text)


def parse_local(text: str, date_only: bool) -> tuple[int, int | None]:
    """Return the local time of a text, as nanoseconds since 1970-01-01T00:00:00 there, and its offset, if it has
    one."""
    match = _EXTENDED.fullmatch(text) or _BASIC.fullmatch(text)
    if match is None or (match[2] is None and not date_only):
        raise Invalid(f"{shown(text)} is not an RFC 3339 time such as 2026-01-31T23:59:59Z")
    date_text = match[1] if "-" in match[1] else f"{match[1][:4]}-{match[1][4:6]}-{match[1][6:]}"
    hour, minute, second = (int(part or 0) for part in match.group(2, 3, 4))
    local = _day_number(date_text) * DAY + time_of_day(hour, minute, second, text)
    return local + fraction_nanos(match[5], text), offset_nanos(match[6], text)


def time_of_day(hour: int, minute: int, second: int, text: str) -> int:
    """Return nanoseconds since midnight. Raises Invalid naming `text`."""
    if hour > 23 or minute > 59 or second > 59:
        leap = " (leap seconds have no instant of their own in UTC epoch time)" if second == 60 else ""
        raise Invalid(f"{shown(text)} has an impossible time of day{leap}")
    return hour * HOUR + minute * MINUTE + second * SECOND


def fraction_nanos(digits: str | None, text: str) -> int:
    """Return nanoseconds of the digits of a second's fraction. Raises Invalid naming `text`."""
    fraction = (digits or "").rstrip("0")
    if len(fraction) > 9:
        raise Invalid(f"{shown(text)} is finer than a nanosecond")
    return int(fraction.ljust(9, "0"))


def offset_nanos(offset: str | None, text: str) -> int | None:
    """Return nanoseconds of `Z`, `UTC`, `+0000 UTC`, `+01`, `+0100` or `+01:00`; None of nothing. Raises Invalid naming
    `text`."""
    if not offset:
        return None
    if offset.upper() in ("Z", "UTC", "+0000 UTC"):
        return 0
    hours, minutes = int(offset[1:3]), int(offset[3:].lstrip(":") or 0)
    if hours > 23 or minutes > 59:
        raise Invalid(f"{shown(text)} has an impossible offset")
    return (1 if offset[0] == "+" else -1) * (hours * HOUR + minutes * MINUTE)


def read_instant(text: str, zone: Zone | None = None) -> tuple[int, bytes, str | None]:
    """Return the instant of an event's time as `parse_event_time` reads it, the JSON text of its `full_instant`, and
    the text itself unless it is canonical: RFC 3339 in UTC with upper-case T and Z."""
    try:
        (hour, hour_json), (second, second_json) = _hours[text[:13]], _seconds[text[13:19]]
        rest, rest_json, other = _rests.get(text[19:]) or _read_rest(text[19:])
    except KeyError:
        return _read_unfamiliar_instant(text, zone)
    return hour + second + rest, hour_json + second_json + rest_json, text if other else None


# Nearly every producer writes times in UTC. Such a text is an hour, a second of it and a rest, which come again and
# again: three look-ups read it. There are 3600 seconds; of the others as many are remembered as a year has hours, and
# more than a second has milliseconds.
_FAMILIAR = 1 << 13
_IN_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|\+00:00)", re.ASCII)
_REST = re.compile(r"(?:\.(\d{1,9}))?(?:Z|\+00:00)", re.ASCII)
_hours: dict[str, tuple[int, bytes]] = {}
_seconds: dict[str, tuple[int, bytes]] = {}
_rests: dict[str, tuple[int, bytes, bool]] = {}


def _read_unfamiliar_instant(text: str, zone: Zone | None) -> tuple[int, bytes, str | None]:
    instant = parse_event_time(text, zone)
    full = b'"%s"' % full_instant(instant).encode()
    if _IN_UTC.fullmatch(text):
        if len(_hours) >= _FAMILIAR:
            _hours.clear()
        _hours[text[:13]] = instant - instant % HOUR, full[:14]
        _seconds[text[13:19]] = (instant - instant % SECOND) % HOUR, full[14:20]
    return instant, full, None if is_canonical(text) else text


def _read_rest(text: str) -> tuple[int, bytes, bool]:
    """Return what follows the second: nanoseconds, the end of the JSON text, and whether it is not canonical.

    Raises KeyError unless it is in UTC."""
    match = _REST.fullmatch(text)
    if match is None:
        raise KeyError(text)
    nanos = (match[1] or "").ljust(9, "0")
    rest = int(nanos), b'.%sZ"' % nanos.encode(), text[-1] != "Z"
    if len(_rests) < _FAMILIAR:
        _rests[text] = rest
    return rest


def is_canonical(text: str) -> bool:
    """Return whether a valid time is RFC 3339 in UTC with upper-case T and Z, so that its instant has all of its
    information."""
    return text.endswith("Z") and _IN_UTC.fullmatch(text) is not None


def checked_instant(instant: int, value: object) -> int:
    """`instant` if 64 bits hold it; raises Invalid, naming `value`, otherwise."""
    if not MIN_INSTANT <= instant <= MAX_INSTANT:
        raise Invalid(f"{shown(str(value))} is outside of 1677-09-22 to 2262-04-10, which 64-bit nanoseconds hold")
    return instant


def shown(text: str) -> str:
    """Return a text in quotes, cut to what fits a message."""
    return repr(text if len(text) <= 60 else text[:57] + "…")


@lru_cache(maxsize=4096)
def day_text(day: int) -> str:
    """`YYYY-MM-DD` of a day number (days since 1970-01-01)."""
    return (_EPOCH + timedelta(days=day)).isoformat()


def day_of(instant: int) -> int:
    """Return the UTC day number of an instant."""
    return instant // DAY


@lru_cache(maxsize=65536)
def _minute_text(minute: int) -> str:
    return (_EPOCH_UTC + timedelta(minutes=minute)).isoformat()[:17]


def full_instant(instant: int) -> str:
    """RFC 3339 in UTC with nine fraction digits: `2026-01-31T23:59:59.000000000Z`, the text in raw and in identity."""
    minute, rest = divmod(instant, MINUTE)
    second, nanos = divmod(rest, SECOND)
    return f"{_minute_text(minute)}{second:02d}.{nanos:09d}Z"


def format_instant(instant: int) -> str:
    """RFC 3339 in UTC: as `full_instant`, with only as many of 0, 3, 6 or 9 fraction digits as needed."""
    text = full_instant(instant)[:-1]
    return text.removesuffix("000").removesuffix("000").removesuffix("000").removesuffix(".") + "Z"


_display_zone: ContextVar[Zone | None] = ContextVar("display_zone", default=None)


@contextmanager
def displayed_in(zone: Zone | None) -> Iterator[None]:
    """While this holds, `display_instant` shows times in that zone; None is UTC."""
    token = _display_zone.set(zone)
    try:
        yield
    finally:
        _display_zone.reset(token)


def display_instant(instant: int) -> str:
    """Return the instant for people: as `format_instant`, or in the zone of `displayed_in`, with its offset.

    Whatever is kept, or read by programs, is written by `format_instant`."""
    text, zone = format_instant(instant), _display_zone.get()
    if zone is None:
        return text
    minute, offset = _local_minute(zone, instant // MINUTE)
    return f"{minute}{text[17:-1]}{offset}"


@lru_cache(maxsize=65536)
def _local_minute(zone: Zone, minute: int) -> tuple[str, str]:
    """Return `YYYY-MM-DDTHH:MM:` in the zone, and its offset, such as `+02:00`. RFC 3339 has no seconds in an offset:
    those of local mean times before 1972 are cut."""
    moment = _EPOCH_UTC + timedelta(minutes=minute)
    offset = moment.astimezone(zone.info).utcoffset()
    assert offset is not None
    minutes = int(offset.total_seconds() / 60)
    hours, rest = divmod(abs(minutes), 60)
    local = (moment + timedelta(minutes=minutes)).isoformat()[:17]
    return local, f"{'-' if minutes < 0 else '+'}{hours:02d}:{rest:02d}"

"""Instants: whole nanoseconds since 1970-01-01T00:00:00Z, and their text.

Text is RFC 3339 (https://www.rfc-editor.org/rfc/rfc3339), to the nanosecond. An instant fits a signed 64-bit integer,
so the range is 1677-09-22 to 2262-04-10, cut to whole days.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from pik.errors import Invalid

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

FIRST_DAY = (date(1677, 9, 22) - date(1970, 1, 1)).days
LAST_DAY = (date(2262, 4, 10) - date(1970, 1, 1)).days
MIN_INSTANT = FIRST_DAY * DAY
MAX_INSTANT = (LAST_DAY + 1) * DAY - 1

_EPOCH = date(1970, 1, 1)
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(Z|z|[+-]\d\d:\d\d)?)?",
    re.ASCII,
)


@lru_cache(maxsize=4096)
def _day_number(text: str) -> int:
    try:
        return (date.fromisoformat(text) - _EPOCH).days
    except ValueError:
        raise Invalid(f"there is no date {text}") from None


def parse_instant(text: str, *, date_only: bool = False) -> int:
    """Nanoseconds since the epoch of an RFC 3339 text; without an offset it is UTC.

    `date_only` also takes a bare date, as its midnight in UTC. Raises Invalid for anything else, for impossible dates,
    for digits finer than a nanosecond, for leap seconds and for instants that 64 bits do not hold.
    """
    match = _RFC3339.fullmatch(text)
    if match is None or (match[2] is None and not date_only):
        raise Invalid(f"{_shown(text)} is not an RFC 3339 time such as 2026-01-31T23:59:59Z")
    day = _day_number(match[1])
    hour, minute, second = (int(part or 0) for part in match.group(2, 3, 4))
    if hour > 23 or minute > 59 or second > 59:
        leap = " (leap seconds have no instant of their own in UTC epoch time)" if second == 60 else ""
        raise Invalid(f"{_shown(text)} has an impossible time of day{leap}")
    fraction = (match[5] or "").rstrip("0")
    if len(fraction) > 9:
        raise Invalid(f"{_shown(text)} is finer than a nanosecond")
    instant = day * DAY + hour * HOUR + minute * MINUTE + second * SECOND + int(fraction.ljust(9, "0"))
    offset = match[6]
    if offset and offset not in "Zz":
        hours, minutes = int(offset[1:3]), int(offset[4:6])
        if hours > 23 or minutes > 59:
            raise Invalid(f"{_shown(text)} has an impossible offset")
        instant -= (1 if offset[0] == "+" else -1) * (hours * HOUR + minutes * MINUTE)
    return checked_instant(instant, text)


def read_instant(text: str) -> tuple[int, bytes]:
    """The instant of an RFC 3339 text as `parse_instant` tells it, and the JSON text of its `full_instant`."""
    try:
        (hour, hour_json), (second, second_json) = _hours[text[:13]], _seconds[text[13:19]]
        rest, rest_json = _rests.get(text[19:]) or _read_rest(text[19:])
    except KeyError:
        return _read_unfamiliar_instant(text)
    return hour + second + rest, hour_json + second_json + rest_json


# Nearly every producer writes times in UTC. Such a text is an hour, a second of it and a rest, which come again and
# again: three look-ups read it. There are 3600 seconds; of the others as many are remembered as a year has hours, and
# more than a second has milliseconds.
_FAMILIAR = 1 << 13
_IN_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|\+00:00)", re.ASCII)
_REST = re.compile(r"(?:\.(\d{1,9}))?(?:Z|\+00:00)", re.ASCII)
_hours: dict[str, tuple[int, bytes]] = {}
_seconds: dict[str, tuple[int, bytes]] = {}
_rests: dict[str, tuple[int, bytes]] = {}


def _read_unfamiliar_instant(text: str) -> tuple[int, bytes]:
    instant = parse_instant(text)
    full = b'"%s"' % full_instant(instant).encode()
    if _IN_UTC.fullmatch(text):
        if len(_hours) >= _FAMILIAR:
            _hours.clear()
        _hours[text[:13]] = instant - instant % HOUR, full[:14]
        _seconds[text[13:19]] = (instant - instant % SECOND) % HOUR, full[14:20]
    return instant, full


def _read_rest(text: str) -> tuple[int, bytes]:
    """What stands behind the second: nanoseconds, and the end of the JSON text. Raises KeyError unless it is in UTC."""
    match = _REST.fullmatch(text)
    if match is None:
        raise KeyError(text)
    nanos = (match[1] or "").ljust(9, "0")
    rest = int(nanos), b'.%sZ"' % nanos.encode()
    if len(_rests) < _FAMILIAR:
        _rests[text] = rest
    return rest


def checked_instant(instant: int, shown: object) -> int:
    """`instant` if 64 bits hold it; raises Invalid, naming `shown`, otherwise."""
    if not MIN_INSTANT <= instant <= MAX_INSTANT:
        raise Invalid(f"{_shown(str(shown))} is outside of 1677-09-22 to 2262-04-10, which 64-bit nanoseconds hold")
    return instant


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")


@lru_cache(maxsize=4096)
def day_text(day: int) -> str:
    """`YYYY-MM-DD` of a day number (days since 1970-01-01)."""
    return (_EPOCH + timedelta(days=day)).isoformat()


def day_of(instant: int) -> int:
    """The UTC day number of an instant."""
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
    """RFC 3339 in UTC for people: as `full_instant`, with only as many of 0, 3, 6 or 9 fraction digits as needed."""
    text = full_instant(instant)
    if text.endswith("000000000Z"):
        return text[:-11] + "Z"
    if text.endswith("000000Z"):
        return text[:-7] + "Z"
    return text[:-4] + "Z" if text.endswith("000Z") else text


def from_datetime(moment: datetime) -> int:
    """The instant of a datetime; a naive one is UTC."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    delta = moment - _EPOCH_UTC
    return (delta.days * 86400 + delta.seconds) * SECOND + delta.microseconds * 1000


_UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_DURATION = re.compile(r"(\d{1,9})(s|m|h|d|w)", re.ASCII)


def parse_duration(text: str) -> int:
    """Nanoseconds of `90s`, `15m`, `2h`, `7d` or `1w`. Raises Invalid."""
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise Invalid(f"{_shown(text)} is not a duration such as 90s, 15m, 2h, 7d")
    return int(match[1]) * _UNITS[match[2]]


def format_duration(nanos: int) -> str:
    """A duration for people, two units at most: `1d 2h`, `3m 20s`, `1.250s`, `-12ms`."""
    sign, rest = ("-", -nanos) if nanos < 0 else ("", nanos)
    if rest < SECOND:
        for unit, size in (("ms", 1_000_000), ("µs", 1000)):
            if rest >= size:
                return f"{sign}{rest / size:.3g}{unit}"
        return f"{sign}{rest}ns" if rest else "0s"
    if rest < MINUTE:
        return f"{sign}{rest / SECOND:.3f}".rstrip("0").rstrip(".") + "s"
    parts: list[str] = []
    for unit, size in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)):
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
        if len(parts) == 2:
            break
    return sign + " ".join(part for part in parts if part)

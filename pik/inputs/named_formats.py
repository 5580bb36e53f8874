"""Time formats that have names: the spellings of spreadsheets, Java, .NET, JavaScript, mails and web servers.

Each has an example, which docs/inputs.md shows and a test reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, NamedTuple

from pik.errors import Invalid
from pik.inputs.epochs import instant_of, read_number
from pik.inputs.strptime import DIRECTIVES, local_nanos
from pik.model.identity import UNBOUNDED
from pik.model.instant import DAY, HOUR, MAX_INSTANT, SECOND, checked_instant, offset_nanos, resolved, shown
from pik.model.zone import Zone

Read = Callable[[Any, Zone | None], int]
_ReadText = Callable[[Mapping[str, str | None], str, Zone | None], int]
_MILLISECOND = 1_000_000


class NamedFormat(NamedTuple):
    """How values of a format are read. `is_local`: they never say their offset from UTC, so that they need a time
    zone. The example is 2026-01-31T22:59:59Z; where it is a local time, it is one of Berlin."""

    example: str
    read: Read
    is_local: bool = False


def _days_since(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def _excel(value: Any, zone: Zone | None) -> int:
    """Day 1 is 1 January 1900, and day 60 is 29 February 1900, which did not exist."""
    days = read_number(value)
    if days < 1:
        raise Invalid(f"{shown(str(value))} is a time of day without a date")
    if 60 <= days < 61:
        raise Invalid(f"{shown(str(value))} is 29 February 1900 in a spreadsheet, a day that did not exist")
    return _serial(days, date(1899, 12, 31) if days < 60 else date(1899, 12, 30), value, zone)


def _excel1904(value: Any, zone: Zone | None) -> int:
    """Day 0 is 1 January 1904."""
    days = read_number(value)
    if days < 0:
        raise Invalid(f"{shown(str(value))} is before 1904")
    return _serial(days, date(1904, 1, 1), value, zone)


def _serial(days: Decimal, first: date, value: Any, zone: Zone | None) -> int:
    """Return the instant of a number of days since the one of that number, rounded to a millisecond: the fraction of a
    double has an error of some hundred nanoseconds."""
    if days > MAX_INSTANT // DAY * 2:
        return checked_instant(MAX_INSTANT + 1, value)
    milliseconds = UNBOUNDED.multiply(days, DAY // _MILLISECOND).to_integral_value(ROUND_HALF_EVEN)
    return resolved(_days_since(first) * DAY + int(milliseconds) * _MILLISECOND, None, zone, str(value))


def _ticks(value: Any, zone: Zone | None) -> int:
    local = instant_of(read_number(value), 100, value, since=_days_since(date(1, 1, 1)) * DAY)
    return resolved(local, None, zone, str(value))


def _filetime(value: Any, _zone: Zone | None) -> int:
    return checked_instant(instant_of(read_number(value), 100, value, since=_days_since(date(1601, 1, 1)) * DAY), value)


_DIRECTIVE = re.compile(r"%(\w)")


def _spelled(example: str, spelling: str, read: _ReadText) -> NamedFormat:
    """Return the format of texts with this spelling, a regular expression with directives of strptime, and `%Z`: the
    name of a zone. `read` takes their values, the text, and the time zone."""
    directives = {**DIRECTIVES, "Z": r"[A-Z]{1,5}(?:[+-]\d\d:?\d\d)?"}
    expression = _DIRECTIVE.sub(lambda found: f"(?P<{found[1]}>{directives[found[1]]})", spelling)
    match = re.compile(expression, re.ASCII | re.IGNORECASE).fullmatch

    def read_text(value: Any, zone: Zone | None) -> int:
        if not isinstance(value, str):
            raise Invalid(f"is not a text: '{value!s:.40}'")
        found = match(value.strip())
        if found is None:
            raise Invalid(f"{shown(value)} is not written as in {example!r}")
        return read(found.groupdict(), value, zone)

    return NamedFormat(example, read_text)


def _with_offset(found: Mapping[str, str | None], text: str, _zone: Zone | None) -> int:
    return checked_instant(local_nanos(found, text) - (offset_nanos(found["z"], text) or 0), text)


def _dotnet_json(found: Mapping[str, str | None], text: str, _zone: Zone | None) -> int:
    """The number is in UTC; the offset only says that the time was a local one."""
    return checked_instant(int(found["ms"] or 0) * _MILLISECOND, text)


_AMERICAN = {
    f"{letter}{kind}T": hours + (kind == "D")
    for letter, hours in (("E", -5), ("C", -6), ("M", -7), ("P", -8))
    for kind in "SD"
}
_MAIL_ZONES = {**dict.fromkeys(("GMT", "UT", "UTC"), 0), **_AMERICAN}
"""Names of zones in hours (RFC 5322, section 4.3)."""


def _mail(found: Mapping[str, str | None], text: str, zone: Zone | None) -> int:
    name = (found["Z"] or "").upper()
    if not name:
        return _with_offset(found, text, zone)
    if name not in _MAIL_ZONES:
        raise Invalid(f"{shown(text)} has the name of a zone that is not an offset from UTC")
    return checked_instant(local_nanos(found, text) - _MAIL_ZONES[name] * HOUR, text)


def _java_date(found: Mapping[str, str | None], text: str, zone: Zone | None) -> int:
    """An abbreviation other than GMT and UTC must be that of the zone at that time."""
    local, name = local_nanos(found, text), found["Z"] or ""
    if name[:3].upper() in ("GMT", "UTC"):
        return checked_instant(local - (offset_nanos(name[3:] or "Z", text) or 0), text)
    if not name:
        return resolved(local, None, zone, text)
    if zone is None:
        what = f"{shown(text)} has only an abbreviation of its zone; --timezone ZONE tells which zone it is"
        raise Invalid(what, option="timezone")
    checked_instant(local, text)
    moment = datetime(1970, 1, 1) + timedelta(seconds=local // SECOND)  # noqa: DTZ001 - of local time
    for fold in (0, 1):
        there = moment.replace(tzinfo=zone.info, fold=fold)
        offset = there.utcoffset()
        assert offset is not None
        instant = checked_instant(local - (offset.days * 86400 + offset.seconds) * SECOND, text)
        if there.tzname() == name and instant + zone.offset_at(instant) == local:
            return instant
    raise Invalid(f"{shown(text)} has an abbreviation that clocks in {zone.name} did not show at that time")


NAMED: Mapping[str, NamedFormat] = {
    "excel": NamedFormat("46053.99998842592", _excel, is_local=True),
    "excel1904": NamedFormat("44591.99998842592", _excel1904, is_local=True),
    "java_date": _spelled("Sat Jan 31 23:59:59 CET 2026", "%a %b %d %H:%M:%S(?: %Z)? %Y", _java_date),
    "javascript": _spelled(
        "Sat Jan 31 2026 23:59:59 GMT+0100 (CET)", r"%a %b %d %Y %H:%M:%S GMT%z(?: \([^()]*\))?", _with_offset
    ),
    "rfc2822": _spelled(
        "Sat, 31 Jan 2026 22:59:59 GMT",
        r"(?:%a, ?)?%d %b %Y %H:%M(?::%S)? (?:%z|%Z)(?: \([^()]*\))?",
        _mail,
    ),
    "apache": _spelled("[31/Jan/2026:23:59:59 +0100]", r"\[?%d/%b/%Y:%H:%M:%S %z\]?", _with_offset),
    "dotnet_json": _spelled(
        "/Date(1769900399000+0100)/", r"\\?/Date\((?P<ms>-?\d{1,18})(?:[+-]\d{4})?\)\\?/", _dotnet_json
    ),
    "dotnet_ticks": NamedFormat("639055007990000000", _ticks, is_local=True),
    "filetime": NamedFormat("134143739990000000", _filetime),
}

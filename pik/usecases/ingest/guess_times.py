"""How times are written, by what a sample of them looks like."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import islice, product
from typing import Any

from pik.errors import Invalid
from pik.inputs.epochs import NUMBER, UNITS, evident_count, evident_unit, read_number
from pik.inputs.named_formats import NAMED
from pik.inputs.strptime import DIRECTIVES
from pik.inputs.time_formats import TEXTS, TimeFormat
from pik.model.times import TIME_FORMAT, TIMEZONE, Times
from pik.model.zone import load_zone

AUTO = "auto"
"""The format that tells the unit of each number."""

FORMAT, ZONE = "FORMAT", "ZONE"
"""Stand for what a person has to put there."""

_UNITS = dict(zip(UNITS, ("seconds", "milliseconds", "microseconds", "nanoseconds"), strict=True))
_SPELLED = (*TEXTS, *(name for name, named in NAMED.items() if not NUMBER.fullmatch(named.example)))
"""Formats of texts that cannot be taken for each other."""

_DATES = (
    *(
        "%d/%b/%Y",
        "%d/%m/%Y",
        "%m/%d/%Y",
        "%Y/%m/%d",
        "%d.%m.%Y",
        "%Y.%m.%d",
        "%d-%m-%Y",
        "%m-%d-%Y",
        "%d-%b-%Y",
        "%d %b %Y",
    ),
    *("%b %d, %Y", "%a, %d %b %Y", "%Y-%m-%d", "%Y%m%d", "%B %d, %Y", "%d %B %Y"),
    *("%d. %m. %Y", "%Y. %m. %d.", "%Y.%m.%d", "%Y.%m.%d.", "%Y年%m月%d日"),
)
_CLOCKS = (
    *(":%H:%M:%S", " %H:%M:%S", " %H:%M:%S.%f", "T%H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p", ""),
    *(" %I:%M:%S%p", " %I:%M%p"),
    *(", %H:%M:%S", ", %H:%M", ", %I:%M:%S %p", ", %I:%M %p", " %H.%M.%S", " %H.%M"),
    *(" %p %I:%M:%S", " %p%I:%M:%S", " %p %I:%M", " %p%I:%M"),
)
_OFFSETS = ("", " %z", "%z", " UTC", " GMT")
_STRPTIME = (
    *map("".join, product(_DATES, _CLOCKS, _OFFSETS)),
    *(
        "%Y-%m-%d-%H.%M.%S.%f",
        "%Y-%m-%d-%H.%M.%S",
        "%a %b %d %H:%M:%S %Y",
        "%a %b %d %H:%M:%S.%f %Y",
        "%a %b %d %H:%M:%S %z %Y",
        "%a %b %d %H:%M:%S UTC %Y",
        "%Y%m%d%H%M%S",
        "%Y%m%d%H",
        "%b %d, %Y @ %H:%M:%S.%f",
    ),
)


_SHORT_DATES = (
    "%d/%b/%y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d.%m.%y",
    "%d-%m-%y",
    "%m-%d-%y",
    "%d-%b-%y",
    "%d %b %y",
    "%b-%d-%y",
    "%y/%m/%d",
)
_SHORT_YEAR = re.compile(r"(?:\d\d?|[a-z]{3}(?=-))([-/. ])(?:\d\d?|[a-z]{3})\1\d\d(?!\d)", re.ASCII | re.IGNORECASE)
_WITH_SHORT_YEARS = tuple(map("".join, product(_SHORT_DATES, (*_CLOCKS, " %I.%M.%S.%f %p"), _OFFSETS)))


_PARTS_OF_TIME = (" %H", " %H %M", " %H %M %S", " %H %M %S.%f")
_IN_PARTS = (
    *map("".join, product(("%Y %m %d", "%Y %b %d", "%Y %B %d"), (*_PARTS_OF_TIME, *_CLOCKS), _OFFSETS)),
    *map("".join, product(_DATES, _PARTS_OF_TIME)),
)
"""Formats of texts that parts of a time make, with a space between."""


@dataclass(frozen=True, slots=True)
class Written:
    """How times are written: in a format of that name, and in the zone of that name; ZONE where they have no offset and
    do not show their zone, None where they need none."""

    format: str
    zone: str | None = None

    @property
    def meaning(self) -> str:
        """What the values are, in words."""
        if self.format in _UNITS:
            return f"{_UNITS[self.format]} since 1970, by their magnitude ({self.format})"
        if self.format == AUTO:
            return f"numbers since 1970 in several units, by their magnitude ({AUTO})"
        if self.format in NAMED and NUMBER.fullmatch(NAMED[self.format].example):
            return f"numbers of the format {self.format}, by their magnitude"
        if self.format in TEXTS:
            name = "RFC 3339" if self.format == "rfc3339" else "ISO 8601"
            return f"{name} times" + ("" if self.zone is None else " without an offset")
        years = ", where years 69 to 99 are 1969 to 1999, others from 2000 on" if "%y" in self.format else ""
        if self.is_day:
            return f"days without a time of day, in the format {self.format}{years}"
        return f"times in the format {self.format}{years}"

    @property
    def is_day(self) -> bool:
        """Whether they say the day alone."""
        return "%" in self.format and not re.search("%[HI]", self.format)


def formats_of(values: Sequence[Any]) -> list[Written]:
    """Return how all of these values can be read as times: one way, where they show it, or several, or none."""
    if not values:
        return []
    units = {_unit_of(value) for value in values}
    if len(units) == 1 and (unit := units.pop()):
        return [_written(unit, values)]
    if len(units) > 1 and units <= _UNITS.keys():
        return [Written(AUTO)]
    if all(isinstance(value, str) and _SHORT_YEAR.match(value) for value in values):
        short = [_written(name, values) for name in _WITH_SHORT_YEARS if _reads(name, values)]
        abbreviation = abbreviation_in(values[0])
        return short or ([] if abbreviation is None else _abbreviated(values, abbreviation))
    if not all(isinstance(value, str) and _LIKE_A_TIME.match(value) for value in values):
        return []
    for name in _SPELLED:
        if _reads(name, values):
            return [_written(name, values)]
    found = [name for name in _STRPTIME if _reads(name, values)]
    if not found and (abbreviation := abbreviation_in(values[0])) is not None:
        return _abbreviated(values, abbreviation)
    of_may = {name.replace("%b", "%B") for name in found if "%b" in name}  # which is short and long
    return [_written(name, values) for name in found if name not in of_may]


def abbreviation_in(text: str) -> str | None:
    """Return the abbreviation of a zone that a time has, other than UTC and GMT."""
    return next(iter(_ABBREVIATION.findall(text)[-1:]), None)


def _abbreviated(values: Sequence[str], abbreviation: str) -> list[Written]:
    """Return the formats of times that all have the same abbreviation, as a part of the format: it is not a zone."""
    in_utc = [_ABBREVIATION.sub(lambda one: "UTC" if one[0] == abbreviation else one[0], value) for value in values]
    names = [name for name in (*_STRPTIME, *_WITH_SHORT_YEARS) if "UTC" in name and _reads(name, in_utc)]
    return [Written(name.replace("UTC", abbreviation), ZONE) for name in names]


def written_as(values: Sequence[Any], times: Times, field: str) -> list[Written]:
    """Return how these values, or nearly all of them, are read as times of a field, where `times` says how they are
    written."""
    name = times.format_given(field)
    if name is not None:
        found = [_written(name, values)] if values and _reads(name, values) else []
    else:
        found = formats_of(values) or _mostly(values)
    zone = times.zone(field)
    return [Written(one.format, zone.name if zone and one.zone == ZONE else one.zone) for one in found]


def parts_written_as(values: Sequence[str], times: Times, field: str) -> list[Written]:
    """Return as `written_as` how texts are read that are the parts of a time, with a space between."""
    if times.format_given(field) is not None:
        return []
    found = (name for name in _IN_PARTS if read_by(Written(name), values) >= _NEARLY_ALL * len(values))
    ways = [_written(name, values) for name in islice(found, 1)]  # both those of long and of short months read May
    zone = times.zone(field)
    return [Written(one.format, zone.name if zone and one.zone == ZONE else one.zone) for one in ways]


def read_by(written: Written, values: Iterable[Any]) -> int:
    """Return how many of the values are times in this format."""
    return sum(_reads(written.format, [value]) for value in values)


def needs_zone(written: Written, value: Any) -> bool:
    """Return whether a value is a time in this format that does not say its zone."""
    says = written.format in TEXTS and _reads(written.format, [value], zone=None)
    return not says and _reads(written.format, [value])


def instants(written: Written, values: Mapping[int, Any]) -> dict[int, int]:
    """Return the instants of the values that are times in this format; the zone that is not known is UTC."""
    found = dict[int, int]()
    zone = written.zone if written.zone not in (None, ZONE) else "UTC"
    for number, value in values.items():
        with suppress(Invalid):
            found[number] = _format(written.format, zone)(value)
    return found


def as_options(times: Times, written: Mapping[str, Written]) -> Times:
    """Return what is said of times with how each field is written: once for all, if they are written alike."""
    if not written:
        return times
    first, *others = written.values()
    alike = not others or others[0] == first
    general = Times(None if first.format == "rfc3339" else first.format, first.zone)
    special: list[tuple[str, str, str]] = []
    for name, one in () if alike else list(written.items())[1:]:
        if one.format != first.format:
            special.append((TIME_FORMAT, name, one.format))
        if one.zone is not None and one.zone != first.zone:
            special.append((TIMEZONE, name, one.zone))
    return Times(general.format, general.timezone, tuple(special)).over(times)


def _mostly(values: Sequence[Any]) -> list[Written]:
    """Return the formats of the first values by which nearly all are read."""
    ways = dict.fromkeys(one for value in values[:_TRIED] for one in formats_of([value]))
    return [one for one in ways if read_by(one, values) >= _NEARLY_ALL * len(values)]


_TRIED, _NEARLY_ALL = 3, 0.9

_LIKE_A_TIME = re.compile(
    r"(?=.{0,60}\d{4})[\[/]?(?:\d|date\(|mon|tue|wed|thu|fri|sat|sun|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)",
    re.IGNORECASE | re.ASCII,
)
"""How each text begins that is a time: so the others need not be tried in all formats."""


_NOT_A_ZONE = "|".join(("UTC", "GMT", *(DIRECTIVES[letter].upper() for letter in "abAB")))
_ABBREVIATION = re.compile(rf"(?<![A-Za-z])(?!(?:{_NOT_A_ZONE})(?![A-Z]))[A-Z]{{3,5}}(?![A-Za-z])", re.ASCII)


def _written(name: str, values: Sequence[Any]) -> Written:
    """Return the format, which reads the values, with the zone that it needs."""
    if "%" in name:
        says_utc = name.endswith((" UTC", " GMT")) or " UTC " in name
        return Written(name, None if "%z" in name else "UTC" if says_utc else ZONE)
    if name in NAMED and NAMED[name].is_local:
        return Written(name, ZONE)
    return Written(name, None if name in UNITS or _reads(name, values, zone=None) else ZONE)


def _unit_of(value: Any) -> str | None:
    """Return the format that the magnitude of a number shows, if it is one and does."""
    try:
        number = read_number(value)
    except Invalid:
        return None
    return evident_unit(number) or evident_count(number)


def _reads(name: str, values: Iterable[Any], zone: str | None = "UTC") -> bool:
    return all(map(_format(name, zone).reads, values))


@cache
def _format(name: str, zone: str | None = "UTC") -> TimeFormat:
    return TimeFormat(name, None if zone is None else load_zone(zone))

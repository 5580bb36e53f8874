"""The formats of times in foreign records, by their names: `--time-format`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from pik.errors import Invalid, PikError, UsageError
from pik.inputs.epochs import (
    NUMBER,
    UNITS,
    ambiguous_number,
    evident_count,
    evident_unit,
    instant_of,
    read_epoch,
    read_number,
)
from pik.inputs.iso8601 import read_iso8601
from pik.inputs.named_formats import NAMED, Read
from pik.inputs.strptime import Strptime, without_zone
from pik.model.delivery import Delivery
from pik.model.instant import parse_event_time
from pik.model.times import FIELDS, recorded_times
from pik.model.zone import TimeNotes, Zone, Zones, load_zone

TEXTS = ("rfc3339", "iso8601")
_HINT = (
    f"{', '.join(TEXTS)}, auto, {', '.join(UNITS)}, {', '.join(NAMED)}, or a strptime format such as '%d/%b/%Y %H:%M'"
)


class TimeFormat:
    """One of TEXTS, `auto` (such a text, or a number that is an epoch of evident unit), one of UNITS or NAMED, or a
    strptime format. Times without an offset are local times of `zone`. `notes` gets the units in which `auto` read
    numbers. Raises UsageError."""

    def __init__(self, name: str, zone: Zone | None = None, notes: TimeNotes | None = None) -> None:
        self.name, self._zone = name, zone
        self._reads_rfc3339 = name in ("auto", *TEXTS)
        self._read = _reader(name, zone, notes)

    def reads_text(self, value: Any) -> bool:
        """Return whether a value is a text of which `parse_event_time` knows all there is to know, if it reads it."""
        return self._reads_rfc3339 and isinstance(value, str) and value[4:5] == "-"

    def reads(self, value: Any) -> bool:
        """Return whether a value is a time in this format; faster than asking why it is not."""
        try:
            self._read(value, self._zone)
        except Invalid:
            return False
        return True

    def __call__(self, value: Any) -> int:
        """Return the instant of a value. Raises Invalid, which names the format that would read it, if one would."""
        try:
            return self._read(value, self._zone)
        except Invalid as error:
            raise _advised(error, value, self._zone, self.name) from None


def _reader(name: str, zone: Zone | None, notes: TimeNotes | None = None) -> Read:
    """Return what reads a format. Raises UsageError."""
    if name == "auto":
        return _auto(notes)
    if name == "rfc3339":
        return lambda value, zone: parse_event_time(_text(value), zone)
    if name == "iso8601":
        return lambda value, zone: read_iso8601(_text(value), zone, notes)
    if unit := UNITS.get(name):
        return lambda value, _: read_epoch(value, unit)
    if named := NAMED.get(name):
        if named.is_local and zone is None:
            raise without_zone(name)
        return named.read
    if "%" in name:
        strptime = Strptime(name, zone)
        return lambda value, _: strptime(_text(value))
    if name == "syslog":
        hint = "with the year in the text: '%Y %b %d %H:%M:%S'; or RFC 5424, which rfc3339 reads"
        raise UsageError("--time-format syslog: its times have no year", hint=hint)
    raise UsageError(f"unknown time format {name!r}", hint=_translated(name) or _HINT)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Invalid(f"is not a text: '{value!s:.40}'")
    return value


def _auto(notes: TimeNotes | None) -> Read:
    def read(value: Any, zone: Zone | None) -> int:
        """Return the instant of a text of ISO 8601, or of an epoch number of evident unit. Raises Invalid."""
        if isinstance(value, str) and not NUMBER.fullmatch(value.strip()):
            return read_iso8601(value, zone, notes)
        number = read_number(value)
        unit = evident_unit(number)
        if unit is None:
            raise ambiguous_number(number, value)
        instant = instant_of(number, UNITS[unit], value)
        if notes is not None:
            notes.add(unit)
        return instant

    return read


_PATTERN = re.compile(
    r"(y{4}|u{4}|yy|M{1,4}|d{1,2}|D{3}|H{1,2}|h{1,2}|m{1,2}|s{1,2}|S+|f+|a|tt|E{1,4}|X{1,3}|x{1,3}|Z|zzz)"
    r"|'([^']+)'|([^A-Za-z'%])"
)
_DIRECTIVES = {
    **dict.fromkeys(("yyyy", "uuuu"), "%Y"),
    "yy": "%y",
    **dict.fromkeys(("M", "MM"), "%m"),
    "MMM": "%b",
    "MMMM": "%B",
    "EEEE": "%A",
    "DDD": "%j",
    "a": "%p",
    "tt": "%p",
    **dict.fromkeys(("E", "EE", "EEE"), "%a"),
    **{letter * count: f"%{to}" for letter, to in ("dd", "HH", "hI", "mM", "sS") for count in (1, 2)},
    **dict.fromkeys(("X", "XX", "XXX", "x", "xx", "xxx", "Z", "zzz"), "%z"),
}


def _translated(name: str) -> str:
    """Return a pattern of Java or .NET, such as `yyyy-MM-dd HH:mm:ss`, as a strptime format; nothing if it is none."""
    if "yy" not in name and "uuuu" not in name:
        return ""
    parts: list[str] = []
    position = 0
    for found in _PATTERN.finditer(name):
        if found.start() != position:
            return ""
        position = found.end()
        letters, quoted, other = found.groups()
        parts.append(quoted or other or _DIRECTIVES.get(letters, "%f"))
    return f"as a strptime format it is '{''.join(parts)}'" if position == len(name) else ""


def advice(value: Any, zone: Zone | None = None, instead_of: str = "") -> str:
    """Return which format reads a value that was not read, as the end of a sentence; nothing if none does. Where `auto`
    also reads what the format reads that it takes the place of, it is named as well."""
    for name in _candidates(value):
        try:
            _reader(name, zone)(value, zone)
        except (Invalid, UsageError) as error:
            if zone is None and _needs_zone(error, name, value):
                return f"; --time-format {name} --timezone ZONE reads it"
        else:
            both = {instead_of, name} & {*UNITS} and {instead_of, name} & {*TEXTS}
            return f"; --time-format {name} reads it{', auto reads both forms' if both else ''}"
    return ""


def _needs_zone(error: PikError, name: str, value: Any) -> bool:
    """Return whether a format did not read a value only because no time zone is known."""
    if isinstance(error, Invalid):
        return error.option == "timezone"
    try:
        _reader(name, _IN_UTC)(value, _IN_UTC)
    except Invalid:
        return False
    return True


_IN_UTC = load_zone("UTC")


def _candidates(value: Any) -> Iterator[str]:
    """Yield formats that may read a value. Of a number only one can be meant."""
    if isinstance(value, str) and not NUMBER.fullmatch(value.strip()):
        texts = (name for name, named in NAMED.items() if not NUMBER.fullmatch(named.example))
        yield from ("iso8601", *texts, "%Y-%m-%d")
        return
    with suppress(Invalid):
        number = read_number(value)
        if name := evident_unit(number) or evident_count(number):
            yield name


def advised(error: Invalid, line: bytes, zones: Zones) -> Invalid:
    """Return why an event has an invalid time, and which format would read it."""
    if error.field not in Zones._fields:
        return error
    try:
        value = msgspec.json.decode(line)[error.field]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return error
    return _advised(error, value, getattr(zones, error.field), "rfc3339")


def _advised(error: Invalid, value: Any, zone: Zone | None, name: str) -> Invalid:
    """Return why a value is not a time of this format, and which format would read it, unless the error suggests an
    option already."""
    if error.option or not (reads := advice(value, zone, name)):
        return error
    return Invalid(error.message + reads, field=error.field, option="time-format")


class TimeCounter:
    """Counts again, from what raw keeps of deliveries, how the times of a batch with these options were read. `problem`
    is why that cannot be known, if it cannot."""

    def __init__(self, options: Mapping[str, str]) -> None:
        times = recorded_times(options)
        self.problem = ""
        self._noted: list[str] = []
        self._formats: dict[str, TimeFormat] = {}
        if times.ambiguous is None and all(times.format_of(field) != "auto" for field in FIELDS):
            return  # all times said it themselves
        try:
            for field in FIELDS:
                notes = times.notes(field, self._noted)
                self._formats[field] = TimeFormat(times.format_of(field), times.zone(field, notes), notes)
        except UsageError as error:  # the installed tzdata does not have the zone
            self._formats.clear()
            self.problem = error.message

    def count(self, deliveries: Iterable[Delivery]) -> Counter[str]:
        """Return how many of their times were read in which way."""
        self._noted.clear()
        for delivery in deliveries:
            for field, read in self._formats.items():
                original = getattr(delivery, f"{field}_original")
                with suppress(Invalid):
                    if original is not None:
                        read(original)
        return Counter(self._noted)

"""Mapping: how a foreign record becomes an event, field by field, with JMESPath (https://jmespath.org).

`RecordMapping.read_slowly` is the definition. `read` first tries the usual case: numbers that machine numbers hold as
they are written, and fields that are strings. All other records are read slowly.

Formats of times are strptime's, but parsed here: Python's strptime ignores what it cannot use (%p beside %H, the value
of %a, a zone's name), assumes 1900 without a year, and depends on the locale and time zone of the machine. Here a
format that loses or ignores anything is refused before anything is read, and names of months and days are English.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from pik.errors import Invalid, UsageError
from pik.model.event import (
    ENVELOPE,
    FIELDS,
    REQUIRED,
    Event,
    EventLine,
    FieldType,
    as_written,
    event_of,
    expect_text,
    one_line,
    read_event_slowly,
)
from pik.model.functions import OF_PLACE, USAGE
from pik.model.identity import UNBOUNDED, canonical_number, check_json, exact_number, has_plain_numbers, plain_canonical
from pik.model.instant import (
    DAY,
    MAX_INSTANT,
    OFFSET,
    SECOND,
    Zone,
    checked_instant,
    fraction_nanos,
    full_instant,
    is_canonical,
    load_zone,
    offset_nanos,
    parse_event_time,
    parse_instant,
    resolved,
    time_of_day,
)
from pik.model.jmes import MAX_MADE, Expression, applied, quoted, shell_option
from pik.model.place import NOWHERE, Place, partitions
from pik.model.times import AS_EVENTS, Times

MIXED = "if valid records follow, add --on-invalid reject"
"""What to type where the first records of an input are of another kind on purpose."""

_TIME_FIELDS = tuple(each.name for each in ENVELOPE if each.sent and each.type == FieldType.INSTANT)

_NO_PAYLOAD = msgspec.Raw()
_encode = msgspec.json.Encoder(decimal_format="number").encode
_UNUSUAL = (Invalid, msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)


class RecordMapping:
    """A compiled mapping: event field → JMESPath expression over the record.

    Fields without an expression are taken from the record's field of the same name. Raises UsageError for unknown
    fields and for expressions that can never be evaluated.
    """

    def __init__(self, expressions: Mapping[str, str], times: Times = AS_EVENTS) -> None:
        if unknown := [name for name in expressions if name not in FIELDS]:
            raise UsageError(f"--map {unknown[0]}=…: an event has no such field", hint=f"fields: {', '.join(FIELDS)}")
        self._zones = times.zones()
        formats = {name: TimeFormat(times.format_of(name), times.zone(name)) for name in _TIME_FIELDS}
        self._times = formats
        self._event_time, self._received_time = (formats[name] for name in ("event_time", "received_time"))
        self._given = frozenset(expressions)
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode
        self._expressions = {}
        for name in FIELDS:
            text = expressions.get(name, name)
            shown = text if len(text) <= 60 else text[:59] + "…"
            self._expressions[name] = Expression(text, f"--map {name}={shown}", of_record=True)
        self._search = [self._expressions[name].search for name in FIELDS]
        self._picks = self._expressions["payload"].picks
        asked = OF_PLACE & {name for one in self._expressions.values() for name in one.functions}
        self.uses_place = bool(asked)
        """Whether it asks for the place of a record."""
        self.parents = self._parents()
        """The fields of the objects around a record that it asks for."""

    def read(self, line: bytes, place: Place = NOWHERE) -> tuple[Event, bytes]:
        """Return the event of a foreign record, and the record on one line. Raises Invalid."""
        try:
            event = self._read_plainly(line, place)
        except _UNUSUAL:
            event = None
        return (event or self.read_slowly(line, place)), one_line(line.strip())

    def _read_plainly(self, line: bytes, place: Place) -> Event | None:
        """Return the event, or None (or raise one of _UNUSUAL) where the record must be read slowly."""
        if not has_plain_numbers(line):
            return None
        record, size = self._decode(line), len(line)
        source, event_type, entity_id, at, payload, received, key = [
            search(record, size, place) for search in self._search
        ]
        raw = _encode(payload)
        canonical = plain_canonical(raw, payload) if self._picks or has_plain_numbers(raw) else None
        if canonical is None or at is None:
            return None
        key = None if key is None else _plain_text(key)
        names = _plain_text(source), _plain_text(event_type), _plain_text(entity_id)
        event_time, received_time = self._event_time, self._received_time
        if event_time.reads_text(at) and (received is None or received_time.reads_text(received)):
            return event_of(EventLine(*names, at, _NO_PAYLOAD, received, key), raw, (canonical, None), self._zones)
        times = full_instant(event_time(at)), None if received is None else full_instant(received_time(received))
        fields = EventLine(*names, times[0], _NO_PAYLOAD, times[1], key)
        event = event_of(fields, raw, (canonical, None), self._zones)
        event.written = as_written(_unless_canonical(at), None if received is None else _unless_canonical(received))
        return event

    def read_slowly(self, line: bytes, place: Place = NOWHERE) -> Event:
        """Return the event; this is the definition. Raises Invalid."""
        record = _record(line)
        fields: dict[str, Any] = {}
        written: dict[str, str | None] = {}
        for name, expression in self._expressions.items():
            try:
                value = expression.search_slowly(record, max(MAX_MADE, 8 * len(line)), place)
            except Invalid as error:
                raise Invalid(f"{name}: {error.message}", field=name) from None
            if value is not None:
                fields[name] = self._field(name, value)
                if name in _TIME_FIELDS:
                    written[name] = _unless_canonical(value)
        for name in REQUIRED:
            if name not in fields:
                raise Invalid(f"{name}: its expression finds nothing in this record", field=name)
        try:
            event = read_event_slowly(_encode(fields))
        except TypeError:  # an expression reference, &…
            raise Invalid("payload: its expression makes no JSON value", field="payload") from None
        event.written = as_written(written.get("event_time"), written.get("received_time"))
        return event

    def given(self, name: str) -> str | None:
        """Return the expression of a field; None if it is the record's field of that name, as nothing else is given."""
        return self._expressions[name].text if name in self._given else None

    def found(self, line: bytes, place: Place = NOWHERE) -> dict[str, Any]:
        """Return what the expressions find in a record, by field. Raises Invalid."""
        record, allowed = _record(line), max(MAX_MADE, 8 * len(line))
        return {name: one.search_slowly(record, allowed, place) for name, one in self._expressions.items()}

    def _field(self, name: str, value: Any) -> Any:
        if name == "payload":
            return value
        if name in _TIME_FIELDS:
            try:
                return full_instant(self._times[name](value))
            except Invalid as error:
                raise Invalid(f"{name} {error.message}", field=name) from None
        if isinstance(value, (bool, dict, list)):
            raise Invalid(
                f"{name} is not a string: '{msgspec.json.encode(value)[:40].decode(errors='replace')}'", field=name
            )
        return _text(value)

    def _parents(self) -> frozenset[str]:
        """Return the arguments of parent(). Raises UsageError for one that is not a constant: what is to be kept of the
        objects around records must be known before they are read."""
        found: set[str] = set()
        for name, expression in self._expressions.items():
            for argument in expression.arguments("parent"):
                if not isinstance(argument, str):
                    what = f"--map {name}={expression.text}: the argument of parent() is not a constant text"
                    raise UsageError(what, hint="parent('NAME')")
                found.add(argument)
        return frozenset(found)

    def seen_of(self, file: str) -> dict[str, str]:
        """Return what expressions can see of the path of a file or folder, as options that are recorded: two files of
        the same content are the same input only where these are the same."""
        used = self._expressions.values()
        name = file.rpartition("/")[2]
        seen = {"file": name} if name and any("file" in one.functions for one in used) else {}
        asked = [argument for one in used for argument in one.arguments("partition")]
        folders = partitions(file).items()
        return seen | {f"partition.{key}": value for key, value in folders if key in asked or None in asked}

    def expect_place(self, file: str, name: str) -> None:
        """Raise UsageError where expressions ask for what the path of an input's file does not have."""
        here = partitions(file)
        for field, expression in self._expressions.items():
            option = f"--map {field}={expression.text}"
            if not file and expression.functions & {"file", "partition"}:
                raise UsageError(f"{option}: {name} has no file name", hint="give the name of a file")
            for asked in expression.arguments("partition"):
                if isinstance(asked, str) and asked not in here:
                    has = f"the path has {', '.join(f'{key}=…' for key in here)}" if here else "its folders have no ="
                    raise UsageError(f"{option}: no folder {asked}=… in the path of {name}", hint=f"{has}; {MIXED}")

    def expect_fields(self, records: Sequence[Mapping[str, Any]], name: str) -> None:
        """Raise UsageError where a required field's expression needs a field that none of an input's first records has,
        or a function that fails on all of them, or where none of their times has an offset and no zone is given: they
        would all be rejected."""
        self._expect_found(records, name)
        for field in _TIME_FIELDS:
            if not OF_PLACE & self._expressions[field].functions:
                self._expect_offsets(field, records, name)

    def _expect_offsets(self, field: str, records: Sequence[Mapping[str, Any]], name: str) -> None:
        read, search = self._times[field], self._expressions[field].search_slowly
        in_utc, local = TimeFormat(read.name, load_zone("UTC")), None
        for record in records:
            with suppress(Invalid):
                value = search(record, MAX_MADE)
                if value is None:
                    continue
                in_utc(value)
                try:
                    read(value)
                except Invalid:
                    local = local or value
                else:
                    return
        if local is not None:
            option = "" if field == "event_time" else f"{field}="
            hint = f"--timezone {option}ZONE tells the zone that they are in (UTC, Europe/Berlin); {MIXED}"
            raise UsageError(f"the times of {name} have no offset from UTC: {local!r:.60}", hint=hint)

    def _expect_found(self, records: Sequence[Mapping[str, Any]], name: str) -> None:
        for field in REQUIRED if records else ():
            found: list[Any] = list(records)
            for function, path in self._expressions[field].levels():
                if function:
                    found = self._made(field, function, found, name)
                names = list(dict.fromkeys(name for one in found if isinstance(one, dict) for name in one))
                if path and names and path[0] not in names:
                    raise self._missing(field, path, names, name, inside=bool(function))
                found = [value for one in found if (value := _at(one, path)) is not None]

    def _made(self, field: str, function: str, values: list[Any], name: str) -> list[Any]:
        """Return what a function makes of values of the first records. Raises UsageError where it fails on all."""
        made, problem = [], None
        for value in values:
            try:
                made.append(applied(function, value))
            except Invalid as error:
                problem = problem or error
        if problem is not None and not made:
            what = f"--map {field}={self._expressions[field].text}: in the first records of {name}, {problem.message}"
            raise UsageError(what, hint=MIXED)
        return made

    def _missing(self, field: str, path: tuple[str, ...], names: list[str], name: str, *, inside: bool) -> UsageError:
        """Return the error for a path that none of the first records has; `inside` what a function makes of them."""
        whole, text = ".".join(path), self._expressions[field].text
        option = f"--map {field}={text}"
        what = option if field in self._given else f"no --map for {field}"
        message = f"{what}: the first records of {name} have no field {path[0]}{' there' if inside else ''}"
        have = f"{', '.join(names[:12])}{', …' if len(names) > 12 else ''}; {MIXED}"
        if inside:
            return UsageError(message, hint=f"the fields there are {have}")
        if whole in names:
            return UsageError(f"{message}, but {whole}", hint=f"{shell_option(option, quoted(whole))}; {MIXED}")
        known = f"a constant has quotes: --map {field}=\"'{whole if field in self._given else 'NAME'}'\""
        if field == "payload":  # an object or array, so a constant would not do
            known = "--map payload=@ takes the whole record"
        if path[0] in OF_PLACE:
            known = f"a function has parentheses: {USAGE[path[0]]}"
        return UsageError(message, hint=f"{known}; the records have {have}")


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _plain_text(value: Any) -> str:
    """Return the text of a string or an integer. Raises TypeError for anything else."""
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    raise TypeError(value)


def _unless_canonical(value: Any) -> str | None:
    """Return how a time is written, None if that is canonical."""
    text = _text(value)
    return None if is_canonical(text) else text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical_number(str(value))


def _record(line: bytes) -> dict[str, Any]:
    """Return the record; numbers that no machine number holds are Decimals, so that nothing is rounded. Raises
    Invalid."""
    expect_text(line)
    check_json(line, "the record")
    record = json.loads(line, parse_float=exact_number, parse_int=exact_number)
    if not isinstance(record, dict):
        raise Invalid("the record is not a JSON object")
    return record


_UNITS = {"epoch": SECOND, "epoch_ms": 10**6, "epoch_us": 10**3, "epoch_ns": 1}
_HINT = f"rfc3339, {', '.join(_UNITS)}, auto, or a strptime format with a date, such as '%d/%b/%Y:%H:%M:%S %z'"


class TimeFormat:
    """rfc3339, epoch (seconds), epoch_ms, epoch_us, epoch_ns, auto (RFC 3339 text or a plausible epoch number), or a
    strptime format. Texts without an offset are local times of `zone`. Raises UsageError."""

    def __init__(self, name: str, zone: Zone | None = None) -> None:
        self.name, self._zone = name, zone
        self._strptime = _Strptime(name, zone) if "%" in name else None
        if self._strptime is None and name not in ("rfc3339", "auto", *_UNITS):
            raise UsageError(f"unknown time format {name!r}", hint=_HINT)

    def reads_text(self, value: Any) -> bool:
        """Whether a value is certainly a text that `parse_event_time` reads."""
        return isinstance(value, str) and (self.name == "rfc3339" or (self.name == "auto" and value[4:5] == "-"))

    def __call__(self, value: Any) -> int:
        """Return the instant of a value. Raises Invalid."""
        if self.name in _UNITS:
            return _instant(_number(value), _UNITS[self.name], value)
        if self.name == "auto" and (not isinstance(value, str) or _NUMBER.fullmatch(value.strip())):
            return _plausible(value)
        if not isinstance(value, str):
            raise Invalid(f"is not a text: '{value!s:.40}'")
        return self._strptime(value) if self._strptime else parse_event_time(value, self._zone)


_NUMBER = re.compile(r"[+-]?[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?|[+-]?[0-9]+\.", re.ASCII)


def _number(value: Any) -> Decimal:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise Invalid(f"'{value!s:.60}' is not a number") from None
    if isinstance(value, bool) or not number.is_finite():
        raise Invalid(f"'{value!s:.60}' is not a number")
    return number


def _instant(number: Decimal, unit: int, value: Any) -> int:
    if number.copy_abs() > MAX_INSTANT:
        return checked_instant(MAX_INSTANT + 1, value)  # which no unit makes smaller
    instant = UNBOUNDED.multiply(number, unit)
    if instant != int(instant):
        raise Invalid(f"'{value!s:.60}' is finer than a nanosecond")
    return checked_instant(int(instant), value)


# In these years a number of seconds, milli-, micro- or nanoseconds has only one reading: it is not a date such as
# 20260302 or 2026030210, a spreadsheet's serial day, or a count from another epoch still in use. They cannot end later:
# as seconds, 2026030210 is in 2034, and the present counted from 1960 (SAS, and in ms Stata), 1904 or 1900 (NTP) is in
# 2036, 2092 and 2096.
PLAUSIBLE = parse_instant("2000-01-01T00:00:00Z"), parse_instant("2033-01-01T00:00:00Z")


def _plausible(value: Any) -> int:
    """Return the instant of an epoch number of evident unit. Raises Invalid for one that could mean something else."""
    number = _number(value)
    start, end = PLAUSIBLE
    for unit in _UNITS.values():
        if number.copy_abs() <= MAX_INSTANT and start <= number * unit < end:
            return _instant(number, unit, value)
    # Only the value is quoted: counts of reasons leave out what is in quotes.
    digits = canonical_number(str(number))
    other = f"%Y%m%d{'%H%M%S'[: len(digits) - 8]}" if _is_date(digits) else "a strptime format"
    raise Invalid(
        f"'{value!s:.60}' is ambiguous: as an epoch number in s, ms, us or ns it is not in the years 2000 to 2032;"
        f" --time-format epoch, epoch_ms, epoch_us, epoch_ns or {other} tells what it is"
    )


def _is_date(digits: str) -> bool:
    """Whether a number is a date, and maybe a time of day, written without separators."""
    if len(digits) not in (8, 10, 12, 14) or not digits.isdigit():
        return False
    try:
        date.fromisoformat(digits[:8])
    except ValueError:
        return False
    return True


_MONTHS = "january february march april may june july august september october november december".split()
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()

_WIDTHS = {"Y": 4, "j": 3} | dict.fromkeys("mdHIMS", 2)
_DIRECTIVES = {letter: rf"\d{{1,{width}}}" for letter, width in _WIDTHS.items()} | {
    "Y": r"\d{4}",
    "f": r"\d+",
    "p": "AM|PM",
    "z": OFFSET,
    "b": "|".join(month[:3] for month in _MONTHS),
    "B": "|".join(_MONTHS),
    "a": "|".join(day[:3] for day in _DAYS),
    "A": "|".join(_DAYS),
}

_REFUSED = {
    "y": ("%y has no century", "only years of four digits are read: %Y"),
    "Z": (
        "%Z, the name of a zone, is not an offset",
        "write the name as it is, such as EST, in the place of %Z, and add --timezone ZONE",
    ),
    **dict.fromkeys(
        "UWVGuw", ("weeks and their days are not read", "a date is %Y with %m and %d, or with %j, the day of the year")
    ),
    "c": ("%c depends on the locale", "write it out: '%a %b %d %H:%M:%S %Y'"),
    "x": ("%x depends on the locale", "write it out: %m/%d/%Y, say"),
    "X": ("%X depends on the locale", "write it out: %H:%M:%S"),
    "D": ("unknown directive %D", "write it out: %m/%d/%Y has four digits of the year"),
    "F": ("unknown directive %F", "write it out: %Y-%m-%d"),
    "T": ("unknown directive %T", "write it out: %H:%M:%S"),
    "R": ("unknown directive %R", "write it out: %H:%M"),
    "s": ("unknown directive %s", "--time-format epoch reads seconds since 1970"),
    "N": ("unknown directive %N", "%f reads up to nine digits"),
    "L": ("unknown directive %L", "%f reads up to nine digits"),
    "h": ("unknown directive %h", "%b reads Jan to Dec"),
    "e": ("unknown directive %e", "%d reads days with and without a leading zero"),
}


class _Strptime:
    """A strptime format as a regular expression. Raises UsageError for one that loses or ignores something."""

    def __init__(self, name: str, zone: Zone | None) -> None:
        self._name, self._zone = name, zone
        parts = list(_parts(name))
        used = [part[1] for part in parts if part[0] == "%" and part != "%%"]
        _expect_unambiguous(name, used)
        if "z" not in used and zone is None:
            raise UsageError(
                f"--time-format {name}: its times have no offset from UTC",
                hint="name their zone: --timezone ZONE, such as Europe/Berlin or UTC",
            )
        pattern = "".join(_pattern(part, parts, number) for number, part in enumerate(parts))
        self._match = re.compile(pattern, re.ASCII | re.IGNORECASE).fullmatch

    def __call__(self, text: str) -> int:
        match = self._match(text)
        if match is None:
            raise Invalid(f"{text[:60]!r} does not match {self._name}")
        found = match.groupdict()
        hour = int(found.get("H") or 0)
        if "I" in found:
            hour = int(found["I"])
            if not 1 <= hour <= 12:
                raise Invalid(f"{text[:60]!r} has an impossible hour for AM or PM")
            hour = hour % 12 + (12 if found["p"].lower() == "pm" else 0)
        local = _day(found, text) * DAY + time_of_day(hour, int(found.get("M") or 0), int(found.get("S") or 0), text)
        local += fraction_nanos(found.get("f"), text)
        return resolved(local, offset_nanos(found.get("z"), text), self._zone, text)


def _parts(name: str) -> Iterator[str]:
    """Yield directives, runs of white space, and other characters. Raises UsageError for an unknown directive."""
    for part in re.findall(r"%.?|\s+|.", name, re.DOTALL):
        letter = part[1:]
        if part[0] == "%" and letter != "%" and letter not in _DIRECTIVES:
            problem, hint = _REFUSED.get(letter, (f"unknown directive {part}" if letter else "stray %", _HINT))
            raise UsageError(f"--time-format {name}: {problem}", hint=hint)
        yield part


def _expect_unambiguous(name: str, used: list[str]) -> None:
    given = set(used)
    month = given & set("mbB")
    rules = [
        (len(used) > len(given), "a directive comes twice", "each value once"),
        ("Y" not in given, "it has no year", "a date has %Y"),
        (bool(given & set("j")) and bool(month | given & {"d"}), "%j beside a month or a day", "one of them"),
        (len(month) > 1, "it has the month twice", "one of %m, %b and %B"),
        (len(given & set("aA")) > 1, "it has the day of the week twice", "one of %a and %A"),
        ("j" not in given and not month, "it has no month", "a date has %m, or %b or %B, and %d; or %j alone"),
        ("j" not in given and "d" not in given, "it has no day", "a date has %d, or %j alone"),
        ({"H", "I"} <= given, "%H and %I are both the hour", "%H alone, or %I with %p"),
        ("p" in given and "I" not in given, "%p has no effect beside %H" if "H" in given else "%p without an hour",
         "%I is the hour of a 12-hour clock"),
        ("I" in given and "p" not in given, "%I needs %p", "%H is the hour of a 24-hour clock"),
        ("M" in given and not given & set("HI"), "it has minutes without an hour", "%H, or %I with %p"),
        ("S" in given and "M" not in given, "it has seconds without minutes", "%M"),
        ("f" in given and "S" not in given, "it has a fraction without seconds", "%S"),
    ]  # fmt: skip
    for wrong, problem, hint in rules:
        if wrong:
            raise UsageError(f"--time-format {name}: {problem}", hint=hint)


def _pattern(part: str, parts: list[str], number: int) -> str:
    if part.isspace():
        return r"\s+"
    if part[0] != "%" or part == "%%":
        return re.escape(part[-1])
    letter = part[1]
    width = _WIDTHS.get(letter)
    if width and (_is_digits(parts, number - 1) or _is_digits(parts, number + 1)):
        return rf"(?P<{letter}>\d{{{width}}})"  # beside other digits it needs a fixed width
    return f"(?P<{letter}>{_DIRECTIVES[letter]})"


def _is_digits(parts: list[str], number: int) -> bool:
    """Whether that part matches digits."""
    part = parts[number] if 0 <= number < len(parts) else ""
    return part.isdigit() or (part[:1] == "%" and part[1:] in (*_WIDTHS, "f"))


def _day(found: dict[str, str], text: str) -> int:
    """Return the number of the day since 1970. Raises Invalid."""
    year = int(found["Y"])
    try:
        if "j" in found:
            day = date(year, 1, 1) + timedelta(days=int(found["j"]) - 1)
        else:
            name = (found.get("b") or found.get("B") or "").lower()
            months = [number for number, month in enumerate(_MONTHS, 1) if name and month.startswith(name)]
            day = date(year, months[0] if months else int(found["m"]), int(found["d"]))
        if day.year != year:
            raise ValueError
    except (ValueError, OverflowError):
        raise Invalid(f"{text[:60]!r} has an impossible date") from None
    weekday = found.get("a") or found.get("A")
    if weekday and not _DAYS[day.weekday()].startswith(weekday.lower()):
        raise Invalid(f"{text[:60]!r} has a day of the week that is not the date's")
    return (day - date(1970, 1, 1)).days

"""Mapping: how a foreign record becomes an event, field by field, with JMESPath (https://jmespath.org).

`RecordMapping.read_slowly` is the definition. `read` first tries the usual case: numbers that machine numbers hold as
they are written, and fields that are strings. All other records are read slowly.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

import msgspec

from pik.errors import Invalid, UsageError
from pik.inputs.advice import MIXED, OTHER_FORMAT, Advice, Clause, Option, Read
from pik.inputs.named_mappings import is_as_shipped
from pik.inputs.time_formats import TimeFormat
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
from pik.model.identity import check_json, exact_number, has_plain_numbers, name_of_number, plain_canonical
from pik.model.instant import full_instant, is_canonical
from pik.model.jmes import MAX_MADE, Expression, applied, quoted
from pik.model.place import NOWHERE, Place, partitions
from pik.model.times import AS_EVENTS, Times
from pik.model.zone import load_zone

_TIME_FIELDS = tuple(each.name for each in ENVELOPE if each.sent and each.type == FieldType.INSTANT)

_NO_PAYLOAD = msgspec.Raw()
_encode = msgspec.json.Encoder(decimal_format="number").encode
_UNUSUAL = (Invalid, msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)


class RecordMapping:
    """A compiled mapping: event field → JMESPath expression over the record.

    Fields without an expression are taken from the record's field of the same name. Raises UsageError for unknown
    fields and for expressions that can never be evaluated. `noted` gets how the times of events were read where they do
    not say it themselves (see TimeNotes). `named` is the named mapping that has some of them.
    """

    def __init__(
        self,
        expressions: Mapping[str, str],
        times: Times = AS_EVENTS,
        noted: list[str] | None = None,
        named: str = "",
    ) -> None:
        if unknown := [name for name in expressions if name not in FIELDS]:
            raise UsageError(f"--map {unknown[0]}=…: an event has no such field", hint=f"fields: {', '.join(FIELDS)}")
        self._noted = [] if noted is None else noted
        self._zones = times.zones(self._noted)
        formats: dict[str, TimeFormat] = {}
        for field in _TIME_FIELDS:
            notes = times.notes(field, self._noted)
            formats[field] = TimeFormat(times.format_of(field), times.zone(field, notes), notes)
        self._times = formats
        self._event_time, self._received_time = (formats[name] for name in ("event_time", "received_time"))
        self._given, self._named = frozenset(expressions), named
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
        self._indexes = {taken: path for one in self._expressions.values() for taken, path in one.indexes().items()}
        self.longer = Counter[str]()
        """Events of whose records an expression takes one element of a longer list: by what takes it, `Records[0]`."""
        self.parents = self._parents()
        """The fields of the objects around a record that it asks for."""

    def read(self, line: bytes, place: Place = NOWHERE) -> tuple[Event, bytes]:
        """Return the event of a foreign record, and the record on one line. Raises Invalid."""
        before = len(self._noted)
        try:
            event = self._read_plainly(line, place)
        except _UNUSUAL:
            event = None
        if event is None:
            del self._noted[before:]
            event = self.read_slowly(line, place)
        if self._indexes:
            self._count_longer(line)
        return event, one_line(line.strip())

    def _count_longer(self, line: bytes) -> None:
        """Count the lists of a record that are longer than the one element that an expression takes."""
        with suppress(*_UNUSUAL):
            record = self._decode(line)
            for taken, path in self._indexes.items():
                found: Any = record
                for name in path:
                    found = found.get(name) if isinstance(found, dict) else None
                if isinstance(found, list) and len(found) > 1:
                    self.longer[taken] += 1

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
                raise Invalid(f"{name} {error.message}", field=name, option=error.option) from None
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
                    raise UsageError(f"{option}: no folder {asked}=… in the path of {name}", hint=Advice(has, MIXED))

    def expect_fields(self, records: Sequence[Mapping[str, Any]], name: str, file: str = "") -> None:
        """Raise UsageError where a required field's expression finds nothing in any of an input's first records, an
        expression fails on all of them, or none of their times can be read: they would all be rejected. `file` is the
        path of the input's file."""
        self.expect_names(records, name)
        for field, expression in self._expressions.items():
            if "parent" not in expression.functions:  # whose values are known later
                self._expect_value(field, records, name, file)
        for field in _TIME_FIELDS:
            if "parent" not in self._expressions[field].functions:
                self._expect_times(field, records, name, file)

    def _expect_value(self, field: str, records: Sequence[Mapping[str, Any]], name: str, file: str) -> None:
        expression, problem = self._expressions[field], None
        for place, record in enumerate(records, 1):
            try:
                if expression.search_slowly(record, MAX_MADE, Place(file, place)) is not None or field not in REQUIRED:
                    return
            except Invalid as error:
                problem = problem or error
        if not records:
            return
        what = f"--map {field}={expression.text}: in the first records of {name}"
        if problem is None:
            other = [OTHER_FORMAT] if is_as_shipped(self._named, field, expression.text) else []
            raise UsageError(f"{what} it finds nothing", hint=Advice(*other, MIXED, name=name))
        usage = USAGE.get(problem.message.partition("()")[0])
        if '"' in expression.text and "not null" in problem.message:
            usage = "texts are in single quotes, what is in double quotes is the name of a field"
        raise UsageError(f"{what}, {problem.message}", hint=Advice(*([usage] if usage else []), MIXED))

    def _expect_times(self, field: str, records: Sequence[Mapping[str, Any]], name: str, file: str) -> None:
        read, search = self._times[field], self._expressions[field].search_slowly
        in_utc, local, problem, is_empty = TimeFormat(read.name, load_zone("UTC")), None, None, True
        for place, record in enumerate(records, 1):
            with suppress(Invalid):
                value = search(record, MAX_MADE, Place(file, place))
                if value is None:
                    continue
                try:
                    read(value)
                except Invalid as error:
                    problem = problem or error
                    is_empty = is_empty and value == ""
                else:
                    return
                in_utc(value)
                local = local or value
        option = "" if field == "event_time" else f"{field}="
        if local is not None and getattr(self._zones, field) is None:
            tells = Option("timezone", f"{option}ZONE"), " tells the zone that they are in (UTC, Europe/Berlin)"
            what = f"the times of {name} have no offset from UTC: {local!r:.60}"
            raise UsageError(what, hint=Advice(tells, MIXED))
        if problem is not None:
            what = f"no time can be read in the first records of {name}: {field} {problem.message}"
            empty = "where an empty cell of CSV is a missing value, add ", Option("null", "")
            raise UsageError(what, hint=Advice(empty if is_empty else MIXED))

    def expect_names(self, records: Sequence[Mapping[str, Any]], name: str) -> None:
        """Raise UsageError where none of the records, nor what functions make of them, has a field that is needed."""
        for field in REQUIRED if records else ():
            found: list[Any] = list(records)
            for function, path in self._expressions[field].levels():
                if function:
                    found = list(_made(function, found))
                names = list(dict.fromkeys(name for one in found if isinstance(one, dict) for name in one))
                if path and names and path[0] not in names:
                    raise self._missing(field, path, names, name, inside=bool(function))
                found = [value for one in found if (value := _at(one, path)) is not None]

    def _missing(self, field: str, path: tuple[str, ...], names: list[str], name: str, *, inside: bool) -> UsageError:
        """Return the error for a path that none of the first records has; `inside` what a function makes of them."""
        whole, text = ".".join(path), self._expressions[field].text
        option = f"--map {field}={text}"
        what = option if field in self._given else f"no --map for {field}"
        message = f"{what}: the first records of {name} have no field {path[0]}{' there' if inside else ''}"
        have = _listed(names)
        if not self._given and set(names).isdisjoint(REQUIRED):
            return no_events(names, name)
        if is_as_shipped(self._named, field, text):
            return UsageError(message, hint=Advice(OTHER_FORMAT, f"they have {have}", MIXED, name=name))
        if inside:
            return UsageError(message, hint=Advice(f"the fields there are {have}", MIXED))
        if alike := next((one for one in names if one.strip() == whole), None):
            shown = whole if alike == whole else f"{alike!r}, with white space"
            meant = Option("map", f"{field}={quoted(alike)}")
            return UsageError(f"{message}, but {shown}", hint=Advice((meant,), MIXED))
        constant = Option("map", f"{field}='{whole if field in self._given else 'NAME'}'")
        known: Clause = (Option("map", f"{field}=FIELD"), " names another field")
        by_fold = {one.strip().casefold(): one for one in names}
        if near := get_close_matches(whole.casefold(), by_fold, 1, _NEAR):
            known = ("perhaps ", Option("map", f"{field}={quoted(by_fold[near[0]])}"))
        elif near := get_close_matches(path[0].casefold(), by_fold, 1, _NEAR):
            known = ("perhaps ", Option("map", f"{field}={quoted(by_fold[near[0]], *path[1:])}"))
        elif field in ("source", "event_type"):
            known = ("a constant has quotes: ", constant)
        elif field == "payload":
            known = (Option("map", "payload=@"), " takes the whole record")
        if path[0] in OF_PLACE:
            known = f"a function has parentheses: {USAGE[path[0]]}"
        return UsageError(message, hint=Advice(known, f"the records have {have}", MIXED))


def no_events(names: Sequence[str], name: str) -> UsageError:
    """Return the error for an input whose first records have none of the fields of an event, and these instead."""
    message = f"the first records of {name} have no field of an event ({', '.join(REQUIRED)})"
    proposes = "`", Read(guess=True), "` proposes a mapping"
    return UsageError(message, hint=Advice(f"they have {_listed(names)}", proposes, MIXED, name=name))


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(one[:60] for one in names[:12])}{', …' if len(names) > 12 else ''}"


_NEAR = 0.75
"""How alike the names of two fields are of which one was perhaps meant."""


def _made(function: str, values: list[Any]) -> Iterator[Any]:
    """Yield what a function makes of values, except of those that it cannot take."""
    for value in values:
        with suppress(Invalid):
            yield applied(function, value)


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
    return value if isinstance(value, str) else name_of_number(str(value))


def _record(line: bytes) -> dict[str, Any]:
    """Return the record; numbers that no machine number holds are Decimals, so that nothing is rounded. Raises
    Invalid."""
    expect_text(line)
    check_json(line, "the record")
    record = json.loads(line, parse_float=exact_number, parse_int=exact_number)
    if not isinstance(record, dict):
        raise Invalid("the record is not a JSON object")
    return record

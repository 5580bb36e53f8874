"""Mapping: how a foreign record becomes an event, field by field, with JMESPath (https://jmespath.org).

`RecordMapping.read_slowly` is the definition. `read` first tries the usual case: numbers that machine numbers hold as
they are written, and fields that are strings. All other records are read slowly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from pik.errors import Invalid, UsageError
from pik.inputs.time_format import TimeFormat
from pik.model.event import (
    ENVELOPE,
    FIELDS,
    REQUIRED,
    Event,
    FieldType,
    as_written,
    event_of,
    expect_text,
    one_line,
    read_event_slowly,
)
from pik.model.identity import canonical_number, check_json, has_plain_numbers, plain_canonical
from pik.model.instant import Zone, full_instant, is_canonical
from pik.model.jmes import Expression, exact_number, quoted, shell_option

_MIXED = "if valid records follow, add --on-invalid reject"
"""What to type where the first records of an input are of another kind on purpose."""

_TIME_FIELDS = tuple(each.name for each in ENVELOPE if each.sent and each.type == FieldType.INSTANT)

_encode = msgspec.json.Encoder(decimal_format="number").encode
_UNUSUAL = (Invalid, msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)


class RecordMapping:
    """A compiled mapping: event field → JMESPath expression over the record.

    Fields without an expression are taken from the record's field of the same name. Raises UsageError for unknown
    fields and for expressions that can never be evaluated.
    """

    def __init__(self, expressions: Mapping[str, str], time_format: str = "rfc3339", zone: Zone | None = None) -> None:
        if unknown := [name for name in expressions if name not in FIELDS]:
            raise UsageError(f"--map {unknown[0]}=…: an event has no such field", hint=f"fields: {', '.join(FIELDS)}")
        self._time, self._zone = TimeFormat(time_format, zone), zone
        self._given = frozenset(expressions)
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode
        self._expressions = {}
        for name in FIELDS:
            text = expressions.get(name, name)
            shown = text if len(text) <= 60 else text[:59] + "…"
            self._expressions[name] = Expression(text, f"--map {name}={shown}")
        self._search = [self._expressions[name].search for name in FIELDS]
        self._picks = self._expressions["payload"].picks

    def read(self, line: bytes) -> tuple[Event, bytes]:
        """Return the event of a foreign record, and the record on one line. Raises Invalid."""
        try:
            event = self._read_plainly(line)
        except _UNUSUAL:
            event = None
        return (event or self._read_slowly(line)), one_line(line.strip())

    def read_slowly(self, line: bytes) -> tuple[Event, bytes]:
        """Return as `read` does; this is the definition. Raises Invalid."""
        return self._read_slowly(line), one_line(line.strip())

    def _read_plainly(self, line: bytes) -> Event | None:
        """Return the event, or None (or raise one of _UNUSUAL) where the record must be read slowly."""
        if not has_plain_numbers(line):
            return None
        record, size = self._decode(line), len(line)
        source, event_type, entity_id, at, payload, received, key = [search(record, size) for search in self._search]
        raw = _encode(payload)
        canonical = plain_canonical(raw, payload) if self._picks or has_plain_numbers(raw) else None
        if canonical is None or at is None or not (key is None or isinstance(key, str)):
            return None
        names = _plain_text(source), _plain_text(event_type), _plain_text(entity_id)
        if self._time.reads_text(at) and (received is None or self._time.reads_text(received)):
            return event_of(*names, (at, received), key, (raw, canonical), self._zone)
        times = full_instant(self._time(at)), None if received is None else full_instant(self._time(received))
        event = event_of(*names, times, key, (raw, canonical), self._zone)
        event.written = as_written(_unless_canonical(at), None if received is None else _unless_canonical(received))
        return event

    def _read_slowly(self, line: bytes) -> Event:
        record = read_record(line)
        fields: dict[str, Any] = {}
        written: dict[str, str | None] = {}
        for name, expression in self._expressions.items():
            try:
                value = expression.search_slowly(record, len(line))
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

    def _field(self, name: str, value: Any) -> Any:
        if name == "payload":
            return value
        if name in _TIME_FIELDS:
            try:
                return full_instant(self._time(value))
            except Invalid as error:
                raise Invalid(f"{name} {error.message}", field=name) from None
        if isinstance(value, (bool, dict, list)):
            raise Invalid(
                f"{name} is not a string: '{msgspec.json.encode(value)[:40].decode(errors='replace')}'", field=name
            )
        return _text(value)

    def expect_fields(self, records: Sequence[Mapping[str, Any]], name: str) -> None:
        """Raise UsageError where a required field's expression is a name that none of an input's first records has:
        they would all be rejected."""
        names = list(dict.fromkeys(name for record in records for name in record))
        for field in REQUIRED if records else ():
            path = self._expressions[field].path
            if path is None or path[0] in names:
                continue
            whole, option = ".".join(path), f"--map {field}={quoted(*path)}"
            what = option if field in self._given else f"no --map for {field}"
            message = f"{what}: the first records of {name} have no field {path[0]}"
            if whole in names:
                raise UsageError(f"{message}, but {whole}", hint=f"{shell_option(option, quoted(whole))}; {_MIXED}")
            constant = f"a constant has quotes: --map {field}=\"'{whole if field in self._given else 'NAME'}'\""
            if field == "payload":  # an object or array, so a constant would not do
                constant = "--map payload=@ takes the whole record"
            have = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
            raise UsageError(message, hint=f"{constant}; the records have {have}; {_MIXED}")


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


def read_record(line: bytes) -> Any:
    """Return the record's JSON value; numbers that no machine number holds are Decimals, so that nothing is rounded.
    Raises Invalid."""
    expect_text(line)
    check_json(line, "the record")
    record = json.loads(line, parse_float=exact_number, parse_int=_exact_integer)
    if not isinstance(record, dict):
        raise Invalid("the record is not a JSON object")
    return record


def _exact_integer(text: str) -> int | float | Decimal:
    return int(text) if len(text) < 19 else exact_number(text)  # so many digits are always a machine number

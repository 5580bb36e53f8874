"""Mapping: how a foreign record becomes an event, field by field, with JMESPath (https://jmespath.org)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError, JMESPathTypeError
from jmespath.functions import Functions, signature
from jmespath.parser import ParsedResult

from pik.errors import Invalid, UsageError
from pik.model.event import FIELDS, REQUIRED, Event, as_written, expect_text, one_line, read_event_slowly
from pik.model.identity import canonical_number, check_json, is_machine_number
from pik.model.instant import full_instant, is_canonical
from pik.model.time_format import TimeFormat
from pik.model.zone import Zone

_TIME_FIELDS = ("event_time", "received_time")
_encode = msgspec.json.Encoder(decimal_format="number").encode


class _Functions(Functions):
    """JMESPath's own functions, but those two that would round or mark a number that is no machine number."""

    @signature({"types": []})
    def _func_to_string(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        return canonical_number(str(value)) if _is_number(value) else _encode(value).decode()

    @signature({"types": []})
    def _func_to_number(self, value: Any) -> int | float | Decimal | None:
        if _is_number(value):
            return value  # type: ignore[no-any-return]
        return exact_number(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None


_OPTIONS = jmespath.Options(custom_functions=_Functions())
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


class RecordMapping:
    """A compiled mapping: event field → JMESPath expression over the record.

    Fields without an expression are taken from the record's field of the same name. Raises UsageError for unknown
    fields and for expressions that do not parse.
    """

    def __init__(self, expressions: Mapping[str, str], time_format: str = "rfc3339", zone: Zone | None = None) -> None:
        self._time = TimeFormat(time_format, zone)
        self._expressions: dict[str, ParsedResult] = {}
        for name in FIELDS:
            expression = expressions.get(name, name)
            try:
                self._expressions[name] = jmespath.compile(expression)
            except JMESPathError as error:
                raise UsageError(
                    f"--map {name}={expression}: {_one_sentence(error)}", hint="https://jmespath.org has the language"
                ) from None
        if unknown := [name for name in expressions if name not in FIELDS]:
            raise UsageError(f"--map {unknown[0]}=…: an event has no such field", hint=f"fields: {', '.join(FIELDS)}")

    def read(self, line: bytes) -> tuple[Event, bytes]:
        """The event of a foreign record, and the record on one line. Raises Invalid."""
        record = _read_record(line)
        fields: dict[str, Any] = {}
        written: dict[str, str] = {}
        for name, expression in self._expressions.items():
            try:
                value = expression.search(record, _OPTIONS)
            except (JMESPathError, TypeError, ValueError) as error:  # the latter two are gaps in JMESPath's checks
                raise Invalid(f"{name}: {_one_sentence(error)}", field=name) from None
            if value is not None:
                fields[name] = self._field(name, value)
                if name in _TIME_FIELDS and not is_canonical(text := _text(value)):
                    written[name] = text
        for name in REQUIRED:
            if name not in fields:
                raise Invalid(f"{name}: its expression finds nothing in this record", field=name)
        try:
            event = read_event_slowly(_encode(fields))
        except TypeError:  # an expression reference, &…
            raise Invalid("payload: its expression makes no JSON value", field="payload") from None
        event.written = as_written(written.get("event_time"), written.get("received_time"))
        return event, one_line(line.strip())

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


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical_number(str(value))


def _one_sentence(error: Exception) -> str:
    if isinstance(error, JMESPathTypeError):
        expected = " or ".join(error.expected_types)
        return f"{error.function_name}() takes {expected}, not {error.actual_type}: '{error.current_value!s:.40}'"
    return " ".join(str(error).split())


def _read_record(line: bytes) -> Any:
    """The record's JSON value; numbers that no machine number holds are Decimals, so that nothing is rounded."""
    expect_text(line)
    check_json(line, "the record")
    record = json.loads(line, parse_float=exact_number, parse_int=_exact_integer)
    if not isinstance(record, dict):
        raise Invalid("the record is not a JSON object")
    return record


def _exact_integer(text: str) -> int | float | Decimal:
    return int(text) if len(text) < 19 else exact_number(text)  # so many digits are always a machine number


def exact_number(text: str) -> int | float | Decimal:
    """The machine number that a JSON number's text is, or the Decimal where there is none."""
    canonical = canonical_number(text)
    if not is_machine_number(canonical):
        return Decimal(text)
    return int(canonical) if canonical.lstrip("-").isdigit() else float(canonical)

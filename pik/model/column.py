"""User-defined columns: a value extracted from every payload with JMESPath, converted exactly or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from pik.errors import Invalid, UsageError, command
from pik.model.identity import canonical_number
from pik.model.instant import parse_event_time
from pik.model.jmes import MAX_MADE, Expression, exact_number

TYPES = "string, int64, double, decimal(PRECISION,SCALE), bool, timestamp"

MAX_PRECISION = 38
"""Digits of a decimal, at most."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_DECIMAL = re.compile(r"decimal\((\d{1,2}),(\d{1,2})\)")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,99})(?:\.[0-9]{1,100})?(?:[eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class ExtractedColumn:
    """`NAME=JMESPATH:TYPE`, taken apart. `precision` and `scale` are those of a decimal."""

    name: str
    expression: str
    type: str
    precision: int = 0
    scale: int = 0
    _search: Expression | None = field(default=None, compare=False, repr=False)

    def value(self, payload: Any, size: int = MAX_MADE) -> Any:
        """Return what the expression finds in a payload whose JSON text has `size` bytes.

        As str, int (a timestamp too: nanoseconds), float, Decimal, bool, or None where it finds nothing. Raises Invalid
        for a value that the type does not hold exactly.
        """
        assert self._search is not None
        found = self._search.search(payload, size)
        if found is None:
            return None
        try:
            return _CONVERTERS[self.type.partition("(")[0]](found, self)
        except (Invalid, ArithmeticError, ValueError, TypeError):
            shown = msgspec.json.encode(found).decode(errors="replace")
            wanted = " (RFC 3339 with an offset from UTC)" if self.type == "timestamp" else ""
            raise Invalid(f"{shown[:60]} is not a value of type {self.type}{wanted}") from None


def extracted_values(
    columns: Sequence[ExtractedColumn], event_id: str, payload: bytes | msgspec.Raw, *, exactly: bool
) -> list[Any]:
    """Return each column's value. `exactly` is needed for payloads with a `payload_text`, and slow.

    Raises UsageError naming the event and the column whose type does not hold the value.
    """
    value = read_exactly(payload) if exactly else read_plainly(payload)
    values: list[Any] = []
    for column in columns:
        try:
            values.append(column.value(value, len(payload)))
        except Invalid as error:
            raise UsageError(
                f"--column {column.name}: event {event_id}: {error.message}",
                hint=f"string takes texts and numbers as they are; for its payload: {command('show', event_id)}",
            ) from None
    return values


def parse_column(text: str) -> ExtractedColumn:
    """Return the column that `NAME=JMESPATH:TYPE` describes. Raises UsageError."""
    name, equals, rest = text.partition("=")
    expression, colon, type_ = rest.rpartition(":")
    name, expression, type_ = name.strip(), expression.strip(), type_.replace(" ", "")
    if not equals or not colon or not expression:
        raise UsageError(f"--column {text}: expected NAME=JMESPATH:TYPE", hint="--column 'amount=amount:decimal(18,2)'")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--column {text}: {name!r} is not a column name", hint="letters, digits and _, not beginning with a digit"
        )
    precision, scale = _precision(text, type_)
    return ExtractedColumn(name, expression, type_, precision, scale, Expression(expression, f"--column {text}"))


def _precision(text: str, type_: str) -> tuple[int, int]:
    match = _DECIMAL.fullmatch(type_)
    if match is None:
        if type_ not in _CONVERTERS or type_ == "decimal":
            raise UsageError(f"--column {text}: unknown type {type_!r}", hint=f"types: {TYPES}")
        return 0, 0
    precision, scale = int(match[1]), int(match[2])
    if not 0 <= scale <= precision or not 1 <= precision <= MAX_PRECISION:
        raise UsageError(
            f"--column {text}: invalid type {type_}",
            hint=f"decimal(PRECISION,SCALE) has 1 to {MAX_PRECISION} digits, at most as many of them after the point",
        )
    return precision, scale


_decode = msgspec.json.Decoder().decode


def read_plainly(payload: bytes | msgspec.Raw) -> Any:
    """Return the value of a payload without a `payload_text`: machine numbers hold all of its numbers."""
    return _decode(payload)


def read_exactly(payload: bytes | msgspec.Raw) -> Any:
    """Return the value of any payload: numbers that no machine number holds are Decimals. Otherwise as
    `read_plainly`."""
    return json.loads(bytes(payload), parse_float=exact_number, parse_int=exact_number)


def _number(found: Any) -> Decimal:
    """Return the exact number of a JSON number, or of a string that is written like one."""
    if isinstance(found, str):
        if not _JSON_NUMBER.fullmatch(found):
            raise ValueError(found)
        return Decimal(found)
    if isinstance(found, bool) or not isinstance(found, (int, float, Decimal)):
        raise TypeError(found)
    return Decimal(repr(found)) if isinstance(found, float) else Decimal(found)


def _string(found: Any, _: ExtractedColumn) -> str:
    if isinstance(found, str):
        return found
    if isinstance(found, bool):
        return "true" if found else "false"
    return canonical_number(str(_number(found)))


def _int64(found: Any, _: ExtractedColumn) -> int:
    number = _number(found)
    if abs(number) >= 2**64 or number != (whole := int(number)) or not -(2**63) <= whole < 2**63:
        raise ValueError(found)
    return whole


def _double(found: Any, _: ExtractedColumn) -> float:
    number = _number(found)
    value = float(number)
    # 0.1 is the double that prints as 0.1; of 9007199254740993 there is none.
    if Decimal(repr(value)) != number:
        raise ValueError(found)
    return value + 0.0  # no minus zero


def _decimal(found: Any, column: ExtractedColumn) -> Decimal:
    number = _number(found)
    if not number:
        return Decimal((0, (0,), -column.scale))
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int), "JSON has no NaN and no Infinity"
    shift = exponent + column.scale
    if len(digits) + shift > column.precision:
        raise ValueError(found)
    if shift < 0 and any(digits[shift:]):
        raise ValueError(found)
    kept = (*digits, *(0,) * shift) if shift >= 0 else digits[:shift]
    return Decimal((sign, kept, -column.scale))


def _bool(found: Any, _: ExtractedColumn) -> bool:
    if not isinstance(found, bool):
        raise TypeError(found)
    return found


def _timestamp(found: Any, _: ExtractedColumn) -> int:
    if not isinstance(found, str):
        raise TypeError(found)
    return parse_event_time(found, None)


_CONVERTERS: dict[str, Callable[[Any, ExtractedColumn], Any]] = {
    "string": _string,
    "int64": _int64,
    "double": _double,
    "decimal": _decimal,
    "bool": _bool,
    "timestamp": _timestamp,
}

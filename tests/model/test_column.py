"""Columns of one's own: exact, or an error."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given

from pik.errors import Invalid, UsageError
from pik.model.delivery import parse_column, read_exactly, read_plainly
from pik.model.identity import read_payload
from tests.support.model import texts

FITS: list[tuple[str, str, Any]] = [
    ("string", '"é"', "é"),
    ("string", "10.0", "10"),
    ("string", "12345678901234567890.123", "12345678901234567890.123"),
    ("string", "true", "true"),
    ("int64", "9223372036854775807", 2**63 - 1),
    ("int64", "-9223372036854775808", -(2**63)),
    ("int64", "1e3", 1000),
    ("int64", '"42"', 42),
    ("double", "0.1", 0.1),
    ("double", "-0.0", 0.0),
    ("double", "1e300", 1e300),
    ("double", "9007199254740992", 9007199254740992.0),
    ("decimal(20,2)", "123456789012345678.12", Decimal("123456789012345678.12")),
    ("decimal(3,2)", "1.5", Decimal("1.50")),
    ("decimal(3,2)", "1.500", Decimal("1.50")),
    ("decimal(3,0)", "1e2", Decimal(100)),
    ("decimal(38,38)", '"-0.00000000000000000000000000000000000001"', Decimal("-1e-38")),
    ("decimal(4,2)", "0", Decimal("0.00")),
    ("bool", "false", False),
    ("timestamp", '"1970-01-01T00:00:00.000000001Z"', 1),
    ("timestamp", '"1970-01-01T01:00:00+01:00"', 0),
]


@pytest.mark.parametrize(("kind", "text", "expected"), FITS)
def test_a_value_is_converted_exactly(kind: str, text: str, expected: Any) -> None:
    found = parse_column(f"x=a.b:{kind}").value(read_exactly(f'{{"a":{{"b":{text}}}}}'.encode()))
    assert (found, type(found)) == (expected, type(expected))
    assert str(found) == str(expected) or not isinstance(found, Decimal) or found.as_tuple().exponent == -38
    assert parse_column(f"x=a.c:{kind}").value(read_exactly(b'{"a":{"c":null}}')) is None


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("string", "[1]"),
        ("string", "{}"),
        ("int64", "1.5"),
        ("int64", "9223372036854775808"),
        ("int64", "1e400"),
        ("int64", "true"),
        ("int64", '"0x1"'),
        ("int64", '"NaN"'),
        ("double", "9007199254740993"),
        ("double", "0.12345678901234567890"),
        ("double", "1e400"),
        ("decimal(3,2)", "10.00"),
        ("decimal(3,2)", "1.005"),
        ("decimal(3,2)", "1e-400"),
        ("decimal(3,2)", '"Infinity"'),
        ("decimal(3,2)", '""'),
        ("bool", "0"),
        ("bool", '"true"'),
        ("timestamp", "0"),
        ("timestamp", '"yesterday"'),
    ],
)
def test_a_value_that_the_type_does_not_hold_exactly_is_refused(kind: str, text: str) -> None:
    with pytest.raises(Invalid, match=" is not a value of type "):
        parse_column(f"x=a:{kind}").value(read_exactly(f'{{"a":{text}}}'.encode()))


@pytest.mark.parametrize(
    "text",
    "x|x=a|x=:string|=a:string|1x=a:string|x y=a:string|x=a:int|x=a:decimal|x=a[:string|x=a:decimal(39,2)"
    "|x=a:decimal(2,3)|x=a:decimal(0,0)|x=a:decimal(2)|x=nope(a):string|x=length():string".split("|"),
)
def test_an_invalid_column_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_column(text)
    assert text in refused.value.message
    assert refused.value.hint


def test_expressions_may_hold_colons_and_equals() -> None:
    column = parse_column("big = items[?n == `2`].{k: name} | [0].k : decimal( 4 , 2 )")
    assert (column.name, column.type, column.precision, column.scale) == ("big", "decimal(4,2)", 4, 2)
    assert column.value({"items": [{"n": 2, "name": "7.25"}]}) == Decimal("7.25")


@given(texts.payload_texts)
@example('{"n":115292150461e7}')  # its double prints as it, and is another number by a few
def test_a_payload_without_a_text_of_its_own_is_read_plainly(text: str) -> None:
    try:
        marked = read_payload(text.encode())[1] is not None
    except Invalid:
        return
    if not marked:
        assert shape(read_plainly(text.encode())) == shape(read_exactly(text.encode()))
    assert shape(read_exactly(text.encode())) == shape(json.loads(text, parse_float=Decimal))


def shape(value: Any) -> Any:
    """The value with exact numbers."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value]
    if isinstance(value, float):
        return Decimal(repr(value))
    return Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else value

"""Functions of expressions: what they make of a record, and why they reject one."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pik.errors import Invalid, UsageError
from pik.model.functions import OF_PLACE
from pik.model.jmes import MAX_MADE, Expression
from tests.support.model import oracle, texts


def found(expression: str, **record: Any) -> Any:
    return Expression(expression, "--map x").search(record, len(json.dumps(record)))


@settings(max_examples=30)
@given(texts.payload_texts)
def test_a_json_text_has_the_value_that_it_has_as_a_record(text: str) -> None:
    assert oracle.parse(found("to_string(parse_json(a))", a=text)) == oracle.parse(text)
    assert oracle.parse(found("to_string(parse_json(parse_json(a)))", a=json.dumps(text))) == oracle.parse(text)


@given(st.text(), st.text(max_size=2), st.text(max_size=3))
def test_texts_are_changed_as_python_changes_them(text: str, part: str, new: str) -> None:
    record = {"a": text, "b": part, "c": new}
    cases = {
        "lower(a)": text.lower(),
        "upper(a)": text.upper(),
        "trim(a)": text.strip(),
        "split(a, b)": text.split(part) if part else list(text),
        "base64_decode(d)": text,
        "base64_gunzip(z)": text,
        "base64_gunzip(zz)": text + new,
    }
    record["d"] = b64encode(text.encode()).decode()
    record["z"] = b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    record["zz"] = b64encode(b"".join(gzip.compress(one.encode(), mtime=0) for one in (text, new))).decode()
    if part:
        cases["replace(a, b, c)"] = text.replace(part, new)
    assert {expression: found(expression, **record) for expression in cases} == cases


@given(
    st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001 - of UTC
    st.sampled_from(["UTC", "America/St_Johns", "Asia/Kolkata", "Europe/Berlin"]),
)
def test_a_date_is_that_of_the_zone(moment: datetime, zone: str) -> None:
    local = moment.replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
    at = moment.isoformat() + "Z"
    assert found(f"date(at, '{zone}')", at=at) == local.date().isoformat()
    assert found("date(at)", at=at) == moment.date().isoformat()
    for part in ("year", "month", "day", "hour", "minute", "second"):
        assert found(f"date_part('{part}', at, zone)", at=at, zone=zone) == getattr(local, part)
    assert found(f"date_part('isodow', at, '{zone}')", at=at) == local.isoweekday()


def test_a_time_without_an_offset_is_one_of_the_zone_and_never_of_utc() -> None:
    at = "2026-03-02T23:30:00"
    assert found("[date(at, 'Asia/Tokyo'), date_part('hour', at, 'Asia/Tokyo')]", at=at) == ["2026-03-02", 23]
    for expression in ("date(at)", "date_part('day', at)"):
        with pytest.raises(Invalid, match=r"'2026-03-02T23:30:00' has no offset; date.*TIME, 'Europe/Berlin'\) says"):
            found(expression, at=at)


def test_coalesce_evaluates_nothing_after_the_first_that_is_not_null() -> None:
    assert found("coalesce(a, b.c, d, parse_json(d))", b={}, d="") == ""
    assert found("coalesce(a, b)") is None
    with pytest.raises(Invalid, match=r"^parse_json\(\)"):
        found("coalesce(a, parse_json(d))", d="")


CUT = b64encode(gzip.compress(b"abc", mtime=0)[:-3]).decode()


@pytest.mark.parametrize(
    ("expression", "value", "reason"),
    [
        ("parse_json(a)", '{"a":NaN}', "parse_json(): the text has NaN, which JSON does not: '{\"a\":NaN}'"),
        ("parse_json(a)", "x" * 99, f"the text is not JSON: unexpected '{'x' * 20}' (character 1): '{'x' * 40}'"),
        ("parse_json(a)", "[" * 200 + "]" * 200, "the text is nested deeper than 100 levels"),
        ("parse_json(a)", '"\\ud800"', "half of a surrogate pair"),
        ("parse_json(a)", "1e9999999999999999999", "the exponent of the number '1e9999999999999999999'"),
        ("parse_json(a)", {}, "parse_json() takes string, not object: '{}'"),
        ("lower(a)", None, "lower() takes string, not null"),
        ("sha256(a)", 1, "sha256() takes string, not number: '1'"),
        ("split(a, b)", "x", "split() takes string, not null"),
        ("join('-', [a, b])", "x", "join() takes an array of strings, not one with null"),
        ("join('-', [a, `1`])", "x", "join() takes an array of strings, not one with a number: '1'"),
        ("join('-', a)", "x", "join() takes an array of strings, not string: 'x'"),
        ("replace(a, a, a)", "", "replace(): the text to replace is empty"),
        ("base64_decode(a)", "YQ", "base64_decode(): 'YQ' is not base64"),
        ("base64_decode(a)", "/w==", "base64_decode(): the data is not UTF-8 text"),
        ("base64_gunzip(a)", "YWJjZGVm", "base64_gunzip(): the data is not gzip, or damaged"),
        (
            "base64_gunzip(a)",
            CUT,
            "base64_gunzip(): the data ends too early",
        ),
        ("url_decode(a)", "100%", "url_decode(): '%' is not %XX"),
        ("url_decode(a)", "%ff", "url_decode(): '%ff' is not UTF-8"),
        ("date(a)", "soon", "date(): 'soon' is not "),
        ("date(a, 'Europe/Berlin')", "2026-03-29T02:30:00", "does not exist in Europe/Berlin"),
        ("date(a, a)", "x", "date(): unknown time zone 'x'"),
        ("date_part(a, a)", "week", "date_part(): unknown part 'week'"),
    ],
)
def test_what_a_function_cannot_take_is_named(expression: str, value: Any, reason: str) -> None:
    with pytest.raises(Invalid) as error:
        found(expression, a=value)
    assert reason in error.value.message
    assert len(error.value.message) < 300


def test_a_json_text_may_be_larger_than_what_an_expression_may_make_if_the_record_is() -> None:
    text = json.dumps([1.5] * (MAX_MADE // 12))
    assert len(found("parse_json(a)", a=text)) == MAX_MADE // 12
    with pytest.raises(Invalid, match="makes more than 8 MiB"):
        Expression("parse_json(a)", "--map x").search({"a": text}, 1)


@pytest.mark.parametrize("expression", ["replace(a, 't', a)", "base64_gunzip(b)"])
def test_what_is_too_much_is_not_made_first(expression: str) -> None:
    record = {"a": "t" * 10_000, "b": b64encode(gzip.compress(bytes(100 << 20), 1)).decode()}
    tracemalloc.start()
    with pytest.raises(Invalid, match="makes more than 8 MiB"):
        Expression(expression, "--map x").search(record, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * MAX_MADE


@pytest.mark.parametrize("name", sorted(OF_PLACE))
def test_only_mappings_know_places(name: str) -> None:
    with pytest.raises(UsageError, match=rf"--by x: {name}\(\) is known only where a file is read, in --map"):
        Expression(f"{name}({'' if name in ('file', 'line') else 'a'})", "--by x")

"""Payloads: canonical JSON, and the text for plain readers (promise 5; numbers count as they are written)."""

from __future__ import annotations

import json
from decimal import Decimal

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pik.errors import Invalid
from pik.model.identity import MAX_DEPTH, check_json, read_payload, read_payload_slowly
from tests.support.model import oracle, texts


def outcome(read: object, raw: bytes) -> object:
    """What a reader makes of the bytes, or that it refuses them."""
    assert callable(read)
    try:
        return read(raw)
    except Invalid as error:
        return "refused", error.message, error.field


@given(texts.payload_texts)
@example('{"x":9007199254740993.0}')
@example('{"x":123456789012345e9}')
@example('{"x":1e-6,"y":0.1e-5}')
@example('{"x":0.000001}')
@example('{"x":-0.12345678901234567}')
@example('{"x":0.12345678901234567}')
@example('[1.0,-2.0,{"x":30.0}]')
@example('{"x":6.02e23,"y":-1e22}')
@example("[1e-4,1e-4,1e-4,1e-4,1e-4,1e-4,1e-4,1e-4,1e-4,0.1000000000000000001]")  # as long as if it were canonical
@example('{"x":-9420967807637000070}')
@example('{"a":{"b":1,"b":2},"a":3}')
@example('{"a\\u0022":1,"b":2,"b":3}')
@example('{"k":1,"k":10.0}')
@example('{"\U0001f600":1,"\ue000":2}')
def test_promise_5_canonical_json_is_that_of_the_definition(text: str) -> None:
    value = oracle.parse(text)
    for read in (read_payload, read_payload_slowly):
        canonical, _ = read(text.encode())
        assert canonical.decode() == oracle.canonical(value)
        assert read(canonical) == (canonical, read(canonical)[1])


@given(texts.payload_texts)
@example('{"x":9007199254740993.0}')
@example('{"x":9007199254740993e0}')
@example('{"x":1,"x":1}')
@example('[{"x":[0.1e400]}]')
def test_the_text_for_plain_readers_is_there_exactly_where_they_see_something_else(text: str) -> None:
    value = oracle.parse(text)
    for read in (read_payload, read_payload_slowly):
        _, plain_text = read(text.encode())
        if plain_text is None:
            assert oracle.plainly_read(text) == value
        else:
            assert oracle.plainly_read(text) != value or _repeats(text)
            assert oracle.unquoted(oracle.plainly_read(plain_text.decode()), value) == value


def _repeats(text: str) -> bool:
    """Whether an object has a key twice; that alone, with equal values, need not have been marked but may be."""
    found = []

    def note(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found.append(len(dict(pairs)) < len(pairs))
        return dict(pairs)

    json.loads(text, object_pairs_hook=note)
    return any(found)


@given(st.data())
def test_promise_5_spelling_does_not_matter(data: st.DataObject) -> None:
    """White space, escapes, key order, and the spelling of numbers."""
    kind, members = data.draw(texts.payload_models)
    one = data.draw(texts.written((kind, members)))
    if kind == "object" and len({key for key, _ in members}) == len(members):
        members = data.draw(st.permutations(members))
    other = data.draw(texts.written((kind, members)))
    assert read_payload(one.encode())[0] == read_payload(other.encode())[0]


@given(texts.payload_texts, texts.payload_texts)
def test_promise_5_other_values_have_another_text(one: str, other: str) -> None:
    same = oracle.parse(one) == oracle.parse(other) and json.loads(one) == json.loads(other)
    if read_payload(one.encode())[0] == read_payload(other.encode())[0]:
        assert oracle.canonical(oracle.parse(one)) == oracle.canonical(oracle.parse(other))
    else:
        assert not same or _has_bool(one)


def _has_bool(text: str) -> bool:
    return "true" in text or "false" in text  # which are equal to 1 and 0 in Python alone


@given(texts.nearly_json(texts.payload_texts))
@example(b"")
@example(b'{"a":"\xff"}')
@example(b'{"a":"\\ud800"}')
@example(b'{"\\udfff":1}')
@example(b'{"a":NaN}')
@example(b'{"a":-Infinity}')
@example(b'{"a":1e99999999999999999999}')
@example(b'{"a":01}')
@example(b'["\x01"]')
@example(b'\xef\xbb\xbf{"a":1}')
@example(b"[1,]")
@example(b"\x0c[]")
@example(b'"text"')
@example(b"[1] 2")
@example(b'{"a":' + b"7" * 5000 + b"}")
@example(b'{"a":' + b"7" * 5000 + b".5e3}")
def test_the_fast_and_the_slow_reader_agree_on_any_bytes(raw: bytes) -> None:
    assert outcome(read_payload, raw) == outcome(read_payload_slowly, raw)


@given(texts.nearly_json(texts.models.flatmap(texts.written)))
def test_any_json_value_passes_the_check_of_unknown_fields_and_nothing_else(raw: bytes) -> None:
    in_array = refused(outcome(read_payload_slowly, b"[" + raw + b"]"))
    if outcome(lambda raw: check_json(raw, "it"), raw) is None:
        assert not in_array
    elif b"," not in raw and raw.strip(b" \t\r\n"):
        assert in_array


def nested(depth: int, opening: str, closing: str) -> bytes:
    """Brackets of two levels, over and over."""
    odd = depth % 2
    return ("[" * odd + opening * (depth // 2) + "0" + closing * (depth // 2) + "]" * odd).encode()


@pytest.mark.parametrize(("opening", "closing"), [("[[", "]]"), ('[{"k":', "}]"), ('{"a":"][\\"{","k":[', "]}")])
@pytest.mark.parametrize("read", [read_payload, read_payload_slowly])
def test_nesting_up_to_the_limit_is_read_and_beyond_it_refused(read: object, opening: str, closing: str) -> None:
    for depth in (1, MAX_DEPTH - 1, MAX_DEPTH):
        assert isinstance(outcome(read, nested(depth, opening, closing)), tuple)
        assert not refused(outcome(read, nested(depth, opening, closing)))
    for depth in (MAX_DEPTH + 1, MAX_DEPTH + 2, 100_000):
        reason = f"payload is nested deeper than {MAX_DEPTH} levels"
        assert outcome(read, nested(depth, opening, closing)) == ("refused", reason, "payload")


def refused(found: object) -> bool:
    return isinstance(found, tuple) and found[0] == "refused"


@pytest.mark.parametrize("raw", [b"1", b'"x"', b"null", b"true", b"1.5"])
def test_a_payload_is_an_object_or_an_array(raw: bytes) -> None:
    assert outcome(read_payload, raw) == ("refused", "payload is not a JSON object or array", "payload")


NUMBERS = [
    "10", "10.0", "1e1", "-0", "-0.0", "0.1", "123456789012345678.123456", "9007199254740993", "9007199254740993.0",
    "9007199254740993e0", "90071992547409930e-1", "-9007199254740993.0", "18446744073709551615", "18446744073709551616",
    "-9223372036854775809", "1e22", "12345678901234567e3", "0.00001", "1e-7", "1e-10", "1234567890.0123456789",
    "0.1000000000000000", "100000000000000000000", "123456789012345e9", "1E+5", "4503599627370497.5", "0.3000000000",
]  # fmt: skip


def test_duckdb_reads_every_number_as_it_was_written() -> None:
    """The engine's view, coalesce(payload_text, payload), cast to DECIMAL. DuckDB alone is no exact reader."""
    rows = []
    for text in NUMBERS:
        payload = f'{{"x":{text},"x":{text}}}' if text == "10" else f'{{"x":{text}}}'
        plain_text = read_payload(payload.encode())[1]
        rows.append((text, payload, None if plain_text is None else plain_text.decode()))
    read = "CAST({} ->> '$.x' AS DECIMAL(38, 10))"
    with duckdb.connect() as db:
        db.execute("CREATE TABLE line (number VARCHAR, payload JSON, payload_text JSON)")
        db.executemany("INSERT INTO line VALUES (?, ?, ?)", rows)
        found = db.execute(
            f"SELECT number, {read.format('coalesce(payload_text, payload)')}, {read.format('payload')} FROM line"
        ).fetchall()
    assert {text: value for text, value, _ in found} == {text: Decimal(text) for text in NUMBERS}
    marked = {text for text, _, plain_text in rows if plain_text is not None}
    assert {text for text, _, value in found if value != Decimal(text)} <= marked - {"10"}


def test_duckdb_takes_the_last_of_a_repeated_key() -> None:
    payload = b'{"x":1,"y":{"z":2,"z":3},"x":4}'
    plain_text = read_payload(payload)[1]
    assert plain_text is not None
    with duckdb.connect() as db:
        row = db.execute("SELECT ?::JSON ->> '$.x', ?::JSON ->> '$.y.z'", [plain_text.decode()] * 2).fetchone()
    assert row == ("4", "3")


def test_a_part_of_the_payload_has_one_text_whatever_else_is_in_it() -> None:
    """Else a number that no double holds would make count(DISTINCT) of another field count one value twice."""
    part = '"price":10.0,"sum":1.5e3,"n":-0.10,"geo":{"lng":13.40,"lat":52.5,"é":["\\u002f",1e2]}'
    texts_of = []
    for other in ("1", "0.12345678901234567890", "12345678901234567890123", '1,"x":{"b":1,"a":2,"b":1}'):
        payload = f'{{{part},"other":{other}}}'.encode()
        for read in (read_payload, read_payload_slowly):
            with duckdb.connect() as db:
                shown = (read(payload)[1] or payload).decode()
                paths = ("price", "sum", "n", "geo")
                texts_of.append(db.execute("SELECT json_extract_string(?::JSON, ?)", [shown, list(paths)]).fetchone())
    assert texts_of == [(["10.0", "1500.0", "-0.1", '{"lng":13.4,"lat":52.5,"é":["/",100.0]}'],)] * 8

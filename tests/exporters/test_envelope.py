"""Raw lines to columns: the fast way agrees with the definition, and is taken where it should be."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pik.errors import Invalid
from pik.exporters import envelope
from pik.exporters.envelope import read_envelopes, read_slowly
from pik.model.batch import Verdict
from pik.model.delivery import read_delivery
from pik.model.instant import MAX_INSTANT, MIN_INSTANT, full_instant
from pik.ports.exporter import COLUMNS, Block
from tests.support.raw_lines import block, line, record

# Texts that look like parts of an envelope, and what parsers of lines, fields and strings stumble over.
TRICKY = [
    '","seq":1,"payload":',
    ',"payload":{}',
    "seq",
    "payload",
    '"',
    "\\",
    ",",
    "}",
    "é",
    "\u2028",
    "😀",
    "\ufeff",
    " ",
    "null",
    "NA",
    "true",
    "-1",
]
names = st.lists(
    st.one_of(st.sampled_from(TRICKY), st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5)),
    min_size=1,
    max_size=3,
).map("".join)
times = st.one_of(
    st.integers(MIN_INSTANT, MAX_INSTANT),
    st.sampled_from([MIN_INSTANT, -1, 0, 1, MAX_INSTANT, 1_767_225_600_000_000_000]),
).map(full_instant)
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.sampled_from(TRICKY),
        st.integers(),
        st.booleans(),
        st.none(),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(TRICKY), st.sampled_from(COLUMNS)), inner, max_size=3),
    ),
    max_leaves=8,
)
objects = st.dictionaries(st.one_of(st.sampled_from(COLUMNS), names), values, max_size=4)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    fields: dict[str, Any] = {name: draw(names) for name in ("source", "event_type", "entity_id")}
    fields["event_time"] = draw(times)
    if draw(st.booleans()):
        fields["idempotency_key"] = draw(names)
    if draw(st.integers(0, 3)) == 0:
        fields["received_time"] = draw(times)
    if draw(st.integers(0, 3)) == 0:
        fields["unknown"] = draw(values)
    original = json.dumps(draw(objects)).encode() if draw(st.integers(0, 3)) == 0 else None
    payload = json.dumps(draw(objects), ensure_ascii=draw(st.booleans()))
    return line(record(payload, **fields), draw(st.integers(1, 2**62)), original)


@given(st.lists(st.lists(lines(), min_size=1, max_size=4), min_size=1, max_size=3), st.data())
def test_the_fast_way_agrees_with_the_definition(batches: list[list[bytes]], data: st.DataObject) -> None:
    seqs = [[read_delivery(one).seq for one in batch] for batch in batches]
    skipped = [data.draw(st.sets(st.sampled_from(each))) for each in seqs]
    assert_agree(block(*batches, verdicts=[dict.fromkeys(each, Verdict.EXACT) for each in skipped]))


def assert_agree(found: Block) -> None:
    for duplicates in (True, False):
        assert_equal(read_envelopes(found, duplicates=duplicates), read_slowly(found, duplicates=duplicates))


def assert_equal(found: tuple[pa.Table, bool], expected: tuple[pa.Table, bool]) -> None:
    assert found[0].schema.equals(expected[0].schema)
    for name in COLUMNS:
        assert found[0].column(name).combine_chunks().equals(expected[0].column(name).combine_chunks()), name
    assert found[1] == expected[1]


PLAIN = [
    [record()],
    [record(entity_id=f"é,{number}") for number in range(100)],
    [record(received_time="2026-01-01T00:00:00.000000001Z"), record(received_time="2026-01-02T00:00:00Z")],
    [record(), record(received_time="2026-01-01T00:00:00Z"), record(entity_id="f")],
    [record(), record(idempotency_key='a"b\\'), record(unknown={"payload": 1}), record('{"a":9007199254740993}')],
    [record('{"a":{"payload":{"seq":1}},"seq":2,"payload":3}'), record('[",\\"payload\\":"]'), record("{} ")],
    [record(source=",", event_type=",,", entity_id=" "), record(source="NULL", entity_id="-1")],
]


@pytest.mark.parametrize("texts", PLAIN)
def test_plain_lines_are_read_the_fast_way(texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made = block([line(text, seq) for seq, text in enumerate(texts, 1)], verdicts=[{2: Verdict.EXACT}])
    expected = read_slowly(made, duplicates=False)
    monkeypatch.setattr(envelope, "read_slowly", None)
    assert_equal(read_envelopes(made, duplicates=False), expected)


UNUSUAL = [
    [line(record(source="C:\\logs"))],
    [line(record(entity_id='"'))],
    [line(record(), 1, b'{"seq":2,"payload":{"payload":3}}')],
    [line(record(unknown={"x": {"payload": []}, "seq": 1}), 1, b'{"a":1,"payload":{}}')],
]


@pytest.mark.parametrize("raw", UNUSUAL)
def test_unusual_lines_are_read_as_defined(raw: list[bytes]) -> None:
    assert_agree(block(raw))


def test_a_line_that_is_not_a_delivery_is_refused() -> None:
    for text in (b"{}", b"", line(record())[:-9], line(record()).replace(b"2026-01-01T", b"2026-13-01T")):
        with pytest.raises(Invalid):
            read_envelopes(block([line(record()), text]), duplicates=True)


def test_lines_are_known_by_all_of_their_fields() -> None:
    text = record('{"v" : 1.10}', idempotency_key="k", received_time="2026-01-01T03:00:00.5+03:00", unknown=[1])
    found = read_envelopes(block([line(text, 7)]), duplicates=True)[0].to_pylist()[0]
    assert {name: found[name] for name in ("source", "event_type", "entity_id", "seq", "idempotency_key")} == {
        "source": "web",
        "event_type": "paid",
        "entity_id": "e",
        "seq": 7,
        "idempotency_key": "k",
    }
    assert (found["payload"], found["extra"]) == ('{"v" : 1.10}', '{"unknown":[1]}')
    assert found["received_time"].value == 1_767_225_600_500_000_000
    assert found["ingest_time"].value == 1_767_225_600_123_456_789
    assert len(found["event_id"]) == len(found["content_hash"]) == 32

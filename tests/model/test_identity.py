"""Promise 5: identity is a function of content."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pik.model.event import Event, read_event, read_event_slowly
from pik.model.instant import MAX_INSTANT, MIN_INSTANT, full_instant
from tests.support.model import oracle, texts, vectors

VECTORS = json.loads(vectors.FILE.read_text(encoding="utf-8"))
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40).filter(
    lambda text: len(text.encode()) <= 256
)
INSTANTS = st.integers(MIN_INSTANT, MAX_INSTANT)


def line(**fields: Any) -> bytes:
    """An event's line; `payload` is JSON text."""
    payload = fields.pop("payload", "{}")
    plain = {"source": "s", "event_type": "t", "entity_id": "e", "event_time": "2026-01-01T00:00:00Z", **fields}
    return f'{{{json.dumps(plain)[1:-1]},"payload":{payload}}}'.encode()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["what"]))
@pytest.mark.parametrize("read", [read_event, read_event_slowly])
def test_promise_5_the_test_vectors(read: Any, vector: dict[str, str]) -> None:
    event: Event = read(vector["event"].encode())
    assert (event.event_id.hex(), event.content_hash.hex()) == (vector["event_id"], vector["content_hash"])


def test_promise_5_the_test_vectors_are_those_of_the_definition() -> None:
    """Written from the definition alone: canonical texts and both hashes."""
    assert vectors.vectors() == VECTORS
    shared = Counter(vector["event_id"] for vector in VECTORS)
    plainest = next(vector["event_id"] for vector in VECTORS if vector["what"] == "the plainest event")
    keyed = next(vector["event_id"] for vector in VECTORS if vector["what"] == "an idempotency key")
    assert {event_id: count for event_id, count in shared.items() if count > 1} == {plainest: 5, keyed: 2}


@given(NAMES, NAMES, NAMES, INSTANTS, texts.payload_texts, st.none() | NAMES)
def test_promise_5_identity_is_that_of_the_definition(
    source: str, kind: str, entity: str, instant: int, payload: str, key: str | None
) -> None:
    text = full_instant(instant)
    event = read_event(
        line(source=source, event_type=kind, entity_id=entity, event_time=text, payload=payload, idempotency_key=key)
    )
    content = oracle.hash_of("pik.content.1", source, kind, entity, text, oracle.parse(payload))
    assert event.content_hash.hex() == content
    assert event.event_id.hex() == (content if key is None else oracle.hash_of("pik.key.1", source, kind, entity, key))


PIECES = st.lists(
    st.sampled_from(['"', ",", "|", "[", "]", "\\", "a", "{}", '","', "é", ":"]), min_size=1, max_size=4
).map("".join)
FIELDS = ("source", "event_type", "entity_id", "idempotency_key")


@given(st.tuples(PIECES, PIECES, PIECES, PIECES), st.tuples(PIECES, PIECES, PIECES, PIECES))
def test_promise_5_no_delimiter_in_a_field_imitates_another(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assume(one != other)
    for fields in (FIELDS, FIELDS[:3]):
        if one[: len(fields)] != other[: len(fields)]:
            ids = {read_event(line(**dict(zip(fields, values, strict=False)))).event_id for values in (one, other)}
            assert len(ids) == 2


def test_promise_5_a_string_is_not_a_number_and_a_key_is_not_a_payload() -> None:
    lines = [
        line(payload='{"a":"1"}'),
        line(payload='{"a":1}'),
        line(payload='["a",1]'),
        line(payload='{"a":true}'),
        line(payload='{"a":"true"}'),
        line(payload='{"a":null}'),
        line(payload="{}"),
        line(payload="[]"),
        line(idempotency_key="[]"),
        line(idempotency_key="{}"),
        line(payload='["a|b","c"]'),
        line(payload='["a","b|c"]'),
        line(source="a|b", entity_id="c"),
        line(source="a", entity_id="b|c"),
    ]
    assert len({read_event(each).event_id for each in lines}) == len(lines)


@given(INSTANTS, st.integers(-3, 3))
def test_promise_5_instants_a_nanosecond_apart_are_two(instant: int, apart: int) -> None:
    assume(MIN_INSTANT <= instant + apart <= MAX_INSTANT)
    one, other = (read_event(line(event_time=full_instant(at))) for at in (instant, instant + apart))
    assert (one.event_id == other.event_id) == (apart == 0)


@pytest.mark.parametrize(
    "spelled",
    [
        "2026-01-01T00:00:00Z", "2026-01-01T03:00:00+03:00", "2025-12-31T18:30:00.000-05:30", "2026-01-01 00:00:00Z",
        "2026-01-01t00:00:00z", "2026-01-01T00:00:00.000000000Z", "2026-01-01T00:00:00.000Z",
        "2026-01-01T00:00:00-00:00", "2026-01-01T01:00:00+0100", "2026-01-01T01:00:00+01", "2026-01-01T00:00Z",
        "20260101T000000Z", "20260101t0100+0100", "2026-01-01T00:00:00,000Z", "2026-01-01 01:00:00 +0100",
    ],
)  # fmt: skip
def test_promise_5_spellings_of_an_instant_are_one(spelled: str) -> None:
    event = read_event(line(event_time=spelled))
    assert event.event_id == read_event(line()).event_id
    assert event.head.endswith(b'"event_time":"2026-01-01T00:00:00.000000000Z"')


def test_with_an_idempotency_key_time_and_payload_are_content_and_not_identity() -> None:
    events = [
        read_event(line(idempotency_key="k", event_time=f"2026-01-0{day}T00:00:00Z", payload=payload))
        for day in (1, 2)
        for payload in ("{}", '{"a":1}')
    ]
    assert len({event.event_id for event in events}) == 1
    assert len({event.content_hash for event in events}) == 4

"""Events: what is valid, why others are not, and the raw line."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from pik.errors import Invalid
from pik.model.delivery import Delivery, entity_mark, raw_line, read_delivery, stamp
from pik.model.event import ENVELOPE, FIELDS, FieldType, read_event, read_event_slowly
from pik.model.identity import MAX_DEPTH
from pik.model.instant import full_instant, is_canonical
from pik.model.zone import NO_ZONES, Zones, load_zone
from tests.model.test_identity import INSTANTS, NAMES, line
from tests.support.model import oracle, texts

TIMES = st.sampled_from(
    "2026-01-31T23:59:59.999Z 2026-02-30T00:00:00.000Z 2026-01-01T00:00:00Z 2026-01-01T00:00:00.1234567891Z 2026-01-01"
    " 2026-01-01T24:00:00.000Z 2026-01-01T00:00:60.000Z 1677-01-01T00:00:00Z 2026-01-01T00:00:00.٣٣٣Z"
    " 2026-01-01T00:00:00 2026-03-29T02:30:00 20260101T0000+01 2026-01-01T00:00:00+00:00"
    " 2026-01-01T00:00:00.123456789+03:00 0000-00-00T00:00:00.000Z 2026-01-01t00:00:00.000Z".split()
)


@st.composite
def event_texts(draw: st.DrawFn) -> str:
    """An object with the fields of an event or nearly so, in any order, some twice, spelled anyhow."""
    value = st.one_of(
        NAMES.flatmap(texts.string_texts), TIMES.map(json.dumps), texts.payload_texts, st.sampled_from(["null", "1"])
    )
    right = {name: NAMES.flatmap(texts.string_texts) for name in FIELDS}
    right["event_time"] = right["received_time"] = TIMES.map(json.dumps)
    right["payload"] = texts.payload_texts
    names = list(FIELDS[: draw(st.integers(4, len(FIELDS)))])
    names += draw(st.lists(st.sampled_from([*FIELDS, "trace", "é", ""]), max_size=2))
    members = []
    for name in draw(st.permutations(names)):
        text = draw(right[name] if name in right and draw(st.integers(0, 19)) else value)
        members.append(f"{draw(texts.spaces)}{json.dumps(name)}{draw(texts.spaces)}:{draw(texts.spaces)}{text}")
    return "{" + ",".join(members) + draw(texts.spaces) + "}"


ZONE = st.sampled_from([None, load_zone("UTC"), load_zone("Europe/Berlin")])
ZONES = st.builds(Zones, ZONE, ZONE)


def outcome(read: Any, raw: bytes, zones: Zones = NO_ZONES) -> Any:
    """Everything that a reader finds out, or its refusal."""
    try:
        event = read(raw, zones)
    except Invalid as error:
        return "refused", error.message, error.field
    return raw_line(event, 1, stamp(0, "B")), event


@given(texts.nearly_json(event_texts()), ZONES)
@example(
    b'{"source":5,"source":"a","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":{}}',
    NO_ZONES,
)
@example(
    b'{"payload":"\xff","source":"a","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":{}}',
    NO_ZONES,
)
@example(line(idempotency_key=None, received_time=None), NO_ZONES)
@example(line(payload='{"a":[1e400]}', trace=1), NO_ZONES)
@example(line(source="a\x85"), NO_ZONES)
@example(b"[" * 100_000, NO_ZONES)
@example(b'{"a":' * 100_000, NO_ZONES)
@example(b'{"\xff":1}', NO_ZONES)
@example(b'{"\\ud800":1}', NO_ZONES)
def test_the_fast_and_the_slow_reader_agree_on_any_bytes(raw: bytes, zones: Zones) -> None:
    assert outcome(read_event, raw, zones) == outcome(read_event_slowly, raw, zones)


@given(event_texts())
def test_a_raw_line_is_one_line_of_json_that_reads_back(text: str) -> None:
    found = outcome(read_event, text.encode())
    if found[0] == "refused":
        return
    raw, event = found
    assert b"\n" not in raw
    assert b"\r" not in raw
    delivery = read_delivery(raw)
    members = json.loads(text)
    for name in ("source", "event_type", "entity_id"):
        assert getattr(delivery, name) == members[name]
    assert delivery.idempotency_key == members.get("idempotency_key") == event.idempotency_key
    assert (delivery.event_id, delivery.content_hash) == (event.event_id.hex(), event.content_hash.hex())
    assert delivery.event_instant == event.event_time
    for name in ("event_time", "received_time"):
        sent, kept = members.get(name), getattr(delivery, f"{name}_original")
        assert kept == (None if sent is None or is_canonical(sent) else sent)
    assert json.loads(bytes(delivery.payload)) == members["payload"]
    unknown = {name: value for name, value in members.items() if name not in FIELDS}
    assert json.loads(bytes(delivery.extra) if delivery.extra else b"{}") == unknown
    assert entity_mark(delivery.entity_id) in raw


def test_the_envelope_byte_for_byte() -> None:
    raw = (
        b'{"x": 1.50,"payload":{ "b":1.0,\r"a" : 12345678901234567890123 },"source":"web","event_type":"paid",'
        b'"entity_id":"u\\u0031","event_time":"2026-01-01T03:00:00.5+03:00","received_time":"2026-01-01T00:00:01Z",'
        b'"idempotency_key":"k\\"1"}'
    )
    names = ("web", "paid", "u1")
    payload = {"a": Decimal("12345678901234567890123"), "b": Decimal(1)}
    event_id = oracle.hash_of("pik.key.1", *names, 'k"1')
    content_hash = oracle.hash_of("pik.content.1", *names, "2026-01-01T00:00:00.500000000Z", payload)
    assert raw_line(read_event(raw), 7, stamp(1, "BATCH"), b'{"was": 1}').decode() == (
        f'{{"event_id":"{event_id}","content_hash":"{content_hash}",'
        '"source":"web","event_type":"paid","entity_id":"u1","event_time":"2026-01-01T00:00:00.500000000Z",'
        '"received_time":"2026-01-01T00:00:01.000000000Z","ingest_time":"1970-01-01T00:00:00.000000001Z",'
        '"batch_id":"BATCH","seq":7,"idempotency_key":"k\\"1","event_time_original":"2026-01-01T03:00:00.5+03:00",'
        '"extra":{"x":1.50},"original":{"was": 1},'
        '"payload_text":{"b":1.0,"a":"1.2345678901234567890123e+22"},'
        '"payload":{ "b":1.0, "a" : 12345678901234567890123 }}'
    )


@given(INSTANTS, st.none() | INSTANTS, INSTANTS)
def test_lag_runs_from_event_time_to_received_time_or_else_to_ingest_time(
    at: int, received: int | None, ingested: int
) -> None:
    """Negative where the producer's clock is ahead: promise 9."""
    text = None if received is None else full_instant(received)
    event = read_event(line(event_time=full_instant(at), received_time=text))
    delivery = read_delivery(raw_line(event, 1, stamp(ingested, "B")))
    assert delivery.lag == (ingested if received is None else received) - at


REFUSED: list[tuple[bytes, str, str]] = [
    (b"", "the line is not JSON: it ends too early", ""),
    (line()[:-1], "the line is not JSON: it ends too early", ""),
    (b"[1]", "an event is a JSON object; this is a list", ""),
    (b" 7", "an event is a JSON object; this is a number", ""),
    (b"null", "an event is a JSON object; this is null", ""),
    (b'{"a" 1}', "the line is not JSON: unexpected '1' (character 6)", ""),
    (b"INFO started", "the line is not JSON: unexpected 'INFO' (character 1)", ""),
    (b'{"a":1,}', "the line is not JSON: a comma stands before '}' (character 8)", ""),
    (line() + b"x", "the line is not JSON: ", ""),
    (b"{}", "source is missing", "source"),
    (b'{"source":"s","event_type":"t","entity_id":"e","payload":{}}', "event_time is missing", "event_time"),
    (line(source=1), "source is not a string: '1'", "source"),
    (line(source=None), "source is not a string: 'null'", "source"),
    (line(event_type=["a"]), "event_type is not a string: '[\"a\"]'", "event_type"),
    (line(entity_id=""), "entity_id is empty", "entity_id"),
    (line(entity_id="é" * 129), "entity_id is longer than 256 bytes", "entity_id"),
    (line(idempotency_key=""), "idempotency_key is empty", "idempotency_key"),
    (line(idempotency_key=5), "idempotency_key is not a string: '5'", "idempotency_key"),
    (line(source="a\tb"), "source has a control character", "source"),
    (line(source="a\x7f"), "source has a control character", "source"),
    (line(source="a\x9f"), "source has a control character", "source"),
    (line(event_time="2026-02-30T00:00:00Z"), "event_time '2026-02-30' is not a date of the calendar", "event_time"),
    (line(event_time="yesterday"), "event_time 'yesterday' is not an RFC 3339 time", "event_time"),
    (line(event_time="2026-01-01T10:00:00"), "event_time '2026-01-01T10:00:00' has no offset from UTC; --timezone ZONE",
     "event_time"),
    (line(received_time="2026-01-01 10:00"), "received_time '2026-01-01 10:00' has no offset",
     "received_time"),
    (line(event_time=1767225600), "event_time is not a string: '1767225600'", "event_time"),
    (line(received_time="2026-01-01T25:00:00Z"), "received_time '2026-01-01T25:00:00Z' has", "received_time"),
    (line(payload="null"), "payload is not a JSON object or array", "payload"),
    (line(payload="NaN"), "the line has NaN, which JSON does not", ""),
    (line(payload='{"a":1e99999999999999999999}'), "the exponent of the number '1e99999", "payload"),
    (line(payload='["\\ud800"]'), "the line has half of a surrogate pair, which is no character", ""),
    (line(payload="[" * 101 + "]" * 101), f"payload is nested deeper than {MAX_DEPTH} levels", "payload"),
    (line().replace(b'"s"', b'"\xff"'), "source is not UTF-8", "source"),
    (line(payload='{"a":"X"}').replace(b"X", b"\xed\xa0\x80"), "payload is not UTF-8 (byte ", "payload"),
    (line(extra=0).replace(b"0,", b'{"a":"\\udfff"},'), "the line has half of a surrogate pair", ""),
    (line(trace=0).replace(b"0,", b"[" * 101 + b"]" * 101 + b","), "an unknown field is nested deeper than", ""),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "message", "field"), REFUSED, ids=[str(case[1])[:50] for case in REFUSED])
def test_a_refusal_has_a_reason_that_a_person_understands(raw: bytes, message: str, field: str) -> None:
    for read in (read_event, read_event_slowly):
        with pytest.raises(Invalid) as refusal:
            read(raw)
        assert refusal.value.message.startswith(message)
        assert refusal.value.field == field


@pytest.mark.parametrize("name", ["a" * 256, "é" * 128, " ", "\u200b", "a b", "😀" * 64, "\xa0", "\ufeff"])
def test_names_up_to_256_bytes_without_control_characters_are_valid(name: str) -> None:
    for field in ("source", "event_type", "entity_id", "idempotency_key"):
        assert outcome(read_event, line(**{field: name}))[0] != "refused"


def test_a_line_of_raw_that_is_not_a_delivery_is_refused() -> None:
    for raw in (b"", b"{}", b'{"event_id":1}', b"\xff"):
        with pytest.raises(Invalid, match="a raw line is not a delivery"):
            read_delivery(raw)


def test_deliveries_have_every_declared_field_of_the_envelope() -> None:
    types = {FieldType.TEXT: str, FieldType.INSTANT: str, FieldType.INTEGER: int, FieldType.JSON: msgspec.Raw}
    fields = {each.name: each for each in structs.fields(Delivery)}
    for field in ENVELOPE:
        is_optional = field.sent and not field.required
        assert fields[field.name].type == (types[field.type] | None if is_optional else types[field.type])

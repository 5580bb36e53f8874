"""Mappings: foreign records to events, numbers exact, times in every format."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pik.errors import Invalid, UsageError
from pik.inputs.mapping import RecordMapping
from pik.model.delivery import raw_line, read_delivery, stamp
from pik.model.event import Event, read_event
from pik.model.identity import name_of_number
from pik.model.instant import MAX_INSTANT, MIN_INSTANT, full_instant
from pik.model.times import Times
from tests.support.model import oracle, texts

HOOK = {
    "source": "'github'",
    "event_type": "action",
    "entity_id": "repository.full_name",
    "event_time": "at",
    "payload": "@",
    "idempotency_key": "delivery",
}
RECORD = {"action": "opened", "repository": {"full_name": "a/b"}, "at": "2026-01-01T00:00:00Z", "delivery": "d-1"}


def read(record: Any, time_format: str = "rfc3339", **expressions: str) -> Event:
    text = record if isinstance(record, bytes) else json.dumps(record).encode()
    return RecordMapping({**HOOK, **expressions}, Times(time_format)).read(text)[0]


def refusal(record: Any, time_format: str = "rfc3339", **expressions: str) -> tuple[str, str]:
    with pytest.raises(Invalid) as found:
        read(record, time_format, **expressions)
    return found.value.field, found.value.message


def test_literals_paths_and_the_record_itself() -> None:
    event = read(RECORD)
    direct = read_event(
        json.dumps(
            {
                "source": "github",
                "event_type": "opened",
                "entity_id": "a/b",
                "event_time": RECORD["at"],
                "payload": RECORD,
                "idempotency_key": "d-1",
            }
        ).encode()
    )
    assert (event.event_id, event.content_hash, event.head) == (direct.event_id, direct.content_hash, direct.head)


def test_fields_without_an_expression_come_from_the_field_of_that_name() -> None:
    line = (
        b'{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":{"a":1},"x":2}'
    )
    event, original = RecordMapping({"source": "'other'"}).read(line)
    assert b'"source":"other","event_type":"t"' in event.head
    assert original == line
    assert event.extra is None  # the original has it


def test_numbers_become_texts_where_a_text_is_asked_for() -> None:
    assert read({**RECORD, "action": 7.0}).head == read({**RECORD, "action": "7"}).head
    big = json.dumps(RECORD).encode().replace(b'"opened"', b"123456789012345678901")
    assert b'"event_type":"123456789012345678901"' in read(big).head
    assert b'"event_type":"123456789012345678901"' in read(big, event_type="to_string(action)").head
    assert read(big, payload="[@, @, @]").payload.count(b"123456789012345678901") == 3  # larger than the record
    assert refusal({**RECORD, "action": True}) == ("event_type", "event_type is not a string: 'true'")
    assert refusal({**RECORD, "action": {"a": 1}})[0] == "event_type"


def test_what_an_expression_does_not_find_is_missing() -> None:
    where = "entity_id: its expression finds nothing in this record"
    assert refusal({**RECORD, "repository": None}) == ("entity_id", where)
    assert refusal({**RECORD, "repository": {}}) == ("entity_id", where)
    assert refusal({**RECORD, "repository": {"full_name": ""}}) == ("entity_id", "entity_id is empty")
    assert read({**RECORD, "delivery": None}).idempotency_key is None


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("abs(action)", "abs() takes number, not string: 'opened'"),
        ("contains(action, `1`)", "requires string"),
        ("merge(@, action)", ""),
        ("action < `1`", ""),
        ("[at][::0]", "step"),
        ("&action", "makes no JSON value"),
        ("[&action]", "makes no JSON value"),
        ("`5`", "not a JSON object or array"),
    ],
)
def test_an_expression_that_fails_on_a_record_rejects_it(expression: str, reason: str) -> None:
    field, message = refusal(RECORD, payload=expression)
    assert field == "payload"
    assert reason in message
    assert message.startswith("payload")


@pytest.mark.parametrize(
    "line", [b"[1]", b"7", b"{", b"", b'{"a":"\\ud800"}', b'\xef\xbb\xbf{"a":1}', b'{"a":NaN}', b"\xff"]
)
def test_a_record_is_a_json_object(line: bytes) -> None:
    with pytest.raises(Invalid, match=r"^the record "):
        RecordMapping(HOOK).read(line)


@pytest.mark.parametrize(
    ("expressions", "message"),
    [
        ({"sauce": "a"}, "--map sauce=…: an event has no such field"),
        ({"source": "a["}, "--map source=a[ is not a JMESPath expression"),
        ({"source": ""}, "--map source=: "),
    ],
)
def test_a_wrong_mapping_is_a_usage_error(expressions: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        RecordMapping(expressions)
    assert error.value.message.startswith(message)
    assert "\n" not in error.value.message
    assert error.value.hint


@given(texts.payload_texts)
def test_payload_numbers_are_exact(text: str) -> None:
    """Through JMESPath and back: the payload of the mapped event is the record's, by value."""
    record = f'{{"p":{text},"at":"2026-01-01T00:00:00Z"}}'
    literal = {"source": "'s'", "event_type": "'t'", "entity_id": "'e'", "event_time": "at", "payload": "p"}
    event, original = RecordMapping(literal).read(record.encode())
    names = ("s", "t", "e", "2026-01-01T00:00:00.000000000Z")
    assert event.content_hash.hex() == oracle.hash_of("pik.content.1", *names, oracle.parse(text))
    delivery = read_delivery(raw_line(event, 1, stamp(0, "B"), original))
    assert delivery.original is not None
    assert bytes(delivery.original).decode() == record.replace("\r", " ")  # numbers as written


@pytest.mark.parametrize(
    ("expression", "payload"),
    [
        ("[to_number(n)]", "[123456789012345678901234567890]"),
        ("[to_number(f)]", "[1.23456789012345678901]"),
        ("[to_number(nan), to_number(word)]", "[null,null]"),
        ("[to_string(big)]", '["123456789012345678901"]'),
        ("[to_string(o)]", '["{\\"a\\":123456789012345678901}"]'),
        ("[big, ten]", "[123456789012345678901,10.0]"),
    ],
)
def test_jmespath_functions_keep_numbers_exact(expression: str, payload: str) -> None:
    record = (
        b'{"at":"2026-01-01T00:00:00Z","action":"x","repository":{"full_name":"r"},"delivery":"d","ten":1e1,'
        b'"n":"123456789012345678901234567890","f":"1.23456789012345678901","nan":"nan","word":"ten",'
        b'"big":123456789012345678901,"o":{"a":123456789012345678901}}'
    )
    mapped = read(record, payload=expression)
    assert oracle.parse(mapped.payload.decode()) == oracle.parse(payload)


@given(st.integers(MIN_INSTANT, MAX_INSTANT))
def test_epoch_seconds_with_a_fraction_are_exact_to_the_nanosecond(instant: int) -> None:
    """As a number in the record, though no double holds it."""
    text = format(Decimal(instant).scaleb(-9), "f")
    record = json.dumps(RECORD).replace('"2026-01-01T00:00:00Z"', text)
    assert read(record.encode(), "epoch").event_time == instant
    assert full_instant(instant) in read(record.encode(), "epoch").head.decode()


@pytest.mark.parametrize(
    ("time_format", "at", "kept"),
    [
        ("rfc3339", "2026-01-01T00:00:00Z", None),
        ("rfc3339", "2026-01-01T01:00:00+01:00", "2026-01-01T01:00:00+01:00"),
        ("auto", 1767225600, "1767225600"),
        ("epoch", "1767225600.50", "1767225600.50"),
        ("%d/%b/%Y:%H:%M:%S %z", "01/Jan/2026:03:00:00 +0300", "01/Jan/2026:03:00:00 +0300"),
    ],
)
def test_a_time_that_is_not_canonical_is_kept_as_it_came(time_format: str, at: Any, kept: str | None) -> None:
    event, original = RecordMapping({**HOOK, "received_time": "at"}, Times(time_format)).read(
        json.dumps({**RECORD, "at": at}).encode()
    )
    delivery = read_delivery(raw_line(event, 1, stamp(0, "B"), original))
    assert (delivery.event_time_original, delivery.received_time_original) == (kept, kept)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("1234567890123456789012", "1234567890123456789012"),
        ("1.5e22", "15000000000000000000000"),
        ("1e255", "1" + "0" * 255),
        ("1e256", "1e+256"),
        ("1234567890123456789012.5", "1.2345678901234567890125e+21"),
        ("1e-7", "1e-7"),
        ("10.0", "10"),
    ],
)
def test_a_number_as_a_name_is_an_integers_digits_however_it_is_written(text: str, name: str) -> None:
    assert name_of_number(text) == name


@pytest.mark.parametrize("text", ["0", "-0", "7", "-12", "9" * 17, "9" * 18, "-" + "9" * 18, "9" * 19, "9" * 30])
def test_whole_numbers_are_exact_whichever_way_they_are_read(text: str) -> None:
    line = f'{{"s":"x","n":{text},"at":"2026-01-01T00:00:00Z"}}'.encode()
    fields = {"source": "s", "event_type": "s", "entity_id": "n", "event_time": "at", "payload": "{n: n}"}
    event, _ = RecordMapping(fields).read(line)
    assert event.entity_id == str(int(text))
    fields["entity_id"] = "to_string(n)"
    assert RecordMapping(fields).read(line)[0].entity_id == str(int(text))
    assert event.payload.replace(b" ", b"") == b'{"n":%d}' % int(text)

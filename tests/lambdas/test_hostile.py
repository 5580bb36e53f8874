"""Hostile bodies: refused with a reason, or kept as what they are; never a 500 or a traceback, never a key of theirs.

The cases are of the kinds of https://github.com/nst/JSONTestSuite, written for this.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pik.lambdas import ingest, replay
from pik.model.identity import MAX_DEPTH
from pik.model.instant import day_of, day_text, parse_instant
from pik.model.window import ALL_TIME
from pik.stores import open_store
from pik.usecases.ingest.api_request import MAX_EVENTS
from pik.usecases.inspect.deliveries import read_locations
from tests.support.lambdas.calls import asked, event, post, wire
from tests.support.lambdas.gateway import CONTEXT
from tests.support.snapshot import assert_sound

HEAD = b'{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-31T00:00:00Z","payload":'

NOT_JSON = {
    "truncated": [b"{", b"[", b'{"a"', b'{"a":', b'{"a":1', b'{"a":1,', b'"', b'["a', b"[1,", b"tru", b"-", b"1e"],
    "escape": [rb'["\x41"]', rb'["\u12"]', rb'["\u{41}"]', rb'["\'"]', rb'["\"]', rb'["\U0001F600"]'],
    "surrogate": [rb'["\ud800"]', rb'["\udc00\ud800"]', rb'["\ud800\ud800"]', rb'["\ud83dx"]', b'["\xed\xa0\x80"]'],
    "number": [b"[NaN]", b"[Infinity]", b"[-Infinity]", b"[+1]", b"[01]", b"[1.]", b"[.5]", b"[0x1]", b"[1e+]"],
    "control": [b'["\x00"]', b'["\x1f"]', b"\x00", b"[1]\x00", b"\x0c[]"],
    "utf8": [b"\xff", b'["\xff"]', b'["\xc3"]', b'["\xc0\xaf"]', b'["\xf4\x90\x80\x80"]', b"\xfe\xff\x00{"],
    "structure": [b"{a:1}", b"{'a':1}", b'{"a":1,}', b"[1,]", b"[,1]", b"[1 2]", b'{"a" 1}', b"]", b"}", b"{}{}"],
    "deep": [b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000],
}

NO_EVENT = [b"null", b"true", b"5", b'""', b"{}", b"[null]", b"[5, []]", b'{"events": 5}', b'{"events": [[]]}']

NO_PAYLOAD = [case for kind in ("escape", "surrogate", "number", "control", "utf8", "deep") for case in NOT_JSON[kind]]
"""JSON that is none in the place of a payload: `{"…":` and these, and `}`."""

KEPT = {
    "numbers": b"[1e999999, -1e-999999, 123456789012345678901234567890.000000000000000000001, -0, 0e0]",
    "digits": b"[" + b"9" * 100_000 + b"]",
    "repeated keys": b'{"a": 1, "a": 2, "\\u0061": 3}',
    "escaped control characters": rb'{"\u0000": "\u001f\u2028"}',
    "a pair of surrogates": rb'["\ud83d\ude00"]',
    "names of Python's": b'{"__class__": "x", "__proto__": {"a": 1}, "": 0}',
}


def sent(handler, body: bytes, **parts) -> tuple[int, Any]:
    """Status and answer; as text where it is text, else as API Gateway hands on what is binary."""
    try:
        return post(handler, body.decode(), **parts)
    except UnicodeDecodeError:
        return post(handler, b64encode(body).decode(), isBase64Encoded=True, **parts)


def assert_refused(status: int, answer, capsys) -> None:
    assert status in (400, 413)
    said = json.dumps(answer) + capsys.readouterr().out
    assert "Traceback" not in said
    assert "exception" not in said
    assert "internal error" not in said


@pytest.fixture
def said(capsys):
    return capsys


@pytest.mark.parametrize("kind", NOT_JSON)
@pytest.mark.parametrize("lines", [{}, {"headers": {"Content-Type": "application/x-ndjson; charset=utf-8"}}])
def test_json_that_is_invalid_is_refused(store, said, kind, lines) -> None:
    for body in NOT_JSON[kind]:
        assert_refused(*sent(ingest.handler, body, **lines), said)
        assert_refused(*sent(replay.handler, body), said)
    assert store.index.totals().events == 0
    assert_sound(store)


@pytest.mark.parametrize("body", NO_EVENT)
def test_json_that_is_not_an_event_is_refused(store, said, body) -> None:
    assert_refused(*sent(ingest.handler, body), said)
    assert_refused(*sent(replay.handler, body), said)
    assert store.index.totals().events == 0


def test_no_payload_smuggles_in_what_is_not_json(store, said) -> None:
    for payload in NO_PAYLOAD:
        body = HEAD + payload + b"}"
        assert_refused(*sent(ingest.handler, body), said)
        assert_refused(*sent(ingest.handler, b"[" + body + b"]"), said)
        status, answer = sent(ingest.handler, body + b"\n" + HEAD + b"{}}")
        taken = answer["accepted"] + answer["duplicates"]
        assert (status, answer["rejected"], taken) == (200, 1, 1), payload[:40]
    assert store.index.totals().events == 1
    assert_sound(store)


@pytest.mark.parametrize("name", KEPT)
def test_what_is_strange_and_valid_is_kept_byte_for_byte(store, name) -> None:
    status, answer = sent(ingest.handler, HEAD + KEPT[name] + b"}")
    assert (status, answer["status"]) == (200, "ACCEPTED")
    found = next(read_locations(store, store.index.deliveries(answer["event_id"])))
    assert bytes(found.delivery.payload) == KEPT[name]


def test_depth_has_an_end_that_is_reported(store) -> None:
    for depth, status in ((MAX_DEPTH, 200), (MAX_DEPTH + 1, 400)):
        body = HEAD + b"[" * depth + b"]" * depth + b"}"
        said, answer = sent(ingest.handler, body)
        assert said == status
        assert said == 200 or "deep" in answer["error"]
    _, answer = sent(ingest.handler, HEAD + b"[" * 100_000 + b"]" * 100_000 + b"}")
    assert "deep" in answer["results"][0]["error"]


@pytest.mark.parametrize(
    "body",
    [
        b'"' + b"x" * 10_000_000 + b'"',
        HEAD + b'["' + b"x" * 10_000_000 + b'"]}',
        b"[" + HEAD + b'["' + b"x" * 10_000_000 + b'"]}]',
        b'{"' + b"x" * 10_000_000 + b'": 1}',
        b" " * 10_000_000,
        b"\n" * 10_000_000,
        b"[" * 10_000_000,
        b"{}\n" * (MAX_EVENTS + 1),
        b"[" + b"1," * MAX_EVENTS + b"1]",
        b'{"events":[' + b"1," * MAX_EVENTS + b"1]}",
    ],
    ids=lambda body: f"{bytes(body[:12])!r}…{len(body)}",
)
def test_what_is_too_large_is_reported(store, said, body) -> None:
    status, answer = sent(ingest.handler, body)
    assert status == 413
    assert_refused(status, answer, said)
    assert store.index.totals().batches == 0


@pytest.mark.parametrize("size", [2 << 20, 4_000_000])
def test_one_event_of_megabytes_is_rejected(store, said, size) -> None:
    body = HEAD + b'["' + b"x" * size + b'"]}'
    status, answer = sent(ingest.handler, body)
    assert_refused(status, answer, said)
    assert "longer than 1048576 bytes" in answer["error"]
    assert_refused(*sent(replay.handler, body), said)
    assert_refused(*sent(replay.handler, json.dumps(asked(entity_id="x" * size)).encode()), said)


STEERING = [
    "../../etc/passwd",
    "/raw/event_date=1999-01-01/x",
    "raw/batches/x",
    "..",
    "%2e%2e%2f",
    "%00",
    "a\\b",
    "event_date=2000-01-01",
    "a/b#c?d&e",
    "us\u2028x",
    "é\u202e",
    "${jndi:x}",
    "'; DROP TABLE delivery; --",
    "a" * 256,
    ".",
    "-0.ndjson.zst",
]
KEY = re.compile(r"raw/event_date=(\d{4}-\d\d-\d\d)/([0-7][0-9A-HJKMNP-TV-Z]{25})-0\.ndjson\.zst")


def assert_own_key(answer, event_time: str) -> None:
    """The key is made of the event's own UTC day and the batch's id."""
    found = KEY.fullmatch(answer["s3_key"])
    assert found, answer
    assert found.groups() == (day_text(day_of(parse_instant(event_time))), answer["batch_id"])


@pytest.mark.parametrize(
    "field", ["source", "event_type", "entity_id", "idempotency_key", "payload", "batch_id", "s3_key"]
)
def test_no_name_is_a_path(store, field) -> None:
    for text in STEERING:
        value = {text: text} if field == "payload" else text
        status, answer = post(ingest.handler, event(**{field: value}))
        assert status == 200, answer
        assert_own_key(answer, event()["event_time"])
    raw = store.raw.raw.root / "raw"
    assert {path.parent for path in raw.rglob("*") if path.is_file()} == {raw / "event_date=2026-01-31"}
    assert_sound(store)


@pytest.mark.parametrize("character", ["\x00", "\x1f", "\x1e", "\n", "\r", "\x7f", "\x85"])
def test_no_name_holds_a_delimiter(store, said, character) -> None:
    for field in ("source", "event_type", "entity_id", "idempotency_key"):
        status, answer = post(ingest.handler, event(**{field: f"a{character}b"}))
        assert (status, answer["field"]) == (400, field)
        assert_refused(status, answer, said)
    status, answer = post(replay.handler, asked(entity_id=f"a{character}b"))
    assert (status, answer["field"]) == (400, "entity_id")


def test_no_run_id_is_a_path_or_a_pattern(store) -> None:
    for run_id in [*STEERING, "%", "_", "*", "", "\x00", "\ud800", "x" * 100_000]:
        request = {"httpMethod": "GET", "pathParameters": {"run_id": run_id}, "body": None}
        assert replay.handler(request, CONTEXT)["statusCode"] == 404, run_id


_TEXTS = st.sampled_from(STEERING) | st.text(max_size=300)
_NAMES = st.sampled_from(STEERING) | st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60)
_MOMENTS = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001 - the zone is written behind it
_TIMES = st.builds(
    lambda moment, zone: f"{moment.isoformat()}{zone}",
    _MOMENTS,
    st.just("Z") | st.integers(-23, 23).map(lambda hours: f"{hours:+03d}:30"),
)
_VALUES = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | _TEXTS, lambda inner: st.lists(inner))


@pytest.fixture(scope="module")
def steered(tmp_path_factory):
    made = open_store(str(tmp_path_factory.mktemp("steered") / "store"), create=True)
    with pytest.MonkeyPatch.context() as patch:
        wire(patch, made)
        yield made


# One after the other in one process: the second looks at what the first has stored.
@pytest.mark.xdist_group("steered")
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    fields=st.fixed_dictionaries(
        {
            "source": _NAMES,
            "event_type": _NAMES,
            "entity_id": _NAMES,
            "event_time": _TIMES,
            "payload": st.dictionaries(_TEXTS, _VALUES, max_size=3),
        },
        optional={"idempotency_key": _NAMES, "received_time": _TIMES},
    ),
    more=st.dictionaries(_TEXTS | st.sampled_from(["s3_key", "key", "batch_id", "seq", "day"]), _VALUES, max_size=3),
    wrong=st.dictionaries(
        st.sampled_from(["source", "entity_id", "event_time", "idempotency_key"]), _TEXTS, max_size=1
    ),
)
def test_the_key_of_no_event_is_steered_by_its_content(steered, fields, more, wrong) -> None:
    body = {**more, **fields, **wrong}
    status, answer = post(ingest.handler, body)
    assert status in (200, 400)
    if status == 200:
        assert_own_key(answer, body["event_time"])


@pytest.mark.xdist_group("steered")
def test_that_property_sees_events_that_are_accepted(steered) -> None:
    """Chance finds enough valid events: on other days than one, in other segments than one."""
    keys = [segment.key for segment in steered.index.segments(ALL_TIME)]
    assert len(keys) > 20
    assert len({key.partition("/0")[0].split("/")[1] for key in keys}) > 5

"""Buffered ingest: 202 once the queue has a body; the recorder records it once, whatever is delivered again."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from gzip import compress
from hashlib import sha256
from random import Random
from typing import Any

import pytest

from pik import lambdas
from pik.errors import NotFound, StoreError
from pik.lambdas import ingest, recorder
from pik.model.batch import BatchState, Counts
from pik.model.buffered import read_message
from pik.model.delivery import Filter
from pik.model.ids import DIGITS, creation_time
from pik.model.window import ALL_TIME
from pik.rawlog.deliveries import deliveries
from pik.usecases.ingest import buffered
from pik.usecases.ingest.api_request import block_of
from pik.usecases.inspect.batches import list_rejects
from pik.usecases.inspect.buffered_requests import batch_with, request_outcome
from tests.support.lambdas.calls import event, post
from tests.support.lambdas.gateway import CONTEXT, REQUEST
from tests.support.snapshot import assert_sound

ASYNC = {"queryStringParameters": {"mode": "async"}}
TIME = 1_772_442_000_123


def send(body: Any, number: int = 0, **parts: Any) -> tuple[int, Any]:
    """Post a buffered request, the `number`th of the stack's life."""
    context = {"requestId": f"request-{number}", "requestTimeEpoch": TIME + number, **parts.pop("requestContext", {})}
    return post(ingest.handler, body, **ASYNC, requestContext=context, **parts)


def record(records: list[dict[str, Any]]) -> list[str]:
    """The messages that must come again."""
    failures = recorder.handler({"Records": records}, CONTEXT)["batchItemFailures"]
    return [one["itemIdentifier"] for one in failures]


def test_a_request_is_named_by_the_time_and_the_id_that_the_api_gave_it(store, buffer) -> None:
    status, answer = send(event())
    assert (status, answer["request_id"]) == (202, "request-0")
    assert creation_time(answer["buffered_id"]) == TIME * 1_000_000
    number = int.from_bytes(sha256(b"request-0").digest()[:10], "big")
    assert answer["buffered_id"][10:] == "".join(DIGITS[number // 32**place % 32] for place in reversed(range(16)))
    assert not list(store.index.batches()), "nothing is recorded before the queue delivers it"


def test_requests_that_are_delivered_together_are_one_batch_which_names_them(store, buffer) -> None:
    bodies = [event(entity_id="a"), [event(entity_id="b"), {"source": 1}, event(entity_id="a")], "[1"]
    context = {"identity": {"userArn": "arn:ana"}}
    sent = [send(body, number, requestContext=context)[1]["buffered_id"] for number, body in enumerate(bodies)]
    assert record(buffer.records()) == []
    whole, poison = sorted(store.index.batches(), key=lambda batch: -batch.counts.read)
    assert whole.counts == Counts(read=4, accepted=2, exact=1, rejected=1)
    assert poison.counts == Counts(read=1, rejected=1)
    found = {(one.delivery.file, one.delivery.file_record): one for one in deliveries(store, Filter(ALL_TIME))}
    assert sorted(found) == [(sent[0], 1), (sent[1], 1), (sent[1], 3)]
    assert {one.delivery.actor for one in found.values()} == {"arn:ana"}
    (reject,) = list_rejects(store, whole)
    assert (reject.file, reject.record, reject.actor) == (sent[1], 2, "arn:ana")
    assert len(list(store.index.segments(ALL_TIME))) == 1
    assert_sound(store)


def test_a_batch_is_found_by_the_id_of_each_of_its_requests(store, buffer) -> None:
    context = {"requestId": REQUEST, "requestTimeEpoch": TIME}
    answer = post(ingest.handler, [event(), {"source": 1}, event()], **ASYNC, requestContext=context)[1]
    for name in (REQUEST, answer["buffered_id"]):
        with pytest.raises(NotFound):
            batch_with(store, name)
    send(event(), 1)
    record(buffer.records())
    (batch,) = store.index.batches()
    for name in (REQUEST, answer["buffered_id"], answer["buffered_id"].lower()):
        found, digits = batch_with(store, name)
        outcome = request_outcome(store, found, digits)
        assert (found, outcome.buffered_id, outcome.counts) == (batch, answer["buffered_id"], Counts(3, 1, 1, 0, 1))
    for name in (batch.batch_id, batch.batch_id[:8]):
        assert batch_with(store, name) == (batch, "")


def test_promise_4_what_is_delivered_again_is_the_same_delivery(store, buffer) -> None:
    """In whatever order and grouping; what the producer sends again is a duplicate."""
    bodies = [event(entity_id="a"), [event(entity_id="a"), event(entity_id="b"), {"source": 1}], [{}], event()]
    for number, body in enumerate(bodies):
        assert send(body, number)[0] == 202
    records = buffer.records()
    random = Random(1)
    for _ in range(20):
        assert record(random.sample(records, random.randint(1, 3))) == []
    assert record(records * 2) == []
    totals = store.index.totals()
    assert (totals.events, totals.deliveries) == (3, 4)
    assert {batch.state for batch in store.index.batches()} == {BatchState.COMPLETE}
    assert sum(batch.counts.read for batch in store.index.batches()) == 6
    assert sum(batch.counts.rejected for batch in store.index.batches()) == 2
    assert_sound(store)


@pytest.mark.parametrize("body", ["no event", "[1", "[]", '{"events": 5}', "[" + "x" * (3 << 20)], ids=range(5))
def test_promise_1_a_body_without_an_event_is_kept_with_its_reason(store, buffer, body: str) -> None:
    assert send(body, headers={"content-type": "application/json"})[0] == 202
    assert record(buffer.records()) == []
    (batch,) = store.index.batches()
    assert (batch.counts.read, batch.counts.rejected) == (1, 1)
    (reject,) = list_rejects(store, batch)
    assert (reject.line, bool(reject.reason)) == (body, True)
    assert record(buffer.records()) == []
    assert_sound(store)


def test_more_events_than_an_answer_takes_are_recorded(store, buffer) -> None:
    body = "\n".join(json.dumps(event(entity_id=f"e{number}")) for number in range(10_001))
    assert send(body)[0] == 202
    assert record(buffer.records()) == []
    assert store.index.totals().events == 10_001


def test_options_of_the_request_are_those_of_its_recording(store, buffer, monkeypatch) -> None:
    monkeypatch.setattr(lambdas, "timezone", lambda: "Europe/Berlin")
    send(event(event_time="2026-01-31T12:00:00"), headers={"content-type": "application/x-ndjson"})
    monkeypatch.setattr(lambdas, "timezone", lambda: None)
    request = read_message(buffer.messages[0])
    assert (request.as_lines, request.timezone) == (True, "Europe/Berlin")
    assert record(buffer.records()) == []
    (batch,) = store.index.batches()
    assert batch.counts.accepted == 1


@pytest.mark.parametrize("mode", ["later", "ASYNC"])
def test_another_mode_is_refused(store, buffer, mode: str) -> None:
    status, answer = post(ingest.handler, event(), queryStringParameters={"mode": mode})
    assert (status, buffer.messages) == (400, [])
    assert mode in answer["error"]


def test_the_mode_that_is_not_said_is_the_stacks(store, buffer, monkeypatch) -> None:
    assert post(ingest.handler, event())[0] == 200
    monkeypatch.setenv("PIK_INGEST_MODE", "async")
    assert post(ingest.handler, event())[0] == 202
    assert post(ingest.handler, event(), queryStringParameters={"mode": "sync"})[0] == 200


def test_what_the_queue_does_not_take_is_refused(store, buffer) -> None:
    assert send(" " * (5 << 20))[0] == 413
    noise = "".join(f"{Random(number).getrandbits(256):064x}" for number in range(25_000))
    status, answer = send([event(payload={"noise": noise})])
    assert (status, buffer.messages) == (413, [])
    assert "mode=sync" in answer["error"]
    assert send("  \n ")[0] == 400


def test_a_dry_run_answers_at_once_and_records_nothing(store, buffer, monkeypatch) -> None:
    send(event())
    monkeypatch.setenv("DRY_RUN", "true")
    status, answer = send(event(), 1)
    assert (status, answer["status"], len(buffer.messages)) == (200, "VALID", 1)
    assert record(buffer.records()) == ["m0"], "what was put into the queue before stays there"
    assert not list(store.index.batches())


def failing(error: Exception) -> Callable[[], Any]:
    def store() -> Any:
        raise error

    return store


def test_promise_9_what_cannot_be_recorded_comes_again(store, buffer, monkeypatch) -> None:
    """Later and later while the store is unavailable; the others are recorded."""
    send(event())
    with monkeypatch.context() as patch:
        patch.setattr(lambdas, "store", failing(StoreError("throttled")))
        for receives, delay in ((1, 10), (2, 30), (3, 90), (40, 900)):
            assert record(buffer.records(receives)) == ["m0"]
            assert buffer.released.pop() == ("r0", delay)
    buffer.messages.append("not a request")
    assert record(buffer.records()) == ["m1"]
    assert [batch.counts for batch in store.index.batches()] == [Counts(1, 1)]


def test_promise_1_a_request_that_breaks_the_recorder_is_kept_in_the_end(store, buffer, monkeypatch) -> None:
    """The others are recorded at once."""
    broken = send([event(), event()])[1]["buffered_id"]
    send(event(), 1)
    read = block_of

    def failing(body: bytes, as_lines: bool) -> Any:
        if body.startswith(b"["):
            raise ZeroDivisionError
        return read(body, as_lines)

    monkeypatch.setattr(buffered, "block_of", failing)
    assert record(buffer.records(4)) == ["m0"]
    assert [batch.counts for batch in store.index.batches()] == [Counts(1, 1)]
    assert record(buffer.records(5)) == []
    batch = batch_with(store, broken)[0]
    assert batch.counts == Counts(read=1, rejected=1)
    (reject,) = list_rejects(store, batch)
    assert json.loads(reject.line) == [event(), event()]
    assert "ZeroDivisionError" in reject.reason


def test_a_batch_is_not_larger_than_memory_allows(store, buffer, monkeypatch) -> None:
    monkeypatch.setattr(buffered, "MAX_BYTES", 1000)
    for number in range(20):
        send(event(payload={"text": "x" * 200}, entity_id=f"e{number}"), number)
    assert record(buffer.records()) == []
    assert len(list(store.index.batches())) > 5
    assert store.index.totals().events == 20


def test_zones_of_requests_that_are_recorded_together_stay_their_own(store, buffer, monkeypatch) -> None:
    for number, zone in enumerate(("Europe/Berlin", "UTC")):
        monkeypatch.setattr(lambdas, "timezone", lambda zone=zone: zone)
        send(event(event_time="2026-01-31T12:00:00", entity_id=zone), number)
    assert record(buffer.records()) == []
    times = {one.delivery.entity_id: one.delivery.event_time[11:16] for one in deliveries(store, Filter(ALL_TIME))}
    assert times == {"Europe/Berlin": "11:00", "UTC": "12:00"}


def gzipped(data: bytes, **parts: Any) -> tuple[int, Any]:
    headers = {"content-type": "application/gzip"}
    return post(ingest.handler, b64encode(data).decode(), isBase64Encoded=True, headers=headers, **parts)


def test_a_compressed_body_is_one_of_lines(store, buffer) -> None:
    lines = b"\n".join(json.dumps(event(entity_id=f"e{number}")).encode() for number in range(3)) + b'\n{"events":[]}'
    status, answer = gzipped(compress(lines))
    assert (status, answer["accepted"], answer["rejected"]) == (200, 3, 1)
    assert gzipped(compress(lines), **ASYNC)[0] == 202
    assert record(buffer.records()) == []
    assert store.index.totals().deliveries == 6


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"{}", 400),
        (b"", 400),
        (compress(b"{}")[:-3], 400),
        (compress(b"{}") + b"{}", 400),
        (compress(b" " * (5 << 20)), 413),
    ],
    ids=range(5),
)
def test_what_is_not_gzip_or_becomes_too_large_is_refused(store, buffer, data: bytes, status: int) -> None:
    assert gzipped(data)[0] == status
    assert gzipped(data, **ASYNC)[0] == status
    assert buffer.messages == []

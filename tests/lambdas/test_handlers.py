"""The handlers over a real store: what API Gateway and SQS hand in, what goes back."""

from __future__ import annotations

import json
from base64 import b64encode

import msgspec
import pytest

from pik import lambdas
from pik.errors import Damaged, NotHeld, StoreError, UsageError
from pik.lambdas import ingest, processor, replay
from pik.model.instant import format_instant, parse_instant
from pik.model.metric import ALL_ENTITIES, Definition, Per
from pik.model.run import Run, RunRequest, RunState
from pik.model.window import ALL_TIME
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.retire import retire
from pik.usecases.replay.execute import enqueue_tasks
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote
from tests.support.lambdas.calls import asked, event, get, messages, post, some_days
from tests.support.lambdas.gateway import CONTEXT


def test_one_event(store) -> None:
    status, first = post(ingest.handler, event())
    assert status == 200
    assert first.keys() == {"event_id", "status", "ingest_lag_ms", "s3_key", "batch_id"}
    assert first["status"] == "ACCEPTED"
    assert store.raw.size(first["s3_key"])
    assert post(ingest.handler, event())[1]["status"] == "DUPLICATE"


def test_a_conflict_is_reported(store) -> None:
    post(ingest.handler, event(idempotency_key="k"))
    answer = post(ingest.handler, event(idempotency_key="k", payload={"other": 1}))[1]
    assert (answer["status"], answer["conflict"]) == ("DUPLICATE", True)


def test_an_invalid_event_is_refused_with_its_field(store) -> None:
    status, answer = post(ingest.handler, event(event_time="tomorrow"))
    assert (status, answer["field"]) == (400, "event_time")
    assert "RFC 3339" in answer["error"]


def test_a_list_is_answered_item_by_item(store) -> None:
    status, answer = post(ingest.handler, [event(), event(), {"source": 1}])
    assert status == 200
    assert [item["status"] for item in answer["results"]] == ["ACCEPTED", "DUPLICATE", "REJECTED"]
    assert (answer["read"], answer["accepted"], answer["duplicates"], answer["rejected"]) == (3, 1, 1, 1)
    status, answer = post(ingest.handler, [{}])
    assert (status, answer["rejected"]) == (400, 1)


def test_a_base64_body_is_decoded(store) -> None:
    body = b64encode(json.dumps(event()).encode()).decode()
    assert post(ingest.handler, body, isBase64Encoded=True)[0] == 200
    assert post(ingest.handler, "%%%", isBase64Encoded=True)[0] == 400


@pytest.mark.parametrize("body", ["", "   ", "[]", "[1", None])
def test_what_holds_no_event_is_refused(store, body) -> None:
    answer = ingest.handler({"httpMethod": "POST", "body": body, "isBase64Encoded": False}, CONTEXT)
    assert answer["statusCode"] == 400


def test_too_large_a_body_is_refused(store) -> None:
    assert post(ingest.handler, " " * (5 << 20))[0] == 413


def test_promise_6_a_replay_runs_through_queue_and_processor_whatever_is_delivered_again(store) -> None:
    some_days(store)
    status, answer = post(replay.handler, asked(reason="test"))
    assert status == 200
    assert (answer["scanned"], answer["sent"], answer["truncated"]) == (6, 1, False)
    assert get(answer["run_id"])[1]["state"] == "RUNNING"
    records = list(messages(store, answer["run_id"]))
    assert processor.handler({"Records": records}, CONTEXT) == {"batchItemFailures": []}
    assert processor.handler({"Records": records * 2}, CONTEXT) == {"batchItemFailures": []}
    status, run = get(answer["run_id"])
    assert (status, run["state"], run["done"], run["new"], run["reason"]) == (200, "COMPLETED", 1, 3, "test")
    versions = list(store.aggregates.changes(answer["run_id"]))
    assert [int(change.written.computed.value) for change in versions] == [3, 2, 1]


@pytest.mark.parametrize(("limit", "scanned"), [(1, 3), (3, 3), (4, 3), (5, 5), (6, 6), (100, 6)])
def test_promise_9_a_limit_truncates_at_buckets_and_reports_it(store, limit: int, scanned: int) -> None:
    some_days(store)
    answer = post(replay.handler, asked(limit=limit))[1]
    assert (answer["scanned"], answer["truncated"]) == (scanned, scanned < 6)


@pytest.mark.parametrize("limits", [{"COUNTED_AT_MOST": 1}, {"DAYS_AT_MOST": 2}])
def test_a_window_too_large_for_one_call_runs_by_itself(store, later, monkeypatch, limits) -> None:
    for name, most in limits.items():
        monkeypatch.setattr(replay, name, most)
    some_days(store)
    status, answer = post(replay.handler, asked(reason="test"))
    assert (status, answer["scanned"], answer["sent"], answer["truncated"]) == (202, None, None, False)
    assert (answer["effective_start_time"], answer["effective_end_time"]) == (
        "2026-01-30T00:00:00Z",
        "2026-02-02T00:00:00Z",
    )
    status, planning = get(answer["run_id"])
    assert (status, planning["state"], planning["tasks"], planning["buckets"]) == (200, "PLANNING", 0, None)
    assert [planning[name] for name in ("reason", "effective_end_time")] == ["test", answer["effective_end_time"]]
    for _ in range(2):  # Lambda repeats a call whose end it did not see
        assert replay.handler(later[0], CONTEXT) is None
    assert (get(answer["run_id"])[1]["state"], len(later)) == ("RUNNING", 1)
    processor.handler({"Records": list(messages(store, answer["run_id"]))}, CONTEXT)
    run = get(answer["run_id"])[1]
    assert (run["state"], run["new"], run["reason"]) == ("COMPLETED", 3, "test")
    replay.handler(later[0], CONTEXT)  # and one that has ended does not begin again
    assert get(answer["run_id"])[1]["state"] == "COMPLETED"
    cancelled = post(replay.handler, asked(reason="test"))[1]["run_id"]
    replay.handler(later[1], CONTEXT)
    store.runs.set_state(cancelled, RunState.CANCELLED, 1)
    replay.handler(later[1], CONTEXT)
    assert get(cancelled)[1]["state"] == "CANCELLED"


def test_a_run_exists_whichever_of_two_calls_comes_first(store, later, monkeypatch) -> None:
    """The one that plans it may end before the one that accepted it has written it down, or be without it for ever."""
    monkeypatch.setattr(replay, "COUNTED_AT_MOST", 1)
    some_days(store)
    monkeypatch.setattr(
        lambdas, "call_again", lambda event: replay.handler(msgspec.json.decode(msgspec.json.encode(event)), CONTEXT)
    )
    status, answer = post(replay.handler, asked())
    assert (status, get(answer["run_id"])[1]["state"]) == (202, "RUNNING")
    monkeypatch.setattr(lambdas, "call_again", lambda event: _fail(later.append(json.loads(json.dumps(event)))))
    with pytest.raises(KeyboardInterrupt):
        post(replay.handler, asked())
    (killed,) = later
    assert get(killed["later"]["run_id"])[0] == 404, "nobody was told of it"
    replay.handler(killed, CONTEXT)
    assert get(killed["later"]["run_id"])[1]["state"] == "RUNNING"


def _fail(_: None) -> None:
    raise KeyboardInterrupt


def test_two_calls_plan_a_run_one_after_the_other(store, later, monkeypatch) -> None:
    monkeypatch.setattr(replay, "COUNTED_AT_MOST", 1)
    some_days(store)
    run_id = post(replay.handler, asked())[1]["run_id"]
    other = store.runs.driving(run_id)
    other.__enter__()
    looks = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            other.__exit__(None, None, None)

    monkeypatch.setattr(replay, "sleep", look)
    replay.handler(later[0], CONTEXT)
    assert (len(looks), get(run_id)[1]["state"]) == (2, "RUNNING")


def keyed(key='"k"', caller="ana", **changes):
    parts = {"headers": {"idempotency-key": key}, "requestContext": {"identity": {"userArn": caller}}}
    return post(replay.handler, asked(**changes), **parts)


def test_the_same_key_and_body_make_one_run(store) -> None:
    some_days(store)
    status, first = keyed()
    assert (status, keyed(), keyed("k")) == (200, (200, first), (200, first)), "with quotes or without"
    body = json.dumps(asked(), indent=2)
    spaced = {"headers": {"IDEMPOTENCY-KEY": "k"}, "requestContext": {"identity": {"userArn": "ana"}}}
    assert post(replay.handler, body, **spaced)[1] == first, "the same request, written in another way"
    assert len(list(store.runs.newest_first())) == 1
    processor.handler({"Records": list(messages(store, first["run_id"]))}, CONTEXT)
    assert get(first["run_id"])[1]["state"] == "COMPLETED"
    assert keyed() == (200, first), "also when it has ended"
    assert get(first["run_id"])[1]["state"] == "COMPLETED"
    others = [keyed("other"), keyed(caller="ben"), post(replay.handler, asked())]
    assert len({first["run_id"], *(answer["run_id"] for _, answer in others)}) == 4


def test_a_key_with_another_body_is_refused(store) -> None:
    some_days(store)
    first = keyed(limit=3)[1]
    assert first["truncated"]
    assert keyed(limit=3)[1] == first
    for changes in ({}, {"limit": 4}, {"limit": 3, "reason": "other"}):
        status, answer = keyed(**changes)
        assert (status, answer["field"]) == (422, "Idempotency-Key")
        assert first["run_id"] not in str(answer)
    for wrong in ("a b", "é", "k" * 256):
        status, answer = keyed(wrong)
        assert (status, answer["field"]) == (400, "Idempotency-Key")
    assert len(list(store.runs.newest_first())) == 1


def test_what_began_nothing_can_be_asked_for_again_with_its_key(store, monkeypatch) -> None:
    assert keyed()[0] == 404
    some_days(store)
    assert keyed(dry_run=True)[1]["run_id"] is None, "which needs no key"
    status, answer = keyed()
    assert (status, get(answer["run_id"])[0]) == (200, 200)
    monkeypatch.setattr(replay, "KEY_KEPT", -1)
    assert keyed("short")[1]["run_id"] != keyed("short")[1]["run_id"]


def test_a_key_answers_the_same_run_while_it_is_planned_later(store, later, monkeypatch) -> None:
    monkeypatch.setattr(replay, "COUNTED_AT_MOST", 1)
    some_days(store)
    status, first = keyed()
    assert (status, keyed(), len(later)) == (202, (202, first), 1)
    replay.handler(later[0], CONTEXT)
    status, planned = keyed()
    assert (status, planned["run_id"], planned["sent"], planned["scanned"]) == (200, first["run_id"], 1, None)


def test_a_key_answers_the_same_run_while_another_call_plans_it_now(store, later, monkeypatch) -> None:
    """Two at once, or a retry after a 504: the first call goes on for up to 15 minutes."""
    some_days(store)
    answers: list[tuple[int, dict[str, object]]] = []
    plan = plan_replay

    def slow(*arguments, **options):
        answers.append(keyed())
        return plan(*arguments, **options)

    monkeypatch.setattr(replay, "plan_replay", slow)
    status, first = keyed()
    ((again, second),) = answers
    assert (status, again, second["run_id"], second["sent"]) == (200, 202, first["run_id"], None)
    replay.handler(later[0], CONTEXT)  # finds it planned
    assert [run.run_id for run in store.runs.newest_first()] == [first["run_id"]]
    processor.handler({"Records": list(messages(store, str(first["run_id"])))}, CONTEXT)
    assert get(str(first["run_id"]))[1]["state"] == "COMPLETED"


def test_a_retry_sends_the_tasks_of_a_call_that_was_killed_before_it_had(store, monkeypatch) -> None:
    some_days(store)
    with monkeypatch.context() as patch:
        patch.setattr(replay, "enqueue_tasks", lambda *_: _fail(None))
        with pytest.raises(KeyboardInterrupt):
            keyed()
    (run,) = store.runs.newest_first()
    assert run.state == RunState.PLANNED
    assert keyed()[1]["run_id"] == run.run_id
    processor.handler({"Records": list(messages(store, run.run_id))}, CONTEXT)
    assert get(run.run_id)[1]["state"] == "COMPLETED"


REQUEST_OF_LAMBDA = "RequestId: 5e0c4d36-9f4a-4d0e-8f0f-6d3c2b1a0f9e Error: "
GIVEN_UP = {
    "raised": ({"errorType": "_Unexpected", "errorMessage": "ValueError", "stackTrace": []}, "_Unexpected: ValueError"),
    "timed out": (
        {"errorType": "Sandbox.Timedout", "errorMessage": f"{REQUEST_OF_LAMBDA}Task timed out after 900.00 seconds"},
        "Task timed out after 900.00 seconds",
    ),
    "out of memory": (
        {"errorType": "Runtime.ExitError", "errorMessage": f"{REQUEST_OF_LAMBDA}Runtime exited: signal: killed"},
        "signal: killed",
    ),
    "nothing": (None, "no error was recorded"),
}


def given_up(store, call, response=None, condition="RetriesExhausted"):
    """Hand the processor Lambda's record of a call that failed for good."""
    record = {
        "version": "1.0",
        "timestamp": "2026-11-30T05:00:00.000Z",
        "requestContext": {
            "requestId": "5e0c4d36-9f4a-4d0e-8f0f-6d3c2b1a0f9e",
            "functionArn": "arn:aws:lambda:eu-central-1:123456789012:function:replay:$LATEST",
            "condition": condition,
            "approximateInvokeCount": 3,
        },
        "requestPayload": call,
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": response,
    }
    body = {"messageId": "m", "receiptHandle": "r", "body": json.dumps(record)}
    answer = processor.handler({"Records": [{**body, "attributes": {"ApproximateReceiveCount": "1"}}]}, CONTEXT)
    return not answer["batchItemFailures"]


@pytest.fixture
def accepted(store, later, monkeypatch):
    """A call that is to plan a run, which is PLANNING."""
    monkeypatch.setattr(replay, "COUNTED_AT_MOST", 1)
    some_days(store)
    assert post(replay.handler, asked())[0] == 202
    return later[0]


@pytest.mark.parametrize("response", GIVEN_UP)
def test_a_run_whose_planning_was_killed_ends_with_the_reason(store, accepted, response) -> None:
    payload, said = GIVEN_UP[response]
    run_id = accepted["later"]["run_id"]
    for _ in range(2):  # SQS delivers at least once
        assert given_up(store, accepted, payload)
        status, run = get(run_id)
        assert (status, run["state"], run["tasks"], bool(run["finished_at"])) == (200, "FAILED", 0, True)
        assert run["planning_failure"].startswith("its planning failed, 3 times: ")
        assert run["planning_failure"].endswith(said)
    replay.handler(accepted, CONTEXT)  # a call that Lambda makes all the same
    assert get(run_id)[1]["state"] == "FAILED"


def test_a_run_that_was_accepted_and_never_planned_ends_too(store, accepted) -> None:
    forgotten = {"later": {**accepted["later"], "run_id": "01J00000000000000000000000"}}  # killed before it was stored
    assert given_up(store, forgotten, condition="EventAgeExceeded")
    run = get("01J00000000000000000000000")[1]
    assert (run["state"], "EventAgeExceeded" in run["planning_failure"]) == ("FAILED", True)


def test_what_is_planned_or_cancelled_is_not_failed(store, accepted, monkeypatch) -> None:
    run_id = accepted["later"]["run_id"]
    with monkeypatch.context() as patch:
        patch.setattr(replay, "enqueue_tasks", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            replay.handler(accepted, CONTEXT)
    assert (get(run_id)[1]["state"], list(messages(store, run_id))) == ("PLANNED", [])
    assert given_up(store, accepted)
    processor.handler({"Records": list(messages(store, run_id))}, CONTEXT)
    assert get(run_id)[1]["state"] == "COMPLETED", "its tasks are sent"
    cancelled = {"later": {**accepted["later"], "run_id": "01J00000000000000000000001"}}
    store.runs.create(msgspec.convert(cancelled["later"], Run), ())
    store.runs.set_state("01J00000000000000000000001", RunState.CANCELLED, 1)
    assert given_up(store, cancelled)
    assert get("01J00000000000000000000001")[1]["state"] == "CANCELLED"


def test_the_record_comes_again_while_the_run_is_planned_or_the_stack_tries_only(store, accepted, monkeypatch) -> None:
    run_id = accepted["later"]["run_id"]
    with store.runs.driving(run_id):
        assert not given_up(store, accepted)
    monkeypatch.setenv("DRY_RUN", "true")
    assert not given_up(store, accepted)
    assert get(run_id)[1]["state"] == "PLANNING"


def test_planning_that_must_fail_again_is_not_tried_again(store, accepted, monkeypatch) -> None:
    run_id = accepted["later"]["run_id"]
    for error in (StoreError("DynamoDB is down"), Damaged("a segment is damaged")):
        monkeypatch.setattr(replay, "finish_planning", _raise(error))
        with pytest.raises(StoreError):  # Lambda tries again
            replay.handler(accepted, CONTEXT)
    monkeypatch.setattr(replay, "finish_planning", _raise(ValueError("a payload")))
    with pytest.raises(Exception, match=r"^ValueError$"):
        replay.handler(accepted, CONTEXT)
    assert get(run_id)[1]["state"] == "PLANNING"
    monkeypatch.setattr(replay, "finish_planning", _raise(NotHeld("raw has expired")))
    replay.handler(accepted, CONTEXT)
    run = get(run_id)[1]
    assert (run["state"], run["planning_failure"]) == ("FAILED", "raw has expired")


def _raise(error: Exception):
    def raising(*_: object) -> None:
        raise error

    return raising


@pytest.mark.parametrize(
    ("changes", "status", "field"), [({"limit": 5}, 400, "limit"), ({"metrics": ["none"]}, 404, None)]
)
def test_what_cannot_run_later_is_refused_now(store, later, monkeypatch, changes, status, field) -> None:
    monkeypatch.setattr(replay, "COUNTED_AT_MOST", 1)
    some_days(store)
    assert (post(replay.handler, asked(**changes))[0], later) == (status, [])
    assert post(replay.handler, asked(**changes))[1].get("field") == field


def test_a_large_window_that_is_tried_only_runs_not(store, later, monkeypatch) -> None:
    monkeypatch.setattr(replay, "COUNTED_AT_MOST", 1)
    some_days(store)
    status, answer = post(replay.handler, asked(dry_run=True))
    assert (status, answer["scanned"], answer["dry_run"], later) == (200, None, True, [])


def test_a_replay_that_is_tried_only_sends_nothing(store) -> None:
    some_days(store)
    answer = post(replay.handler, asked(dry_run=True))[1]
    assert (answer["scanned"], answer["tasks"], answer["sent"], answer["run_id"]) == (6, 1, 0, None)


@pytest.mark.parametrize(
    "nothing", [{"entity_id": "nobody"}, {"end_time": "2026-01-30T00:30:00Z", "start_time": "2026-01-29"}]
)
@pytest.mark.parametrize("more", [{}, {"dry_run": True}, {"limit": 1}, {"start_time": "1900-01-01"}])
def test_a_replay_that_selects_nothing_is_refused(store, later, nothing, more) -> None:
    some_days(store)
    status, answer = post(replay.handler, asked(**more | nothing))
    assert status == 404, answer
    assert "nothing to replay: there is neither an event nor a current value of" in answer["error"]
    assert (list(store.runs.newest_first()), later) == ([], [])


def test_a_replay_of_a_value_without_events_is_not_refused(store) -> None:
    some_days(store)
    run_id = post(replay.handler, asked())[1]["run_id"]
    processor.handler({"Records": list(messages(store, run_id))}, CONTEXT)
    promote(store, run_id, 1, "")
    before = {"start_time": "2026-01-30T05:00:00Z", "end_time": "2026-01-30T06:00:00Z"}
    status, answer = post(replay.handler, asked(**before))
    assert (status, answer["scanned"], answer["buckets"]) == (200, 0, 1)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"entity_id": "e"}, "start_time"),
        (asked(entity_id=5), "entity_id"),
        (asked(entity_id=""), "entity_id"),
        (asked(end_time="2026-01-30"), "end_time"),
        (asked(start_time="x"), "start_time"),
        (asked(start_time="2026-01-30T00:00:00"), "start_time"),
        (asked(start_time="2026-01-30T00:00:00", timezone=5), "timezone"),
        (asked(timezone="Europe/Bonn"), "timezone"),
        (asked(end_time="2026-03-29T02:30:00", timezone="Europe/Berlin"), "end_time"),
        (asked(limit=0), "limit"),
        (asked(metrics=[1]), "metrics"),
        (asked(other=1), "other"),
        (asked(assume=["without=abcd"]), "assume"),
        (asked(metrics=["event_count@1"]), "metrics"),
        (asked(assume="duplicates=counted"), "assume"),
        (asked(include_duplicates=True), "include_duplicates"),
        ([], None),
        ("{", None),
        ("[" * 100_000, None),
    ],
)
def test_a_wrong_replay_is_refused(store, body, field) -> None:
    some_days(store)
    status, answer = post(replay.handler, body)
    assert (status, answer.get("field")) == (400, field)


def test_local_times_of_a_replay_are_in_its_time_zone(store) -> None:
    some_days(store)
    local = asked(start_time="2026-01-30", end_time="2026-02-01T12:30:00", timezone="Europe/Berlin", dry_run=True)
    answer = post(replay.handler, local)[1]
    assert (answer["start_time"], answer["end_time"]) == ("2026-01-29T23:00:00Z", "2026-02-01T11:30:00Z")
    answer = post(replay.handler, {**local, "start_time": "2026-01-30T00:00:00Z"})[1]  # an offset says enough
    assert answer["start_time"] == "2026-01-30T00:00:00Z"
    refused = post(replay.handler, {**local, "end_time": "2026-03-29T02:30:00"})[1]["error"]
    assert "does not exist in Europe/Berlin" in refused


DAILY_USERS = Definition(name="daily_users", value="count(DISTINCT entity_id)", per=Per.ALL)


def test_a_replay_of_an_entity_names_the_metrics_over_all_that_it_leaves_out(store) -> None:
    some_days(store)
    assert post(replay.handler, asked())[1]["metrics_left_out"] == []
    add_version(store.metrics, DAILY_USERS, 1)
    answer = post(replay.handler, asked())[1]
    assert (answer["metrics_left_out"], answer["tasks"]) == (["daily_users"], 1)
    status, answer = post(replay.handler, asked(metrics=["daily_users"]))
    assert status == 400
    assert "daily_users is over all entities" in answer["error"]
    retire(store.metrics, "daily_users", 2, actor="ana", reason="not used")
    assert post(replay.handler, asked())[1]["metrics_left_out"] == []
    status, answer = post(replay.handler, asked(metrics=["daily_users"]))
    assert status == 400
    assert "daily_users is retired since 1970-01-01T00:00:00Z, by ana (not used)" in answer["error"]


def test_the_processor_computes_values_over_all_entities(store) -> None:
    some_days(store)
    for entity, day in (("x", "01-30"), ("y", "01-30"), ("z", "02-01")):
        assert post(ingest.handler, event(entity_id=entity, event_time=f"2026-{day}T02:00:00Z"))[0] == 200
    add_version(store.metrics, DAILY_USERS, 1)
    request = RunRequest(start=ALL_TIME.start, end=ALL_TIME.end, metrics=("daily_users",))
    plan = plan_replay(store, lambdas.engine(), request, 1)
    run = start(store, plan)
    enqueue_tasks(store, run.run_id, plan.tasks)
    records = list(messages(store, run.run_id))
    assert processor.handler({"Records": records * 2}, CONTEXT) == {"batchItemFailures": []}
    found = [change.written.computed for change in store.aggregates.changes(run.run_id)]
    values = {format_instant(one.bucket)[:10]: int(one.value) for one in found}
    assert values == {"2026-01-30": 3, "2026-01-31": 1, "2026-02-01": 2}
    assert {one.entity_id for one in found} == {ALL_ENTITIES}
    assert get(run.run_id)[1]["state"] == "COMPLETED"


def test_a_replay_assumes_only_that_duplicates_count(store) -> None:
    some_days(store)
    assumed = ["duplicates=counted"]
    run_id = post(replay.handler, asked(assume=assumed))[1]["run_id"]
    assert get(run_id)[1]["assumed"] == assumed
    with pytest.raises(UsageError, match="counted duplicates"):
        promote(store, run_id, 1, "")
    refused = post(replay.handler, asked(assume=["conflicts=last"]))[1]
    assert "a replay writes only what is true" in refused["error"]


def test_promise_9_a_poisonous_task_ends_among_the_dead_letters_with_its_reason(store, monkeypatch) -> None:
    monkeypatch.setenv("PIK_MAX_RECEIVES", "2")
    some_days(store)
    (segment, *_) = store.index.segments(ALL_TIME)
    path = store.raw.raw.root / segment.key
    path.chmod(0o644)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    status, answer = post(replay.handler, asked())
    assert (status, answer["scanned"], answer["buckets"]) == (200, None, None), "what cannot be read is not counted"
    run_id = answer["run_id"]
    records = list(messages(store, run_id))
    assert processor.handler({"Records": records}, CONTEXT) == {"batchItemFailures": []}
    (letter,) = store.dead_letters.letters()
    assert segment.key in letter.reason
    assert get(run_id)[1]["state"] == "PARTIAL"


def test_a_message_that_is_not_a_task_is_not_acknowledged(store) -> None:
    record = {
        "messageId": "m",
        "receiptHandle": "r",
        "body": "{}",
        "attributes": {"ApproximateReceiveCount": "1"},
    }
    assert processor.handler({"Records": [record]}, CONTEXT) == {"batchItemFailures": [{"itemIdentifier": "m"}]}


def test_times_without_an_offset_are_in_the_stack_s_time_zone_or_rejected(store, monkeypatch) -> None:
    local = event(event_time="2026-01-31T12:00:00")
    monkeypatch.setattr(lambdas, "timezone", lambdas.timezone.__wrapped__)  # forgets nothing
    status, answer = post(ingest.handler, local)
    assert (status, answer["field"]) == (400, "event_time")
    assert "parameter TimeZone" in answer["error"]
    monkeypatch.setenv("PIK_TIMEZONE", "Europe/Berlin")
    assert post(ingest.handler, local)[0] == 200
    assert store.index.totals().first_event == parse_instant("2026-01-31T11:00:00Z")
    monkeypatch.setenv("PIK_TIMEZONE", "Europe/Berln")
    status, answer = post(ingest.handler, event())
    assert status == 503
    assert "parameter TimeZone: unknown time zone 'Europe/Berln'" in answer["error"]


@pytest.mark.parametrize(
    ("identity", "actor"),
    [
        ({"userArn": "arn:aws:iam::123456789012:user/ana", "apiKeyId": None}, "arn:aws:iam::123456789012:user/ana"),
        ({"userArn": None, "apiKeyId": "abc123", "apiKey": "secret"}, "api-key:abc123"),
        ({}, ""),
        (None, ""),
    ],
)
def test_the_caller_is_recorded_as_the_actor(store, identity, actor) -> None:
    context = {"requestContext": {"identity": identity}}
    batch_id = post(ingest.handler, event(), **context)[1]["batch_id"]
    assert next(store.index.batches(batch_id)).actor == actor
    window = {"start_time": "2026-01-31", "end_time": "2026-02-01"}
    run_id = post(replay.handler, {"entity_id": event()["entity_id"], **window}, **context)[1]["run_id"]
    assert store.runs.get(run_id).actor == actor
    assert get(run_id)[1]["actor"] == (actor or None)

"""Logs and metrics: structured, with ids, and never with what an event says."""

from __future__ import annotations

import json
from collections import Counter
from io import StringIO
from typing import Any

import pytest

from pik import lambdas
from pik.errors import Busy, StoreError
from pik.lambdas import ingest, processor, replay
from pik.model.metric import Definition
from pik.stores.aws.clients import Refused
from pik.usecases.metrics.definitions import add_version
from tests.support.aws.template import template
from tests.support.lambdas.calls import asked, event, messages, post
from tests.support.lambdas.gateway import CONTEXT

METRICS = {
    "IngestCount",
    "DuplicateCount",
    "ConflictCount",
    "RejectedCount",
    "IngestLagMs",
    "ReplayRequestedCount",
    "ReplayMessageCount",
    "ProcessorMessageCount",
    "ProcessorErrorCount",
    "BucketsWritten",
}
REFUSED = {
    Busy("the index is being rebuilt"): "BusyCount",
    Refused("slow down", code="ThrottlingException"): "ThrottledCount",
    StoreError("no such table"): "UnavailableCount",
    RuntimeError("a bug"): "FailedCount",
}
SECRET = "hunter2"


class Told:
    """What the functions wrote: to their log, and of metrics."""

    def __init__(self, capsys, log: StringIO) -> None:
        self._capsys, self._log = capsys, log

    def read(self) -> str:
        return str(self._capsys.readouterr().out) + self._log.getvalue()

    def lines(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Each line is JSON: those of the log, and those of metrics (EMF)."""
        found = [json.loads(line) for line in self.read().splitlines()]
        return [one for one in found if "_aws" not in one], [one for one in found if "_aws" in one]


@pytest.fixture
def told(capsys, monkeypatch):
    log = StringIO()
    monkeypatch.setattr(lambdas.logger.handlers[0], "stream", log)
    return Told(capsys, log)


def _values(documents: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The values of each metric, under the namespace and dimension that alarms and dashboard look for."""
    found: dict[str, list[float]] = {}
    for document in documents:
        (directive,) = document["_aws"]["CloudWatchMetrics"]
        assert (directive["Namespace"], directive["Dimensions"]) == ("pik", [["service"]])
        for metric in directive["Metrics"]:
            assert metric["Unit"] == ("Milliseconds" if metric["Name"].endswith("Ms") else "Count")
            found.setdefault(metric["Name"], []).extend(document[metric["Name"]])
    return found


def _go_through(store) -> str:
    """One of everything: accepted, duplicate, conflict, rejected; replayed, processed, failed. The run's id."""
    post(ingest.handler, [event(), event(), event(idempotency_key="k"), event(idempotency_key="k", payload=[1]), {}])
    run_id = post(replay.handler, asked())[1]["run_id"]
    records = list(messages(store, run_id))
    broken = {**records[0], "messageId": "broken", "body": "{}"}
    processor.handler({"Records": [*records, broken]}, CONTEXT)
    return str(run_id)


def test_all_ten_metrics_are_reported(store, told) -> None:
    _go_through(store)
    values = _values(told.lines()[1])
    assert values.keys() == METRICS
    lags = values.pop("IngestLagMs")
    assert len(lags) == 4
    assert {name: sum(each) for name, each in values.items()} == {
        "IngestCount": 2,
        "DuplicateCount": 2,
        "ConflictCount": 1,
        "RejectedCount": 1,
        "ReplayRequestedCount": 1,
        "ReplayMessageCount": 1,
        "ProcessorMessageCount": 2,
        "ProcessorErrorCount": 1,
        "BucketsWritten": 1,
    }


def test_promise_9_every_event_of_a_request_has_its_lag(store, told) -> None:
    post(ingest.handler, [event(entity_id=f"e{number}") for number in range(250)])
    _, documents = told.lines()
    assert len(_values(documents)["IngestLagMs"]) == 250
    assert all(len(document.get("IngestLagMs", ())) <= 100 for document in documents)  # what CloudWatch takes
    assert sum(_values(documents)["IngestCount"]) == 250


@pytest.mark.parametrize("error", REFUSED, ids=lambda error: REFUSED[error])
def test_a_5xx_is_counted_by_its_cause(error, monkeypatch, told) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(lambdas, "store", fail)
    assert post(ingest.handler, event())[0] == (500 if REFUSED[error] == "FailedCount" else 503)
    assert _values(told.lines()[1]) == {REFUSED[error]: [1]}


def test_the_dashboard_shows_each_of_them() -> None:
    shown = str(template()["Resources"]["Dashboard"])
    assert [name for name in METRICS | set(REFUSED.values()) if f'"{name}"' not in shown] == []


def test_logs_name_what_they_are_about(store, told) -> None:
    run_id = _go_through(store)
    logs, _ = told.lines()
    by_message = {one["message"]: one for one in logs}
    assert Counter(one["message"] for one in logs) == {"ingested": 1, "replay": 1, "executed": 1, "not a task": 1}
    ingested = by_message["ingested"]
    assert len(ingested["batch_id"]) == 26
    assert {one["entity_id"] for one in ingested["events"]} == {"e"}
    assert all(len(one["event_id"]) == 32 for one in ingested["events"])
    assert (by_message["replay"]["run_id"], by_message["replay"]["entity_id"]) == (run_id, "e")
    assert (by_message["executed"]["run_id"], by_message["executed"]["entities"]) == (run_id, ["e"])
    assert all(one["level"] and one["timestamp"] and one["function_request_id"] == "request-1" for one in logs)


def test_each_line_of_the_log_and_each_error_names_the_request(store, told) -> None:
    of_gateway = {"requestContext": {"requestId": "of-the-gateway"}}
    assert post(ingest.handler, event(), **of_gateway)[0] == 200
    assert post(ingest.handler, event(entity_id=""), **of_gateway)[1]["request_id"] == "of-the-gateway"
    assert post(replay.handler, "{", **of_gateway)[1]["request_id"] == "of-the-gateway"
    assert post(replay.handler, "{")[1]["request_id"] == "request-1"
    logs, _ = told.lines()
    assert logs
    assert all(one["correlation_id"] == "of-the-gateway" for one in logs)


def _secretive(**changes):
    return event(payload={SECRET: SECRET, "n": SECRET}, **{SECRET: [SECRET]}, **changes)


@pytest.mark.parametrize(
    "body",
    [
        _secretive(),
        [_secretive(), _secretive(), _secretive(idempotency_key="k"), event(idempotency_key="k", payload=[SECRET])],
        {"payload": SECRET},
        event(source={"a": SECRET}),
        event(event_time=SECRET),
        SECRET,
        f'{{"payload": "{SECRET}',
        {"events": SECRET},
    ],
)
def test_no_payload_is_logged(store, told, body) -> None:
    post(ingest.handler, body)
    assert SECRET not in told.read()


def test_no_payload_is_logged_where_something_fails(store, told, monkeypatch) -> None:
    """Errors of the engine and of programs quote what they stumbled over."""
    wanted = Definition(name="broken", value="sum(CAST(payload ->> '$.n' AS DECIMAL(18, 2)))")
    add_version(store.metrics, wanted, 1)
    post(ingest.handler, _secretive())
    run_id = post(replay.handler, asked(metrics=["broken"]))[1]["run_id"]
    monkeypatch.setenv("PIK_MAX_RECEIVES", "2")
    processor.handler({"Records": list(messages(store, run_id))}, CONTEXT)
    (failed,) = store.runs.get(run_id).failures
    assert SECRET in failed.reason  # there it is of use
    monkeypatch.setattr(ingest, "record_request", _stumble)
    assert post(ingest.handler, _secretive())[0] == 500
    monkeypatch.setattr(processor, "process_message", _stumble)
    run_id = post(replay.handler, asked())[1]["run_id"]
    assert processor.handler({"Records": list(messages(store, run_id))}, CONTEXT)["batchItemFailures"]
    logs = told.read()
    assert SECRET not in logs
    assert logs.count("_stumble") == logs.count('"error":"ValueError"') == 2


def _stumble(*_arguments, **_options):
    raise ValueError(SECRET)

"""The real template, deployed by SAM, with the packaged functions: over HTTP and by the command line.

Everything goes the way that it goes in AWS: SQS wakes the processor function; the tests do none of its work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from tests.cli.conftest import Result, pik
from tests.cli.test_webhooks import MAP, REPOSITORY, WEBHOOKS
from tests.support.aws.deployed import Deployed, deploy
from tests.support.aws.emulator import REGION
from tests.support.aws.story import tell

__all__ = ["pik"]

pytestmark = pytest.mark.xdist_group("deployed")

PATIENCE = 300
"""Seconds after which the stack's functions count as stuck, however slow the machine is."""

Pik = Callable[..., Result]


@pytest.fixture(scope="module")
def story(aws: Clients, built: Path) -> str:
    """The URL of a deployed stack that nothing else has written to."""
    return f"aws://{deploy(aws, built, 'pik-story').stack.name}?region={REGION}"


@pytest.fixture
def store(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of the stack that the tests share; the API is where the emulator serves it."""
    monkeypatch.setenv("PIK_API_URL", deployed.api)
    return f"aws://{deployed.stack.name}?region={REGION}"


def event(entity: str, number: int, **fields: Any) -> dict[str, Any]:
    payload = {"number": number}
    time_of_day = f"2026-02-03T{number:02}:00:00Z"
    return {
        "source": "shop",
        "event_type": "order",
        "entity_id": entity,
        "event_time": time_of_day,
        "payload": payload,
        **fields,
    }


@pytest.mark.slow  # test_end_to_end.py tells it to a stack without the template
def test_promise_10_the_story_is_the_same_in_a_deployed_stack(pik: Pik, story: str, tmp_path: Path) -> None:
    home = tell(pik, str(tmp_path / "store"), tmp_path / "home")
    for here, there in zip(list(home), tell(pik, story, tmp_path / "away"), strict=True):
        assert there == here


def test_from_a_request_over_http_to_a_current_value(pik: Pik, deployed: Deployed, store: str) -> None:
    """Sent one by one and together, again, and in conflict; replayed over HTTP; promoted by command."""

    def send(path: str, document: Any) -> Any:
        status, answer = deployed.call("POST", path, json.dumps(document).encode())
        assert status == 200, answer
        return answer

    first = send("/ingest", event("http", 1, idempotency_key="k"))
    assert (first["status"], send("/ingest", event("http", 1, idempotency_key="k"))["status"]) == (
        "ACCEPTED",
        "DUPLICATE",
    )
    assert send("/ingest", event("http", 2, idempotency_key="k"))["conflict"] is True
    several = send("/ingest", [event("http", 3), event("http", 3), {"source": "shop"}])
    assert [each["status"] for each in several["results"]] == ["ACCEPTED", "DUPLICATE", "REJECTED"]

    asked = {"entity_id": "http", "start_time": "2026-02-03", "end_time": "2026-02-04", "reason": "end to end"}
    planned = send("/replay", asked)
    assert (planned["scanned"], planned["sent"], planned["truncated"]) == (2, 1, False)
    assert _ended(deployed, planned["run_id"])["state"] == "COMPLETED"
    assert pik("promote", planned["run_id"], "--yes", "--reason", "checked", "--store", store).code == 0
    (value,) = pik("aggregates", "--entity", "http", "--store", store, "--format", "json").json()["aggregates"]
    assert (value["value"], value["inputs"]) == (2, 2)

    moved = ("--assume", "shift=1d,entity=http,where=(payload->>'$.number') = '3'", "--reason", "INC-1", "--yes")
    assert pik("correct", *moved, "--store", store).code == 0
    planned = send("/replay", {**asked, "end_time": "2026-02-05"})
    ended = _ended(deployed, planned["run_id"])
    assert (ended["state"], ended["events_matched"], ended["corrections_until"] is None) == ("COMPLETED", 2, False)
    assert pik("promote", planned["run_id"], "--yes", "--reason", "corrected", "--store", store).code == 0
    values = pik("aggregates", "--entity", "http", "--store", store, "--format", "json").json()["aggregates"]
    assert [(one["bucket"][:10], one["value"]) for one in values] == [("2026-02-03", 1), ("2026-02-04", 1)]
    shown = pik("show", first["event_id"], "--store", store, "--format", "json").json()
    assert [each["kind"] for each in shown["deliveries"]] == ["accepted", "exact", "conflict"]
    assert shown["deliveries"][0]["segment"] == first["s3_key"]


def test_buffered_requests_are_recorded_by_the_ids_of_their_answers(pik: Pik, deployed: Deployed, store: str) -> None:
    """API Gateway, SQS and the recorder, all of them the emulator's."""
    body = json.dumps([event("buffered", 1), event("buffered", 1), {"source": "shop"}]).encode()
    answers = [deployed.call("POST", "/ingest?mode=async", body) for _ in range(2)]
    assert [status for status, _ in answers] == [202, 202], answers
    counted = []
    for _, answer in answers:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            shown = pik("batches", answer["buffered_id"], "--store", store, "--format", "json")
            if shown.code == 0 and shown.json()["batches"][0]["state"] == "COMPLETE":
                break
            time.sleep(0.1)
        found = shown.json()["request"]
        assert found.pop("buffered_id") == answer["buffered_id"]
        assert pik("batches", answer["request_id"], "--store", store, "--format", "json").json() == shown.json()
        counted.append(list(found.values()))
    assert sorted(counted) == [[3, 0, 2, 0, 1], [3, 1, 1, 0, 1]]


def test_the_schedule_finds_a_function_that_compacts(
    deployed: Deployed, aws: Clients, pik: Pik, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As EventBridge calls it. The first compaction of a stack would wait until all readers have noticed; nobody reads
    this one now."""
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    assert pik("compact", "--store", store).code == 0
    before = pik("status", "--store", store, "--format", "json").json()
    payload = json.dumps({"compact": True}).encode()
    answer = aws.client("lambda").invoke(FunctionName=deployed.outputs["RecorderFunction"], Payload=payload)
    assert answer["Payload"].read() == b"null"
    assert pik("status", "--store", store, "--format", "json").json() == before


def _ended(deployed: Deployed, run_id: str) -> Any:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        status, run = deployed.call("GET", f"/replay/{run_id}")
        assert status == 200, run
        if run["state"] not in ("PLANNED", "RUNNING"):
            return run
        time.sleep(0.1)
    raise AssertionError(f"the run does not end: {run}")


def counts(report: Any) -> tuple[int, ...]:
    """The records read, those that were recorded as they came, conflicts and rejected. A request that has no answer in
    time is sent again, and what it had recorded then counts as exact duplicates."""
    exact, conflict = report["duplicates"]["exact"], report["duplicates"]["conflict"]
    return report["read"], report["accepted"] + exact, conflict, report["rejected"]


def test_webhooks_through_the_api_are_those_of_a_file(pik: Pik, store: str, tmp_path: Path) -> None:
    """`--via api` sends what a local ingest records, and replays it to the same values."""
    options = (*MAP, "--time-format", "auto", "--format", "json")
    sent = pik("ingest", WEBHOOKS, *options, "--via", "api", "--store", store)
    assert sent.code == 3, sent.err  # some have no time, and say so
    home = ("--store", str(tmp_path / "home"))
    pik("init", *home)
    kept = pik("ingest", WEBHOOKS, *options, *home).json()
    assert counts(sent.json()) == counts(kept)
    assert sent.json()["sent_again"] or sent.json()["accepted"] == kept["accepted"]

    asked = ("--entity", REPOSITORY, "--from", "2019-01-01", "--to", "2020-01-01")
    replayed = pik("replay", *asked, "--via", "api", "--reason", "api", "--store", store, "--format", "json")
    assert replayed.code == 0, replayed.err
    run = replayed.json()["run_id"]
    assert pik("promote", run, "--yes", "--reason", "checked", "--store", store).code == 0
    assert pik("diff", "aggregates", *asked, "--store", store).code == 0
    assert pik("replay", *asked, "--promote", "--yes", *home).code == 0

    def values(*where: str) -> list[tuple[Any, ...]]:
        found = pik("aggregates", *asked, *where, "--format", "json").json()["aggregates"]
        return [(one["bucket"], one["value"], one["inputs"]) for one in found]

    assert values("--store", store) == values(*home) != []


def test_a_window_too_large_for_one_call_runs_by_itself(pik: Pik, store: str, tmp_path: Path) -> None:
    """The replay function answers 202 and calls itself, to plan the run that the command waits for."""
    events = tmp_path / "events.jsonl"
    events.write_text("".join(json.dumps(event("large", number)) + "\n" for number in range(3)))
    at = ("--store", store, "--format", "json")
    assert counts(pik("ingest", events, "--via", "api", *at).json()) == (3, 3, 0, 0)
    window = ("--from", "2020-01-01", "--to", "2026-03-01", "--metric", "event_count")
    replayed = pik("replay", "--entity", "large", *window, "--via", "api", *at)
    assert replayed.code == 0, replayed.err
    run = replayed.json()
    assert (run["state"], run["events_matched"], run["new"]) == ("COMPLETED", None, 1)
    assert pik("promote", run["run_id"], "--yes", *at).code == 0
    (value,) = pik("aggregates", "--entity", "large", *at).json()["aggregates"]
    assert (value["value"], value["inputs"]) == (3, 3)


def test_a_value_that_is_not_a_number_is_kept_with_its_run_by_its_reason(pik: Pik, store: str, tmp_path: Path) -> None:
    """It fails for its own entity; the other one's is computed."""
    metric = tmp_path / "poisoned.toml"
    metric.write_text("name = 'poisoned'\nvalue = \"sum(CAST(payload ->> '$.number' AS DECIMAL(9, 0)))\"\n")
    events = tmp_path / "events.jsonl"
    poison = event("poison", 1, payload={"number": "seven"})
    events.write_text("".join(json.dumps(each) + "\n" for each in (poison, event("fine", 2))))
    at = ("--store", store)
    assert pik("ingest", events, *at).code == 0
    assert pik("metrics", "apply", metric, *at).code == 0
    window = ("--from", "2026-02-03", "--to", "2026-02-04", "--metric", "poisoned", *at, "--format", "json")
    assert pik("replay", "--entity", "fine", *window).code == 0
    failed = pik("replay", "--entity", "poison", *window)
    assert failed.code == 3, failed.err
    run = failed.json()
    assert (run["state"], run["failed"], run["failed_aggregates"]) == ("PARTIAL", 0, 1)
    assert "seven" in run["failures"][0]["reason"], run
    assert pik("dlq", "list", "--run", run["run_id"], *at, "--format", "json").json()["dead_letters"] == []

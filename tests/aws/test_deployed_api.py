"""`--via api` against the deployed stack: API, packaged functions, queue, processor; read directly what comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.aws.deployed import Deployed
from tests.cli.conftest import pik

__all__ = ["pik"]

pytestmark = pytest.mark.xdist_group("deployed")

STORE = ("--store", "aws://pik-test", "--format", "json")
VIA = (*STORE, "--via", "api")


def _event(entity: str, day: int, **fields):
    time = f"2026-01-{day:02}T01:00:00Z"
    return {"source": "s", "event_type": "t", "entity_id": entity, "event_time": time, "payload": {}, **fields}


@pytest.fixture
def events(tmp_path: Path, monkeypatch, deployed: Deployed, request) -> str:
    """A file with seven records of this test's own entity; it is the entity's name."""
    monkeypatch.setenv("PIK_API_URL", deployed.api)
    entity = str(request.node.name)
    records = [
        *(_event(entity, day) for day in (1, 1, 2, 3)),
        _event(entity, 3, idempotency_key="k"),
        _event(entity, 4, idempotency_key="k"),
        _event(entity, 99),
    ]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return entity


def test_promise_4_events_come_through_the_stack(pik, events: str) -> None:
    sent = pik("ingest", "events.jsonl", *VIA)
    assert sent.code == 3, sent.err
    said = sent.json()
    assert (said["read"], said["accepted"], said["duplicates"]) == (7, 4, {"exact": 1, "conflict": 1})
    assert [row["seq"] for row in said["rejects"]] == [7]
    found = pik("events", "--entity", events, *STORE).json()["events"]
    assert [one["event_time"][:10] for one in found] == ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-03"]
    again = pik("ingest", "events.jsonl", *VIA).json()
    assert (again["accepted"], sum(again["duplicates"].values()), again["rejected"]) == (0, 6, 1)


@pytest.mark.parametrize("since", ["2026-01-01", "2020-01-01"])
def test_a_replay_runs_through_queue_and_processor(pik, events: str, since: str) -> None:
    """The second window is too large for one call: the function calls itself to plan the run."""
    assert pik("ingest", "events.jsonl", *VIA).json()["accepted"] == 4
    replayed = pik("replay", "--entity", events, "--from", since, "--to", "2026-02-01", "--reason", "why", *VIA)
    assert replayed.code == 0, replayed.err
    run = replayed.json()
    assert (run["state"], run["new"], run["reason"]) == ("COMPLETED", 3, "why")
    assert run["events_matched"] == (4 if since.startswith("2026") else None)
    assert pik("promote", run["run_id"], "--yes", *STORE).code == 0
    current = pik("aggregates", "--entity", events, *STORE).json()["aggregates"]
    assert [one["value"] for one in current] == [1, 1, 2]

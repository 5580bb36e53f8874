"""The main job on real input: foreign webhooks, from a file to a proven difference and an export."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

WEBHOOKS = Path(__file__).parents[1] / "data" / "github-webhooks.jsonl.zst"
REPOSITORY = "Codertocat/Hello-World"

MAPPING = {
    "source": "'github'",
    "event_type": "event",
    "entity_id": "delivery.repository.full_name || delivery.organization.login || delivery.installation.account.login"
    " || delivery.sender.login",
    "event_time": "delivery.pull_request.updated_at || delivery.issue.updated_at || delivery.comment.updated_at"
    " || delivery.repository.updated_at || delivery.installation.updated_at",
    "payload": "delivery",
}
MAP = [part for field, expression in MAPPING.items() for part in ("--map", f"{field}={expression}")]


@pytest.fixture
def webhooks(pik):
    ingested = pik("ingest", str(WEBHOOKS), *MAP, "--time-format", "auto", "--format", "json")
    assert ingested.code == 3, ingested.err  # some have no time, and say so
    return ingested.json()


def test_every_webhook_is_accounted_for(pik, webhooks):
    assert webhooks["read"] == 329
    duplicates = webhooks["duplicates"]["exact"] + webhooks["duplicates"]["conflict"]
    assert webhooks["accepted"] + duplicates + webhooks["rejected"] == 329
    rejects = pik("batches", webhooks["batch_id"], "--rejects", "--format", "json").json()
    assert len(rejects["rejects"]) == webhooks["rejected"] > 0
    assert {reject["field"] for reject in rejects["rejects"]} <= {"event_time", "entity_id"}


def test_from_duplicates_to_a_proven_difference(pik, webhooks, tmp_path):
    listed = pik("duplicates", "--format", "json").json()
    assert len(listed["duplicates"]) == webhooks["duplicates"]["exact"] + webhooks["duplicates"]["conflict"]

    window = ["--from", "2019-01-01", "--to", "2020-01-01"]
    assert pik("diff", "aggregates", "--entity", REPOSITORY, *window).code == 1
    replayed = pik("replay", "--entity", REPOSITORY, *window, "--reason", "first numbers", "--format", "json")
    assert replayed.code == 0, replayed.err
    run = replayed.json()
    assert run["state"] == "COMPLETED"
    assert pik("promote", run["run_id"], "--yes", "--reason", "checked").code == 0
    clean = pik("diff", "aggregates", "--entity", REPOSITORY, *window, "--format", "json")
    assert (clean.code, clean.json()["differences"]) == (0, [])

    events = pik("events", "--entity", REPOSITORY, *window, "--format", "json").json()["events"]
    values = pik("aggregates", "--entity", REPOSITORY, *window, "--format", "json").json()["aggregates"]
    assert sum(one["value"] for one in values) == len(events) > 100
    shown = pik("show", events[0]["event_id"][:12], "--format", "json").json()
    assert shown["aggregates"][0]["metric"] == "event_count"

    target = tmp_path / "webhooks.parquet"
    assert pik("export", "--out", str(target), "--column", "action=action:string").code == 0
    found = duckdb.sql(f"SELECT count(*), count(action) FROM read_parquet('{target}')")
    assert found is not None
    (rows,) = found.fetchall()
    assert rows[0] == webhooks["accepted"]
    assert 0 < rows[1] <= rows[0]
    verified = pik("verify")
    assert verified.code == 0, verified.out


def test_numbers_and_lines_are_kept_as_they_were_written(pik, webhooks):
    event = pik("events", "--entity", REPOSITORY, "--limit", "1", "--format", "json").json()["events"][0]
    shown = pik("show", event["event_id"], "--format", "json").json()
    raw = shown["raw"][0]
    assert raw["original"]["delivery"] == raw["payload"] == event["payload"]
    assert json.dumps(raw["original"]["event"]) == json.dumps(event["event_type"])

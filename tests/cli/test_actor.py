"""--actor, PIK_ACTOR, or the user and the host: recorded by each command that changes something, and shown."""

from __future__ import annotations

import getpass
import json
import os

import pytest

EVENT = {"source": "web", "entity_id": "a", "event_time": "2026-01-01T00:00:00Z", "event_type": "paid"}


@pytest.fixture
def shop(pik, tmp_path):
    """A store in which each change was made by somebody else; and the run."""
    (tmp_path / "events.jsonl").write_text(json.dumps({**EVENT, "payload": {"v": 1}}))
    (tmp_path / "metrics.toml").write_text('name = "revenue"\nvalue = "count(*)"\n')
    assert pik("ingest", "events.jsonl", "--actor", "ana").code == 0
    assert pik("--actor", "bob", "metrics", "apply", "metrics.toml", "--reason", "INC-1").code == 0
    run = pik("replay", "--all", "--actor", "cid", "--format", "json").json()
    assert run["actor"] == "cid"
    run_id = run["run_id"]
    for actor, action in (("dan", "promote"), ("eve", "rollback"), ("fay", "promote")):
        assert pik(action, run_id, "--yes", "--reason", f"by {actor}", "--actor", actor).code == 0
    return pik, run_id


def shown(pik, *arguments):
    found = pik(*arguments, "--format", "json")
    assert found.code in (0, 1), found.err
    return found.json()


def test_every_listing_shows_who_did_it(shop):
    pik, run_id = shop
    assert [one["actor"] for one in shown(pik, "batches")["batches"]] == ["ana"]
    [version] = shown(pik, "metrics", "show", "revenue")["versions"]
    assert (version["actor"], version["reason"]) == ("bob", "INC-1")
    assert [one["actor"] for one in shown(pik, "runs", "list")["runs"]] == ["cid"]
    run = shown(pik, "runs", "show", run_id)
    assert run["actor"] == "cid"
    assert [(one["kind"], one["actor"], one["reason"]) for one in run["promotions"]] == [
        ("promote", "dan", "by dan"),
        ("rollback", "eve", "by eve"),
        ("promote", "fay", "by fay"),
    ]
    assert {one["actor"] for one in shown(pik, "aggregates", "--history")["aggregates"]} == {"cid"}
    explained = shown(pik, "explain", "revenue", "a", "2026-01-01")
    assert (explained["run_actor"], explained["promoted_by"]) == ("cid", "fay")


def test_runs_list_shows_rollbacks(shop):
    pik, run_id = shop
    [run] = shown(pik, "runs", "list")["runs"]
    assert (run["run_id"], run["promoted"], run["rolled_back"]) == (run_id, 2, 2)


def test_a_promotion_by_a_replay_has_its_actor(shop, tmp_path):
    pik, _ = shop
    (tmp_path / "late.jsonl").write_text(json.dumps({**EVENT, "payload": {"v": 2}}))
    assert pik("ingest", "late.jsonl").code == 0
    run = shown(pik, "replay", "--all", "--promote", "--yes", "--actor", "gus")
    [promotion] = shown(pik, "runs", "show", run["run_id"])["promotions"]
    assert promotion["actor"] == "gus"


def test_the_option_comes_before_the_variable_and_that_before_the_user(pik, tmp_path, monkeypatch):
    (tmp_path / "events.jsonl").write_text(json.dumps({**EVENT, "payload": {"v": 1}}))

    def actor(*options):
        assert pik("ingest", "events.jsonl", "--again", *options).code == 0
        return shown(pik, "batches", "--limit", "1")["batches"][0]["actor"]

    user = f"{getpass.getuser()}@{os.uname().nodename}"
    assert actor() == user
    monkeypatch.setenv("PIK_ACTOR", "")
    assert actor() == user
    monkeypatch.setenv("PIK_ACTOR", "somebody")
    assert actor() == "somebody"
    assert actor("--actor", "élise @ on-call") == "élise @ on-call"


@pytest.mark.parametrize("given", ["", "a\nb", "x" * 257, "\udcff"])
def test_an_actor_that_is_no_name_is_refused_and_nothing_is_done(pik, tmp_path, monkeypatch, given):
    (tmp_path / "events.jsonl").write_text(json.dumps({**EVENT, "payload": {"v": 1}}))
    refused = pik("ingest", "events.jsonl", "--actor", given)
    assert (refused.code, "--actor" in refused.err, "hint:" in refused.err) == (2, True, True)
    assert not (tmp_path / ".pik").exists()
    if given:
        monkeypatch.setenv("PIK_ACTOR", given)
        assert "PIK_ACTOR" in pik("ingest", "events.jsonl").err


@pytest.mark.parametrize("command", [("ingest", "events.jsonl"), ("replay", "--entity", "a", "--since", "1d")])
def test_the_api_takes_no_actor(pik, tmp_path, monkeypatch, command):
    (tmp_path / "events.jsonl").write_text(json.dumps({**EVENT, "payload": {"v": 1}}))
    refused = pik(*command, "--via", "api", "--store", "aws://pik", "--actor", "ana")
    assert (refused.code, "--actor does not go with --via api" in refused.err) == (2, True)
    monkeypatch.setenv("PIK_ACTOR", "ana")
    refused = pik(*command, "--via", "api", "--store", "aws://pik")
    assert (refused.code, "PIK_ACTOR does not go with --via api" in refused.err) == (2, True)
    assert "unset PIK_ACTOR" in refused.err

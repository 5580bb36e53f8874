"""`pik pull`: what it prints, its exit codes, and how it refuses."""

from __future__ import annotations

import json

import pytest

EVENTS: list[dict[str, object]] = [
    {"source": "s", "event_type": "t", "entity_id": name, "event_time": f"2026-01-0{day}T00:00:00Z", "payload": {}}
    for name in ("a", "b")
    for day in (1, 2, 3)
]
DAY = ("--from", "2026-01-02", "--to", "2026-01-03")


@pytest.fixture
def filled(pik, tmp_path):
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in EVENTS) + "no event\n")
    assert pik("ingest", "events.jsonl").code == 3
    assert pik("replay", "--all", "--promote", "--yes").code == 0
    return tmp_path


def test_the_copy_is_the_same_in_json(pik, filled):
    done = pik("pull", *DAY, "--into", "copy", "--format", "json")
    assert (done.code, done.json()["outcome"], done.json()["effective"]) == (0, "pulled", done.json()["requested"])
    for command in ("events", "duplicates", "aggregates", "diff aggregates"):
        words = (*command.split(), *DAY, "--format", "json")
        assert pik(*words, "--store", "copy").out == pik(*words).out
    batch = pik("batches", "--store", "copy", "--format", "json").json()["batches"][0]
    assert (batch["state"], batch["read"], batch["accepted"], batch["rejected"]) == ("PULLED", 3, 2, 1)
    assert pik("verify", "--store", "copy").code == 0
    again = pik("pull", *DAY, "--into", "copy", "--format", "json").json()
    assert (again["outcome"], again["copied"]) == ("nothing new", 0)


def test_a_dry_run_makes_no_directory(pik, filled):
    plan = pik("pull", *DAY, "--into", "copy", "--dry-run", "--format", "json").json()
    assert (plan["segments"], plan["to_copy"], plan["dry_run"]) == (1, 1, True)
    assert not (filled / "copy").exists()
    pik("pull", "--from", "2026-01-01", "--to", "2026-01-02", "--into", "copy")
    assert pik("pull", *DAY, "--into", "copy", "--dry-run", "--format", "json").json()["to_copy"] == 1


def test_a_pull_of_nothing_says_so(pik, filled):
    done = pik("pull", "--entity", "A", "--into", "copy", "--format", "json").json()
    assert (done["deliveries"], done["note"].startswith("0 events match; did you mean 'a'?; ")) == (0, True)


def test_an_object_that_is_gone_is_exit_code_3(pik, filled):
    (segment,) = (filled / ".pik/raw/event_date=2026-01-02").iterdir()
    data = segment.read_bytes()
    segment.unlink()
    done = pik("pull", *DAY, "--into", "copy", "--format", "json")
    assert done.code == 3
    (problem,) = done.json()["problems"]
    assert (problem["kind"], problem["day"], problem["entities"]) == ("missing", "2026-01-02", ["a", "b"])
    assert "pik verify --store" in done.json()["next"]
    assert pik("events", *DAY, "--store", "copy").code == 4
    told = pik("verify", "--store", "copy", "--format", "json")
    assert (told.code, told.json()["missing"], "pik pull --store" in told.json()["next"]) == (1, 1, True)
    segment.write_bytes(data)
    assert pik("pull", *DAY, "--into", "copy").code == 0
    assert pik("verify", "--store", "copy").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("events", "--store", "copy"), 4, "does not hold all time of every entity; it holds "),
        (("replay", "--all", "--store", "copy"), 4, "pull the rest"),
        (("export", "--out", "x.csv", "--store", "copy"), 4, "a copy of "),
        (("ingest", "events.jsonl", "--store", "copy"), 2, "events are not ingested into copies"),
        (("pull", *DAY, "--into", "."), 4, "is a directory with other things in it"),
        (("pull", *DAY, "--into", ".pik"), 2, "is the store itself"),
        (("pull", *DAY, "--into", "events.jsonl"), 4, "is a file, not a directory\nhint: name a new or an empty"),
        (("pull", *DAY, "--into", "own"), 4, "is not a copy: it ingests events itself"),
        (("pull", *DAY, "--into", "copy", "--store", "own"), 4, "hint: --into a new directory"),
        (("pull", *DAY, "--into", "aws://stack"), 2, "copies are made in directories"),
        (("pull", *DAY), 2, "--into is missing"),
        (("pull", "--entity", "", "--into", "x"), 2, "--entity is empty"),
        (("pull", "--into", "x", "--store", "none"), 4, "no store at"),
    ],
)
def test_refusals_name_the_thing(pik, filled, arguments, code, said):
    pik("init", "--store", "own")
    pik("ingest", "events.jsonl", "--store", "own")
    assert pik("pull", *DAY, "--into", "copy").code == 0
    refused = pik(*arguments)
    assert (refused.code, refused.out, said in refused.err) == (code, "", True), refused.err
    assert not (filled / "x").exists()

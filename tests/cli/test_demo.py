"""The demo: its data the same everywhere and believable, its incident played to the end with real commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from hashlib import sha256
from pathlib import Path

from pik.cli.commands.care.demo import STEPS
from pik.cli.demo.incidents import INCIDENTS
from pik.cli.demo.shop import OFFLINE, TUESDAY, write_data
from pik.model.event import read_event
from tests.support.docs.warm import program


def test_the_data_is_always_the_same(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_data(tmp_path / name)
        files = sorted((tmp_path / name).iterdir())
        assert [one.name for one in files] == ["metrics.toml", "monday.jsonl", "tuesday-morning.jsonl"]
        digests.add(sha256(b"".join(one.read_bytes() for one in files)).hexdigest())
    assert len(digests) == 1


def test_it_is_a_day_a_retry_storm_and_late_events(tmp_path: Path) -> None:
    write_data(tmp_path)
    monday = [read_event(line) for line in (tmp_path / "monday.jsonl").read_bytes().splitlines()]
    morning = [read_event(line) for line in (tmp_path / "tuesday-morning.jsonl").read_bytes().splitlines()]
    assert 1400 < len(monday) < 1600
    assert len({one.entity_id for one in monday}) == 40
    assert all(one.event_time < TUESDAY for one in (*monday, *morning))
    known = {one.event_id: one.content_hash for one in monday}
    assert len(known) == len(monday)
    late = [one for one in morning if one.event_id not in known]
    assert {one.entity_id for one in late} == set(OFFLINE)
    assert len({one.event_id for one in late}) == len(late) > 40
    again = [one for one in morning if one.event_id in known]
    assert len(again) > 600
    assert sum(one.content_hash != known[one.event_id] for one in again) == 3


def run(*arguments: str, place: Path) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "PIK_STORE": "must not be used"}
    return subprocess.run(
        [*program(), *arguments], cwd=place, env=settings, capture_output=True, text=True, timeout=120
    )


def test_the_incident_is_played_with_real_commands(tmp_path: Path) -> None:
    result = run("demo", "--dir", "demo", place=tmp_path)
    assert (result.returncode, result.stderr.count("error")) == (0, 0)
    echoed = [line[2:] for line in result.stdout.splitlines() if line.startswith("$ ")]
    assert len(echoed) == len(STEPS)
    assert [re.sub("promote [0-9A-Z]{26}", "promote RUN", line) for line in echoed] == [step.line for step in STEPS]
    assert result.stdout.count("(exit code 1)") == 2
    assert result.stdout.endswith("\n  demo/report.html\n")
    assert "late +2,858.08" in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert result.stdout.index("~   revenue") < result.stdout.index("no differences")
    assert not (tmp_path / "must not be used").exists()
    shown = re.search(r"pik show (\w+)", result.stdout)
    assert shown is not None
    event = run("show", shown[1], "--store", "demo/.pik", place=tmp_path)
    assert event.stdout.count("\nexact ") == 4
    assert event.stdout.count("\nconflict ") == 1


def test_it_needs_its_own_directory(tmp_path: Path) -> None:
    result = run("demo", "--dir", ".", place=tmp_path)
    assert (result.returncode, result.stdout) == (4, "")
    assert result.stderr.startswith("error: . is there already\n")


def test_every_incident_is_listed_with_its_symptom(tmp_path: Path) -> None:
    listed = run("demo", "--list", place=tmp_path)
    names = max(map(len, INCIDENTS))
    expected = [f"{name.ljust(names)}  {one.symptom}" for name, one in INCIDENTS.items()]
    assert listed.stdout.splitlines() == expected
    assert all(len(line) <= 80 for line in listed.stdout.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_an_incident_prints_where_it_is_and_the_first_command(tmp_path: Path) -> None:
    made = run("demo", "--incident", "late-events", "--dir", "late one", place=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    symptom, _, _, _, enter, first, *rest = made.stdout.splitlines()
    assert symptom == INCIDENTS["late-events"].symptom
    assert enter == "  cd 'late one'"
    assert first.strip() == INCIDENTS["late-events"].first
    assert "docs/runbooks/late-events.md" in " ".join(rest)
    assert not (tmp_path / "must not be used").exists()
    found = run(*shlex.split(first)[1:], "--store", ".pik", "--format", "json", place=tmp_path / "late one")
    assert found.returncode == 1
    assert {(one["check"], one["cause"]) for one in json.loads(found.stdout)["findings"]} == {("late events", "late")}


def test_an_incident_is_the_same_each_time(tmp_path: Path) -> None:
    """Its events, its definitions and its values; ids of batches and times of recording are not."""
    made = []
    for name in ("a", "b"):
        assert run("demo", "--incident", "wrong-metric", "--dir", name, place=tmp_path).returncode == 0
        diff = run("diff", "aggregates", "--store", f"{name}/.pik", "--format", "jsonl", place=tmp_path)
        made.append((diff.stdout, sorted(one.name for one in (tmp_path / name).iterdir())))
    assert made[0] == made[1]
    assert made[0][0].count("\n") > 20


def test_an_unknown_incident_is_refused_and_makes_nothing(tmp_path: Path) -> None:
    result = run("demo", "--incident", "late", "--dir", "new", place=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: unknown incident 'late'; there are wrong-metric, ")
    assert result.stderr.endswith("hint: pik demo --list\n")
    assert list(tmp_path.iterdir()) == []


def test_an_incident_needs_its_own_directory_too(tmp_path: Path) -> None:
    result = run("demo", "--incident", "late-events", "--dir", ".", place=tmp_path)
    assert (result.returncode, result.stdout) == (4, "")

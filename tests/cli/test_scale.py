"""A value is printed with the digits of its metric's type, wherever values are printed, and stored without."""

from __future__ import annotations

import re
import sqlite3

import pytest

from pik.config import Format

METRICS = """
[[metric]]
name = "revenue"
value = "sum((payload->>'$.v')::DECIMAL(18, {scale}))"
"""


def line(number, value):
    return (
        '{"source": "web", "event_type": "paid", "entity_id": "a",'
        f' "event_time": "2026-01-01T00:{number:02}:00Z", "payload": {{"v": {value}, "n": {number}}}}}\n'
    )


@pytest.fixture
def shop(pik, tmp_path):
    """A store whose revenue of 61.90 is current, and is 142.00 by a later event, or 142.000 by a new version."""
    (tmp_path / "metrics.toml").write_text(METRICS.format(scale=2))
    (tmp_path / "three.toml").write_text(METRICS.format(scale=3))
    (tmp_path / "events.jsonl").write_text(line(1, "61.9"))
    (tmp_path / "late.jsonl").write_text(line(2, "80.1"))
    assert pik("ingest", "events.jsonl").code == 0
    assert pik("metrics", "apply", "metrics.toml").code == 0
    assert pik("replay", "--all", "--reason", "first", "--promote", "--yes").code == 0
    assert pik("ingest", "late.jsonl").code == 0
    return pik


@pytest.mark.parametrize("form", list(Format))
def test_every_command_and_format_prints_the_digits_of_the_type(shop, form):
    found = shop("diff", "aggregates", "--metric", "revenue", "--format", form).out
    assert all(re.search(rf"(?<![\d.]){value}(?!\d)", found) for value in (r"61\.90", r"142\.00", r"80\.10")), found
    event = re.search("[0-9a-f]{32}", shop("events", "--limit", "1", "--format", "jsonl").out)
    assert event
    commands = [["aggregates", "--metric", "revenue"], *([["show", event[0]]] if form not in ("jsonl", "csv") else [])]
    for command in commands:
        assert re.search(r"(?<![\d.])61\.90(?!\d)", shop(*command, "--format", form).out)


def test_a_delta_has_the_digits_of_the_longer_side(shop):
    assert shop("metrics", "apply", "three.toml").code == 0
    rows = shop("diff", "aggregates", "--metric", "revenue", "--format", "json").json()["differences"]
    assert [(row["current"], row["recomputed"], row["delta"]) for row in rows] == [("61.90", "142.000", "80.100")]
    assert rows[0]["percent"] == "129.402"
    run = shop("replay", "--all", "--reason", "second", "--format", "json").json()["run_id"]
    rows = shop("diff", "aggregates", "--run", run, "--metric", "revenue", "--format", "json").json()["differences"]
    assert [(row["current"], row["recomputed"], row["delta"]) for row in rows] == [("61.90", "142.000", "80.100")]
    assert shop("promote", run, "--yes").code == 0
    rows = shop("aggregates", "--metric", "revenue", "--history", "--format", "json").json()["aggregates"]
    assert sorted(row["value"] for row in rows) == ["142.000", "61.90"]


def test_what_is_stored_is_the_shortest_text(shop, tmp_path):
    with sqlite3.connect(tmp_path / ".pik" / "state.db") as connection:
        assert connection.execute("SELECT value FROM version WHERE value LIKE '61%'").fetchall() == [("61.9",)]

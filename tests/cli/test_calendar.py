"""A metric with a timezone: Berlin's day of 23 hours, 29 March 2026, through the commands that show its buckets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from pik.model import calendar, zone_changes
from pik.model import zone as zone_module
from pik.usecases.metrics import zones

METRICS = """
[[metric]]
name = "berlin"
value = "sum((payload->>'v')::DECIMAL(18, 2))"
bucket = "1d"
timezone = "Europe/Berlin"
[[metric]]
name = "hourly"
value = "count(*)"
bucket = "1h"
timezone = "Europe/Berlin"
[[metric]]
name = "monthly"
value = "count(*)"
bucket = "1mo"
timezone = "Europe/Berlin"
[[metric]]
name = "weekly"
value = "count(*)"
bucket = "1w"
"""
# In Berlin it is 28 March until 23:00Z; the next day ends at 22:00Z, as clocks went forward.
EVENTS = {
    "2026-03-28T22:59:59.999999999Z": 1,
    "2026-03-28T23:00:00Z": 10,
    "2026-03-29T00:30:00Z": 20,
    "2026-03-29T01:00:00Z": 40,
    "2026-03-29T21:59:59.999999999Z": 80,
    "2026-03-29T22:00:00Z": 500,
}
DAYS = {"2026-03-28": 1, "2026-03-29": 10 + 20 + 40 + 80, "2026-03-30": 500}


@pytest.fixture
def berlin(pik: Callable[..., Any]) -> Callable[..., Any]:
    lines = (
        {"source": "web", "event_type": "paid", "entity_id": "a", "event_time": time, "payload": {"v": value}}
        for time, value in EVENTS.items()
    )
    Path("events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("metrics.toml").write_text(METRICS)
    assert pik("ingest", "events.jsonl").code == 0
    assert pik("metrics", "apply", "metrics.toml").code == 0
    return pik


def rows(result: Any, name: str, *fields: str) -> list[tuple[Any, ...]]:
    return [tuple(row[field] for field in fields) for row in result.json()[name]]


def test_a_day_of_23_hours_is_compared_replayed_explained_and_imported(berlin: Callable[..., Any]) -> None:
    pik = berlin
    found = pik("diff", "aggregates", "--metric", "berlin", "--format", "json")
    assert rows(found, "differences", "bucket", "bucket_local", "recomputed") == [
        ("2026-03-27T23:00:00Z", "2026-03-28+01:00", "1.00"),
        ("2026-03-28T23:00:00Z", "2026-03-29+01:00", "150.00"),
        ("2026-03-29T22:00:00Z", "2026-03-30+02:00", "500.00"),
    ]
    assert "2026-03-29+01:00" in pik("diff", "aggregates", "--metric", "berlin").out

    # A window that only touches the day replays all of it.
    window = ("--from", "2026-03-29T00:30:00Z", "--to", "2026-03-29T00:30:01Z")
    run = pik("replay", "--all", "--metric", "berlin", *window, "--promote", "--yes", "--format", "json").json()
    assert run["effective"] == {"from": "2026-03-28T23:00:00Z", "to": "2026-03-29T22:00:00Z"}
    listed = pik("aggregates", "--metric", "berlin", "--format", "json")
    assert rows(listed, "aggregates", "bucket_local", "value") == [("2026-03-29+01:00", "150.00")]

    # Tasks of metrics with and without a timezone: what computed a run lists each program once.
    run = pik("replay", "--all", *window, "--promote", "--yes", "--format", "json").json()
    shown = pik("runs", "show", run["run_id"], "--format", "json").json()
    assert [text.split()[0] for text in shown["computed_by"]] == ["DuckDB", "pik", "tzdata"]

    # A date names the bucket of that date, and so do what tables show and the times of its clocks.
    for bucket in ("2026-03-29", "2026-03-29+01:00", "2026-03-29T21:00:00Z", "2026-03-29T23:59"):
        explained = pik("explain", "berlin", "a", bucket, "--format", "json").json()
        assert (explained["bucket"], explained["bucket_end"], explained["bucket_local"], explained["delta"]) == (
            "2026-03-28T23:00:00Z",
            "2026-03-29T22:00:00Z",
            "2026-03-29+01:00",
            "0.00",
        )
    wrong = pik("explain", "berlin", "a", "2026-03-29+02:00")
    assert (wrong.code, "has the wrong offset: in Europe/Berlin that day is 2026-03-29+01:00" in wrong.err) == (2, True)

    # Dates of files, and times without an offset, are those of the metric, whatever their format.
    Path("ledger.csv").write_text("day,entity,value\n" + "".join(f"{day},a,{v}\n" for day, v in DAYS.items()))
    days = pa.array([*DAYS]).cast(pa.date32())
    parquet.write_table(pa.table({"day": days, "entity": ["a"] * 3, "value": [*DAYS.values()]}), "ledger.parquet")
    Path("clock.csv").write_text(Path("ledger.csv").read_text().replace(",a,", " 00:00:00,a,"))
    clocks = days.cast(pa.timestamp("us"))
    parquet.write_table(pa.table({"day": clocks, "entity": ["a"] * 3, "value": [*DAYS.values()]}), "clock.parquet")
    for ledger in ("ledger.csv", "ledger.parquet", "clock.csv", "clock.parquet"):
        assert pik("diff", "aggregates", "--metric", "berlin", "--against", ledger).code == 0
    Path("wrong.csv").write_text("day,entity,value\n2026-03-29T00:00:00Z,a,150\n")
    wrong = pik("diff", "aggregates", "--metric", "berlin", "--against", "wrong.csv")
    assert "is not the start of a bucket of berlin; that is 2026-03-29+01:00 (2026-03-28T23:00:00Z)" in wrong.err
    imported = pik("aggregates", "import", "ledger.csv", "--metric", "berlin", "--yes", "--format", "json").json()
    assert (imported["new"], imported["same"], imported["first"]) == (2, 1, "2026-03-27T23:00:00Z")
    assert pik("verify", "--format", "json").json()["damage"] == 0

    query = "SELECT bucket_local, value FROM aggregates WHERE metric = 'berlin' AND bucket_local LIKE '2026-03-29%'"
    assert pik("sql", query, "--format", "csv").out.splitlines()[1:] == ["2026-03-29+01:00,150.00"]


@contextmanager
def other_rules(zone: str, other: str) -> Iterator[None]:
    """A release of tzdata in which the zone had the rules of another one."""
    data = zone_module.zone_data

    def forget() -> None:
        for cached in (zone_module.load_zone, zone_changes._listed, calendar._spans_of, zones._digest):
            cached.cache_clear()

    with pytest.MonkeyPatch.context() as patch:
        for module in (zone_module, zone_changes, zones):
            patch.setattr(module, "zone_data", lambda name: data(other if name == zone else name))
        patch.setattr(zones, "zones_version", lambda: "tzdata 2026.1")
        forget()
        yield
    forget()


def test_a_release_that_moves_bounds_is_the_cause_that_explains_the_difference(pik: Callable[..., Any]) -> None:
    """In November 2026 clocks of Vancouver stay where they are; by earlier rules they were set back."""
    times = ["2026-11-01T12:00:00Z", "2026-11-02T07:30:00Z", "2026-11-02T12:00:00Z"]
    lines = (
        {"source": "web", "event_type": "t", "entity_id": "a", "event_time": time, "payload": {}} for time in times
    )
    Path("events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("metrics.toml").write_text('name = "daily"\nvalue = "count(*)"\ntimezone = "America/Vancouver"\n')
    assert pik("ingest", "events.jsonl").code == 0
    replayed = ("replay", "--all", "--metric", "daily", "--promote", "--yes")
    with other_rules("America/Vancouver", "America/Los_Angeles"):
        assert pik("metrics", "apply", "metrics.toml").code == 0
        assert pik(*replayed).code == 0
        assert pik("diff", "aggregates", "--metric", "daily").code == 0
        assert pik("verify", "--format", "json").json()["uncertain_aggregates"] == 0
    # 1 November ends an hour earlier now, and where 2 November began there is no bucket any more.
    found = pik("diff", "aggregates", "--metric", "daily", "--explain", "--format", "json")
    assert rows(found, "differences", "op", "bucket", "bucket_local", "current", "recomputed") == [
        ("~", "2026-11-01T07:00:00Z", "2026-11-01-07:00", 2, 1),
        ("+", "2026-11-02T07:00:00Z", "2026-11-02-07:00", None, 2),
        ("-", "2026-11-02T08:00:00Z", None, 1, None),
    ]
    causes = [{one["cause"]: one["share"] for one in row["causes"]} for row in found.json()["differences"]]
    assert causes == [{"definition": -1}, {"not computed": 2}, {"definition": -1}]
    for bucket, what in [
        ("2026-11-01", "the rules of America/Vancouver changed in tzdata"),
        ("2026-11-02T08:00:00Z", "America/Vancouver has no such bucket any more in tzdata"),
    ]:
        [first, rest] = pik("explain", "daily", "a", bucket, "--format", "json").json()["causes"]
        assert (first["cause"], first["share"], rest["share"]) == ("definition", -1, 0)
        assert f"computed with tzdata 2026.1; {what}" in first["detail"]
    findings = rows(pik("triage", "--format", "json"), "findings", "what")
    assert any("the rules of America/Vancouver changed" in what for (what,) in findings)
    checked = pik("verify", "--format", "json").json()
    assert (checked["damage"], checked["uncertain_aggregates"]) == (0, 2)
    assert pik(*replayed).code == 0
    assert pik("diff", "aggregates", "--metric", "daily").code == 0
    # A release that changes other zones changes nothing.
    with other_rules("Europe/Berlin", "Europe/London"):
        assert pik("verify", "--format", "json").json()["uncertain_aggregates"] == 0


def test_hours_months_and_weeks_follow_the_calendar(berlin: Callable[..., Any]) -> None:
    found = berlin("diff", "aggregates", "--metric", "hourly", "--format", "json")
    assert rows(found, "differences", "bucket_local", "recomputed") == [
        ("2026-03-28T23:00:00+01:00", 1),
        ("2026-03-29T00:00:00+01:00", 1),
        ("2026-03-29T01:00:00+01:00", 1),
        ("2026-03-29T03:00:00+02:00", 1),
        ("2026-03-29T23:00:00+02:00", 1),
        ("2026-03-30T00:00:00+02:00", 1),
    ]
    found = berlin("diff", "aggregates", "--metric", "monthly", "--metric", "weekly", "--format", "json")
    assert rows(found, "differences", "metric", "bucket", "bucket_local", "recomputed") == [
        ("monthly", "2026-02-28T23:00:00Z", "2026-03-01+01:00", 6),
        ("weekly", "2026-03-23T00:00:00Z", None, 6),
    ]


def test_buckets_that_no_calendar_has_are_refused_with_the_reason(berlin: Callable[..., Any]) -> None:
    for bucket, zone, reason in [
        ("15m", "Europe/Berlin", "invalid bucket '15m': with a timezone it is one of 1h, 1d, 1w, 1mo"),
        ("1d", "Berlin", "unknown time zone 'Berlin'"),
        ("1d", "", "unknown time zone ''"),
        ("2mo", None, "invalid bucket '2mo'"),
    ]:
        text = f'name = "m"\nvalue = "count(*)"\nbucket = "{bucket}"\n'
        Path("m.toml").write_text(text + (f'timezone = "{zone}"\n' if zone is not None else ""))
        refused = berlin("metrics", "apply", "m.toml")
        assert (refused.code, reason in refused.err) == (2, True), refused.err

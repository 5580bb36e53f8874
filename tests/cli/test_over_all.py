"""Metrics over all entities (`per = "all"`) in each command that has values."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

METRICS = """
[[metric]]
name = "daily_users"
value = "count(DISTINCT entity_id)"
per = "all"
[[metric]]
name = "takings"
value = "sum((payload->>'$.v')::DECIMAL(18, 2))"
per = "all"
[[metric]]
name = "revenue"
value = "sum((payload->>'$.v')::DECIMAL(18, 2))"
"""
EVENTS = [  # entity, time, value
    ("a", "2026-01-01T01:00:00Z", "1.50"),
    ("a", "2026-01-01T23:00:00Z", "2.25"),
    ("b", "2026-01-01T05:30:00Z", "0.1"),
    ("b", "2026-01-02T05:40:00Z", "-0.2"),
    ("c", "2026-01-02T12:00:00Z", "7"),
]
LATE = [("d", "2026-01-02T13:00:00Z", "0.75"), ("a", "2026-01-01T02:00:00Z", "10")]


def write(name: str, events: list[tuple[str, str, str]]) -> None:
    lines = [
        {"source": "web", "event_type": "paid", "entity_id": entity, "event_time": time, "payload": {"v": value}}
        for entity, time, value in events
    ]
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def truth(events: list[tuple[str, str, str]]) -> dict[tuple[str, str], Decimal]:
    users: dict[str, set[str]] = defaultdict(set)
    found: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for entity, time, value in events:
        users[time[:10]].add(entity)
        found["takings", time[:10]] += Decimal(value)
    return {**found, **{("daily_users", day): Decimal(len(of)) for day, of in users.items()}}


@pytest.fixture
def shop(pik: Callable[..., Any], once: Callable[..., None]) -> Callable[..., Any]:
    def make() -> None:
        write("events.jsonl", EVENTS)
        assert pik("ingest", "events.jsonl").code == 0
        Path("metrics.toml").write_text(METRICS)
        assert pik("metrics", "apply", "metrics.toml").code == 0
        assert pik("replay", "--all", "--promote", "--yes").code == 0

    once(make)
    return pik


@pytest.fixture
def late(shop: Callable[..., Any]) -> Callable[..., Any]:
    write("late.jsonl", LATE)
    assert shop("ingest", "late.jsonl").code == 0
    return shop


def values(result: Any) -> dict[tuple[str, str], Decimal]:
    rows = [row for row in result.json()["aggregates"] if row["entity_id"] is None]
    return {(row["metric"], row["bucket"][:10]): Decimal(row["value"]) for row in rows}


ONLY = ("--metric", "daily_users", "--metric", "takings")


def test_values_are_null_entities_in_json_and_csv_and_all_in_tables(shop: Callable[..., Any]) -> None:
    assert values(shop("aggregates", "--format", "json")) == truth(EVENTS)
    table = shop("aggregates", "--metric", "daily_users").out
    assert table.count("(all)") == 2
    rows = list(csv.DictReader(io.StringIO(shop("aggregates", "--metric", "daily_users", "--format", "csv").out)))
    assert [row["entity_id"] for row in rows] == ["", ""]
    assert "(all)" in shop("aggregates", "--metric", "daily_users", "--format", "md").out


def test_a_replay_repairs_what_came_late(late: Callable[..., Any]) -> None:
    before, after = truth(EVENTS), truth(EVENTS + LATE)
    found = late("diff", "aggregates", *ONLY, "--explain", "--format", "json")
    assert found.code == 1
    rows = found.json()["differences"]
    assert {(row["metric"], row["bucket"][:10]): Decimal(row["delta"]) for row in rows} == {
        key: after[key] - before[key] for key in after if after[key] != before[key]
    }
    for row in rows:
        assert row["entity_id"] is None
        assert [cause["cause"] for cause in row["causes"]] == ["late"]
        assert Decimal(row["causes"][0]["share"]) == Decimal(row["delta"])
        assert row["proven"]
    assert late("replay", "--all", "--promote", "--yes").code == 0
    assert values(late("aggregates", "--format", "json")) == after
    assert late("diff", "aggregates").code == 0
    assert late("triage").code == 0
    assert late("verify", "--full").code == 0


def test_explain_takes_no_entity_for_such_a_metric_and_needs_one_for_others(late: Callable[..., Any]) -> None:
    found = late("explain", "takings", "2026-01-02", "--events", "--column", "payload.v", "--format", "json")
    assert found.code == 1
    explained = found.json()
    assert (explained["entity_id"], explained["delta"], explained["proven"]) == (None, "0.75", True)
    assert [(row["cause"], row["values"]) for row in explained["events"]] == [("late", {"payload.v": "0.75"})]
    assert "--all --metric takings" in explained["next"]
    given = late("explain", "takings", "a", "2026-01-02")
    assert given.code == 2
    assert "takings is over all entities, so there is no value of 'a'" in given.err
    assert "leave ENTITY out: pik explain takings 2026-01-02" in given.err
    lacking = late("explain", "revenue", "2026-01-02")
    assert lacking.code == 2
    assert "revenue has a value for each entity, and none is named" in lacking.err
    assert late("explain", "takings", "2026-05-02").code == 2
    assert late("explain", "takings", "a", "b", "c").code == 2
    assert late("explain", "takings").code == 2


def test_with_an_entity_they_are_left_out_and_named(late: Callable[..., Any]) -> None:
    write("log.jsonl", [*EVENTS, *LATE, ("a", "2026-01-01T04:00:00Z", "3")])
    commands = {
        ("aggregates",): 0,
        ("aggregates", "--total"): 0,
        ("diff", "aggregates"): 1,
        ("diff", "aggregates", "--total"): 1,
        ("replay",): 0,
        ("replay", "--dry-run"): 0,
        ("lag", "--late"): 0,
        ("duplicates", "--impact"): 0,
        ("history",): 0,
        ("sql", "SELECT * FROM aggregates"): 0,
        ("diff", "events", "log.jsonl"): 1,
    }
    for words, code in commands.items():
        result = late(*words, "--entity", "a", "--format", "json")
        assert result.code == code, (words, result.err)
        assert result.json()["metrics_left_out"] == ["daily_users", "takings"], words
        assert "daily_users, takings are over all entities, and left out because of --entity" in result.err, words
        assert "daily_users@1" not in result.out, words
    for words in (("aggregates",), ("diff", "aggregates"), ("replay",), ("lag", "--late"), ("history",)):
        refused = late(*words, "--entity", "a", "--metric", "daily_users")
        assert refused.code == 2, words
        assert "hint: leave --entity out" in refused.err, words
    found = late("triage", "--entity", "a", "--format", "json").json()
    assert {finding["metric"] for finding in found["findings"]} <= {"revenue", "event_count", None}
    assert "daily_users, takings" in found["checks"][0]["note"]


def test_late_events_move_values_over_all(late: Callable[..., Any]) -> None:
    rows = late("lag", "--late", *ONLY, "--format", "json").json()["late_values"]
    before, after = truth(EVENTS), truth(EVENTS + LATE)
    assert {(row["metric"], row["bucket"][:10]): Decimal(row["delta"]) for row in rows} == {
        key: after[key] - before[key] for key in after
    }
    assert all(row["entity_id"] is None and row["late_events"] == 1 and row["proven"] for row in rows)
    found = late("events", "--not-counted", "daily_users", "--format", "json").json()["events"]
    assert {row["entity_id"] for row in found} == {"a", "d"}
    assert [
        row["entity_id"]
        for row in late("events", "--not-counted", "daily_users", "--entity", "d", "--format", "json").json()["events"]
    ] == ["d"]


def test_an_event_shows_the_values_over_all_that_count_it(late: Callable[..., Any]) -> None:
    [event] = late("events", "--entity", "c", "--format", "json").json()["events"]
    shown = late("show", event["event_id"], "--format", "json").json()["aggregates"]
    assert {(row["metric"], row["entity_id"]) for row in shown} == {
        ("daily_users", None),
        ("takings", None),
        ("event_count", "c"),
        ("revenue", "c"),
    }
    [event] = late("events", "--entity", "d", "--format", "json").json()["events"]
    assert late("show", event["event_id"], "--format", "json").json()["aggregates"] == []


def test_duplicates_and_missing_events_move_values_over_all(shop: Callable[..., Any]) -> None:
    assert shop("ingest", "events.jsonl", "--again").code == 0
    impact = shop("duplicates", "--impact", "--format", "json").json()
    by_name = {row["metric"]: row for row in impact["metrics"]}
    total = sum(Decimal(value) for _, _, value in EVENTS)
    assert Decimal(by_name["takings@1"]["total"]) == total
    assert Decimal(by_name["takings@1"]["delta"]) == total
    assert by_name["daily_users@1"]["differing"] == 0
    write("log.jsonl", EVENTS + LATE)
    found = shop("diff", "events", "log.jsonl", "--format", "json").json()
    differing = {(row["metric"], row["bucket"][:10]): row for row in found["differing_values"]}
    assert {key: Decimal(row["delta"]) for key, row in differing.items()} == {("daily_users", "2026-01-02"): 1}
    assert differing["daily_users", "2026-01-02"]["entity_id"] is None


def test_sums_over_all_add_up_over_buckets_and_distinct_counts_do_not(shop: Callable[..., Any]) -> None:
    [row] = shop("aggregates", "--total", "--metric", "takings", "--format", "json").json()["totals"]
    assert Decimal(row["value"]) == sum(Decimal(value) for _, _, value in EVENTS)
    refused = shop("aggregates", "--total", "--metric", "daily_users")
    assert refused.code == 2
    assert "count(DISTINCT entity_id) may count one value in several entities or buckets" in refused.err


def test_sql_has_null_for_the_entity(late: Callable[..., Any]) -> None:
    text = "SELECT count(*) AS n, count(entity_id) AS named FROM {} WHERE metric = 'takings'"
    for table in ("aggregates", "differences"):
        [row] = late("sql", text.format(table), "--format", "json").json()["rows"]
        assert (row["n"], row["named"]) == (2, 0)


def test_a_file_needs_no_column_of_entities(shop: Callable[..., Any]) -> None:
    Path("users.csv").write_text("day,daily_users,takings\n2026-01-01,2,3.85\n2026-01-02,3,6.8\n")
    found = shop("diff", "aggregates", "--against", "users.csv", "--format", "json")
    assert found.code == 1
    [row] = found.json()["differences"]
    assert (row["metric"], row["bucket"][:10], row["entity_id"]) == ("daily_users", "2026-01-02", None)
    assert (row["current"], row["recomputed"], row["delta"]) == (3, 2, -1)
    against = found.json()["against"]
    assert (against["entity"], against["numbers"], against["of_entities"]) == (None, 4, 0)
    assert "4 numbers over all entities" in shop("diff", "aggregates", "--against", "users.csv").out
    days = [date(2026, 1, 1), date(2026, 1, 2)]
    parquet.write_table(pa.table({"day": days, "daily_users": [2, 3]}), "users.parquet")
    same = shop("diff", "aggregates", "--against", "users.parquet", "--format", "json")
    assert same.json()["differences"] == [row]
    totals = shop("diff", "aggregates", "--against", "users.csv", "--metric", "takings", "--total", "--format", "json")
    assert totals.code == 0
    other = ("--value", "daily_users=takings", "--metric", "daily_users")
    assert shop("diff", "aggregates", "--against", "users.csv", *other).code == 1
    refused = shop("diff", "aggregates", "--against", "users.csv", "--value", "revenue=takings")
    assert refused.code == 2
    assert "column with a usual name of the entity" in refused.err


def test_what_is_listed_can_be_compared_again(shop: Callable[..., Any]) -> None:
    Path("all.csv").write_text(shop("aggregates", "--format", "csv").out)
    same = shop("diff", "aggregates", "--against", "all.csv", "--stats", "--format", "json")
    assert same.code == 0
    assert same.json()["compared"] == len(shop("aggregates", "--format", "json").json()["aggregates"])
    assert shop("diff", "aggregates", "--against", "all.csv", "--entity", "a").code == 0
    Path("wrong.csv").write_text("day,customer,daily_users\n2026-01-01,a,2\n")
    refused = shop("diff", "aggregates", "--against", "wrong.csv")
    assert refused.code == 2
    assert "wrong.csv, line 2: customer: daily_users is over all entities, and this row is of 'a'" in refused.err
    Path("long.csv").write_text("day,metric,value\n2026-01-01,takings,3.85\n2026-01-02,takings,6.8\n")
    assert shop("diff", "aggregates", "--against", "long.csv").code == 0
    Path("long.csv").write_text("day,metric,value\n2026-01-01,takings,3.85\n2026-01-01,revenue,1\n")
    refused = shop("diff", "aggregates", "--against", "long.csv")
    assert refused.code == 2
    assert "long.csv, line 3: no entity: the file has no column of them" in refused.err
    Path("twice.csv").write_text("day,takings\n2026-01-01,1\n2026-01-01,1\n")
    refused = shop("diff", "aggregates", "--against", "twice.csv")
    assert "takings of all entities in 2026-01-01T00:00:00Z is already in line 2" in refused.err


def test_numbers_from_outside_are_imported_without_entities(shop: Callable[..., Any]) -> None:
    Path("users.csv").write_text("day,users\n2026-01-01,2\n2026-01-02,30\n")
    of = ("aggregates", "import", "users.csv", "--metric", "daily_users")
    done = shop(*of, "--yes", "--format", "json").json()
    assert (done["new"], done["changed"], done["same"], done["moved"], done["of_entities"]) == (0, 1, 1, 1, 0)
    assert values(shop("aggregates", "--format", "json"))["daily_users", "2026-01-02"] == 30
    found = shop("explain", "daily_users", "2026-01-02", "--format", "json")
    assert found.code == 1
    assert next((row["cause"], row["share"]) for row in found.json()["causes"]) == ("imported", -28)
    assert shop("aggregates", "import", "users.csv", "--metric", "daily_users", "--entity", "a", "--yes").code == 2
    assert shop("rollback", done["run_id"], "--yes").code == 0
    assert values(shop("aggregates", "--format", "json")) == truth(EVENTS)


def test_sides_that_are_recorded_have_them(late: Callable[..., Any]) -> None:
    run = late("replay", "--all", "--format", "json").json()["run_id"]
    rows = late("diff", "aggregates", "--run", run, *ONLY, "--format", "json").json()["differences"]
    before, after = truth(EVENTS), truth(EVENTS + LATE)
    changed = {key for key in after if after[key] != before[key]}
    assert {(row["metric"], row["bucket"][:10]) for row in rows} == changed
    assert late("promote", run, "--yes").code == 0
    found = late("diff", "aggregates", "--left", f"run:{run}", "--right", "current", *ONLY)
    assert found.code == 0
    assert late("rollback", run, "--yes").code == 0
    assert values(late("aggregates", "--format", "json")) == before


def test_damaged_raw_is_told_from_a_value_over_all(shop: Callable[..., Any]) -> None:
    [segment] = [one for one in Path(".pik/raw/event_date=2026-01-02").iterdir() if one.suffix == ".zst"]
    segment.chmod(0o644)
    segment.write_bytes(segment.read_bytes()[:-4] + b"\0\0\0\0")
    listed = shop("diff", "aggregates", "--format", "csv").out.splitlines()
    assert {tuple(row.split(",")[index] for index in (0, 3, 10, 11)) for row in listed if "-02T" in row} == {
        ("!", "", "", "")
    }
    assert "(all)" not in shop("diff", "aggregates", "--metric", "event_count").out
    found = shop("diff", "aggregates", "--total", *ONLY[2:], "--format", "json")
    assert found.code == 3
    [row] = found.json()["totals"]
    assert (row["current"], row["recomputed"], row["not_computed"]) == (None, None, 1)
    result = shop("replay", "--all", "--format", "json")
    assert result.code == 3
    assert shop("explain", "takings", "2026-01-02").code == 3


def test_a_definition_keeps_what_it_is_per(shop: Callable[..., Any]) -> None:
    for text in ('name = "revenue"\nvalue = "count(*)"\nper = "all"', 'name = "takings"\nvalue = "count(*)"'):
        Path("other.toml").write_text(text)
        refused = shop("metrics", "apply", "other.toml")
        assert refused.code == 2
        assert "a metric keeps that" in refused.err
    Path("other.toml").write_text('name = "x"\nvalue = "count(*)"\nper = "team"')
    refused = shop("metrics", "apply", "other.toml")
    assert refused.code == 2
    assert """per must be "entity" or "all", not 'team'""" in refused.err
    listed = shop("metrics", "list", "--format", "json").json()["metrics"]
    assert {row["name"]: row["per"] for row in listed} == {
        "daily_users": "all",
        "takings": "all",
        "revenue": "entity",
        "event_count": "entity",
    }


def test_backup_and_pull_take_them_along(shop: Callable[..., Any]) -> None:
    expected = values(shop("aggregates", "--format", "json"))
    assert shop("backup", "state.backup").code == 0
    assert shop("pull", "--into", "copy", "--store", ".pik").code == 0
    assert values(shop("aggregates", "--format", "json", "--store", "copy")) == expected
    assert shop("diff", "aggregates", "--store", "copy").code == 0
    assert shop("explain", "takings", "2026-01-01", "--store", "copy").code == 0
    assert shop("pull", "--into", "some", "--store", ".pik", "--entity", "a").code == 0
    of_one = shop("diff", "aggregates", "--store", "some", "--entity", "a", "--format", "json")
    assert of_one.code == 0
    assert of_one.json()["metrics_left_out"] == ["daily_users", "takings"]
    refused = shop("explain", "takings", "2026-01-01", "--store", "some")
    assert refused.code == 4
    assert "does not hold" in refused.err


def test_a_value_over_all_that_is_not_proven_any_more_is_named(late: Callable[..., Any]) -> None:
    assert late("replay", "--all", "--promote", "--yes").code == 0
    lost = max(Path(".pik/raw/event_date=2026-01-02").glob("*.zst"))
    lost.unlink()
    found = late("verify", "--format", "json")
    assert found.code == 1
    rows = [row for row in found.json()["problems"] if row["what"] in ("daily_users", "takings")]
    assert {(row["what"], row["kind"], row["entity_id"], row["entities"]) for row in rows} == {
        ("daily_users", "not proven", None, None),
        ("takings", "not proven", None, None),
    }
    assert late("verify").out.count("(all)") == 2

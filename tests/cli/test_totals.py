"""`--total` and `--by` of `pik aggregates` and `pik diff aggregates`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

AMOUNT = "(payload->>'v')::DECIMAL(18, 2)"
METRICS = f"""
[[metric]]
name = "revenue"
value = "sum({AMOUNT})"
[[metric]]
name = "best"
value = "max({AMOUNT})"
bucket = "1h"
[[metric]]
name = "net"
value = "coalesce(sum({AMOUNT}), 0) - count(*)"
"""
EVENTS = [  # entity, time, value
    ("a", "2026-01-01T01:00:00Z", "1.50"),
    ("a", "2026-01-01T23:00:00Z", "2.25"),
    ("b", "2026-01-01T05:30:00Z", "0.1"),
    ("b", "2026-01-02T05:40:00Z", "-0.2"),
    ("c", "2026-01-03T12:00:00Z", "99999999999999.99"),
]


def ingest(pik: Callable[..., Any], name: str, events: list[tuple[str, str, str]]) -> None:
    def line(entity: str, time: str, value: str) -> str:
        event = {"source": "web", "event_type": "paid", "entity_id": entity, "event_time": time}
        return json.dumps(event)[:-1] + f', "payload": {{"v": {value}}}}}\n'

    Path(name).write_text("".join(line(*each) for each in events))
    assert pik("ingest", name).code == 0


@pytest.fixture
def shop(pik: Callable[..., Any], once: Callable[..., None]) -> Callable[..., Any]:
    def make() -> None:
        ingest(pik, "events.jsonl", EVENTS)
        Path("metrics.toml").write_text(METRICS)
        assert pik("metrics", "apply", "metrics.toml").code == 0
        assert pik("replay", "--all", "--promote", "--yes").code == 0

    once(make)
    return pik


def totals(pik: Callable[..., Any], *arguments: str, code: int = 0) -> dict[Any, Any]:
    """The totals by (metric, bucket or run)."""
    result = pik(*arguments, "--format", "json")
    assert result.code == code, result.err
    found = json.loads(result.out, parse_float=Decimal)
    return {(row["metric"], row.get("bucket") or row.get("run_id")): row for row in found["totals"]}


def test_totals_of_current_values_are_exact(shop: Callable[..., Any]) -> None:
    found = totals(shop, "aggregates", "--total")
    values = [Decimal(value) for _, _, value in EVENTS]
    expected = {"revenue": sum(values), "best": max(values), "net": sum(values) - 5, "event_count": 5}
    assert {metric: row["value"] for (metric, _), row in found.items()} == expected
    counts = {"revenue": 4, "best": 5, "net": 4, "event_count": 4}
    assert {metric: row["of_values"] for (metric, _), row in found.items()} == counts
    assert found["best", None]["combination"] == "max"
    days: dict[str, Decimal] = defaultdict(Decimal)
    for _, time, value in EVENTS:
        days[f"{time[:10]}T00:00:00Z"] += Decimal(value)
    by_day = totals(shop, "aggregates", "--metric", "revenue", "--by", "bucket")
    assert {bucket: row["value"] for (_, bucket), row in by_day.items()} == dict(days)
    of_one = totals(shop, "aggregates", "--metric", "revenue", "--by", "metric", "--entity", "b", "--to", "2026-01-02")
    assert [row["value"] for row in of_one.values()] == [Decimal("0.10")]
    assert "100000000000003.64" in shop("aggregates", "--metric", "revenue", "--total").out


def test_totals_by_run_say_which_run_wrote_how_much(shop: Callable[..., Any]) -> None:
    ingest(shop, "late.jsonl", [("a", "2026-01-01T02:00:00Z", "10")])
    again = json.loads(shop("replay", "--entity", "a", "--promote", "--yes", "--format", "json").out)["run_id"]
    found = totals(shop, "aggregates", "--metric", "revenue", "--by", "run")
    assert len(found) == 2
    assert (found["revenue", again]["value"], found["revenue", again]["of_values"]) == (Decimal("13.75"), 1)
    assert sum(row["value"] for row in found.values()) == sum(Decimal(value) for _, _, value in EVENTS) + 10


@pytest.mark.parametrize("command", [["aggregates"], ["diff", "aggregates"]])
def test_a_metric_that_does_not_add_up_is_refused_with_the_reason(shop: Callable[..., Any], command: list[str]) -> None:
    Path("m.toml").write_text('name = "users"\nvalue = "count(DISTINCT entity_id)"\n')
    shop("metrics", "apply", "m.toml")
    shop("replay", "--all", "--metric", "users", "--promote", "--yes")
    result = shop(*command, "--total")
    assert (result.code, result.out) == (2, "")
    assert "there is no total of users: count(DISTINCT entity_id) may count one value in several" in result.err
    assert shop(*command, "--total", "--metric", "revenue").code == 0


def test_values_of_definitions_that_combine_in_two_ways_have_no_total(shop: Callable[..., Any]) -> None:
    Path("m.toml").write_text(f'name = "best"\nbucket = "1h"\nvalue = "sum({AMOUNT})"\n')
    shop("metrics", "apply", "m.toml")
    assert totals(shop, "aggregates", "--metric", "best", "--total")["best", None]["combination"] == "max"
    shop("replay", "--entity", "b", "--metric", "best", "--promote", "--yes")
    result = shop("aggregates", "--metric", "best", "--total")
    assert (result.code, "two ways" in result.err) == (2, True)
    assert shop("aggregates", "--metric", "best@1", "--total").code == 0


def test_nothing_to_add_up_says_so_and_versions_are_refused(shop: Callable[..., Any]) -> None:
    assert "no current value" in shop("aggregates", "--total", "--from", "2027-01-01").out
    result = shop("aggregates", "--total", "--history")
    assert (result.code, "--history lists versions" in result.err) == (2, True)


def test_totals_of_both_sides_and_whether_any_value_differs(shop: Callable[..., Any]) -> None:
    equal = totals(shop, "diff", "aggregates", "--total", "--metric", "revenue")
    revenue = sum(Decimal(value) for _, _, value in EVENTS)
    [row] = equal.values()
    assert (row["current"], row["recomputed"], row["delta"], row["of_values"], row["differing"]) == (
        *[revenue] * 2,
        0,
        4,
        0,
    )
    ingest(shop, "late.jsonl", [("a", "2026-01-01T02:00:00Z", "10"), ("b", "2026-01-02T02:00:00Z", "-10")])
    found = totals(shop, "diff", "aggregates", "--total", "--metric", "revenue", "--metric", "best", code=1)
    row = found["revenue", None]  # the differences cancel each other out
    assert (row["current"], row["recomputed"], row["delta"], row["differing"]) == (revenue, revenue, 0, 2)
    days = totals(shop, "diff", "aggregates", "--by", "bucket", "--metric", "revenue", code=1)
    assert [row["delta"] for row in days.values()] == [10, -10, 0]
    assert totals(shop, "diff", "aggregates", "--total", "--metric", "revenue", "--tolerance", "10")
    runs = totals(shop, "diff", "aggregates", "--by", "run", "--metric", "event_count", code=1)
    assert sum(row["delta"] for row in runs.values()) == 2
    hours = totals(shop, "diff", "aggregates", "--by", "bucket", "--metric", "best", "--entity", "b", code=1)
    added = hours["best", "2026-01-02T02:00:00Z"]
    assert (added["current"], added["recomputed"], added["delta"]) == (None, -10, None)


def test_the_total_of_a_ledger_against_raw_and_against_current_values(shop: Callable[..., Any]) -> None:
    Path("ledger.csv").write_text("day,entity,revenue\n2026-01-01,a,3.70\n2026-01-01,b,0.15\n2026-01-09,z,1\n")
    for right in ((), ("--right", "current")):
        [row] = totals(shop, "diff", "aggregates", "--against", "ledger.csv", "--total", *right, code=1).values()
        revenue = sum(Decimal(value) for _, _, value in EVENTS)
        assert (row["current"], row["recomputed"], row["delta"]) == (
            Decimal("4.85"),
            revenue,
            revenue - Decimal("4.85"),
        )
        assert (row["of_values"], row["differing"]) == (5, 5)


def test_what_cannot_be_computed_leaves_no_total(shop: Callable[..., Any]) -> None:
    ingest(shop, "wrong.jsonl", [("b", "2026-01-01T02:00:00Z", '"many"')])
    [row] = totals(shop, "diff", "aggregates", "--total", "--metric", "revenue", code=3).values()
    assert (row["recomputed"], row["delta"], row["not_computed"]) == (None, None, 1)
    assert row["current"] == sum(Decimal(value) for _, _, value in EVENTS)  # all current values are known


def test_totals_go_without_what_is_about_rows(shop: Callable[..., Any]) -> None:
    for option in ("--stats", "--explain", "--changed-only"):
        assert shop("diff", "aggregates", "--total", option).code == 2
    Path("ledger.csv").write_text("day,entity,revenue\n2026-01-01,a,3.70\n")
    assert "have no run" in shop("diff", "aggregates", "--against", "ledger.csv", "--by", "run").err

"""metrics retire and reinstate: a retired metric keeps its values, and no command computes or compares it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REVENUE = 'name = "revenue"\nvalue = "sum((payload->>\'$.v\')::DECIMAL(18, 2))"\n'
REFUSED = "revenue is retired since 2"


def event(day: int, value: int) -> str:
    at = f"2026-03-0{day}T00:00:00Z"
    told = {"source": "s", "event_type": "paid", "entity_id": "e", "event_time": at, "payload": {"v": value}}
    return json.dumps(told) + "\n"


@pytest.fixture
def shop(pik: Callable[..., Any], once: Callable[[Callable[[], object]], None], tmp_path: Path) -> Callable[..., Any]:
    """Current values of two metrics, of which two days have late events, and revenue retired."""

    def build() -> None:
        (tmp_path / "revenue.toml").write_text(REVENUE)
        (tmp_path / "first.jsonl").write_text(event(1, 5) + event(2, 7))
        (tmp_path / "late.jsonl").write_text(event(1, 1) + event(2, 2) + event(3, 3))
        for line in (
            ("ingest", "first.jsonl"),
            ("metrics", "apply", "revenue.toml"),
            ("replay", "--all", "--promote", "--yes"),
            ("ingest", "late.jsonl"),
            ("metrics", "retire", "revenue", "--reason", "nobody looks at it", "--yes", "--actor", "ana"),
        ):
            assert pik(*line).code == 0, line

    once(build)
    return pik


def shown(pik: Callable[..., Any], *line: str, code: int = 0) -> Any:
    result = pik(*line, "--format", "json")
    assert result.code == code, result.err
    return result.json()


def test_what_is_retired_is_neither_computed_nor_compared(shop: Callable[..., Any]) -> None:
    differences = shown(shop, "diff", "aggregates", code=1)
    assert {row["metric"] for row in differences["differences"]} == {"event_count"}
    assert len(differences["differences"]) == 3
    assert {row["metric"] for row in shown(shop, "lag", "--late")["late_values"]} == {"event_count"}
    found = shown(shop, "triage", code=1)["findings"]
    assert {row["metric"] for row in found} == {"event_count"}
    checked = shown(shop, "verify")
    assert (checked["aggregates"], checked["metrics_retired"]) == (2, ["revenue"])
    assert shown(shop, "replay", "--all")["new"] == 1
    left = shown(shop, "diff", "aggregates", "--left", "current@2026-03-01", "--right", "current", code=1)
    assert {row["metric"] for row in left["differences"]} == {"event_count"}
    [batch, *_] = shown(shop, "batches")["batches"]
    planned = shown(shop, "correct", "--assume", f"without-batch={batch['batch_id']}", "--reason", "x", "--dry-run")
    assert [row["metric"] for row in planned["metrics"]] == ["event_count@1"]


@pytest.mark.parametrize(
    "line",
    [
        ("replay", "--all", "--metric", "revenue"),
        ("diff", "aggregates", "--metric", "revenue@1"),
        ("diff", "aggregates", "--left", "current@2026-03-01", "--right", "current", "--metric", "revenue"),
        ("diff", "aggregates", "--assume", "definition=@revenue.toml"),
        ("explain", "revenue", "e", "2026-03-01"),
        ("lag", "--late", "--metric", "revenue"),
        ("events", "--not-counted", "revenue"),
        ("sql", "FROM differences", "--metric", "revenue"),
        ("metrics", "retire", "revenue", "--reason", "again", "--yes"),
    ],
    ids=" ".join,
)
def test_naming_it_is_refused_with_who_retired_it_when_and_why(shop: Callable[..., Any], line: tuple[str, ...]) -> None:
    result = shop(*line)
    assert (result.code, result.out) == (2, "")
    assert REFUSED in result.err
    assert "by ana (nobody looks at it)" in result.err


def test_its_values_stay_and_are_marked(shop: Callable[..., Any]) -> None:
    rows = shown(shop, "aggregates")["aggregates"]
    assert [row["value"] for row in rows if row["metric"] == "revenue"] == ["5.00", "7.00"]
    assert {row["metric"] for row in rows if row["retired_at"]} == {"revenue"}
    assert [row["value"] for row in shown(shop, "aggregates", "--metric", "revenue")["aggregates"]] == ["5.00", "7.00"]
    text = shop("aggregates").out
    assert "retired at" in text
    columns = shown(shop, "sql", "SELECT DISTINCT metric FROM aggregates WHERE retired_at IS NOT NULL")
    assert columns["rows"] == [{"metric": "revenue"}]
    history = shown(shop, "history", "--check")["history"]
    assert (history[0]["what"], history[0]["id"], history[0]["actor"]) == ("retirement", "revenue@2", "ana")
    [run] = [row for row in history if row["what"] == "run"]
    assert (run["as_left"], run["right_today"], run["of_retired"]) == (4, 0, 2)
    assert [row["retired_at"] is None for row in shown(shop, "metrics", "list")["metrics"]] == [True, False]


def test_another_definition_waits_until_it_is_reinstated(shop: Callable[..., Any], tmp_path: Path) -> None:
    [same] = shown(shop, "metrics", "apply", "revenue.toml")["metrics"]
    assert (same["version"], same["what"]) == (2, "retired")
    (tmp_path / "other.toml").write_text(REVENUE.replace("sum", "max"))
    refused = shop("metrics", "apply", "other.toml")
    assert (refused.code, REFUSED in refused.err) == (2, True)
    assert refused.err.endswith("pik metrics reinstate revenue\n")
    assert shown(shop, "metrics", "reinstate", "revenue", "--dry-run")["version"] == 3
    assert len(shown(shop, "metrics", "show", "revenue")["versions"]) == 2
    assert shop("metrics", "reinstate", "revenue").code == 2  # it asks
    done = shown(shop, "metrics", "reinstate", "revenue", "--yes")
    assert (done["what"], done["version"], done["reason"]) == ("reinstated", 3, None)
    assert shop("metrics", "reinstate", "revenue", "--yes").code == 2
    found = shown(shop, "diff", "aggregates", "--metric", "revenue", "--explain", code=1)["differences"]
    assert [row["current"] for row in found] == ["5.00", "7.00", None]
    assert [row["recomputed"] for row in found] == ["6.00", "9.00", "3.00"]
    assert {cause["cause"] for row in found[:2] for cause in row["causes"]} == {"late"}
    assert shown(shop, "metrics", "apply", "other.toml")["metrics"][0]["version"] == 4
    assert [row["what"] for row in shown(shop, "history", "--metric", "revenue")["history"][:3]] == [
        "metric",
        "reinstatement",
        "retirement",
    ]


def test_with_every_metric_retired_what_computes_none_still_works(shop: Callable[..., Any]) -> None:
    assert shop("metrics", "retire", "event_count", "--reason", "", "--yes").code == 2
    assert shop("metrics", "retire", "event_count", "--reason", "not used", "--yes").code == 0
    for line in (("replay", "--all"), ("diff", "aggregates")):
        result = shop(*line)
        assert (result.code, "every metric is retired" in result.err) == (2, True)
    assert shown(shop, "triage")["findings"] == []
    assert shown(shop, "verify")["aggregates"] == 0
    assert shop("diff", "events", "late.jsonl", "first.jsonl").code == 0

"""`pik diff events`: a producer's log against the store."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pik.usecases.inspect import log_changes, reconcile

Pik = Callable[..., Any]


def event(second: int, v: int, **more: Any) -> dict[str, Any]:
    time = f"2026-01-01T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"
    fields = {"source": "web", "event_type": "paid", "entity_id": "a", "event_time": time, "payload": {"v": v}}
    return {**fields, **more}


def write(path: Path, *events: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in events))
    return path.name


METRICS = """
[[metric]]
name = "revenue"
value = "sum((payload->>'v')::BIGINT)"

[[metric]]
name = "largest"
value = "max((payload->>'v')::BIGINT)"
"""

BOTH, MISSING, UNEXPECTED = event(0, 1), event(3700, 2, extra_field=[1.50]), event(20, 4)
STORED, LOGGED = event(40, 8, idempotency_key="k"), event(41, 16, idempotency_key="k")


@pytest.fixture
def shop(pik: Pik, tmp_path: Path) -> Pik:
    """One event of each kind: in both, missing, unexpected, and one whose content and time differ."""
    (tmp_path / "m.toml").write_text(METRICS)
    write(tmp_path / "stored.jsonl", BOTH, UNEXPECTED, STORED, event(80000, 32), event(5, 64, source="app"))
    write(tmp_path / "log.jsonl", BOTH, MISSING, LOGGED, BOTH)
    assert pik("ingest", "stored.jsonl").code == 0
    assert pik("metrics", "apply", "m.toml").code == 0
    return pik


def found(pik: Pik, *options: str, code: int = 1) -> Any:
    result = pik("diff", "events", *options, "--format", "json")
    assert result.code == code, result.err
    return json.loads(result.out)


def held(pik: Pik, directory: Path) -> tuple[list[Path], str]:
    """The files of the store, without what SQLite keeps beside its own, and what the index knows."""
    files = [path for path in sorted((directory / ".pik").rglob("*")) if path.suffix not in (".db-wal", ".db-shm")]
    return files, pik("status", "--format", "json").out


def test_each_event_is_in_both_missing_unexpected_or_different(shop: Pik, tmp_path: Path) -> None:
    before = held(shop, tmp_path)
    said = found(shop, "log.jsonl")
    assert [said[name] for name in ("both", "missing", "unexpected", "different")] == [1, 1, 1, 1]
    assert (said["read"], said["rejected"], said["repeated"]) == (4, 0, 1)
    rows = {row["finding"]: row for row in said["mismatches"]}
    assert (rows["missing"]["log"], rows["missing"]["record"], rows["missing"]["batch_id"]) == ("log.jsonl", 2, None)
    assert (rows["unexpected"]["seq"], rows["unexpected"]["log"]) == (2, None)
    assert (rows["different"]["record"], rows["different"]["seq"]) == (3, 3)
    hours = [[row[name] for name in ("hour", "both", "missing", "unexpected", "different")] for row in said["by_hour"]]
    assert hours == [["2026-01-01T00:00:00Z", 1, 0, 1, 1], ["2026-01-01T01:00:00Z", 0, 1, 0, 0]]
    assert held(shop, tmp_path) == before
    changes = {one["place"]: (one["events"], one["log_value"], one["store_value"]) for one in said["changes"]}
    assert changes == {
        "event_time": (1, "2026-01-01T00:00:41.000000000Z", "2026-01-01T00:00:40.000000000Z"),
        "payload.v": (1, 16, 8),
    }


def test_the_places_in_which_most_events_differ_come_first_and_the_others_are_counted(
    pik: Pik, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many events are compared at a time."""
    monkeypatch.setattr(log_changes, "_TOGETHER", 3)
    monkeypatch.setattr(log_changes, "_SHOWN", 2)
    sent = [event(n, n, idempotency_key=f"{n}") for n in range(1, 9)]
    write(tmp_path / "stored.jsonl", *sent)
    for n, one in enumerate(sent):
        one["payload"] |= {"v": 0} | ({"new": n} if n < 5 else {}) | ({"rare": 1} if n < 3 else {})
    write(tmp_path / "log.jsonl", *sent)
    assert pik("ingest", "stored.jsonl").code == 0
    first, second, others = found(pik, "log.jsonl")["changes"]
    assert (first["place"], first["events"], first["log_value"]) == ("payload.v", 8, 0)
    assert (second["place"], second["events"], second["store_value"]) == ("payload.new", 5, None)
    assert others == {
        "place": "(other places)",
        "events": None,
        "log_value": None,
        "store_value": None,
        "event_id": None,
    }


def test_the_scope_is_that_of_the_log_unless_given(shop: Pik) -> None:
    said = found(shop, "log.jsonl")
    assert said["window"] == {"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T01:01:40.000000001Z"}
    assert (said["scope_sources"], said["scope_event_types"], said["scope_entities"]) == (["web"], ["paid"], 1)
    archive = shutil.make_archive("log", "zip", ".", "log.jsonl")
    said = found(shop, archive, "--from", "2026-01-01", "--to", "2026-01-03")
    assert said["unexpected"] == 2
    said = found(shop, "log.jsonl", "--source", "web", "--source", "app")
    assert (said["unexpected"], said["scope_sources"]) == (2, ["web", "app"])
    said = found(shop, "log.jsonl", "--to", "2026-01-01T00:00:10Z", code=0)
    assert (said["both"], said["mismatches"]) == (1, [])
    said = found(shop, "log.jsonl", "--where", "(payload->>'v')::INT < 3")
    assert [said[name] for name in ("both", "missing", "unexpected", "different")] == [1, 1, 0, 0]


def test_what_the_store_has_at_another_time_is_different_and_not_missing(shop: Pik, tmp_path: Path) -> None:
    write(tmp_path / "moved.jsonl", BOTH, event(10, 8, idempotency_key="k"))
    said = found(shop, "moved.jsonl")
    assert [said[name] for name in ("both", "missing", "unexpected", "different")] == [1, 0, 0, 1]


@pytest.mark.parametrize("scope", [("--to", "2026-01-01T00:00:41Z"), ("--where", "(payload->>'v')::INT IN (1, 4, 8)")])
def test_what_the_log_has_outside_the_scope_under_the_same_key_is_not_unexpected(
    shop: Pik, scope: tuple[str, ...]
) -> None:
    said = found(shop, "log.jsonl", *scope)
    assert [said[name] for name in ("both", "missing", "unexpected", "different")] == [1, 0, 1, 1]
    assert sum(row["different"] for row in said["by_hour"]) == 1


def test_what_the_missing_events_would_add_is_what_with_computes(shop: Pik) -> None:
    said = found(shop, "log.jsonl", "--write", "missing.jsonl")
    metrics = {row["metric"]: (row["total"], row["total_assumed"], row["delta"]) for row in said["metrics"]}
    assert metrics == {"event_count@1": (5, 6, 1), "largest@1": (None, None, None), "revenue@1": (109, 111, 2)}
    assert said["differing_values"] == []
    shop("replay", "--all", "--promote", "--yes")
    archive = shutil.make_archive("missing", "gztar", ".", "missing.jsonl")
    changed = shop("diff", "aggregates", "--assume", f"with=@{archive}", "--format", "json").json()
    assert {row["metric"]: row["delta"] for row in changed["differences"]} == {"event_count": 1, "revenue": 2}


def test_what_is_written_can_be_ingested_and_then_nothing_is_missing(shop: Pik, tmp_path: Path) -> None:
    said = found(shop, "log.jsonl", "--write", "missing.jsonl")
    [line] = (tmp_path / "missing.jsonl").read_text().splitlines()
    assert json.loads(line) == {**MISSING, "event_time": "2026-01-01T01:01:40.000000000Z"}
    assert said["next"] == "pik ingest missing.jsonl"
    assert shop("diff", "events", "log.jsonl", "--write", "missing.jsonl").code == 2
    assert shop("ingest", "missing.jsonl").code == 0
    assert found(shop, "log.jsonl")["missing"] == 0


def test_other_records_are_mapped_as_an_ingest_maps_them(shop: Pik, tmp_path: Path) -> None:
    record = {"who": "a", "at": 1767225600, "v": 1}
    write(tmp_path / "odd.jsonl", record)
    mapping = {"source": "'web'", "event_type": "'paid'", "entity_id": "who", "event_time": "at", "payload": "{v: v}"}
    options = [word for name, expression in mapping.items() for word in ("--map", f"{name}={expression}")]
    assert found(shop, "odd.jsonl", *options, "--time-format", "epoch", code=0)["both"] == 1


def test_a_random_log_is_compared_as_sets_are(pik: Pik, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "HELD", 50)
    chance = random.Random(11)
    universe = [event(60 * number, number % 7, entity_id=f"e{number % 5}") for number in range(400)]
    stored, log = (chance.sample(range(400), 300) for _ in range(2))
    write(tmp_path / "stored.jsonl", *(universe[number] for number in stored))
    write(tmp_path / "one.jsonl", *(universe[number] for number in log[:150]))
    write(tmp_path / "two.jsonl", *(universe[number] for number in log[100:]))
    pik("ingest", "stored.jsonl")
    said = found(pik, "one.jsonl", "two.jsonl", "--write", "missing.jsonl")
    scope = range(min(log), max(log) + 1)
    here, there = set(stored) & set(scope), set(log)
    assert (said["both"], said["missing"], said["unexpected"]) == (
        len(here & there),
        len(there - here),
        len(here - there),
    )
    assert said["repeated"] == 50
    lines = (tmp_path / "missing.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["event_time"][11:19] for line in lines) == sorted(
        universe[number]["event_time"][11:19] for number in there - here
    )
    assert sum(row["missing"] for row in said["by_hour"]) == said["missing"]
    assert len(found(pik, "one.jsonl", "two.jsonl", "--limit", "3")["mismatches"]) == 3


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("nowhere.jsonl",), 2, "there is no file nowhere.jsonl"),
        (("empty.jsonl",), 2, "empty.jsonl has no event"),
        (("binary",), 2, "binary"),
        (("log.jsonl", "--from", "2027-01-01"), 2, "log.jsonl has no event in the scope"),
        (("log.jsonl", "--type", "refund"), 2, "none of its 4 events is selected"),
        (("log.jsonl", "--where", "nowhere = 1"), 2, "--where nowhere = 1"),
        (("log.jsonl", "--where", "(payload->>'v')::DATE > '2026-01-01'"), 2, "--where"),
        (("log.jsonl", "--metric", "nothing"), 2, "nothing"),
        (("log.jsonl", "--write", "log.jsonl"), 2, "--write 'log.jsonl' exists already"),
        (("log.jsonl", "--write", "no/where.jsonl"), 2, "--write no/where.jsonl"),
        (("log.jsonl", "--map", "entity_id=nowhere"), 2, "nowhere"),
        (("log.jsonl", "--store", "elsewhere"), 4, "elsewhere"),
    ],
)
def test_mistakes_are_named(shop: Pik, tmp_path: Path, options: tuple[str, ...], code: int, message: str) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 20)
    result = shop("diff", "events", *options)
    assert (result.code, message in result.err, result.out) == (code, True, ""), (result.code, result.err)


def test_records_that_are_not_events_are_counted_and_the_hint_reads_them_by_the_same_options(
    shop: Pik, tmp_path: Path
) -> None:
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write("{}\n")
    assert found(shop, "log.jsonl", code=3)["rejected"] == 1
    result = shop("diff", "events", "log.jsonl", "--timezone", "Europe/Berlin", "--max-line", "2000000")
    assert "why: pik ingest --dry-run --timezone Europe/Berlin --max-line 2000000 log.jsonl" in result.err
    (tmp_path / "none.jsonl").write_text('{"source": "web"}\n')
    result = shop("diff", "events", "none.jsonl")
    assert (result.code, "1 of its records" in result.err) == (2, True)


def test_values_that_cannot_be_computed_make_the_answer_partial(shop: Pik, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text('name = "wrong"\nvalue = "sum(source::BIGINT)"\n')
    shop("metrics", "apply", "wrong.toml")
    result = shop("diff", "events", "log.jsonl")
    assert (result.code, "1 value cannot be computed; why: pik diff aggregates" in result.err) == (3, True)

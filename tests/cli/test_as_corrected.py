"""What commands show once corrections are recorded, and what ingesting comes to then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

Pik = Callable[..., Any]

WHY = ("--reason", "INC-42", "--yes")
TIMES = ("2026-01-02T00:15:00Z", "2026-01-01T12:00:00Z", "2026-01-02T08:00:00Z")


def line(source: str, time: str, value: int, **more: object) -> str:
    event = {"source": source, "event_type": "paid", "entity_id": "a", "event_time": time, "payload": {"v": value}}
    return json.dumps({**event, **more}) + "\n"


@pytest.fixture
def shop(pik: Pik) -> Pik:
    """A store with three events of one batch, two of them of a till."""
    Path("events.jsonl").write_text(
        "".join(line(*each) for each in zip(("till", "till", "web"), TIMES, (1, 2, 3), strict=True))
    )
    assert pik("ingest", "events.jsonl").code == 0
    return pik


def said(pik: Pik, *words: str, code: int = 0) -> Any:
    result = pik(*words, "--format", "json")
    assert result.code == code, result.err
    return json.loads(result.out)


def moved(pik: Pik) -> str:
    """Move the first event to the day before, and return the id of the correction."""
    [one] = said(pik, "correct", "--assume", "shift=-1h,to=2026-01-02T00:30:00Z,from=2026-01-02", *WHY)["corrections"]
    return str(one["correction_id"])


def test_events_and_exports_have_the_corrected_time_and_say_so(shop: Pik) -> None:
    plain = said(shop, "events")
    assert plain["corrected"] is None
    assert {row["correction"] for row in plain["events"]} == {None}
    assert "correction" not in shop("events").out
    by = moved(shop)
    found = said(shop, "events", "--from", "2026-01-01", "--to", "2026-01-02")
    assert [(row["event_time"], row["received_event_time"], row["correction"]) for row in found["events"]] == [
        (TIMES[1], None, None),
        ("2026-01-01T23:15:00Z", TIMES[0], by),
    ]
    assert found["corrected"] == {"taken_out": 0, "moved": 1, "replaced": 0}
    assert "1 event moved; --as-received" in found["note"]
    left = said(shop, "events", "--from", "2026-01-02", "--by", "source")
    assert (left["events"], left["corrected"]["moved"]) == (1, 1)
    received = said(shop, "events", "--as-received")
    assert {**received, "note": None} == {**plain, "note": None}
    refused = shop("events", "--as-received", "--not-counted", "event_count")
    assert (refused.code, "--as-received" in refused.err) == (2, True)
    written = said(shop, "export", "--out", "day", "--partition-by", "event_date")
    assert written["corrected"]["moved"] == 1
    rows = pq.read_table("day").to_pylist()
    assert {(str(row["event_date"]), row["payload"]) for row in rows} == {
        ("2026-01-01", '{"v": 1}'),
        ("2026-01-01", '{"v": 2}'),
        ("2026-01-02", '{"v": 3}'),
    }
    [one] = [row for row in rows if row["correction"]]
    assert (one["correction"], one["received_event_time"].isoformat()) == (by, "2026-01-02T00:15:00+00:00")
    manifest = json.loads(Path("day/_manifest.json").read_text())
    assert (manifest["corrected"], manifest["query"]["as_received"]) == (written["corrected"], False)
    for name, options in (("now.jsonl", ()), ("came.jsonl", ("--as-received",))):
        assert shop("export", "--out", name, *options).code == 0
    now, came = (list(map(json.loads, Path(name).read_text().splitlines())) for name in ("now.jsonl", "came.jsonl"))
    assert sorted(one.get("received_event_time", "") for one in now) == ["", "", "2026-01-02T00:15:00.000000000Z"]
    assert [one["event_time"] for one in came if "correction" in one] == []
    assert {one["event_time"] for one in came} == {time.replace("Z", ".000000000Z") for time in TIMES}


def test_sql_and_lag_say_what_corrections_changed(shop: Pik) -> None:
    moved(shop)
    statement = "SELECT count(*) AS n, count(correction) AS c FROM events"
    of_day = ("--from", "2026-01-01", "--to", "2026-01-02")
    corrected = said(shop, "sql", statement, *of_day)
    assert (corrected["rows"], corrected["corrected"]["moved"]) == ([{"n": 2, "c": 1}], 1)
    received = said(shop, "sql", statement, *of_day, "--as-received")
    assert (received["rows"], received["corrected"]) == ([{"n": 1, "c": 0}], None)
    assert said(shop, "lag", *of_day)["all"]["events"] == 2
    assert said(shop, "lag", *of_day, "--as-received")["all"]["events"] == 1
    assert said(shop, "lag", "--skew")["corrected"]["moved"] == 1


def test_show_tells_the_story_of_an_event(shop: Pik) -> None:
    assert shop("replay", "--all", "--promote", "--yes").code == 0
    event = said(shop, "events", "--from", "2026-01-02")["events"][0]["event_id"]
    assert "STORY" not in shop("show", event).out
    first = moved(shop)
    out = said(shop, "correct", "--assume", f"without={event}", *WHY)["corrections"][0]["correction_id"]
    shown = said(shop, "show", event)
    assert (shown["counts"], shown["event_time"]) == (False, "2026-01-01T23:15:00Z")
    assert [(row["counts"], row["received_event_time"]) for row in shown["deliveries"]] == [(False, TIMES[0])]
    assert shown["correction"] == ",".join(sorted((first, out)))
    assert [row["bucket"][:10] for row in shown["aggregates"]] == ["2026-01-02"], "it was computed before"
    story = [(row["what"], row["event_time"]) for row in shown["story"]]
    assert story == [
        ("delivery", TIMES[0]),
        ("value", TIMES[0]),
        ("correction", "2026-01-01T23:15:00Z"),
        ("correction", None),
    ]
    assert shop("corrections", "revoke", out, *WHY).code == 0
    shown = said(shop, "show", event)
    assert (shown["counts"], shown["story"][-1]["what"], shown["story"][-1]["event_time"]) == (
        True,
        "revocation",
        "2026-01-01T23:15:00Z",
    )
    assert shop("replay", "--all", "--promote", "--yes").code == 0
    assert [row["bucket"][:10] for row in said(shop, "show", event)["aggregates"]] == ["2026-01-01"]


def test_what_a_correction_leaves_is_a_gap_and_what_is_compared_with_it_says_so(shop: Pik) -> None:
    """The till is silent in the evening of 1 January, unless its event of the night is moved there."""
    late = ("gaps", "--from", "2026-01-01T12:00:00Z", "--to", "2026-01-02", "--every", "690m", "--source", "till")
    assert [one["length_ms"] for one in said(shop, *late, code=1)["silences"]] == [12 * 3_600_000]
    moved(shop)
    found = said(shop, *late)
    assert (found["silences"], found["corrected"]) == ([], {"taken_out": 0, "moved": 1, "replaced": 0})
    assert found["note"] == "by corrections: 1 event moved; --as-received shows what came"
    assert len(said(shop, *late, "--as-received", code=1)["silences"]) == 1
    compared = said(shop, "diff", "events", "events.jsonl")
    assert (compared["both"], compared["missing"], compared["corrected"]["moved"]) == (3, 0, 1)
    assert compared["note"].startswith("by corrections: 1 event moved; both sides are as they came")
    assert shop("replay", "--all", "--promote", "--yes").code == 0
    assert said(shop, "lag", "--late")["corrected"]["moved"] == 1
    for words, why in (
        (("lag", "--late"), "--late compares with current values"),
        (("duplicates", "--impact"), "--impact computes metrics"),
        (("events", "--not-counted", "event_count"), "--not-counted compares with a current value"),
    ):
        refused = shop(*words, "--as-received")
        assert (refused.code, why in refused.err) == (2, True)


def test_what_changed_in_conflicts_is_shown_as_it_counts_and_as_it_came(shop: Pik) -> None:
    of = "2026-01-03T00:00:00Z"
    Path("keyed.jsonl").write_text("".join(line("web", of, value, idempotency_key="k") for value in (5, 6, 6)))
    assert shop("ingest", "keyed.jsonl").code == 0
    plain = said(shop, "duplicates", "--class", "conflict", "--changes", "payload.v")
    assert (plain["changes"], plain["corrected"]) == ([{"old_value": 5, "new_value": 6, "count": 2}], None)
    assert shop("correct", "--assume", "conflicts=last", *WHY).code == 0
    left = said(shop, "duplicates", "--class", "conflict", "--changes", "payload.v")
    assert (left["pairs"], left["corrected"]) == (1, {"taken_out": 0, "moved": 0, "replaced": 1})
    came = said(shop, "duplicates", "--class", "conflict", "--changes", "payload.v", "--as-received")
    assert came == plain


def test_a_withdrawn_batch_may_be_ingested_again_and_counts(shop: Pik) -> None:
    [batch] = said(shop, "batches")["batches"]
    assert said(shop, "ingest", "events.jsonl")["outcome"] == "already ingested"
    assert "corrections" not in said(shop, "ingest", "events.jsonl", "--dry-run")["note"]
    [gone] = said(shop, "correct", "--assume", f"without-batch={batch['batch_id']}", *WHY)["corrections"]
    assert said(shop, "events")["corrected"] == {"taken_out": 3, "moved": 0, "replaced": 0}
    checked = said(shop, "ingest", "events.jsonl", "--dry-run")
    assert (checked["accepted"], checked["duplicates_in_store"]["exact"]) == (0, 3)
    assert "an ingest says which of its duplicates that concerns" in checked["note"]
    again = said(shop, "ingest", "events.jsonl")
    assert (again["outcome"], again["duplicates"]["exact"], again["duplicates_counting"]) == ("ingested", 3, 3)
    found = said(shop, "events")
    assert {row["batch_id"] for row in found["events"]} == {again["batch_id"]}
    assert found["corrected"] == {"taken_out": 0, "moved": 0, "replaced": 3}
    assert said(shop, "ingest", "events.jsonl")["outcome"] == "already ingested"
    new, old = said(shop, "batches")["batches"]
    assert (old["withdrawn_by"], old["accepted"], old["taken_out"]) == (gone["correction_id"], 3, 3)
    assert (new["withdrawn_by"], new["exact"]) == (None, 3)
    assert said(shop, "batches", new["batch_id"])["batches"][0]["counted_duplicates"] == 3
    status = said(shop, "status")
    assert (status["withdrawn_batches"], status["active_corrections"], status["events"]) == (1, 1, 3)
    assert said(shop, "duplicates")["duplicates"] == []
    assert len(said(shop, "duplicates", "--as-received")["duplicates"]) == 3


def test_a_delivery_of_an_event_that_is_out_is_recorded_and_does_not_count(shop: Pik) -> None:
    event = said(shop, "events")["events"][0]["event_id"]
    assert shop("correct", "--assume", f"without={event}", *WHY).code == 0
    again = said(shop, "ingest", "events.jsonl", "--again")
    assert (again["duplicates"]["exact"], again["of_events_out"], again["duplicates_counting"]) == (3, 1, None)
    assert "1 duplicate of events that corrections took out" in again["note"]
    assert len(said(shop, "events")["events"]) == 2
    assert len(said(shop, "duplicates")["duplicates"]) == 2
    first = said(shop, "batches")["batches"][-1]["batch_id"]
    assert shop("correct", "--assume", f"without-batch={first}", *WHY).code == 0
    assert shop("correct", "--assume", f"without-batch={again['batch_id']}", *WHY).code == 0
    third = said(shop, "ingest", "events.jsonl", "--again")
    assert (third["duplicates"]["exact"], third["of_events_out"], third["duplicates_counting"]) == (3, 1, 2)
    assert len(said(shop, "events")["events"]) == 2

"""`pik aggregates import`: numbers from outside become current, and no command takes their inputs for known."""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Callable
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.cli.test_against import EVENTS, METRICS, truth

Pik = Callable[..., Any]

LEDGER = "day,customer,net\n2026-01-01,a,3.75\n2026-01-01,b,0.5\n2026-01-02,a,10\n2026-01-04,nobody,7\n"
"""Of the first and the third number the current value is the same; the second differs; the last has no events."""

OF = ("--metric", "revenue", "--value", "revenue=net")


@pytest.fixture
def shop(pik: Pik, once: Callable[..., None]) -> Pik:
    """A store whose numbers are computed and current."""

    def make() -> None:
        def line(entity: str, time: str, value: str) -> str:
            event = {"source": "web", "event_type": "paid", "entity_id": entity, "event_time": time}
            return json.dumps(event)[:-1] + f', "payload": {{"v": {value}}}}}\n'

        Path("events.jsonl").write_text("".join(line(*each) for each in EVENTS))
        Path("metrics.toml").write_text(METRICS)
        Path("ledger.csv").write_text(LEDGER)
        assert pik("ingest", "events.jsonl").code == 0
        assert pik("metrics", "apply", "metrics.toml").code == 0
        assert pik("replay", "--all", "--promote", "--yes").code == 0

    once(make)
    return pik


def said(pik: Pik, *line: str, code: int = 0) -> Any:
    result = pik(*line, "--format", "json")
    assert result.code == code, result.err
    return json.loads(result.out, parse_float=Decimal)


def current(pik: Pik) -> dict[tuple[str, str], Decimal]:
    found = said(pik, "aggregates", "--metric", "revenue")["aggregates"]
    return {(row["bucket"][:10], row["entity_id"]): Decimal(row["value"]) for row in found if row["value"] is not None}


def imported(pik: Pik, *line: str, code: int = 0) -> Any:
    return said(pik, "aggregates", "import", "ledger.csv", *OF, "--yes", *line, code=code)


def counts(found: Any) -> tuple[int, int, int]:
    return found["new"], found["changed"], found["same"]


def test_a_dry_run_shows_the_plan_and_writes_nothing(shop: Pik) -> None:
    found = said(shop, "aggregates", "import", "ledger.csv", *OF, "--dry-run")
    assert (counts(found), found["run_id"], found["moved"]) == ((1, 1, 2), None, None)
    digest = sha256(LEDGER.encode()).hexdigest()
    file = {"name": "ledger.csv", "digest": digest, "bucket": "day", "entity": "customer", "value": "net"}
    assert found["imported_file"] == {**file, "metric": None}
    assert (found["first"], found["last"], found["of_entities"]) == (
        "2026-01-01T00:00:00Z",
        "2026-01-04T00:00:00Z",
        3,
    )
    assert current(shop) == truth()
    assert len(said(shop, "runs", "list")["runs"]) == 1


def test_it_writes_what_differs_and_makes_it_current_and_a_rollback_takes_that_back(shop: Pik) -> None:
    found = imported(shop, "--reason", "the ledger is right")
    assert (counts(found), found["moved"], found["state"]) == ((1, 1, 2), 2, "COMPLETED")
    outside = {("2026-01-01", "b"): Decimal("0.5"), ("2026-01-04", "nobody"): Decimal(7)}
    assert current(shop) == truth() | outside
    history = said(shop, "aggregates", "--metric", "revenue", "--entity", "b", "--history")["aggregates"]
    was, now = sorted(history, key=lambda row: row["current"])
    assert (was["inputs"], was["file_digest"]) == (2, None)
    unknown = ("inputs", "input_ids", "input_contents", "known_until")
    assert [now[name] for name in unknown] == [None] * 4
    assert (now["file_digest"], now["reason"]) == (sha256(LEDGER.encode()).hexdigest(), "the ledger is right")
    assert shop("rollback", found["run_id"], "--yes").code == 0
    assert current(shop) == truth()
    assert shop("promote", found["run_id"], "--yes").code == 0
    assert current(shop) == truth() | outside


def test_the_same_file_again_writes_nothing_and_says_so(shop: Pik) -> None:
    imported(shop)
    again = imported(shop, "--reason", "once more")
    assert (counts(again), again["run_id"]) == ((0, 0, 4), None)
    assert "nothing to import: 4 numbers of ledger.csv are current already" in again["note"]
    assert len(said(shop, "runs", "list")["runs"]) == 2


def test_window_and_entities_choose_what_is_imported(shop: Pik) -> None:
    found = imported(shop, "--from", "2026-01-01", "--to", "2026-01-02", "--entity", "b")
    assert (counts(found), found["left_out"], found["effective"]) == (
        (0, 1, 0),
        3,
        {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"},
    )
    assert current(shop) == truth() | {("2026-01-01", "b"): Decimal("0.5")}


def test_it_asks_and_a_no_writes_nothing(shop: Pik, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = shop("aggregates", "import", "ledger.csv", *OF)
    assert (refused.code, "add --yes" in refused.err) == (2, True)
    monkeypatch.setattr("pik.cli.options.able_to_ask", lambda yes: None)
    monkeypatch.setattr(sys.stdin, "readline", lambda: "n\n", raising=False)
    declined = shop("aggregates", "import", "ledger.csv", *OF)
    assert declined.code == 4
    assert "import 4 numbers of revenue@1: 1 new, 1 changed, 2 current already\n" in declined.err
    assert "of 3 entities, 2026-01-01T00:00:00Z to 2026-01-04T00:00:00Z\n" in declined.err
    assert "from ledger.csv (bucket=day, entity=customer, value=net)\nSHA-256 " in declined.err
    assert len(said(shop, "runs", "list")["runs"]) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("day,customer,net\n2026-01-01,a,1\n2026-01-01T05:00:00Z,a,1\n", "ledger.csv, line 3: day:"),
        ("day,customer,net\n2026-01-01,a,1.5e\n", "line 2: net: '1.5e' is not a number"),
        ("day,customer,net\n2026-01-01,a,1\n2026-01-01,a,2\n", "line 3: revenue of 'a'"),
        ("", "ledger.csv is empty"),
        ("PK\x03\x04", "it is cut or damaged"),
        ("day,customer,net\n", "has a header and no rows"),
        ("customer,net\na,1\n", "has no column with a usual name of the bucket"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line_and_nothing_is_written(shop: Pik, text: str, message: str) -> None:
    Path("ledger.csv").write_text(text)
    result = shop("aggregates", "import", "ledger.csv", *OF, "--yes")
    assert (result.code, message in result.err) == (2, True), result.err
    assert len(said(shop, "runs", "list")["runs"]) == 1


def test_wrong_options_are_refused(shop: Pik) -> None:
    for line, message in (
        (("nothing.csv", *OF), "there is no file nothing.csv"),
        (("ledger.csv", "--metric", "profit"), "profit"),
        (("ledger.csv", "--metric", "revenue@1", "--value", "revenue@1=net"), "for the latest definition"),
        (("ledger.csv", "--metric", "revenue", "--value", "best=net"), "invalid 'best=net'"),
        (("ledger.csv",), "--metric is missing"),
        (("ledger.csv", *OF, "--entity", "c"), "has no number of 'c'"),
    ):
        result = shop("aggregates", "import", *line, "--yes")
        assert (result.code, message in result.err) == (2, True), result.err


def test_an_option_of_aggregates_before_import_is_not_ignored(shop: Pik) -> None:
    result = shop("aggregates", "--entity", "a", "import", "ledger.csv", *OF, "--yes")
    assert result.code == 2
    assert "--entity is an option of pik aggregates, not of pik aggregates import" in result.err


def test_a_mistyped_command_of_aggregates_is_named(shop: Pik) -> None:
    assert shop("aggregates", "imports").err.startswith("error: pik aggregates has no command imports")


def test_a_compressed_file_has_the_digest_of_its_bytes(shop: Pik) -> None:
    data = gzip.compress(LEDGER.encode())
    Path("ledger.csv.gz").write_bytes(data)
    found = said(shop, "aggregates", "import", "ledger.csv.gz", *OF, "--yes")
    assert (counts(found), found["imported_file"]["digest"]) == ((1, 1, 2), sha256(data).hexdigest())


def test_differences_of_imported_values_have_the_cause_imported(shop: Pik) -> None:
    run = imported(shop)["run_id"]
    rows = said(shop, "diff", "aggregates", "--metric", "revenue", "--explain", code=1)["differences"]
    found = {(row["bucket"][:10], row["entity_id"]): row for row in rows}
    assert found.keys() == {("2026-01-01", "b"), ("2026-01-04", "nobody")}
    changed, removed = found["2026-01-01", "b"], found["2026-01-04", "nobody"]
    assert (changed["op"], changed["inputs_before"], changed["inputs_after"]) == ("~", None, 2)
    assert [(one["cause"], Decimal(one["share"])) for one in changed["causes"]] == [("imported", Decimal("-0.2"))]
    assert [(one["cause"], Decimal(one["share"])) for one in removed["causes"]] == [("imported", Decimal(-7))]
    assert (changed["proven"], removed["op"]) == (False, "-")
    explained = said(shop, "explain", "revenue", "b", "2026-01-01", code=1)
    first, rest = explained["causes"]
    assert (first["cause"], Decimal(first["share"]), first["events"]) == ("imported", Decimal("-0.2"), None)
    assert (rest["cause"], Decimal(rest["share"])) == ("unexplained", Decimal(0))
    assert f"run {run} imported it for " in first["detail"]
    assert "from ledger.csv (SHA-256 " in first["detail"]
    assert (explained["known_until"], explained["proven"]) == (None, False)


def test_assumptions_come_after_what_was_imported(shop: Pik) -> None:
    imported(shop)
    batch = said(shop, "batches")["batches"][0]["batch_id"]
    explained = said(shop, "explain", "revenue", "b", "2026-01-01", "--assume", f"without-batch={batch}", code=1)
    shares = {one["cause"]: Decimal(one["share"]) for one in explained["causes"]}
    assert shares == {"imported": Decimal("-0.2"), "assumed": Decimal("-0.3"), "unexplained": Decimal(0)}
    assert list(shares) == ["imported", "assumed", "unexplained"]


def test_triage_reports_them_under_their_cause(shop: Pik) -> None:
    imported(shop)
    findings = said(shop, "triage", code=1)["findings"]
    [found] = [one for one in findings if one["check"] == "differences"]
    assert (found["metric"], found["cause"], Decimal(found["delta"])) == ("revenue", "imported", Decimal("-7.2"))


def test_verify_lists_them_as_not_provable_and_that_is_no_damage(shop: Pik) -> None:
    run = imported(shop)["run_id"]
    found = said(shop, "verify")
    assert (found["damage"], found["problems"]) == (0, [])
    assert found["not_provable"] == [
        {
            "run_id": run,
            "metric": "revenue",
            "of_values": 2,
            "first": "2026-01-01T00:00:00Z",
            "last": "2026-01-04T00:00:00Z",
            "file": "ledger.csv",
            "file_digest": sha256(LEDGER.encode()).hexdigest(),
        }
    ]
    assert shop("rollback", run, "--yes").code == 0
    assert said(shop, "verify")["not_provable"] is None


def test_an_imported_value_of_a_bucket_whose_others_are_right_does_not_hide(shop: Pik) -> None:
    """A bucket's digest of current values must differ from that of computed ones, though nobody has no events in it."""
    Path("ledger.csv").write_text("day,customer,net\n2026-01-01,nobody,7\n")
    imported(shop)
    rows = said(shop, "diff", "aggregates", "--metric", "revenue", code=1)["differences"]
    assert [(row["op"], row["entity_id"]) for row in rows] == [("-", "nobody")]
    equal = said(shop, "diff", "aggregates", "--metric", "revenue", "--stats", code=1)["stats"]
    assert (equal["equal"], equal["other_inputs"]) == (4, 0)


def test_late_events_are_not_looked_for_where_it_is_not_known_what_is_late(shop: Pik) -> None:
    imported(shop)
    event = {"source": "web", "event_type": "paid", "entity_id": "b", "event_time": "2026-01-01T06:00:00Z"}
    Path("late.jsonl").write_text(json.dumps(event | {"payload": {"v": 1}}) + "\n")
    assert shop("ingest", "late.jsonl").code == 0
    found = said(shop, "lag", "--late", "--metric", "revenue")
    assert (found["late_values"], found["imported_values"], found["values_checked"]) == ([], 2, 3)
    shown = said(shop, "events", "--not-counted", "revenue", "--entity", "b")["events"]
    assert {one["not_counted"] for one in shown} == {"imported"}


def test_history_and_runs_show_the_import_and_its_file(shop: Pik) -> None:
    run = imported(shop, "--reason", "ledger", "--actor", "ana")["run_id"]
    found = said(shop, "history", "--check", "--limit", "2")["history"]
    assert [(one["what"], one["actor"], one["run_id"]) for one in found] == [
        ("promote", "ana", run),
        ("import", "ana", run),
    ]
    assert "ledger.csv" in found[1]["subject"]
    assert [(one["as_left"], one["right_today"], one["lacked"], one["known_until"]) for one in found] == [
        (2, 0, None, None)
    ] * 2
    listed = said(shop, "runs", "list")["runs"]
    assert [(one["kind"], one["file"]) for one in listed] == [("import", "ledger.csv"), ("replay", None)]
    shown = said(shop, "runs", "show", run)
    assert (shown["kind"], shown["imported_file"]["digest"]) == ("import", sha256(LEDGER.encode()).hexdigest())
    assert shop("runs", "resume", run).code == 2


def test_a_replay_replaces_imported_values_and_its_rollback_brings_them_back(shop: Pik) -> None:
    imported(shop)
    before = current(shop)
    replayed = said(shop, "replay", "--all", "--metric", "revenue", "--promote", "--yes")
    assert (replayed["changed"], replayed["removed"], replayed["unchanged"]) == (1, 1, 3)
    assert current(shop) == truth()
    assert said(shop, "verify")["not_provable"] is None
    assert shop("rollback", replayed["run_id"], "--yes").code == 0
    assert current(shop) == before
    assert said(shop, "verify")["not_provable"][0]["of_values"] == 2


def test_what_was_current_before_and_after_the_import_can_be_compared(shop: Pik) -> None:
    run = imported(shop)["run_id"]
    promoted = said(shop, "runs", "show", run)["promotions"][0]["at"]
    assert shop("rollback", run, "--yes").code == 0
    sides = ("--left", f"current@{promoted}", "--right", "current", "--metric", "revenue")
    rows = said(shop, "diff", "aggregates", *sides, code=1)["differences"]
    assert [(row["op"], row["entity_id"], row["inputs_before"]) for row in rows] == [
        ("~", "b", None),
        ("-", "nobody", None),
    ]
    rows = said(shop, "diff", "aggregates", "--run", run, code=1)["differences"]
    assert [(row["op"], row["entity_id"], row["inputs_after"]) for row in rows] == [
        ("~", "b", None),
        ("+", "nobody", None),
    ]


def test_a_backup_and_a_copy_keep_what_was_imported(shop: Pik, tmp_path: Path) -> None:
    imported(shop)
    digest = sha256(LEDGER.encode()).hexdigest()
    assert shop("backup", "state.backup").code == 0
    assert shop("init", "--store", "other").code == 0
    assert shop("restore", "state.backup", "--store", "other").code == 0
    window = ("--from", "2026-01-01", "--to", "2026-01-05")
    assert shop("pull", "--into", "copy", *window).code == 0
    for store in ("other", "copy"):
        rows = said(shop, "aggregates", "--entity", "nobody", *window, "--store", store)["aggregates"]
        assert [(row["inputs"], row["file_digest"]) for row in rows] == [(None, digest)]
    explained = said(shop, "explain", "revenue", "b", "2026-01-01", "--store", "copy", code=1)
    assert explained["causes"][0]["cause"] == "imported"
    assert "from a file (SHA-256" in explained["causes"][0]["detail"]
    assert said(shop, "verify", "--store", "copy", *window)["not_provable"][0]["file"] is None


def test_a_rebuilt_index_changes_nothing_of_it(shop: Pik) -> None:
    imported(shop)
    before = current(shop)
    assert shop("verify", "--rebuild-index").code == 0
    assert current(shop) == before
    assert said(shop, "verify")["damage"] == 0


def test_standard_input_is_imported_with_the_digest_of_its_bytes(
    shop: Pik, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with open("ledger.csv", "rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        found = said(shop, "aggregates", "import", "-", *OF, "--yes")
        assert (counts(found), found["imported_file"]["name"]) == ((1, 1, 2), "standard input")
        assert found["imported_file"]["digest"] == sha256(LEDGER.encode()).hexdigest()


def test_a_parquet_file_is_imported_as_it_is_compared(shop: Pik) -> None:
    days = pa.array([20454, 20454], pa.int32()).cast(pa.date32())  # 2026-01-01
    table = pa.table({"day": days, "customer": ["a", "b"], "revenue": pa.array([Decimal("3.75"), Decimal("0.50")])})
    parquet.write_table(table, "ledger.parquet")
    found = said(shop, "aggregates", "import", "ledger.parquet", "--metric", "revenue", "--yes")
    assert counts(found) == (0, 1, 1)
    assert current(shop) == truth() | {("2026-01-01", "b"): Decimal("0.5")}


def test_a_metric_over_all_entities_is_imported_without_any(shop: Pik) -> None:
    Path("users.toml").write_text('name = "users"\nvalue = "count(DISTINCT entity_id)"\nper = "all"\n')
    assert shop("metrics", "apply", "users.toml").code == 0
    Path("users.csv").write_text("day,users\n2026-01-01,9\n")
    found = said(shop, "aggregates", "import", "users.csv", "--metric", "users", "--yes")
    assert (counts(found), found["imported_file"]["entity"]) == ((1, 0, 0), None)
    explained = said(shop, "explain", "users", "2026-01-01", code=1)
    assert [one["cause"] for one in explained["causes"]] == ["imported", "unexplained"]
    assert Decimal(explained["causes"][0]["share"]) == 2 - 9


def test_show_does_not_claim_that_an_imported_value_counts_the_event(shop: Pik) -> None:
    imported(shop)
    event = said(shop, "events", "--entity", "b", "--limit", "1")["events"][0]["event_id"]
    shown = said(shop, "show", event)
    assert [one["metric"] for one in shown["aggregates"]] == ["best", "event_count"]
    assert shown["note"] == "not known whether it counts in the current revenue, which was imported"


def test_sql_sees_them_without_inputs(shop: Pik) -> None:
    imported(shop)
    statement = "SELECT entity_id, known_until FROM aggregates WHERE inputs IS NULL ORDER BY 1"
    assert [row["entity_id"] for row in said(shop, "sql", statement)["rows"]] == ["b", "nobody"]

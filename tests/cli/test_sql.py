"""`pik sql`: what a statement reads, how exactly, and what it cannot reach."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

METRIC = 'name = "revenue"\nvalue = "sum((payload->>\'v\')::DECIMAL(18, 2))"\n'
AMOUNT = "(payload->>'v')::DECIMAL(18, 2)"


def line(number: int, **fields: Any) -> dict[str, Any]:
    event = {"source": f"s{number % 2}", "event_type": "paid", "entity_id": f"e{number % 3}"}
    time = f"2026-01-0{1 + number % 4}T{number % 24:02}:00:00.123456789Z"
    return {**event, "event_time": time, "payload": {"v": f"{number}.10", "n": number}, **fields}


EVENTS = [line(number) for number in range(60)]


@pytest.fixture
def shop(pik: Callable[..., Any], tmp_path: Path, once: Callable[..., None]) -> Callable[..., Any]:
    """Three batches: events, with current values; some of them again; a late one."""

    def make() -> None:
        (tmp_path / "m.toml").write_text(METRIC)
        for name, events in (("first", EVENTS), ("again", EVENTS[:7]), ("late", [line(60)])):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        assert pik("ingest", "first.jsonl").code == 0
        pik("metrics", "apply", "m.toml")
        assert pik("replay", "--all", "--promote", "--yes", "--reason", "nightly").code == 0
        assert pik("ingest", "again.jsonl").code == pik("ingest", "late.jsonl").code == 0

    once(make)
    return pik


def selected(pik: Callable[..., Any], statement: str, *options: object) -> list[dict[str, Any]]:
    result = pik("sql", statement, *options, "--format", "json")
    assert result.code == 0, result.err
    found: list[dict[str, Any]] = json.loads(result.out, parse_float=Decimal)["rows"]
    return found


def test_counts_and_sums_are_those_of_plain_python(shop: Callable[..., Any]) -> None:
    found = selected(shop, f"SELECT source, count(*) AS n, sum({AMOUNT}) AS total FROM events GROUP BY ALL ORDER BY 1;")
    every = [*EVENTS, line(60)]
    assert [(row["source"], row["n"], row["total"]) for row in found] == [
        (name, len(of), sum(Decimal(event["payload"]["v"]) for event in of))
        for name in ("s0", "s1")
        for of in [[event for event in every if event["source"] == name]]
    ]
    verdicts = selected(shop, "SELECT verdict, count(*) AS n FROM deliveries GROUP BY ALL")
    assert {row["verdict"]: row["n"] for row in verdicts} == {"accepted": 61, "exact": 7}


def test_the_window_and_the_entities_choose_what_the_tables_hold(shop: Callable[..., Any]) -> None:
    only = ("--from", "2026-01-02", "--to", "2026-01-03", "--entity", "e1", "--entity", "e2")
    expected = Counter(
        event["entity_id"]
        for event in EVENTS
        if event["event_time"] < "2026-01-03" and event["event_time"] > "2026-01-02"
    )
    del expected["e0"]
    found = selected(shop, "SELECT entity_id, count(*) AS n FROM events GROUP BY ALL", *only)
    assert {row["entity_id"]: row["n"] for row in found} == expected
    [row] = selected(shop, "SELECT count(*) AS n FROM events", "--from", "2027-01-01")
    assert row["n"] == 0


def test_values_batches_and_differences_are_those_of_their_commands(shop: Callable[..., Any]) -> None:
    listed = json.loads(shop("aggregates", "--format", "json").out, parse_float=Decimal)["aggregates"]
    found = selected(shop, "SELECT * FROM aggregates ORDER BY metric, bucket, entity_id")
    keys: tuple[str, ...] = ("metric", "bucket", "entity_id", "value", "run_id")
    assert [[row[key] for key in keys] for row in found] == [[row[key] for key in keys] for row in listed]
    assert {row["reason"] for row in found} == {"nightly"}
    diff = json.loads(shop("diff", "aggregates", "--format", "json").out, parse_float=Decimal)["differences"]
    keys = ("op", "metric", "bucket", "entity_id", "current", "recomputed", "delta", "inputs_before", "inputs_after")
    found = selected(shop, "SELECT * FROM differences ORDER BY metric, bucket, entity_id")
    assert [[row[key] for key in keys] for row in found] == [[row[key] for key in keys] for row in diff]
    assert len(found) == 2
    [row] = selected(shop, "SELECT delta FROM differences", "--metric", "revenue")
    assert row["delta"] == Decimal("60.10")
    batches = json.loads(shop("batches", "--format", "json").out)["batches"]
    found = selected(shop, "SELECT * FROM batches ORDER BY batch_id DESC")
    keys = ("batch_id", "source", "state", "read", "accepted", "exact", "conflict", "rejected")
    assert [[row[key] for key in keys] for row in found] == [[row[key] for key in keys] for row in batches]
    joined = "SELECT sum(delta) AS d FROM differences JOIN aggregates USING (metric, bucket, entity_id)"
    assert selected(shop, joined, "--metric", "revenue")[0]["d"] == Decimal("60.10")


def test_what_went_through_floating_point_is_named(shop: Callable[..., Any]) -> None:
    statement = (
        f"SELECT avg({AMOUNT}) AS mean, sum({AMOUNT}) AS total, list({AMOUNT}) AS every, 1 AS one, 2 AS one FROM events"
    )
    result = json.loads(shop("sql", statement, "--format", "json").out)
    assert result["approximate"] == ["mean", "every"]
    assert [(one["name"], one["type"]) for one in result["columns"]][3:] == [("one", "INTEGER"), ("one_1", "INTEGER")]
    assert (result["rows"][0]["one"], result["rows"][0]["one_1"]) == (1, 2)
    assert "approximate, of type DOUBLE: mean, every" in shop("sql", statement).out


def test_numbers_and_times_are_written_exactly(shop: Callable[..., Any]) -> None:
    statement = (
        "SELECT 170141183460469231731687303715884105727::HUGEINT AS huge, "
        "12345678901234567890.1230::DECIMAL(38, 4) AS d, "
        "max(event_time) AS latest, max(event_ns) AS ns, DATE '2026-01-31' AS day, NULL AS nothing, true AS yes, "
        "'' AS empty, "
        "'x\n' AS text, min(payload)::JSON AS payload, TIMESTAMPTZ '2026-01-01 00:00:00+03' AS zoned FROM events"
    )
    out = shop("sql", statement, "--format", "jsonl").out
    assert '"huge":170141183460469231731687303715884105727,"d":12345678901234567890.1230,' in out
    row = json.loads(out)
    latest = max([*EVENTS, line(60)], key=lambda event: str(event["event_time"]))["event_time"]
    assert (row["latest"], row["ns"] % 10**9) == (f"{latest[:-4]}Z", 123456789)
    assert (row["day"], row["nothing"], row["yes"], row["empty"]) == ("2026-01-31", None, True, "")
    assert row["text"] == "x\n"
    assert (row["payload"]["n"], row["zoned"]) == (0, "2025-12-31T21:00:00Z")


@pytest.mark.usefixtures("shop")
def test_rows_come_in_the_order_of_the_statement_and_a_limit_says_so(pik: Callable[..., Any]) -> None:
    ordered = "SELECT range AS n, [range] AS l FROM range(30000) ORDER BY n DESC"  # the list is converted outside of it
    assert [row["n"] for row in selected(pik, ordered)] == list(range(29999, -1, -1))
    result = json.loads(pik("sql", ordered, "--limit", 3, "--format", "json").out)
    assert ([row["n"] for row in result["rows"]], result["matched"]) == ([29999, 29998, 29997], None)
    assert (result["truncated"], "--limit N" in result["note"]) == (True, True)
    assert (pik("sql", ordered, "--fail-if-any").code, pik("sql", ordered).code) == (1, 0)


@pytest.mark.usefixtures("shop")
def test_only_the_columns_that_the_statement_names_are_read(
    pik: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pik.engine import DuckEngine

    asked: list[set[str]] = []
    original = DuckEngine.tables

    def tables(self: DuckEngine, files: Any, columns: Any, *rest: Any, **more: Any) -> Any:
        asked.append(set(columns))
        return original(self, files, columns, *rest, **more)

    monkeypatch.setattr(DuckEngine, "tables", tables)
    for statement, columns in {
        "SELECT count(*) FROM events": set(),
        "SELECT e.source FROM events e WHERE lag_ns > 0": {"source", "lag_ns"},
        "WITH q AS (SELECT ENTITY_ID AS x FROM deliveries) SELECT x FROM q": {"entity_id"},
        "SELECT a.seq FROM events a JOIN deliveries b USING (batch_id)": {"seq", "batch_id"},
        "SELECT count(*) FROM batches": set(),
    }.items():
        assert pik("sql", statement).code == 0
        assert asked.pop() == columns, statement
    for statement in ("FROM events", "SELECT e FROM events e", "SELECT source FROM events NATURAL JOIN deliveries"):
        assert pik("sql", statement).code == 0
        assert len(asked.pop()) == 20, statement


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("SELECT nowhere FROM events", '"nowhere" not found'),
        ("SELECT * FROM nowhere", "unknown table 'nowhere'"),
        ("SELEC 1", "syntax error"),
        ("SELECT 1; SELECT 2", "not one SELECT"),
        ("DELETE FROM events", "not one SELECT"),
        ("CREATE TABLE x AS SELECT 1", "not one SELECT"),
        ("COPY (SELECT 1) TO 'out.csv'", "not one SELECT"),
        ("INSTALL httpfs", "not one SELECT"),
        ("SET memory_limit = '100GB'", "not one SELECT"),
        ("ATTACH 'x.duckdb'", "not one SELECT"),
        ("SHOW TABLES", "not one SELECT"),
        ("DESCRIBE events", "not one SELECT"),
        ("SELECT * FROM read_csv('first.jsonl')", "read_csv is not available"),
        ("SELECT * FROM read_blob('/etc/passwd')", "read_blob is not available"),
        ("SELECT * FROM glob('/*')", "glob is not available"),
        ("SELECT * FROM query('SELECT 1')", "query is not available"),
        ("SELECT * FROM duckdb_settings()", "duckdb_settings is not available"),
        ("SELECT * FROM 'first.jsonl'", "unknown table 'first.jsonl'"),
        ("SELECT * FROM information_schema.tables", "unknown table 'information_schema.tables'"),
        ("SELECT * FROM line", "unknown table 'line'"),
        ("SELECT * FROM (WITH line AS (SELECT 1) FROM line), line", "line"),
        ("SELECT current_setting('temp_directory')", "current_setting is not available"),
        ("SELECT (SELECT max(x) FROM read_text('/etc/passwd'))", "read_text is not available"),
        ("SELECT entity_id::INTEGER FROM events", "SQL: a value cannot be converted: Could not convert string"),
    ],
)
def test_what_is_not_a_select_over_the_tables_is_refused(shop: Callable[..., Any], statement: str, reason: str) -> None:
    result = shop("sql", statement)
    assert (result.code, result.out) == (2, ""), result.err
    assert reason in result.err
    tables = "tables: events, deliveries, batches, aggregates, differences"
    assert f"hint: {'TRY_CAST' if 'a value cannot' in reason else tables}" in result.err


def test_a_name_that_begins_with_a_dollar_is_written_as_the_hint_says(shop: Callable[..., Any]) -> None:
    """As MongoDB exports them; DuckDB takes it for a path."""
    refused = shop("sql", "SELECT payload->'at'->>'$date' FROM events")
    assert refused.code == 2
    path = refused.err.partition("has quotes in a path: ")[2].strip()
    assert path == """'$."$date"'"""
    assert shop("sql", f"SELECT payload->'at'->>{path} FROM events").code == 0


def test_a_statement_comes_from_a_file_or_from_stdin(
    shop: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "q.sql").write_text("-- how many\nSELECT count(*) AS n FROM events; \n")
    assert selected(shop, "@q.sql") == [{"n": 61}]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"SELECT 7 AS n -- the last line")))
    assert selected(shop, "-") == [{"n": 7}]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"SELECT '\xff'")))
    wrong = shop("sql", "-")
    assert (wrong.code, "standard input is not UTF-8: line 1" in wrong.err) == (2, True)
    (tmp_path / "empty.sql").touch()
    (tmp_path / "binary.sql").write_bytes(b"\xff\xfe\x00")
    for name, reason in {"empty.sql": "empty", "binary.sql": "not utf-16", "absent.sql": "there is no file"}.items():
        result = shop("sql", f"@{name}")
        assert (result.code, reason in result.err) == (2, True), result.err


def test_rows_are_written_to_parquet_with_exact_types(shop: Callable[..., Any], tmp_path: Path) -> None:
    statement = (
        f"SELECT event_id, event_time, {AMOUNT} AS v, lag_ns, avg(seq) OVER () AS mean FROM events ORDER BY event_id"
    )
    result = shop("sql", statement, "--output", "out.parquet", "--format", "json")
    assert (result.code, json.loads(result.out)["rows"], json.loads(result.out)["approximate"]) == (0, 61, ["mean"])
    table = pq.read_table(tmp_path / "out.parquet")
    assert [str(kind) for kind in table.schema.types] == [
        "string",
        "timestamp[us]",
        "decimal128(18, 2)",
        "decimal128(38, 0)",
        "double",
    ]
    rows = selected(shop, statement)
    assert table.column("v").to_pylist() == [row["v"] for row in rows]
    assert [int(lag) for lag in table.column("lag_ns").to_pylist()] == [row["lag_ns"] for row in rows]
    again = shop("sql", "SELECT 1", "--output", "out.parquet")
    assert (again.code, "exists already" in again.err) == (2, True)
    assert shop("sql", "SELECT 1", "--output", "out.csv").code == 2
    assert shop("sql", "SELECT 1 AS a", "--output", "none/out.parquet").code == 2


def test_csv_and_markdown_have_the_columns_of_the_statement(shop: Callable[..., Any]) -> None:
    statement = 'SELECT source AS "a,b", count(*) AS n FROM events GROUP BY ALL ORDER BY 1'
    rows = list(csv.reader(io.StringIO(shop("sql", statement, "--format", "csv").out)))
    assert rows == [["a,b", "n"], ["s0", "31"], ["s1", "30"]]
    missing = shop("sql", "SELECT NULL AS a, '' AS b, 'x\"y' AS c, 1.50 AS d, NULL AS e", "--format", "csv").out
    assert missing == 'a,b,c,d,e\r\n,"","x""y",1.50,\r\n'
    assert shop("sql", "SELECT NULL AS a", "--format", "csv").out == 'a\r\n""\r\n', "an empty line is not a row"
    assert "| s0 | 31 |" in shop("sql", statement, "--format", "md").out


def test_a_value_that_the_column_does_not_hold_is_an_error(shop: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('name = "fine"\nvalue = "max(seq)::DECIMAL(38, 37)"\n')
    assert shop("metrics", "apply", "m.toml").code == 0
    result = shop("sql", "SELECT value FROM aggregates")
    assert (result.code, "too many digits" in result.err, "--metric" in result.err) == (2, True, True)
    assert shop("sql", "SELECT value FROM aggregates", "--metric", "revenue").code == 0


def cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.usefixtures("shop")
def test_ctrl_c_stops_a_statement_that_would_run_for_hours(tmp_path: Path) -> None:
    statement = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a.range + b.range) = 7"
    command = [sys.executable, "-m", "pik", "sql", statement]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while cpu_seconds(process.pid) < 3:  # it has begun: what comes before takes less
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()  # or the test would wait for hours where it went on
    assert (process.returncode, out, "interrupted" in err) == (130, "", True)


def test_a_store_that_is_not_there_is_an_error(pik: Callable[..., Any]) -> None:
    assert pik("sql", "SELECT 1").code == 4

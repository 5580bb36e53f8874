"""`pik export` as people type it."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest

EVENTS = [
    {
        "source": "web",
        "event_type": "paid",
        "entity_id": "a",
        "event_time": f"2026-01-0{day}T00:00:00Z",
        "payload": {"amount": day},
    }
    for day in range(1, 5)
]


@pytest.fixture
def store(pik: Any) -> Any:
    """`pik`, in a directory with a store of four events, each delivered twice."""
    Path("events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in EVENTS), encoding="utf-8")
    assert pik("ingest", "events.jsonl").code == 0
    assert pik("ingest", "events.jsonl", "--again").code == 0
    return pik


def test_everything_as_parquet(store: Any) -> None:
    result = store("export", "--out", "e.parquet", "--format", "json")
    assert (result.code, result.err) == (0, "")
    document = result.json()
    data = Path("e.parquet").read_bytes()
    assert document["files"] == [
        {"path": "e.parquet", "rows": 4, "bytes": len(data), "sha256": sha256(data).hexdigest()}
    ]
    assert {name: document[name] for name in ("out", "format", "window", "rows", "bytes", "manifest", "dry_run")} == {
        "out": "e.parquet",
        "format": "parquet",
        "window": {"from": None, "to": None},
        "rows": 4,
        "bytes": len(data),
        "manifest": str(Path("e.parquet.manifest.json").absolute()),
        "dry_run": None,
    }
    assert document["known_until"] > "2026"
    assert json.loads(Path("e.parquet.manifest.json").read_bytes())["files"] == document["files"]
    assert pq.read_table("e.parquet").num_rows == 4


def test_people_read_what_was_written(store: Any) -> None:
    result = store("export", "--out", "data", "--partition-by", "event_date,source", "--from", "2026-01-03")
    assert result.code == 0
    assert "[2026-01-03T00:00:00Z, …)" in result.out
    assert "event_date=2026-01-04/source=web/part-0.parquet" in result.out
    assert Path("data/_manifest.json").exists()


@pytest.mark.parametrize("format_", ["parquet", "csv"])
def test_dates_of_partitions_are_those_of_a_timezone_given(pik: Any, format_: str) -> None:
    start = datetime(2026, 3, 28, 20, tzinfo=UTC)  # clocks in Berlin go forward five hours later
    times = [start + timedelta(minutes=20 * number) for number in range(160)]
    events = [{**EVENTS[0], "event_time": time.isoformat(), "source": f"s{time.minute}"} for time in times]
    Path("events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    assert pik("ingest", "events.jsonl").code == 0
    given = ("--as", format_, "--partition-by", "event_date,source", "--timezone", "Europe/Berlin")
    result = pik("export", "--out", "data", "--from", "2026-03-29", *given, "--format", "json")
    local = [time.astimezone(ZoneInfo("Europe/Berlin")) for time in times]
    expected = Counter(f"event_date={time.date()}/source=s{time.minute}" for time in local if time.day != 28)
    assert {str(Path(file["path"]).parent): file["rows"] for file in result.json()["files"]} == expected
    assert expected["event_date=2026-03-29/source=s0"] == 23
    assert json.loads(Path("data/_manifest.json").read_bytes())["query"]["timezone"] == "Europe/Berlin"


def test_columns_and_filters(store: Any) -> None:
    result = store(
        "export", "--out", "e.csv.gz", "--column", "amount=amount:decimal(6,2)", "--include-duplicates",
        "--entity", "a", "--type", "paid", "--source", "web", "--to", "2026-01-02",
    )  # fmt: skip
    assert result.code == 0
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(Path("e.csv.gz").read_bytes()).decode(), newline="")))
    assert [(row["amount"], row["delivery"]) for row in rows] == [("1.00", "accepted"), ("1.00", "exact")]


def test_a_dry_run_counts(store: Any) -> None:
    before = sorted(Path().iterdir())
    result = store("export", "--out", "e.jsonl", "--dry-run", "--format", "json")
    assert (result.code, result.json()["rows"], result.json()["dry_run"]) == (0, 4, True)
    assert result.json()["manifest"] is None
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("--out", "events.jsonl"),
        ("--out", "e.txt"),
        ("--out", "e.parquet", "--partition-by", "source"),
        ("--out", "data", "--partition-by", "entity_id"),
        ("--out", "e.parquet", "--column", "x"),
        ("--out", "e.parquet", "--column", "x=amount:bool"),
        ("--out", "e.parquet", "--as", "csv"),
        ("--out", "e.csv", "--compression", "snappy"),
        ("--out", "nowhere/e.parquet"),
        ("--out", "s3://bucket/events"),
        ("--out", "e.parquet", "--from", "noon"),
    ],
)
def test_what_is_wrong_is_named_with_a_hint(store: Any, arguments: tuple[str, ...]) -> None:
    before = sorted(Path().iterdir())
    result = store("export", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert "hint: " in result.err
    assert sorted(Path().iterdir()) == before


def test_pandas_is_not_imported_for_it(store: Any) -> None:
    """pyarrow would, at the first chance, and that takes longer than many an export."""
    code = "import sys; from pik.__main__ import main; code = main(); sys.exit(code or 'pandas' in sys.modules)"
    arguments = [
        "export",
        "--out",
        "e.parquet",
        "--entity",
        "a",
        "--source",
        "web",
        "--type",
        "paid",
        "--to",
        "2027-01-01",
    ]
    settings = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=settings, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_without_a_store(pik: Any) -> None:
    result = pik("export", "--out", "e.parquet")
    assert result.code == 4
    assert "no store at" in result.err
    assert list(Path().iterdir()) == []

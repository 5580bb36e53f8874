"""Where an export goes: standard output, names that file systems take and tell apart; times that Spark reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pik.errors import UsageError
from pik.usecases.export.place import partition_name


def write(pik: Any, directory: Path, *events: dict[str, Any]) -> None:
    usual = {"source": "s", "event_type": "t", "entity_id": "e", "event_time": "2026-01-01T00:00:00Z", "payload": {}}
    (directory / "events.jsonl").write_text("".join(json.dumps({**usual, **event}) + "\n" for event in events))
    assert pik("ingest", "events.jsonl").code == 0


@pytest.mark.parametrize("format_", ["jsonl", "csv"])
def test_standard_output_gets_what_a_file_would(pik: Any, tmp_path: Path, format_: str) -> None:
    import subprocess
    import sys

    write(pik, tmp_path, {"entity_id": "é"}, {"entity_id": "b", "payload": {"a": "\x9b"}})
    assert pik("export", "--out", f"file.{format_}").code == 0
    done = subprocess.run(
        [sys.executable, "-m", "pik", "export", "--out", "-", "--as", format_], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"exported 2 rows\n")
    assert done.stdout == (tmp_path / f"file.{format_}").read_bytes()
    assert not (tmp_path / "-").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "the name - does not tell the format"),
        (("--as", "parquet"), "Parquet is not written to standard output"),
        (("--as", "csv", "--partition-by", "source"), "--partition-by makes a directory, and - is standard output"),
        (("--as", "csv", "--microseconds"), "--microseconds is for Parquet; csv has times as text"),
    ],
)
def test_what_does_not_go_to_standard_output(pik: Any, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    write(pik, tmp_path, {})
    result = pik("export", "--out", "-", *words)
    assert (result.code, result.err.startswith(f"error: {said}")) == (2, True)


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_a_partition_whose_name_is_too_long_is_named(pik: Any, tmp_path: Path, dry_run: tuple[str, ...]) -> None:
    long = "注文" * 14
    write(pik, tmp_path, {"source": long}, {"source": "short"})
    result = pik("export", "--out", "out/", "--partition-by", "source", *dry_run)
    assert result.code == 2
    assert f"--partition-by source: the value '{long}' makes a directory name of 259 bytes" in result.err
    assert f"--source '{long}'" in result.err
    assert not (tmp_path / "out").exists()
    assert pik("export", "--out", "one/", "--source", long, *dry_run).code == 0


def test_the_longest_name_that_fits() -> None:
    assert len(partition_name("source", "x" * 248)) == 255
    with pytest.raises(UsageError, match="256 bytes"):
        partition_name("source", "x" * 249)


def test_partitions_stay_apart_on_a_file_system_without_case(pik: Any, tmp_path: Path) -> None:
    names = ["Shop", "shop", "SHOP", "a/b", "A/B"]
    write(pik, tmp_path, *({"source": name} for name in names))
    assert pik("export", "--out", "out/", "--partition-by", "source").code == 0
    made = [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert len({name.lower() for name in made}) == len(names)
    schema = pa.schema([("source", pa.string())])
    read = ds.dataset(tmp_path / "out", partitioning=ds.partitioning(schema, flavor="hive"), format="parquet")
    assert sorted(read.to_table().column("source").to_pylist()) == sorted(names)


def test_microseconds_are_exact_or_refused(pik: Any, tmp_path: Path) -> None:
    write(pik, tmp_path, {"event_time": "2026-01-01T00:00:00.000001Z", "payload": {"at": "2026-01-01T00:00:00Z"}})
    own = ("--column", "at=at:timestamp")
    assert pik("export", "--out", "a.parquet", "--microseconds", *own).code == 0
    table = pq.read_table(tmp_path / "a.parquet")
    assert {table.schema.field(name).type for name in ("event_time", "received_time", "at")} == {
        pa.timestamp("us", tz="UTC")
    }
    assert table.column("event_time").cast(pa.int64()).to_pylist() == [1767225600000001]
    (shown,) = pik("events", "--format", "json").json()["events"]
    lines = pik("show", shown["event_id"], "--format", "json").json()["raw"]
    assert table.column("ingest_time").to_pylist() == [lines[0]["ingest_time"]]

    write(pik, tmp_path, {"event_time": "2026-01-01T00:00:00.000000001Z"})
    for dry_run in ((), ("--dry-run",)):
        refused = pik("export", "--out", "b.parquet", "--microseconds", *dry_run)
        assert refused.code == 2
        assert "event_time 2026-01-01T00:00:00.000000001Z is not a whole number of microseconds" in refused.err
        assert "hint: leave --microseconds out" in refused.err
    assert not (tmp_path / "b.parquet").exists()

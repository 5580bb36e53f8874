"""Export: all of it or nothing, with a manifest that is true."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pik import __version__
from pik.errors import UsageError
from pik.exporters import exporter
from pik.model.delivery import Filter, parse_column
from pik.model.window import ALL_TIME
from pik.ports.exporter import Layout
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.runtime import SILENT
from pik.usecases.export import parts, rows
from pik.usecases.export.export import ExportReport, export
from pik.usecases.export.options import checked_columns, chosen_format, is_directory, partitions
from tests.support.stores import EVENTS, event, ingest, window

EVERYTHING = Layout(Filter(ALL_TIME))


def run(store: Store, target: Path, layout: Layout = EVERYTHING, **options: Any) -> ExportReport:
    return export(store, exporter(layout), target, SILENT, **{"directory": not target.suffix, **options})


def ids(path: Path, column: str = "event_id") -> list[Any]:
    return sorted(pq.ParquetFile(path).read().column(column).to_pylist())


def accepted(store: Store, wanted: Filter) -> list[str]:
    return sorted(found.delivery.event_id for found in deliveries(store, wanted, only="accepted"))


def test_a_file_and_its_manifest(filled: Store, place: Path) -> None:
    target = place / "events.parquet"
    done = run(filled, target)
    assert sorted(os.listdir(place)) == ["events.parquet", "events.parquet.manifest.json"]
    assert ids(target) == accepted(filled, Filter(ALL_TIME))
    data = target.read_bytes()
    manifest = json.loads((place / "events.parquet.manifest.json").read_text(encoding="utf-8"))
    assert manifest.pop("created_at") > "2026"
    assert manifest.pop("known_until") is not None
    assert manifest.pop("corrected") is None
    assert manifest == {
        "pik": __version__,
        "store": filled.url,
        "store_format": filled.format_version,
        "format": "parquet",
        "compression": "zstd",
        "query": {
            "window": {"from": None, "to": None},
            "entities": [],
            "source": None,
            "event_type": None,
            "include_duplicates": False,
            "as_received": False,
            "columns": [],
            "partition_by": [],
            "timezone": None,
        },
        "rows": 10,
        "files": [
            {"path": "events.parquet", "rows": 10, "bytes": len(data), "sha256": sha256(data).hexdigest()},
        ],
    }
    assert (done.rows, done.size, done.manifest) == (10, len(data), place / "events.parquet.manifest.json")
    assert done.known_until == max(segment.recorded_at for segment in filled.index.segments(ALL_TIME))


def test_a_manifest_contains_the_query(filled: Store, place: Path) -> None:
    wanted = Filter(window("01", "03"), ("a", "b"), "web", "paid")
    column = parse_column("v=v:int64")
    run(filled, place / "e.csv", Layout(wanted, "csv", "none", include_duplicates=True, columns=(column,)))
    assert json.loads((place / "e.csv.manifest.json").read_bytes())["query"] == {
        "window": {"from": "2026-01-01T00:00:00Z", "to": "2026-01-03T00:00:00Z"},
        "entities": ["a", "b"],
        "source": "web",
        "event_type": "paid",
        "include_duplicates": True,
        "as_received": False,
        "columns": [{"name": "v", "expression": "v", "type": "int64"}],
        "partition_by": [],
        "timezone": None,
    }


WEIRD = "a/b=c %é&'\"\\."


def test_partitions_are_read_by_duckdb_and_pyarrow(filled: Store, tmp_path: Path, place: Path) -> None:
    ingest(filled, tmp_path, [event(1024, "w", "01T05:00", source=WEIRD), event(2048, "w", "01T05:00", source="..")])
    target = place / "data"
    layout = replace(EVERYTHING, partition_by=("event_date", "source"), columns=(parse_column("v=v:int64"),))
    done = run(filled, target, layout)
    manifest = json.loads((target / "_manifest.json").read_bytes())
    for file in manifest["files"]:
        data = (target / file["path"]).read_bytes()
        assert (len(data), sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
        assert pq.ParquetFile(target / file["path"]).metadata.num_rows == file["rows"]
    on_disk = sorted(str(path.relative_to(target)) for path in target.rglob("*.parquet"))
    assert [file["path"] for file in manifest["files"]] == on_disk == [file.path for file in done.files]
    assert "event_date=2026-01-01/source=web/part-0.parquet" in on_disk
    assert sum(file["rows"] for file in manifest["files"]) == manifest["rows"] == done.rows == 12

    expected = sorted(
        (found.delivery.source, found.delivery.event_time[:10], json.loads(bytes(found.delivery.payload))["v"])
        for found in deliveries(filled, Filter(ALL_TIME))
    )
    with duckdb.connect() as connection:
        query = "SELECT source, event_date::VARCHAR, v FROM read_parquet(?, hive_partitioning = true)"
        assert sorted(connection.execute(query, [f"{target}/*/*/*.parquet"]).fetchall()) == expected
    table = ds.dataset(target, partitioning="hive").to_table(columns=["source", "event_date", "v"])
    assert sorted((row["source"], str(row["event_date"]), row["v"]) for row in table.to_pylist()) == expected


def test_there_may_be_more_partitions_than_open_files(
    filled: Store, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "OPEN_FILES", 1)
    run(filled, place / "data", replace(EVERYTHING, partition_by=("source",)))
    found = [row for path in (place / "data").rglob("*.parquet") for row in ids(path)]
    assert sorted(found) == accepted(filled, Filter(ALL_TIME))
    assert (place / "data/source=web/part-1.parquet").exists()


def test_promise_4_duplicates_are_left_out_unless_asked_for(filled: Store, tmp_path: Path, place: Path) -> None:
    ingest(filled, tmp_path, EVENTS, again=True)
    keyed = [
        {**event(1, "k", "03T00:00"), "idempotency_key": "k"},
        {**event(2, "k", "04T00:00"), "idempotency_key": "k"},
    ]
    ingest(filled, tmp_path, keyed)
    run(filled, place / "e.parquet")
    assert ids(place / "e.parquet") == accepted(filled, Filter(ALL_TIME))
    assert pq.ParquetFile(place / "e.parquet").metadata.num_rows == 11
    run(filled, place / "all.parquet", replace(EVERYTHING, include_duplicates=True))
    table = pq.ParquetFile(place / "all.parquet").read()
    found = zip(*(table.column(name).to_pylist() for name in ("batch_id", "seq", "delivery")), strict=True)
    assert sorted(found) == sorted(
        (each.delivery.batch_id, each.delivery.seq, each.kind) for each in deliveries(filled, Filter(ALL_TIME))
    )
    assert sorted(ids(place / "all.parquet", "delivery")) == ["accepted"] * 11 + ["conflict"] + ["exact"] * 10


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(window("01T11:59:00Z", "02T01:00:00Z")),
        Filter(window("", "05")),
        Filter(ALL_TIME, ("z", "é")),
        Filter(ALL_TIME, ("nobody",)),
        Filter(ALL_TIME, (), "app"),
        Filter(ALL_TIME, (), None, "seen"),
        Filter(window("02", "06"), ("a", "b"), "app", "paid"),
    ],
)
@pytest.mark.parametrize("frames", [1, 32])
def test_filters(filled: Store, place: Path, wanted: Filter, frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "FRAMES", frames)
    done = run(filled, place / "e.parquet", Layout(wanted))
    assert ids(place / "e.parquet") == accepted(filled, wanted)
    dry = run(filled, place / "other.parquet", Layout(wanted), dry_run=True)
    assert (dry.rows, dry.files, dry.manifest) == (done.rows, (), None)
    assert not (place / "other.parquet").exists()


def test_frames_of_one_entity_are_read_alone(store: Store, tmp_path: Path, place: Path) -> None:
    many = [event(number, f"e{number % 9}", f"01T{number % 24:02}:{number // 24 % 60:02}") for number in range(3000)]
    ingest(store, tmp_path, many)
    (segment,) = store.index.segments(ALL_TIME)
    assert len(segment.frames) > 5
    wanted = Filter(ALL_TIME, ("e0", "e8"))
    run(store, place / "e.parquet", Layout(wanted))
    assert ids(place / "e.parquet") == accepted(store, wanted)
    run(store, place / "all.parquet")
    assert len(ids(place / "all.parquet")) == 3000


def test_nothing_found_is_a_file_without_rows(store: Store, place: Path) -> None:
    done = run(store, place / "e.parquet")
    assert (done.rows, done.known_until) == (0, None)
    assert pq.ParquetFile(place / "e.parquet").read().num_rows == 0
    assert run(store, place / "data").files[0].rows == 0
    assert run(store, place / "parts", replace(EVERYTHING, partition_by=("source",))).files == ()
    assert os.listdir(place / "parts") == ["_manifest.json"]


def test_the_same_store_makes_the_same_file(filled: Store, place: Path) -> None:
    assert run(filled, place / "a.parquet").files[0].sha256 == run(filled, place / "b.parquet").files[0].sha256


def test_nothing_is_overwritten(filled: Store, place: Path) -> None:
    (place / "e.parquet").write_text("mine")
    (place / "full").mkdir()
    (place / "full/mine").touch()
    (place / "empty").mkdir()
    for name in ("e.parquet", "full", "nowhere/e.parquet"):
        with pytest.raises(UsageError) as refused:
            run(filled, place / name)
        assert refused.value.hint
    assert (place / "e.parquet").read_text() == "mine"
    assert os.listdir(place / "full") == ["mine"]
    run(filled, place / "empty")
    assert sorted(os.listdir(place / "empty")) == ["_manifest.json", "part-0.parquet"]


def test_a_value_that_fits_no_column_stops_the_export(filled: Store, place: Path) -> None:
    layout = replace(EVERYTHING, columns=(parse_column("v=v:bool"),))
    with pytest.raises(UsageError, match=r"--column v: event [0-9a-f]{32}: 1 is not a value of type bool"):
        run(filled, place / "e.parquet", layout)
    assert os.listdir(place) == []


@pytest.mark.parametrize(
    ("out", "asked", "compression", "expected"),
    [
        ("e.parquet", None, None, ("parquet", "zstd")),
        ("e.parquet", "parquet", "none", ("parquet", "none")),
        ("e.jsonl", None, None, ("jsonl", "none")),
        ("e.ndjson.zst", None, None, ("jsonl", "zstd")),
        ("e.csv.gz", "csv", "gzip", ("csv", "gzip")),
        ("e.csv", None, "gzip", ("csv", "gzip")),
        ("e.txt", "csv", None, ("csv", "none")),
        ("data", None, None, ("parquet", "zstd")),
        ("data.v2/", "jsonl", None, ("jsonl", "none")),
    ],
)
def test_names_tell_the_format(out: str, asked: Any, compression: Any, expected: tuple[str, str]) -> None:
    directory = is_directory(out, partitioned=False)
    assert directory == (out.startswith("data"))
    assert chosen_format(Path(out), asked, compression, directory=directory) == expected


@pytest.mark.parametrize(
    ("out", "asked", "compression"),
    [
        ("e.txt", None, None),
        ("e.parquet", "csv", None),
        ("e.parquet.gz", None, None),
        ("e.csv.gz", None, "none"),
        ("e.csv.gz", None, "zstd"),
        ("e.csv", None, "snappy"),
    ],
)
def test_names_that_contradict_are_refused(out: str, asked: Any, compression: Any) -> None:
    with pytest.raises(UsageError) as refused:
        chosen_format(Path(out), asked, compression, directory=False)
    assert refused.value.hint


def test_partitions_and_columns_are_checked() -> None:
    assert partitions("source, event_date") == ("source", "event_date")
    assert partitions(None) == ()
    for names in ("entity_id", "source,source", ""):
        with pytest.raises(UsageError, match="--partition-by"):
            partitions(names)
    with pytest.raises(UsageError, match="looks like a file"):
        is_directory("e.parquet", partitioned=True)
    for taken in (["payload=a:string"], ["Delivery=a:string"], ["event_date=a:string"], ["x=a:bool", "X=b:bool"]):
        with pytest.raises(UsageError, match="already"):
            checked_columns(taken)

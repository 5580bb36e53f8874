"""An export on a fleet: the rows of the export on one machine, each once, whatever becomes of attempts."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pik.engine import DuckEngine
from pik.errors import Damaged, StoreError, UsageError
from pik.exporters import exporter
from pik.fleets.here import Here
from pik.fleets.session import Session
from pik.fleets.spark import SparkFleet
from pik.model.calendar import CalendarBuckets
from pik.model.delivery import Filter, parse_column
from pik.model.instant import DAY
from pik.model.window import ALL_TIME, Window
from pik.ports.exporter import Exporter, Layout
from pik.ports.fleet import Fleet
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.runtime.storage import scratch
from pik.usecases.export import fleet as fleet_module
from pik.usecases.export.export import ExportReport, export
from pik.usecases.export.fleet import cut_window, export_on
from tests.support.exports import killed_once, rows_of
from tests.support.spark import LOCATION
from tests.support.stores import EVENTS, event, ingest, window

ENGINE = DuckEngine(threads=1)
EVERYTHING = Layout(Filter(ALL_TIME))
TASK, PARTITIONED = 2500, 8000


@pytest.fixture
def busy(filled: Store, tmp_path: Path) -> Store:
    """With exact duplicates, a conflict with a key of another day, and days of many events."""
    ingest(filled, tmp_path, EVENTS, again=True)
    keyed = [{**event(number, "k", f"0{number}T00:00"), "idempotency_key": "k"} for number in (1, 2)]
    many = [event(number / 8, f"e{number % 7}", f"0{4 + number % 2}T03:{number % 60:02}") for number in range(300)]
    for batch in (keyed, many[:100], many[100:200], many[200:]):
        ingest(filled, tmp_path, batch)
    return filled


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day of a few segments is shared, and days of few events go together."""
    monkeypatch.setattr(fleet_module, "TASK_BYTES", TASK)
    monkeypatch.setattr(fleet_module, "PARTITIONED_BYTES", PARTITIONED)


def run(fleet: Fleet, store: Store, target: Path, layout: Layout = EVERYTHING, **options: Any) -> ExportReport:
    return export_on(fleet, store, options.pop("exporter_of", exporter), layout, target, SILENT, **options)


def manifest(target: Path) -> dict[str, Any]:
    """The manifest, whose files are all that is there, and as it says."""
    found: dict[str, Any] = json.loads((target / "_manifest.json").read_bytes())
    on_disk = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert [*(file["path"] for file in found["files"]), "_manifest.json"] == sorted(on_disk, key=_manifest_last)
    for file in found["files"]:
        data = (target / file["path"]).read_bytes()
        assert (len(data), sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
    assert found["rows"] == sum(file["rows"] for file in found["files"])
    assert os.listdir(target.parent) == [target.name]
    return found


def _manifest_last(path: str) -> tuple[bool, str]:
    return path == "_manifest.json", path


LAYOUTS = [
    EVERYTHING,
    replace(EVERYTHING, include_duplicates=True, columns=(parse_column("v=v:double"),)),
    Layout(Filter(ALL_TIME), "csv", "none", include_duplicates=True),
    Layout(Filter(ALL_TIME), "jsonl", "none"),
    Layout(Filter(window("01T11:59:00Z", "05T13:00:00Z"), ("a", "e1", "k")), "jsonl", "none"),
    Layout(Filter(ALL_TIME, (), "app", "seen"), "csv", "none", as_received=True),
    replace(EVERYTHING, partition_by=("event_date", "source")),
    replace(EVERYTHING, partition_by=("event_type",), include_duplicates=True),
    replace(EVERYTHING, partition_by=("event_date",), days=CalendarBuckets("1d", "America/New_York")),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_and_totals_are_those_of_one_machine(busy: Store, tmp_path: Path, place: Path, layout: Layout) -> None:
    fleet = Here(busy, ENGINE)
    alone = export(busy, exporter(layout), tmp_path / "alone", SILENT, directory=True)
    done = run(fleet, busy, place / "data", layout)
    assert done.rows == alone.rows > 0
    assert (done.window, done.known_until) == (alone.window, alone.known_until)
    assert rows_of(place / "data", layout.format) == rows_of(tmp_path / "alone", layout.format)
    found, expected = manifest(place / "data"), json.loads((tmp_path / "alone/_manifest.json").read_bytes())
    for of_files in (found, expected):
        del of_files["files"], of_files["created_at"]
    assert found == expected
    dry = run(fleet, busy, tmp_path / "dry", layout, dry_run=True)
    assert (dry.rows, dry.known_until, dry.files, dry.manifest) == (done.rows, done.known_until, (), None)
    assert not (tmp_path / "dry").exists()


def test_files_are_in_the_order_of_days_and_small_days_go_together(busy: Store, place: Path) -> None:
    done = run(Here(busy, ENGINE), busy, place / "data", Layout(Filter(ALL_TIME), "jsonl", "none"))
    days = [
        {day_of_line(line) for line in (place / "data" / file.path).read_text().splitlines()} for file in done.files
    ]
    assert done.files[0].path == "part-000000.jsonl"
    for earlier, later in pairwise(days):
        assert max(earlier) <= min(later)
    assert len(days[0]) > 1


def day_of_line(line: str) -> str:
    return str(json.loads(line)["event_time"][:10])


def test_a_partition_with_a_date_is_one_file(busy: Store, place: Path) -> None:
    done = run(Here(busy, ENGINE), busy, place / "data", replace(EVERYTHING, partition_by=("event_date", "source")))
    directories = [file.path.rsplit("/", 1)[0] for file in done.files]
    assert len(set(directories)) == len(directories) > 5


def test_nothing_found(store: Store, place: Path, tmp_path: Path) -> None:
    """A file without rows has the columns."""
    fleet = Here(store, ENGINE)
    done = run(fleet, store, place / "data")
    assert [(file.path, file.rows) for file in done.files] == [("part-000000.parquet", 0)]
    assert rows_of(place / "data", "parquet") == []
    manifest(place / "data")
    partitioned = replace(EVERYTHING, partition_by=("source",))
    assert run(fleet, store, tmp_path / "parts", partitioned).files == ()
    assert run(fleet, store, tmp_path / "none", even_empty=False).manifest is None
    assert not (tmp_path / "none").exists()


def test_large_days_are_shared() -> None:
    days = {1: 100, 2: TASK - 100, 3: 100, 5: 4 * TASK, 7: 100}
    parts = [(*part.window.days, part.share.number) for part in cut_window(Window(DAY, 9 * DAY), days, ())]
    assert parts == [(1, 2, 0), (3, 4, 0), *((5, 6, number) for number in range(4)), (7, 8, 0)]
    dated = [part.window.days for part in cut_window(Window(DAY, 9 * DAY), days, ("event_date",))]
    assert dated == [(1, 2), (3, 4), (5, 6), (7, 8)]
    assert [part.window.days for part in cut_window(Window(DAY, 9 * DAY), days, ("source",))] == [
        (1, 4),
        (5, 6),
        (7, 8),
    ]


sizes = st.dictionaries(st.integers(-3, 40), st.integers(0, 40_000))


@given(sizes, st.sampled_from([(), ("event_date",), ("source",), ("source", "event_date")]))
def test_parts_are_the_whole_window_once(of_days: dict[int, int], partition_by: tuple[str, ...]) -> None:
    wanted = Window(-3 * DAY + 5, 41 * DAY - 7)
    parts = list(cut_window(wanted, of_days, partition_by))
    assert [part.number for part in parts] == list(range(len(parts)))
    windows = list(dict.fromkeys(part.window for part in parts))
    assert [one.start for one in windows] == [wanted.start, *(one.end for one in windows[:-1])]
    assert windows[-1].end == wanted.end
    for one in windows:
        shares = [part.share for part in parts if part.window == one]
        assert [share.number for share in shares] == list(range(shares[0].count))
        first, last = one.days
        held = [size for day, size in of_days.items() if first <= day <= last]
        bar = 12_000 if partition_by == ("source",) or (len(shares) > 1 and partition_by) else 4000
        assert len(shares) == 1 or sum(held) <= 1.5 * bar * len(shares)
        assert len(shares) > 1 or sum(held) <= bar or sum(map(bool, held)) <= 1


def test_deliveries_recorded_meanwhile_do_not_count(busy: Store, tmp_path: Path, place: Path) -> None:
    class Later(Here):
        def map(self, body: Any, items: Iterable[Any]) -> Iterator[Any]:
            for item in items:
                ingest(busy, tmp_path, [event(item.number, "late", "05T01:00")])
                yield from super().map(body, [item])

    expected = export(busy, exporter(EVERYTHING), tmp_path / "before.parquet", SILENT)
    done = run(Later(busy, ENGINE), busy, place / "data")
    assert (done.rows, done.known_until) == (expected.rows, expected.known_until)


# Attempts


class Repeating(Here):
    """Runs each item twice, and before that once in a process that is killed when it completes its first file."""

    def map(self, body: Any, items: Iterable[Any]) -> Iterator[Any]:
        with scratch() as marks:
            killed = partial(body.func, replace(body.args[0], exporter_of=partial(killed_once, marks)))
            for item in items:
                child = os.fork()
                if child == 0:
                    try:
                        list(killed(self.store, self.engine, item))
                    finally:
                        os._exit(0)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (-signal.SIGKILL, 0)
                first, second = list(body(self.store, self.engine, item)), list(body(self.store, self.engine, item))
                assert first == second
                yield from second


def test_attempts_that_are_killed_or_repeated_do_no_harm(
    busy: Store, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "PARTITIONED_BYTES", TASK)
    layout = Layout(Filter(ALL_TIME), "jsonl", "none", partition_by=("source",), include_duplicates=True)
    alone = export(busy, exporter(layout), tmp_path / "alone", SILENT, directory=True)
    left: list[str] = []

    class Looking(Repeating):
        def map(self, body: Any, items: Iterable[Any]) -> Iterator[Any]:
            yield from super().map(body, items)
            left.extend(os.listdir(body.args[0].parts))

    done = run(Looking(busy, ENGINE), busy, place / "data", layout)
    assert sum(name.startswith("aside-") for name in left) > 2
    assert done.rows == alone.rows
    assert rows_of(place / "data", layout.format) == rows_of(tmp_path / "alone", layout.format)
    manifest(place / "data")


def test_an_attempt_with_another_result_is_not_taken(busy: Store, place: Path) -> None:
    """Such as one by a machine with another version of what compresses: its file has another name."""

    class Other(Here):
        def map(self, body: Any, items: Iterable[Any]) -> Iterator[Any]:
            other = partial(body.func, replace(body.args[0], exporter_of=compressed))
            for item in items:
                found = list(body(self.store, self.engine, item))
                list(other(self.store, self.engine, item))
                yield from found

    run(Other(busy, ENGINE), busy, place / "data", Layout(Filter(ALL_TIME), "jsonl", "none"))
    manifest(place / "data")


def compressed(layout: Layout) -> Exporter:
    return exporter(replace(layout, compression="gzip"))


def test_a_failure_leaves_nothing(busy: Store, place: Path) -> None:
    fleet = Here(busy, ENGINE)
    with pytest.raises(UsageError, match=r"--column v: event [0-9a-f]{32}: .* is not a value of type bool"):
        run(fleet, busy, place / "data", replace(EVERYTHING, columns=(parse_column("v=v:bool"),)))
    segment = next(iter(busy.index.segments(ALL_TIME)))
    (Path(busy.url) / segment.key).unlink()
    with pytest.raises(Damaged, match=segment.key):
        run(fleet, busy, place / "data")
    assert os.listdir(place) == []
    (place / "data").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        run(fleet, busy, place / "data")


@pytest.mark.parametrize(
    ("there", "message", "hint"),
    [
        ("/mnt/none", r"does not have the directory in which .*/data is made", "share"),
        (f"/mnt/{'n' * 300}", r"cannot write .*/data: File name too long", "--out"),  # as a directory of another user
    ],
)
def test_an_export_to_a_directory_that_a_machine_lacks_is_refused(
    busy: Store, place: Path, there: str, message: str, hint: str
) -> None:
    class Elsewhere(Here):
        def map(self, body: Any, items: Iterable[Any]) -> Iterator[Any]:
            return super().map(partial(body.func, replace(body.args[0], parts=Path(there))), items)

    with pytest.raises(StoreError, match=message) as refused:
        run(Elsewhere(busy, ENGINE), busy, place / "data")
    assert hint in refused.value.hint
    assert os.listdir(place) == []


@pytest.mark.slow
@pytest.mark.xdist_group("spark")
@pytest.mark.parametrize("partition_by", [(), ("event_date", "source")])
def test_python_processes_of_a_cluster_are_killed(
    busy: Store, spark: Session, tmp_path: Path, place: Path, partition_by: tuple[str, ...]
) -> None:
    layout = replace(EVERYTHING, partition_by=partition_by, include_duplicates=True)
    alone = export(busy, exporter(layout), tmp_path / "alone", SILENT, directory=True)
    marks = tmp_path / "marks"
    marks.mkdir()
    fleet = SparkFleet(spark, LOCATION, busy, ENGINE)
    done = run(fleet, busy, place / "data", layout, exporter_of=partial(killed_once, marks))
    assert len(os.listdir(marks)) > 2
    assert (done.rows, done.known_until) == (alone.rows, alone.known_until)
    assert rows_of(place / "data", layout.format) == rows_of(tmp_path / "alone", layout.format)
    manifest(place / "data")

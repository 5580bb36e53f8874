"""A verification by the tasks of a fleet finds the same as one in this process."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.inputs.source import file_source
from pik.model.instant import DAY, parse_instant
from pik.model.metric import Definition, Per
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care import verify_days, verify_values
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_findings import Depth, Problem, ProblemKind, VerifyReport
from pik.usecases.ingest.batch_ingest import IngestOptions, ingest
from pik.usecases.metrics.definitions import add_version
from tests.support.fleet import RepeatingFleet
from tests.support.stores import replayed

ENGINE = DuckEngine(threads=1)
METRICS = [
    Definition(name="paid", value="sum((payload->>'n')::DECIMAL(18, 2))", where="event_type = 'paid'"),
    Definition(name="everybody", value="count(*)", per=Per.ALL, bucket="7d"),
    Definition(name="whole", value="sum((payload->>'text')::BIGINT)"),
]


def event(number: int, **changed: Any) -> dict[str, Any]:
    """One of three days, with a gap after the first one, of few entities."""
    made = {
        "source": "s",
        "event_type": "paid" if number % 2 else "seen",
        "entity_id": f"e{number % 7}",
        "event_time": f"2026-01-{(1, 4, 5)[number % 3]:02}T00:00:{number % 60:02}Z",
        "payload": {"n": number, "text": f"{number % 4}"},
    }
    return {**made, **({"idempotency_key": f"k{number}"} if number % 5 == 0 else {}), **changed}


def put(store: Store, directory: Path, name: str, events: list[dict[str, Any]]) -> None:
    path = directory / f"{name}.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in events))
    ingest(store, file_source(str(path)), IngestOptions(Reading(1 << 20), workers=0), SILENT)


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Current values of three batches; then late events, duplicates and conflicts."""
    monkeypatch.setattr("pik.rawlog.segment_writer.FRAME", 1500)
    store = open_store(str(tmp_path / "store"), create=True)
    for metric in METRICS:
        add_version(store.metrics, metric, 2)
    for start in range(0, 120, 40):
        put(store, tmp_path, f"first-{start}", [event(number) for number in range(start, start + 40)])
    replayed(store, ENGINE)
    keyed = [event(number, event_time="2026-02-03T04:05:06Z") for number in range(0, 60, 5)]
    put(store, tmp_path, "second", [*(event(number) for number in range(90, 150)), *keyed])
    return store


def path_of(store: Store, number: int) -> Path:
    return Path(store.url) / sorted(one.key for one in store.raw.objects("raw/event_date="))[number]


def flip(store: Store) -> None:
    path = path_of(store, 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def lose(store: Store) -> None:
    path_of(store, -1).unlink()  # the only one of its day
    path_of(store, 4).unlink()


def leave_unlisted(store: Store) -> None:
    key = next(store.index.segments(Window(parse_instant("2026-01-04T00:00:00Z"), ALL_TIME.end))).key
    alter(store, "DELETE FROM segment WHERE key = ?", key)
    path = path_of(store, 0)
    (path.parent / f"01{'0' * 24}-0.ndjson.zst").write_bytes(path.read_bytes())


def forget_rows(store: Store) -> None:
    alter(store, "DELETE FROM event WHERE seq = 7")
    alter(store, "UPDATE batch SET accepted = accepted + 1")


def change_values(store: Store) -> None:
    for name in ("paid", "everybody", "whole"):
        add_version(store.metrics, next(one for one in METRICS if one.name == name), 2)
    put(store, Path(store.url).parent, "third", [event(900, payload={"n": 1, "text": "not a number"})])


def alter(store: Store, statement: str, *values: object) -> None:
    with sqlite3.connect(Path(store.url) / "index.db") as connection:
        assert connection.execute(statement, values).rowcount > 0
    connection.close()


def found(store: Store, depth: Depth, window: Window, *, on: bool) -> tuple[list[Problem], VerifyReport]:
    fresh = open_store(store.url)
    listing = verify(fresh, ENGINE, window, SILENT, depth, fleet=RepeatingFleet(fresh, ENGINE) if on else None)
    return list(listing), listing.summary


DAMAGE: dict[str, tuple[list[Callable[[Store], None]], set[ProblemKind]]] = {
    "none": ([], set()),
    "a flipped bit": ([flip], {ProblemKind.MODIFIED, ProblemKind.UNPROVEN}),
    "lost segments": ([lose], {ProblemKind.MISSING, ProblemKind.UNPROVEN}),
    "objects that are not listed": ([leave_unlisted], {ProblemKind.INDEX}),
    "rows": ([forget_rows], {ProblemKind.INDEX}),
    "all of it": ([flip, lose, change_values], {ProblemKind.MODIFIED, ProblemKind.MISSING, ProblemKind.UNPROVEN}),
}


@pytest.mark.parametrize(
    ("damage", "shared"),
    [
        ("all of it", True),
        ("rows", False),
        *(pytest.param(damage, shared, marks=pytest.mark.slow) for damage in DAMAGE for shared in (False, True)),
    ],
)
def test_a_fleet_finds_the_same(filled: Store, damage: str, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whole days, and of days in shares; to the last problem and in the same order."""
    if shared:
        monkeypatch.setattr(verify_days, "_SHARE_OBJECTS", 2)
        monkeypatch.setattr(verify_values, "BYTES_AT_ONCE", 1)
    changes, kinds = DAMAGE[damage]
    for change in changes:
        change(filled)
    one_day = Window.of_day(parse_instant("2026-01-04T00:00:00Z") // DAY)
    for depth, window in ((Depth.FULL, ALL_TIME), (Depth.QUICK, ALL_TIME), (Depth.FULL, one_day)):
        here, there = (found(filled, depth, window, on=on) for on in (False, True))
        assert there == here
        if (depth, window) == (Depth.FULL, ALL_TIME):
            assert {one.kind for one in here[0]} >= kinds
            assert here[1].segments > 10
            assert damage != "none" or not here[0]


def test_shares_change_no_problem(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for change in (flip, lose):
        change(filled)
    whole = found(filled, Depth.FULL, ALL_TIME, on=False)
    monkeypatch.setattr(verify_days, "_SHARE_OBJECTS", 2)
    problems, report = found(filled, Depth.FULL, ALL_TIME, on=True)
    assert report == whole[1]
    assert sorted(map(repr, problems)) == sorted(map(repr, whole[0]))

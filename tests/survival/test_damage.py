"""Promise 2: whatever happens to a raw object, `verify` names it, and nothing that is wrong is computed from it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.errors import Damaged
from pik.model.delivery import Filter
from pik.model.instant import DAY, parse_instant
from pik.model.run import Run, RunRequest, RunState
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_findings import Problem, ProblemKind
from pik.usecases.inspect.batches import list_rejects
from pik.usecases.inspect.events import list_events
from pik.usecases.metrics.comparison import Difference
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.replay.execute import Pace, run_locally
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote
from tests.survival.conftest import ingest

ENGINE = DuckEngine(threads=1)
EVENTS = [
    f'{{"source":"s","event_type":"t","entity_id":"{entity}","event_time":"2026-01-0{day}T00:00:0{n}Z",'
    f'"payload":{{"n":{n}}}}}'
    for day in (1, 2)
    for entity in "abc"
    for n in range(4)
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with duplicates, rejects and current aggregates."""
    directory = tmp_path_factory.mktemp("sound")
    store = open_store(str(directory / "store"), create=True)
    for name, lines in (("one", [*EVENTS, "{", "no event"]), ("two", [*EVENTS[::3], "[]"])):
        (directory / name).write_text("\n".join(lines) + "\n")
        ingest(store, directory / name)
    run = replay(store)
    assert run.state == RunState.COMPLETED
    promote(store, run.run_id, 0, "")
    return directory / "store"


def replay(store: Store) -> Run:
    """A replay of everything."""
    plan = plan_replay(store, ENGINE, RunRequest(start=ALL_TIME.start, end=ALL_TIME.end), 0)
    return run_locally(store, ENGINE, start(store, plan).run_id, Pace(workers=0), SILENT)


def objects(store: Path) -> list[str]:
    return sorted(str(path.relative_to(store)) for path in (store / "raw").rglob("*") if path.is_file())


def problems(store: Store) -> list[Problem]:
    return list(verify(store, ENGINE, ALL_TIME, SILENT))


def differences(store: Store) -> list[Difference]:
    """What a diff finds. Raises Damaged where it says that something cannot be computed; it then says nothing else."""
    rows = list(diff_aggregates(store, ENGINE, ALL_TIME).rows)
    if any(row.op == "!" for row in rows):
        assert all(row.failure is not None and row.recomputed is None for row in rows)
        raise Damaged("; ".join(str(row.failure) for row in rows))
    return rows


ANSWERS: list[Callable[[Store], Any]] = [
    lambda store: [(row.event_id, row.deliveries, row.payload) for row in list_events(store, Filter(ALL_TIME))],
    lambda store: sorted((found.kind, found.line) for found in deliveries(store, Filter(ALL_TIME))),
    differences,
    lambda store: [list(list_rejects(store, batch)) for batch in store.index.batches()],
]


def harmed(data: bytes, draw: random.Random, count: int) -> Iterator[bytes | None]:
    """The bytes with a bit flipped in a header, a checksum, or anywhere; cut; with more behind them; gone."""
    places = [
        *range(0, 8, 1 if count > 1 else 5),
        len(data) - 1,
        len(data) - 41,
        *(draw.randrange(len(data)) for _ in range(count)),
    ]
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << draw.randrange(8)
        yield bytes(flipped)
    for size in (0, 1, len(data) // 2, len(data) - 4, len(data) - 1)[:: 1 if count > 1 else 2]:
        yield data[:size]
    yield data + b"\0"
    yield None


@pytest.mark.parametrize("count", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_promise_2_any_harm_to_any_object_is_found_and_named(sound: Path, tmp_path: Path, count: int) -> None:
    shutil.copytree(sound, tmp_path / "store")
    store = open_store(str(tmp_path / "store"))
    expected = [answer(store) for answer in ANSWERS]
    assert problems(store) == expected[2] == []
    draw = random.Random(count)
    assert len(objects(sound)) == 8
    for key in objects(sound):
        path = tmp_path / "store" / key
        path.chmod(0o644)
        data = path.read_bytes()
        for harm in harmed(data, draw, count):
            path.unlink(missing_ok=True)
            if harm is not None:
                path.write_bytes(harm)
            told = [problem for problem in problems(store) if problem.what == key]
            assert [problem.kind for problem in told] == [
                ProblemKind.MISSING if harm is None else ProblemKind.MODIFIED
            ], (key, harm)
            if "event_date=" in key:
                assert told[0].day == key.partition("event_date=")[2][:10]
                assert told[0].entities
            for answer, right in zip(ANSWERS, expected, strict=True):
                try:
                    got = answer(store)
                except Damaged:
                    continue
                assert got == right, (key, harm)
        path.write_bytes(data)
    assert problems(store) == []


def test_a_replay_of_damaged_raw_writes_no_number_of_the_damaged_day(sound: Path, tmp_path: Path) -> None:
    """The run ends PARTIAL with the other day's numbers; its promotion leaves the damaged day's current."""
    shutil.copytree(sound, tmp_path / "store")
    store = open_store(str(tmp_path / "store"))
    before = list(store.aggregates.versions("event_count", ALL_TIME))
    assert len(before) == 6
    key = next(key for key in objects(sound) if "event_date=" in key)
    start = parse_instant(f"{key.partition('event_date=')[2][:10]}T00:00:00Z")
    day = Window(start, start + DAY)
    path = tmp_path / "store" / key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    run = replay(store)
    assert (run.state, run.failed, run.new, run.changed, run.removed) == (RunState.PARTIAL, 1, 0, 0, 0)
    assert list(store.aggregates.current("event_count", ALL_TIME)) == before
    promote(store, run.run_id, 0, "")
    of_day = list(store.aggregates.versions("event_count", day))
    assert of_day == [one for one in before if start <= one.computed.bucket < start + DAY] != []
    after = store.aggregates.current("event_count", ALL_TIME)
    assert [one.computed for one in after] == [one.computed for one in before]

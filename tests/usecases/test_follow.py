"""Following a store: what is recorded while it is looked at, each delivery once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from time import time_ns
from typing import Any

import pytest

from pik.model.batch import BatchState, Verdict
from pik.model.delivery import Filter
from pik.model.instant import MAX_INSTANT
from pik.model.window import Window
from pik.ports.store import Store
from pik.stores import open_store
from pik.usecases.inspect.conditions import Conditions
from pik.usecases.inspect.follow import CLOCKS, Follower
from tests.support.stores import event, ingest


def number_of(store: Store, tmp_path: Path, *numbers: int, **fields: Any) -> None:
    ingest(store, tmp_path, [event(number, f"e{number}", "01T00:00", **fields) for number in numbers])


def entities(follower: Follower) -> list[str]:
    return [row.entity_id for row in follower.new()]


def test_only_what_is_recorded_afterwards_is_found_and_once(store: Store, tmp_path: Path) -> None:
    number_of(store, tmp_path, 1, 2)
    follower = Follower(store, Filter())
    assert entities(follower) == []
    number_of(store, tmp_path, 3)
    number_of(store, tmp_path, 5, 4)
    assert (entities(follower), entities(follower)) == (["e3", "e5", "e4"], [])
    number_of(store, tmp_path, 1, 6)
    [row] = follower.new()
    assert (row.entity_id, row.recorded_at > 0, row.seq) == ("e6", True, 2)


def test_since_a_time_of_recording_earlier_ones_are_found_first(store: Store, tmp_path: Path) -> None:
    number_of(store, tmp_path, 1)
    since = time_ns()
    number_of(store, tmp_path, 2)
    follower = Follower(store, Filter(), Conditions(recorded=Window(since, MAX_INSTANT + 1)))
    assert (entities(follower), entities(follower)) == (["e2"], [])
    number_of(store, tmp_path, 3)
    assert entities(follower) == ["e3"]


def test_the_filter_and_the_conditions_hold(store: Store, tmp_path: Path) -> None:
    duplicates = Follower(store, Filter(), Conditions(kind=Verdict.EXACT))
    of_entity = Follower(store, Filter(entities=("e2",)))
    of_source = Follower(store, Filter(source="app"))
    number_of(store, tmp_path, 1, 2)
    number_of(store, tmp_path, 1, 3, source="app")
    number_of(store, tmp_path, 2)
    assert (entities(duplicates), entities(of_entity), entities(of_source)) == (["e2"], ["e2"], ["e1", "e3"])


@pytest.mark.usefixtures("blocks_of_a_few_lines")
@pytest.mark.parametrize(("batches", "lines"), [(2, 75), pytest.param(4, 150, marks=pytest.mark.slow)])
def test_what_a_thread_ingests_meanwhile_is_found_once(store: Store, tmp_path: Path, batches: int, lines: int) -> None:
    """Batches of many blocks: what is found of one is only a part of it."""
    follower = Follower(store, Filter())
    done: list[bool] = []
    looked = Event()

    def write() -> None:
        own = open_store(store.url)
        (tmp_path / "inputs").mkdir()
        for batch in range(batches):
            looked.wait(60)
            looked.clear()
            some = [event(n, f"e{batch}-{n}", f"0{1 + n % 3}T00:00") for n in range(lines)]
            ingest(own, tmp_path / "inputs", some)
        done.append(True)

    thread = Thread(target=write)
    thread.start()
    found: Counter[str] = Counter()
    looks = 0
    while not done:
        found.update(entities(follower))
        looks += 1
        looked.set()
    thread.join()
    found.update(entities(follower))
    assert found == Counter(f"e{batch}-{n}" for batch in range(batches) for n in range(lines))
    assert looks >= batches


def test_old_batches_are_not_looked_at_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    class Index:
        def __getattr__(self, name: str) -> Any:
            return getattr(store.index, name)

        def segments(self, window: Window, *, batch_id: str | None = None, entities: Any = ()) -> Any:
            asked.append(batch_id)
            return store.index.segments(window, batch_id=batch_id, entities=entities)

    for number in range(5):
        number_of(store, tmp_path, number)
    now = time_ns() + 2 * CLOCKS
    monkeypatch.setattr("pik.usecases.inspect.follow.time_ns", lambda: now)
    follower = Follower(replace(store, index=Index()), Filter())
    assert (entities(follower), asked) == ([], [])
    assert follower._followed == {}


def test_deliveries_that_their_writer_has_not_recorded_yet_are_found_later(store: Store, tmp_path: Path) -> None:
    """A store that records a block in several steps lists its segments first."""
    unrecorded = {2, 3}
    state = [BatchState.RUNNING]

    class Index:
        def __getattr__(self, name: str) -> Any:
            return getattr(store.index, name)

        def batches(self, prefix: str = "") -> Any:
            return (replace(batch, state=state[0]) for batch in store.index.batches(prefix))

        def skipped(self, segment: Any) -> Any:
            return store.index.skipped(segment) | dict.fromkeys(unrecorded, Verdict.UNRECORDED)

    follower = Follower(replace(store, index=Index()), Filter())
    number_of(store, tmp_path, 1, 2, 3)
    assert entities(follower) == ["e1"]
    unrecorded.discard(3)
    assert entities(follower) == ["e3"]
    state[0] = BatchState.COMPLETE
    unrecorded.clear()
    assert (entities(follower), entities(follower)) == (["e2"], [])

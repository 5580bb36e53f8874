"""Partial values of several tasks make the values of a bucket, whatever happens to the tasks on the way."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import time_ns
from typing import Any, cast

import pytest

from pik.engine import DuckEngine
from pik.errors import Damaged, NotFound, StoreError
from pik.model.ids import new_id
from pik.model.instant import DAY
from pik.model.metric import Definition, Per
from pik.model.run import Run, RunState, Task, TaskState
from pik.model.share import Share
from pik.model.window import ALL_TIME
from pik.ports.state import Partials
from pik.ports.store import Store
from pik.stores.partials import ObjectPartials
from pik.usecases.metrics.definitions import apply
from pik.usecases.replay.execute import finish_run
from pik.usecases.replay.plan import TASK_SIZE, TaskSize, plan_replay, start
from pik.usecases.replay.tasks import execute_task
from tests.support.stores import event, ingest, request

ENGINE = DuckEngine(threads=1)
SHARED = TaskSize(raw=600, together=1)
METRICS = [
    Definition(name="users", value="count(DISTINCT entity_id)", per=Per.ALL, bucket="7d"),
    Definition(name="total", value="sum((payload->>'v')::DECIMAL(18, 2))", per=Per.ALL, bucket="7d"),
    Definition(name="broken", value="sum((payload->>'v')::DECIMAL(2, 0))", per=Per.ALL, bucket="7d"),
]


@pytest.fixture
def filled(store: Store, tmp_path: Path) -> Store:
    """Segments of several days and batches; a value that fails on one event."""
    apply(store.metrics, ENGINE, METRICS, 1)
    for n in range(4):
        events = [event(100 * n + k, f"user-{k % 3}", f"0{1 + k % 3}T0{n}:00") for k in range(5)]
        ingest(store, tmp_path, [*events, event(7, "user-0", "01T00:00")], again=True)
    return store


def planned(store: Store, size: TaskSize) -> tuple[Run, list[Task]]:
    asked = request(metrics=tuple(one.name for one in METRICS))
    plan = plan_replay(store, ENGINE, asked, 1, size=size)
    run = start(store, plan)
    store.runs.set_state(run.run_id, RunState.RUNNING)
    return run, list(plan.tasks)


def finish(store: Store, task: Task) -> None:
    store.runs.mark(task, TaskState.DONE, execute_task(store, ENGINE, task).failures())


def results(store: Store, run: Run) -> Any:
    """Everything that a run wrote and says of itself, but for its tasks."""
    finish_run(store, run.run_id)
    found = store.runs.get(run.run_id)
    counts = found.state, found.new, found.failed_aggregates, found.failures
    changes = (change.written for change in store.aggregates.changes(run.run_id))
    return counts, [(each.computed, each.known_until) for each in changes]


@pytest.fixture
def whole(filled: Store) -> Any:
    """What the run has that computes all at once."""
    run, tasks = planned(filled, TASK_SIZE)
    assert all(task.share.is_all for task in tasks)
    for task in tasks:
        finish(filled, task)
    return results(filled, run)


def failing(store: Store, method: str, *, after: bool) -> Store:
    """The store, one of whose partial values' operations fails before or after it has had its effect."""

    class Failing(ObjectPartials):
        pass

    def call(self: Failing, *arguments: Any) -> Any:
        if after:
            getattr(store.partials, method)(*arguments)
        raise StoreError("killed")

    setattr(Failing, method, call)
    return replace(store, partials=Failing(cast(ObjectPartials, store.partials).raw))


def test_promise_6_shares_in_any_order_repeated_and_failing_half_way_make_the_values_once(
    filled: Store, whole: Any
) -> None:
    """The run has the values, the failures and the counts that it would have without shares, and knew as much."""
    run, tasks = planned(filled, SHARED)
    group = [task for task in tasks if not task.share.is_all]
    assert [task.share for task in group] == [Share(number, len(group)) for number in range(len(group))]
    assert len(group) > 2
    chance = random.Random(15)
    chance.shuffle(tasks)
    for task in tasks:
        for method, after in [("keep", False), ("keep", True), ("kept", False), ("read", False), ("merger", True)]:
            if chance.random() < 0.5:
                continue
            with suppress(StoreError):  # a task that does not merge makes fewer calls
                execute_task(failing(filled, method, after=after), ENGINE, task)
        finish(filled, task)
        if chance.random() < 0.5:
            execute_task(filled, ENGINE, chance.choice(tasks[: tasks.index(task) + 1]))
    for task in group[:2]:  # delivered once more, after the merge
        finish(filled, task)
    assert results(filled, run) == whole


def test_what_is_recorded_after_the_plan_is_late_for_every_share(filled: Store, whole: Any, tmp_path: Path) -> None:
    run, tasks = planned(filled, SHARED)
    ingest(filled, tmp_path, [event(1000 + n, "late", f"0{1 + n % 3}T05:00") for n in range(9)])
    for task in tasks:
        finish(filled, task)
    assert results(filled, run) == whole


def test_a_share_whose_raw_is_damaged_holds_the_values_back_until_it_is_done(filled: Store, whole: Any) -> None:
    run, tasks = planned(filled, SHARED)
    segments = list(filled.index.segments(ALL_TIME))
    lost = next(each.key for each in segments)

    class Lost:
        def __getattr__(self, name: str) -> Any:
            return getattr(filled.raw, name)

        def files(self, keys: list[str]) -> Any:
            if lost in keys:
                raise Damaged(f"raw object {lost} is missing")
            return filled.raw.files(keys)

    damaged = replace(filled, raw=cast(Any, Lost()))
    failed = []
    for task in tasks:
        try:
            finish(damaged, task)
        except Damaged:
            failed.append(task)
            filled.runs.mark(task, TaskState.FAILED)
    assert len(failed) == 1
    assert results(filled, run)[0][:2] == (RunState.PARTIAL, 0)
    assert list(filled.aggregates.changes(run.run_id)) == []
    filled.runs.mark(failed[0], TaskState.OPEN)  # redriven
    filled.runs.set_state(run.run_id, RunState.RUNNING)
    finish(filled, failed[0])
    assert results(filled, run) == whole


def test_a_run_whose_partial_values_may_be_gone_says_so(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _, tasks = planned(filled, SHARED)
    monkeypatch.setattr("pik.usecases.replay.shares.time.time_ns", lambda: time_ns() + 29 * DAY)
    with pytest.raises(NotFound, match="stores keep them for 30 days"):
        execute_task(filled, ENGINE, tasks[-1])


def test_partial_values_are_kept_once_and_a_group_has_one_merger(store: Store, tmp_path: Path) -> None:
    partials: Partials = store.partials
    target = tmp_path / "target"

    def read(run_id: str, number: int) -> bytes:
        partials.read(run_id, number, target)
        return target.read_bytes()

    run, other = new_id(), new_id()
    assert partials.kept(run) == set()
    partials.keep(run, 7, b"seven")
    partials.keep(run, 7, b"another")
    partials.keep(run, 12, b"")
    partials.keep(other, 8, b"eight")
    assert (partials.kept(run), read(run, 7), read(run, 12)) == ({7, 12}, b"seven", b"")
    assert [partials.merger(run, 7, number) for number in (9, 8, 9)] == [9, 9, 9]
    assert partials.merger(run, 10, 12) == partials.merger(run, 10, 11) == 12
    assert partials.kept(run) == {7, 12}
    with pytest.raises(Damaged):
        read(run, 8)
    partials.drop(run)
    assert partials.kept(other) == {8}


def test_promise_8_partial_values_are_read_a_part_at_a_time(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the parts are cut; one that is not as it was written is found."""
    raw, data = cast(ObjectPartials, store.partials).raw, bytes(range(200))
    run, target, lengths = new_id(), tmp_path / "target", []
    store.partials.keep(run, 1, data)
    raw.create(f"partials/{run}/00000002.parquet", data + bytes(32))

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(raw, name)

        def read(self, key: str, offset: int, length: int) -> bytes:
            lengths.append(length)
            return raw.read(key, offset, length)

    watched = ObjectPartials(cast(Any, Watched()))
    for most in (50, 199, 200, 201, 231, 232, 1000):
        monkeypatch.setattr("pik.stores.partials._AT_ONCE", most)
        watched.read(run, 1, target)
        assert target.read_bytes() == data
        assert max(lengths) <= most
        with pytest.raises(Damaged, match="not as it was written"):
            watched.read(run, 2, target)

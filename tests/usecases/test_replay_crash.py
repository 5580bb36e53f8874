"""Promise 1, at every boundary between two durable steps of a replay: it ends there, and the same command goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pik.errors import EngineError
from pik.model.instant import DAY
from pik.model.run import Run, RunState
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.replay.dead_letters import letters
from pik.usecases.replay.execute import Pace, run_locally
from pik.usecases.replay.plan import TaskSize, plan_replay, start
from pik.usecases.replay.promote import promote
from tests.support.faults import Crash, FailAt, wrapped
from tests.support.stores import FIRST, Faulty, PlainEngine, current, request, truth

ONCE = Pace(workers=0, attempts=1)
DAILY = TaskSize(days=1)
STATE = ("runs", "queue", "dead_letters", "aggregates", "promotions")
FIFTH = FIRST + 4 * DAY


def command(store: Store, engine: Any) -> Run:
    """What `pik replay --all` and `pik promote` do."""
    run = store.runs.unfinished(request()) or start(store, plan_replay(store, engine, request(), 1, size=DAILY))
    run = run_locally(store, engine, run.run_id, ONCE, SILENT)
    promote(store, run.run_id, 2, "why")
    return run


@pytest.fixture
def fresh(filled: Store, tmp_path: Path) -> Callable[[], Store]:
    """Makes copies of the filled store; every day is a task."""

    def copy() -> Store:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(filled.url, tmp_path / "copy")
        return open_store(str(tmp_path / "copy"))

    return copy


def crashed(fresh: Callable[[], Store], engine: Any, steps: set[str], after: bool) -> Iterator[tuple[str, Store, Run]]:
    """For each durable step a store where the command crashed at it and was given once more, and how that ended."""
    counting = FailAt(0)
    command(wrapped(fresh(), counting, *STATE), engine)
    assert set(counting.calls) == steps
    for number, step in enumerate(counting.calls, 1):
        store = fresh()
        fault = FailAt(number, after=after)
        with suppress(Crash):  # a step that fails has no time after it
            command(wrapped(store, fault, *STATE), engine)
        assert fault.calls == counting.calls[:number] or after
        yield f"{number}: {step}", store, command(store, engine)


DONE = {"runs.create", "runs.set_state", "runs.mark", "queue.send", "queue.acknowledge"}
DONE |= {"aggregates.write", "promotions.promote"}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_promise_1_a_crash_at_every_durable_step_of_a_replay(fresh: Callable[[], Store], after: bool) -> None:
    for step, store, run in crashed(fresh, PlainEngine(), DONE, after):
        assert run.state == RunState.COMPLETED, step
        assert current(store) == truth(), step
        assert letters(store) == [], step
        versions = [
            (found.computed.bucket, found.computed.entity_id, found.run_id)
            for found in store.aggregates.versions("event_count", ALL_TIME)
        ]
        assert len(versions) == len(set(versions)), step
        assert store.runs.unfinished(request()) is None, step


def fifth_fails(window: Window) -> None:
    if FIFTH in window:
        raise EngineError("the fifth cannot be computed")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_promise_1_a_crash_at_every_durable_step_of_a_replay_that_fails(
    fresh: Callable[[], Store], after: bool
) -> None:
    rest = {key: value for key, value in truth().items() if not FIFTH <= key[1] < FIFTH + DAY}
    for step, store, run in crashed(fresh, Faulty(fifth_fails), DONE | {"dead_letters.bury"}, after):
        assert run.state == RunState.PARTIAL, step
        assert current(store) == rest, step
        # two of one task, where its burial was interrupted
        assert len({letter.task.number for letter in letters(store, run.run_id)}) == run.failed == 2, step

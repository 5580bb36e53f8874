"""A run of a stack on a fleet writes what the stack's processors would, and is finished without its queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.errors import Busy, EngineError, UsageError
from pik.fleets.here import Here
from pik.model.aggregate import Computed
from pik.model.run import RunState
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.usecases.replay import execute, tasks
from pik.usecases.replay.execute import Pace, execute_run
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote
from tests.support.aws.emulator import make_stack, publish
from tests.support.fleet import RepeatingFleet
from tests.support.stores import event, ingest, request

ENGINE = DuckEngine(threads=1)
EVENTS = [event(number, f"e{number % 5}", f"{1 + number % 3:02}T{number % 24:02}:00") for number in range(120)]


@pytest.fixture
def store(aws: Clients, tmp_path: Path) -> Store:
    made = open_store(publish(aws, make_stack(aws)))
    ingest(made, tmp_path, EVENTS)
    return made


def begun(store: Store) -> str:
    return start(store, plan_replay(store, ENGINE, request(), 1)).run_id


def current(store: Store) -> list[Computed]:
    return [one.computed for one in store.aggregates.current("event_count", ALL_TIME)]


def test_promise_6_a_run_on_a_fleet_writes_what_a_local_store_has(store: Store, tmp_path: Path) -> None:
    local = open_store(str(tmp_path / "local"), create=True)
    ingest(local, tmp_path, EVENTS)
    for one, fleet in ((store, RepeatingFleet(store, ENGINE)), (local, None)):
        run = execute_run(one, ENGINE, begun(one), Pace(workers=0), SILENT, fleet)
        assert (run.state, run.failed) == (RunState.COMPLETED, 0)
        promote(one, run.run_id, 2, "")
    assert current(store) == current(local)
    assert current(store)
    assert store.queue.receive("any", 1) is None


def test_what_fails_is_tried_again_and_then_a_dead_letter(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is good of the run stands; a task that failed twice is done at the third time."""
    calls: dict[int, int] = {}
    real = tasks.execute_task

    def failing(store: Store, engine: Any, task: Any, run: Any = None) -> Any:
        calls[task.number] = calls.get(task.number, 0) + 1
        if task.number == 0 or (task.number == 1 and calls[1] <= 4):  # each is called twice
            raise EngineError("no")
        return real(store, engine, task, run)

    monkeypatch.setattr(execute, "execute_task", failing)
    run_id = begun(store)
    run = execute_run(store, ENGINE, run_id, Pace(attempts=3), SILENT, RepeatingFleet(store, ENGINE))
    assert run.state == (RunState.FAILED if run.tasks == 1 else RunState.PARTIAL)
    assert run.failed == 1
    [letter] = store.dead_letters.letters()
    assert (letter.task.number, letter.reason, letter.attempts) == (0, "no", 3)
    assert calls[0] == 6
    with pytest.raises(UsageError, match="nothing to resume"):
        execute_run(store, ENGINE, run_id, Pace(), SILENT, RepeatingFleet(store, ENGINE))


def test_a_run_is_driven_by_one_process_and_can_be_cancelled(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = begun(store)
    with store.runs.driving(run_id), pytest.raises(Busy):
        execute_run(open_store(store.url), ENGINE, run_id, Pace(), SILENT, RepeatingFleet(store, ENGINE))
    monkeypatch.setattr(execute, "LOOK", 0)
    fleet = RepeatingFleet(store, ENGINE, before=lambda: store.runs.set_state(run_id, RunState.CANCELLED))
    assert execute_run(store, ENGINE, run_id, Pace(), SILENT, fleet).state == RunState.CANCELLED


def test_this_process_alone_leaves_it_to_the_stack(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "wait", lambda store, run_id, _: store.runs.get(run_id))
    run_id = begun(store)
    execute_run(store, ENGINE, run_id, Pace(), SILENT, Here(store, ENGINE))
    assert store.queue.receive(run_id, 1) is not None

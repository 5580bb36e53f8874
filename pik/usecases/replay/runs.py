"""Runs, looked at and cancelled."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from time import sleep, time_ns

from pik.errors import Busy, UsageError, command
from pik.model.run import DeadLetter, Run, RunState
from pik.ports.state import Promotion
from pik.ports.store import Store
from pik.usecases.replay.dead_letters import letters
from pik.usecases.replay.wait import LOCAL_POLL, is_executing


@dataclass(frozen=True, slots=True)
class RunDetail:
    """A run, the dead letters among its tasks, and what was done with its versions since, oldest first. `driven`:
    a living process executes it."""

    run: Run
    driven: bool
    letters: list[DeadLetter]
    promotions: list[Promotion]


def detail(store: Store, run_id: str) -> RunDetail:
    """Return the run of this id or of an unambiguous prefix. Raises NotFound."""
    run = store.runs.get(run_id)
    promotions = [promotion for promotion in store.promotions.newest_first() if promotion.run_id == run.run_id]
    return RunDetail(run, is_executing(store, run), letters(store, run.run_id), promotions[::-1])


def cancel(store: Store, run_id: str) -> Run:
    """Take the run's waiting tasks off the queue, wait until none is in flight, and mark it CANCELLED. What it wrote
    stays, and cannot be promoted. A run that completes meanwhile is COMPLETED. Raises NotFound; UsageError if it has
    ended already."""
    run = store.runs.get(run_id)
    if not run.is_active and run.state != RunState.CANCELLED:
        raise UsageError(
            f"run {run.run_id} is {run.state} already", hint=f"to undo a promotion: {command('rollback', run.run_id)}"
        )
    if store.deployed:  # its processors write nothing more for a run that is cancelled, and drop its tasks
        store.runs.set_state(run.run_id, RunState.CANCELLED, time_ns())
        return store.runs.get(run.run_id)
    with ExitStack() as stack:
        is_alone = True
        try:
            stack.enter_context(store.runs.driving(run.run_id))
            store.queue.send(store.runs.open_tasks(run.run_id))  # take back what a dead process had received
        except Busy:
            is_alone = False  # a living process executes it, and finishes what is in flight
        while run.is_active:
            in_flight = store.queue.drop(run.run_id)
            run = store.runs.get(run.run_id)
            if not in_flight and (is_alone or run.done + run.failed < run.tasks):
                store.runs.set_state(run.run_id, RunState.CANCELLED, time_ns())
                break
            sleep(LOCAL_POLL)
    return store.runs.get(run.run_id)

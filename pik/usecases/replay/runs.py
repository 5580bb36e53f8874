"""Runs: look at, wait for, cancel."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass

from pik.errors import Busy, StoreError, UsageError, command
from pik.model.run import CANCELLED, PLANNED, RUNNING, DeadLetter, Run
from pik.ports.state import Promotion
from pik.ports.store import Store
from pik.runtime.progress import Progress

_POLL = 0.1  # seconds
_POLL_DEPLOYED = 1.0  # seconds: each look is a query over the run's tasks
_GRACE = 5  # looks: whoever planned or redrove a run is about to drive it


@dataclass(frozen=True, slots=True)
class RunDetail:
    """A run, the dead letters among its tasks, and what was done with its versions since, oldest first. `driven` tells
    whether a living process is at work on it."""

    run: Run
    driven: bool
    letters: list[DeadLetter]
    promotions: list[Promotion]


def detail(store: Store, run_id: str) -> RunDetail:
    """The run of this id or of an unambiguous prefix. Raises NotFound."""
    run = store.runs.get(run_id)
    promotions = [promotion for promotion in store.aggregates.promotions() if promotion.run_id == run.run_id]
    letters = [letter for letter in store.queue.letters() if letter.task.run_id == run.run_id]
    return RunDetail(run, _is_driven(store, run), letters, promotions[::-1])


def wait(store: Store, run_id: str, progress: Progress) -> Run:
    """The run, once it has ended. Raises NotFound, and StoreError when nobody is at work on it."""
    run = store.runs.get(run_id)
    settled = run.done + run.failed
    alone = 0
    progress.start(f"waiting for {run.run_id}", run.tasks, "tasks", settled)
    try:
        while run.state in (PLANNED, RUNNING):
            alone = 0 if _is_driven(store, run) else alone + 1
            run = store.runs.get(run.run_id)
            if alone == _GRACE and run.state in (PLANNED, RUNNING):
                raise StoreError(
                    f"run {run.run_id} is {run.state}, but no process is at work on it",
                    hint=command("runs", "resume", run.run_id),
                )
            progress.advance(run.done + run.failed - settled)
            settled = run.done + run.failed
            time.sleep(_POLL_DEPLOYED if store.deployed else _POLL)
    finally:
        progress.stop()
    return run


def cancel(store: Store, run_id: str) -> Run:
    """Take the run's waiting tasks off the queue, wait until none is in flight, and mark it CANCELLED. What it wrote
    stays, and cannot be promoted. A run that completes meanwhile is COMPLETED. Raises NotFound; UsageError if it has
    ended already."""
    run = store.runs.get(run_id)
    if run.state not in (PLANNED, RUNNING, CANCELLED):
        raise UsageError(
            f"run {run.run_id} is {run.state} already", hint=f"to undo a promotion: {command('rollback', run.run_id)}"
        )
    if store.deployed:  # its processors write nothing more for a run that is cancelled, and drop its tasks
        store.runs.set_state(run.run_id, CANCELLED, time.time_ns())
        return store.runs.get(run.run_id)
    with ExitStack() as holding:
        alone = True
        try:
            holding.enter_context(store.runs.driving(run.run_id))
            store.queue.send(store.runs.open_tasks(run.run_id))  # take back what a dead driver had received
        except Busy:
            alone = False  # its driver is alive: it finishes what is in flight
        while run.state in (PLANNED, RUNNING):
            in_flight = store.queue.drop(run.run_id)
            run = store.runs.get(run.run_id)
            if not in_flight and (alone or run.done + run.failed < run.tasks):
                store.runs.set_state(run.run_id, CANCELLED, time.time_ns())
                break
            time.sleep(_POLL)
    return store.runs.get(run.run_id)


def _is_driven(store: Store, run: Run) -> bool:
    if run.state not in (PLANNED, RUNNING):
        return False
    if store.deployed:
        return run.state == RUNNING
    try:
        with store.runs.driving(run.run_id):
            return False
    except Busy:
        return True

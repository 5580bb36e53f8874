"""Waiting for a run that another process, or the stack, executes."""

from __future__ import annotations

from collections.abc import Callable
from time import sleep

from pik.errors import Busy, StoreError, command
from pik.model.run import Run, RunKind, RunState
from pik.ports.remote import Api
from pik.ports.store import Store
from pik.runtime import Progress, showing
from pik.usecases.metrics.imports import import_words

POLL = 1.0
"""Seconds between two looks at a run elsewhere: each is a query over its tasks."""

LOCAL_POLL = 0.1  # seconds between two looks at a run of this machine

_GRACE = 5  # looks: a run that was just planned or redriven is about to be executed


def wait(store: Store, run_id: str, progress: Progress) -> Run:
    """Return the run when it has ended. Raises NotFound, and StoreError when no process executes it."""
    alone = 0

    def look(run: Run) -> Run:
        nonlocal alone
        alone = 0 if is_executing(store, run) else alone + 1
        run = store.runs.get(run.run_id)
        if alone == _GRACE and run.is_active:
            raise StoreError(
                f"run {run.run_id} is {run.state}, but no process is working on it",
                hint=resume_command(run),
            )
        return run

    run = store.runs.get(run_id)
    return _until_ended(run, look, POLL if store.deployed else LOCAL_POLL, f"waiting for {run.run_id}", progress)


def resume_command(run: Run) -> str:
    """Return the command that goes on with an interrupted run."""
    words = import_words(run.request) if run.kind == RunKind.IMPORT else ["runs", "resume", run.run_id]
    return command(*words)


def _until_ended(run: Run, look: Callable[[Run], Run], poll: float, label: str, progress: Progress) -> Run:
    ended = run.done + run.failed
    with showing(progress, label, run.tasks, "tasks", ended):
        while run.is_active:
            sleep(poll)
            run = look(run)
            progress.advance(run.done + run.failed - ended)
            ended = run.done + run.failed
    return run


def is_executing(store: Store, run: Run) -> bool:
    """Return whether a living process plans or executes the run."""
    if not run.is_active or (store.deployed and run.kind == RunKind.REPLAY):
        return run.state in (RunState.PLANNING, RunState.RUNNING)
    try:
        with store.runs.driving(run.run_id):
            return False
    except Busy:
        return True


def follow(api: Api, planned: Run, progress: Progress, *, to_its_end: bool = True) -> Run:
    """Return the run that was begun through the API when it has ended; without `to_its_end` as it is now.

    Raises StoreError when the API fails for good; the run itself goes on then.
    """
    run = api.run(planned.run_id)
    if not to_its_end:
        return run
    return _until_ended(run, lambda _: api.run(planned.run_id), POLL, "replaying", progress)

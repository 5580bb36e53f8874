"""Replay through the API: begin a run, and follow it until it has ended."""

from __future__ import annotations

import time

from pik.errors import NotFound, StoreError
from pik.model.run import PLANNED, RUNNING, Run
from pik.ports.api import Api
from pik.runtime.progress import Progress

POLL = 1.0
"""Seconds between two looks at a run."""

PLANNED_WITHIN = 900.0
"""Seconds within which the stack plans a run that is too large for one call, or gives it up."""


def follow(api: Api, planned: Run, progress: Progress, *, to_its_end: bool = True, poll: float = POLL) -> Run:
    """The run that was begun, when it has ended; without `to_its_end` as soon as it is there.

    Raises StoreError when the API fails for good, or nobody plans the run; the run itself goes on then.
    """
    run = _planned(api, planned, poll)
    if not to_its_end:
        return run
    progress.start("replaying", run.tasks, "tasks")
    settled = 0
    try:
        while True:
            progress.advance(run.done + run.failed - settled)
            settled = run.done + run.failed
            if run.state not in (PLANNED, RUNNING):
                return run
            time.sleep(poll)
            run = api.run(run.run_id)
    finally:
        progress.stop()


def _planned(api: Api, planned: Run, poll: float) -> Run:
    """The run as the store has it. One that is planned later is not there yet."""
    until = time.monotonic() + PLANNED_WITHIN
    while True:
        try:
            return api.run(planned.run_id)
        except NotFound:
            if planned.events_matched is not None:
                raise
        if time.monotonic() > until:
            raise StoreError(
                f"run {planned.run_id} was accepted, but is not planned after {PLANNED_WITHIN:.0f} seconds",
                hint="the log of the stack's ReplayFunction says why; ask for a smaller window",
            )
        time.sleep(poll)

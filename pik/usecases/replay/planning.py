"""Runs that are accepted first, and planned by another process than the one that took them: PLANNING until then."""

from __future__ import annotations

import time

from pik.model.ids import new_id
from pik.model.run import Run, RunRequest, RunState
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.usecases.metrics.computation import widest
from pik.usecases.replay.plan import expect_possible_work, plan_replay, replayable, start


def accepted(store: Store, request: RunRequest, actor: str = "", run_id: str = "") -> Run:
    """Return the run of a request as it is until it is planned, writing nothing. Raises as `expect_possible_work`."""
    effective = widest(request.window, replayable(store, request))
    expect_possible_work(store, request)
    return Run(
        run_id=run_id or new_id(),
        request=request,
        actor=actor,
        state=RunState.PLANNING,
        created_at=time.time_ns(),
        finished_at=None,
        effective_start=effective.start,
        effective_end=effective.end,
        events_matched=None,
        buckets=None,
        tasks=0,
    )


def fail_planning(store: Store, run: Run, reason: str) -> Run:
    """End a run that is PLANNING, or was not even stored, as FAILED for this reason, and return it; any other one as it
    is. Raises Busy while another process plans it."""
    with store.runs.driving(run.run_id):
        store.runs.create(run, ())
        if store.runs.get(run.run_id).state == RunState.PLANNING:
            store.runs.set_state(run.run_id, RunState.FAILED, time.time_ns(), reason)
        return store.runs.get(run.run_id)


def finish_planning(store: Store, engine: Engine, run_id: str) -> Run:
    """Plan a run that is PLANNING, without counting its events, and return it; any other one as it is. One that is
    cancelled meanwhile stays so. Raises NotFound, Busy while another process plans it, and as `plan_replay` does."""
    with store.runs.driving(run_id):
        run = store.runs.get(run_id)
        if run.state == RunState.PLANNING:
            plan = plan_replay(
                store, engine, run.request, run.created_at, actor=run.actor, run_id=run.run_id, count=False
            )
            start(store, plan)
        return store.runs.get(run_id)

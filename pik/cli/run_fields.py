"""How commands show a run, and what to type next."""

from __future__ import annotations

from pik.cli.command import PARTLY
from pik.cli.render import Column, Count, Moment, Shown
from pik.cli.render.text import number_of
from pik.model.run import CANCELLED, COMPLETED, FAILED, PLANNED, RUNNING, Run
from pik.model.window import Window


def plan_fields(run: Run) -> dict[str, object]:
    """What the run was asked for, and what that comes to."""
    request = run.request
    return {
        "run_id": run.run_id,
        "requested": request.window,
        "effective": Window(run.effective_start, run.effective_end),
        "entities": list(request.entities) or None,
        "metrics": list(request.metrics) or None,
        "source": request.source,
        "type": request.event_type,
        "include_duplicates": request.include_duplicates or None,
        "reason": request.reason or None,
        "events_matched": None if run.events_matched is None else Count(run.events_matched),
        "buckets": None if run.buckets is None else Count(run.buckets),
        "tasks": Count(run.tasks),
    }


def outcome_fields(run: Run) -> dict[str, object]:
    """How far it is, or how it ended."""
    return {
        "state": run.state,
        "done": Count(run.done),
        "failed": Count(run.failed),
        "new": Count(run.new),
        "changed": Count(run.changed),
        "unchanged": Count(run.unchanged),
        "without_value": None if run.without_value is None else Count(run.without_value),
        "removed": Count(run.removed),
        "promoted": Count(run.promoted),
        "computed_by": list(run.computed_by) or None,
        "next": next_command(run),
    }


def next_command(run: Run) -> str | None:
    """What to type next."""
    if run.state in (PLANNED, RUNNING):
        return f"pik runs resume {run.run_id}"
    if run.state == FAILED:
        return f"pik dlq list --run {run.run_id}"
    if run.state == CANCELLED or run.promoted or not run.new + run.changed + run.removed:
        return None
    first = "pik verify --full, then " if run.removed else ""  # lost raw looks as if there had been no events
    diff = f"{first}pik diff aggregates --run {run.run_id}"
    return diff if run.request.include_duplicates else f"{diff}, then pik promote {run.run_id}"


def going_on(run: Run) -> str:
    """What is said where a run was interrupted, and is gone on with."""
    return f"going on with run {run.run_id}: {run.done:,} of {number_of(run.tasks, 'task')} were done already"


def nothing_matched(window: Window) -> str:
    """What is said where a run has nothing to do."""
    return f"nothing matched: there is no such event in {window}; pik events lists those that are"


def exit_code(run: Run) -> int | None:
    """3 for a run that did not do all of its tasks."""
    return None if run.state == COMPLETED else PARTLY


def _progress(run: Run) -> str:
    return f"{run.done} of {run.tasks}" + (f", {run.failed} failed" if run.failed else "")


RUN_COLUMNS = [
    Column("run_id"),
    Column("state"),
    Column("created_at", Moment, drop=3),
    Column("window", get=lambda run: Window(run.effective_start, run.effective_end), drop=1),
    Column("tasks", get=lambda run: Shown(run.tasks, _progress(run))),
    Column("done", Count, detail=True),
    Column("failed", Count, detail=True),
    *(Column(name, Count, drop=2) for name in ("new", "changed", "unchanged", "removed")),
    Column("promoted", Count),
    Column("reason", get=lambda run: run.request.reason, wrap=True),
    Column("finished_at", Moment, detail=True),
    Column("events_matched", Count, detail=True),
]

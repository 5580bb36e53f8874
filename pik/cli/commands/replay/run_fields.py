"""How commands show a run, and what to type next."""

from __future__ import annotations

from pik.cli.command import PARTLY
from pik.cli.commands.replay.run_next import next_command
from pik.cli.render import Column, Count, Instant, Moment, Shown
from pik.cli.render.text import number_of
from pik.model.instant import format_instant
from pik.model.run import FailedAggregate, Run, RunState
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
        **failure_fields(run),
        "new": Count(run.new),
        "changed": Count(run.changed),
        "unchanged": Count(run.unchanged),
        "without_value": None if run.without_value is None else Count(run.without_value),
        "removed": Count(run.removed),
        "promoted": Count(run.promoted),
        "computed_by": list(run.computed_by) or None,
        "next": next_command(run),
    }


def failure_fields(run: Run) -> dict[str, object]:
    """The aggregates that failed: all are counted, the first are listed."""
    failed = [
        {
            "metric": each.metric,
            "bucket": Instant(each.bucket),
            "entity_id": each.entity_id,
            "reason": each.reason,
            "events_to_blame": Count(each.events),
            "event_ids": list(each.event_ids),
        }
        for each in run.failures
    ]
    left_out = run.failed_aggregates - len(failed)
    more = [f"… and {left_out:,} more"] if left_out else []
    return {
        "failed_aggregates": Count(run.failed_aggregates),
        "failures": Shown(failed, "\n".join([*map(_failure_text, run.failures), *more])) if failed else None,
    }


def _failure_text(failed: FailedAggregate) -> str:
    events = f" (event {', '.join(failed.event_ids)})" if failed.event_ids else ""
    return f"{failed.metric} of {failed.entity_id} at {format_instant(failed.bucket)}: {failed.reason}{events}"


def going_on(run: Run) -> str:
    """What is said where a run was interrupted, and is gone on with."""
    return f"going on with run {run.run_id}: {run.done:,} of {number_of(run.tasks, 'task')} were done already"


def nothing_matched(window: Window) -> str:
    """What is said where a run has no events to compute from."""
    return f"there is no such event in {window}: what is current there becomes null"


def exit_code(run: Run) -> int | None:
    """3 for a run that did not compute everything."""
    return None if run.state == RunState.COMPLETED else PARTLY


def _progress(run: Run) -> str:
    aggregates = f", {number_of(run.failed_aggregates, 'aggregate')} failed" if run.failed_aggregates else ""
    return f"{run.done} of {run.tasks}" + (f", {run.failed} failed" if run.failed else "") + aggregates


RUN_COLUMNS = [
    Column("run_id"),
    Column("state"),
    Column("created_at", Moment, drop=3),
    Column("window", get=lambda run: Window(run.effective_start, run.effective_end), drop=1),
    Column("tasks", get=lambda run: Shown(run.tasks, _progress(run))),
    Column("done", Count, detail=True),
    Column("failed", Count, detail=True),
    Column("failed_aggregates", Count, detail=True),
    *(Column(name, Count, drop=2) for name in ("new", "changed", "unchanged", "removed")),
    Column("promoted", Count),
    Column("reason", get=lambda run: run.request.reason, wrap=True),
    Column("finished_at", Moment, detail=True),
    Column("events_matched", Count, detail=True),
]

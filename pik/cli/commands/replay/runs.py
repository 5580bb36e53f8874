"""`pik runs`: follow replays."""

from __future__ import annotations

from itertools import islice

from pik.cli import options
from pik.cli.command import PARTLY, CommandGroup
from pik.cli.context import Context
from pik.cli.render import Column, Count, Document, Instant, Moment, Shown, Table
from pik.cli.render.text import number_of
from pik.errors import after_success, command, in_turn
from pik.model.instant import format_instant
from pik.model.run import FailedAggregate, Run, RunRequest, RunState
from pik.model.window import Window

runs = CommandGroup("Follow replays: list, show, resume, cancel, wait.")


@runs.add(
    "list",
    examples="""
    # the last ten
    pik runs list --limit 10
    """,
)
def list_(cli: Context, limit: options.Limit = None) -> None:
    """List runs, newest first."""
    runs = cli.open_store().runs.newest_first()
    shown = islice(runs, limit)
    cli.show(
        Document(
            tables=[Table("runs", RUN_COLUMNS, shown, empty="no run yet; to make one: pik replay --all")],
            tail=lambda: {"truncated": limit is not None and next(runs, None) is not None},
        )
    )


@runs.add("show", examples="pik runs show 01J8Z3")
def show(cli: Context, run: options.RunId) -> None:
    """Show a run: what was asked for, how far it is, its dead letters, what was promoted and rolled back."""
    from pik.usecases.replay.runs import detail

    found = detail(cli.open_store(), run)
    letters = [
        Column("letter_id"),
        Column("attempts"),
        Column("reason", wrap=True),
        Column("hint", wrap=True, advice=True),
    ]
    promotions = [
        Column("kind"),
        Column("at", Moment),
        Column("moved", Count),
        Column("conflicts", Count),
        Column("reason", wrap=True),
    ]
    cli.show(
        Document(
            head={
                **plan_fields(found.run),
                "created_at": Instant(found.run.created_at),
                "finished_at": Instant(found.run.finished_at) if found.run.finished_at is not None else None,
                **outcome_fields(found.run),
                "driven": found.driven,
            },
            tables=[
                Table("dead_letters", letters, found.letters),
                Table("promotions", promotions, found.promotions),
            ],
        )
    )


@runs.add("resume", examples="pik runs resume 01J8Z3")
def resume(cli: Context, run: options.RunId) -> int | None:
    """Go on with a run that was interrupted: its open tasks, and only those."""
    from pik.usecases.replay.execute import Pace, execute_run

    store = cli.open_store()
    found = store.runs.get(run)
    if found.state in (RunState.PLANNED, RunState.RUNNING):
        cli.note(going_on(found))
    ended = execute_run(store, cli.engine(), found.run_id, Pace(), cli.progress)
    head = {**plan_fields(ended), "resumed": True, **outcome_fields(ended)}
    cli.show(Document(head=head))
    return exit_code(ended)


@runs.add(
    "wait",
    examples="""
    # in a script that started the replay in the background
    pik runs wait 01J8Z3 && pik promote 01J8Z3 --yes
    """,
)
def wait(cli: Context, run: options.RunId) -> int | None:
    """Wait until a run has ended. Exit code 3 if not all of it was computed."""
    from pik.usecases.replay.execute import wait as until_ended

    ended = until_ended(cli.open_store(), run, cli.progress)
    cli.show(Document(head={**plan_fields(ended), **outcome_fields(ended)}))
    return exit_code(ended)


@runs.add("cancel", examples="pik runs cancel 01J8Z3")
def cancel(cli: Context, run: options.RunId) -> None:
    """Cancel a run: nothing new is begun, what is in flight is finished first. It can never be promoted."""
    from pik.usecases.replay.runs import cancel as stop

    ended = stop(cli.open_store(), run)
    cli.show(Document(head={**plan_fields(ended), **outcome_fields(ended)}))


def plan_fields(run: Run) -> dict[str, object]:
    """What the run was asked for, and what that comes to."""
    request = run.request
    return {
        "run_id": run.run_id,
        "requested": request.window,
        "effective": run.effective,
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
    Column("window", get=lambda run: run.effective, drop=1),
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


WHOLE = command("verify", "--full")
"""Comes before a repair that removes values: lost raw looks as if there had been no events."""


def next_command(run: Run) -> str | None:
    """Return what to type next about a run. That ends somewhere: a dead letter says what helps, a promotion is last."""
    if run.state in (RunState.PLANNED, RunState.RUNNING):
        return command("runs", "resume", run.run_id)
    if run.state == RunState.CANCELLED:
        return replay_command(run.request)
    if run.failed:
        return command("dlq", "list", "--run", run.run_id)
    if run.promoted >= run.values or not run.new + run.changed + run.removed:
        return None
    diff = command("diff", "aggregates", "--run", run.run_id)
    if run.removed:
        diff = after_success(WHOLE, diff)
    return diff if run.request.include_duplicates else in_turn(diff, command("promote", run.run_id))


def replay_command(request: RunRequest) -> str:
    """The command that computes the same again."""
    words = ["replay"]
    filters = {"--source": request.source, "--type": request.event_type}
    for entity in request.entities:
        words += ["--entity", entity]
    if not request.entities and not any(filters.values()):
        words.append("--all")
    times = {"--from": request.window.from_text, "--to": request.window.to_text}
    for option, text in {**times, **filters}.items():
        words += [option, text] if text else []
    for metric in request.metrics:
        words += ["--metric", metric]
    if request.include_duplicates:
        words.append("--include-duplicates")
    return command(*words)

"""`pik replay` on a store: plan, compute, and with --promote make the result current."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pik.cli import options
from pik.cli.command import PARTLY
from pik.cli.commands.replay.run_fields import exit_code, going_on, nothing_matched, outcome_fields, plan_fields
from pik.cli.context import Context
from pik.cli.render import Document, Instant
from pik.cli.render.text import number_of
from pik.errors import command
from pik.model.instant import format_instant
from pik.model.run import RunRequest, RunState
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.model.run import Run
    from pik.ports.store import Store
    from pik.usecases.replay.runs import Move


def replay(
    cli: Context, request: RunRequest, rate: float | None, dry_run: bool, promote: bool, yes: bool
) -> int | None:
    """Go on with the run of this request or begin one, follow it to its end, and show what became of it."""
    from pik.usecases.inspect.events import without_value
    from pik.usecases.replay.execute import Pace, carry_out
    from pik.usecases.replay.plan import expect_work, plan_replay, start

    store, engine = cli.open_store(), cli.engine()
    nothing_of: dict[str, object] = {"entities_without_value": None}
    run = None if dry_run else store.runs.unfinished(request)
    resumed = run is not None
    if run is not None:
        cli.note(going_on(run))
    else:
        plan = plan_replay(store, engine, request, time.time_ns())
        expect_work(store, plan.run)
        if plan.without_value:
            nothing_of["entities_without_value"] = list(plan.without_value)
            cli.note(without_value(store, plan.without_value, Window(plan.run.effective_start, plan.run.effective_end)))
        if plan.run.events_matched == 0:
            cli.note(nothing_matched(request.window))
        if dry_run:
            cli.show(Document(head={**plan_fields(plan.run), **nothing_of, "dry_run": True}))
            return None
        run = start(store, plan)
        events, buckets = number_of(plan.counts.events, "event"), number_of(plan.counts.buckets, "bucket")
        chosen = "raw is damaged, so events are not counted" if plan.counts.damaged else f"{events} in {buckets}"
        cli.note(f"run {run.run_id}: {chosen}, {number_of(run.tasks, 'task')}")
    run = carry_out(store, engine, run.run_id, Pace(rate=rate), cli.progress)
    move = _promote(store, run, yes) if promote and run.state in (RunState.COMPLETED, RunState.PARTIAL) else None
    shown = move.run if move else run
    counts = {"promotion": move.counts} if move else {}
    head = {
        **plan_fields(shown),
        **nothing_of,
        "resumed": resumed,
        **outcome_fields(shown),
        **_basis(cli, store, run),
        **counts,
    }
    cli.show(Document(head=head))
    return PARTLY if move and move.counts.conflicts else exit_code(run)


def _basis(cli: Context, store: Store, run: Run) -> dict[str, object]:
    """Of a run that changed nothing, what that rests on; otherwise `pik diff aggregates --run` tells it."""
    from pik.usecases.metrics.diff import basis_of

    if run.state != RunState.COMPLETED or run.new + run.changed + run.removed:
        return {"metric_versions": None, "known_until": None}
    basis = basis_of(store, run.run_id)
    versions = sorted(basis.versions)
    until = f", known until {format_instant(basis.known_until)}" if basis.known_until else ""
    cli.note(
        f"nothing changed: {number_of(run.unchanged, 'value')} computed by {', '.join(versions) or 'no metric'}{until}"
    )
    return {"metric_versions": versions, "known_until": Instant(basis.known_until) if basis.known_until else None}


def _promote(store: Store, run: Run, yes: bool) -> Move:
    from pik.cli.commands.replay.promote import plan_text
    from pik.usecases.replay.runs import promote

    if not yes:
        options.confirm(
            plan_text(promote(store, run.run_id, 0, "", dry_run=True)),
            yes,
            declined=f"run {run.run_id} is kept, and nothing was promoted",
            hint=command("promote", run.run_id),
        )
    return promote(store, run.run_id, time.time_ns(), run.request.reason)

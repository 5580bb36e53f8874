"""`pik promote`, `pik rollback`: make current what a run wrote, and take that back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pik.cli import options
from pik.cli.command import PARTLY, cli_command
from pik.cli.commands.repair.runs import FAILURES, failures_text, replay_command
from pik.cli.context import Context
from pik.cli.document import Field, Schema
from pik.cli.options import argument
from pik.cli.values import Count
from pik.errors import number_of
from pik.model.run import PromotionKind, RunState

if TYPE_CHECKING:
    from pik.ports.store import Store
    from pik.usecases.replay.promote import Move


@cli_command(
    "promote",
    examples="""
    # see what it changes, then do it
    pik diff aggregates --run 01J8Z3
    pik promote 01J8Z3 --reason 'late events of 2 March'

    # in a runbook: without asking; exit code 3 if another promotion has changed some of them
    pik promote 01J8Z3 --reason INC-1234 --yes
    """,
)
def promote(
    cli: Context,
    run: options.RunId,
    reason: options.Reason = "",
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
) -> int | None:
    """Make the aggregates that a run wrote current.

    An aggregate is changed only if its current version is still the one that the run found. If another promotion has
    changed it, it is a conflict: it is left unchanged and reported. So are aggregates that the run could not compute.
    In both cases the exit code is 3. `pik rollback` undoes a promotion.
    """
    from pik.usecases.replay.promote import promote as make_current

    store = cli.open_store()
    return move(cli, store, make_current, cli.recent(store, "run", run), reason, yes, dry_run)


def move(
    cli: Context, store: Store, action: Callable[..., Move], run_id: str, reason: str, yes: bool, dry_run: bool
) -> int | None:
    """Show the plan, ask, do it, show what was done. With `yes` no plan is shown, which costs as much as the move."""
    if dry_run or not yes:
        planned = action(store, run_id, 0, "", dry_run=True)
        if planned.counts.moved and not dry_run:
            options.confirm(plan_text(planned), yes)
    moved = planned if dry_run else action(store, run_id, time.time_ns(), reason, cli.actor(store))
    counts, run = moved.counts, moved.run
    if yes and moved.corrections:
        cli.note(corrected_since(moved))
    if moved.kind == PromotionKind.ROLLBACK and counts.conflicts:
        later = "what was promoted later has to be rolled back first"
        cli.note(later if run.promoted else f"no value that run {run.run_id} wrote was made current")
    elif moved.superseded:
        cli.note("conflicts: later runs have computed these values since, and theirs are current")
    elif counts.conflicts:
        cli.note("conflicts: another promotion has changed these values since this run was computed beside them")
    # What the run could not compute does not concern a rollback.
    failed = (
        {} if moved.kind == PromotionKind.PROMOTE else dict.fromkeys(("failed_tasks", "failed_aggregates", "failures"))
    )
    cli.show(PROMOTE, moved, dry_run=dry_run, reason=reason, **failed)
    incomplete = moved.kind == PromotionKind.PROMOTE and run.state in (RunState.PARTIAL, RunState.FAILED)
    return PARTLY if counts.conflicts or incomplete else None


def _next(moved: Move) -> str | None:
    """Return what to type next. After a conflict that is another replay: what this run found is out of date. Nothing is
    to be done where later runs have computed what is current."""
    if not moved.counts.conflicts or moved.superseded:
        return None
    return replay_command(moved.run.request) if moved.kind == PromotionKind.PROMOTE else "pik runs list"


PROMOTE = Schema(
    "pik promote, pik rollback",
    Field("run_id", str, get="run.run_id"),
    Field("action", str, "`promote` or `rollback`", get="kind"),
    Field("dry_run", bool),
    Field("moved", Count, "aggregates that moved, or would move", get="counts.moved"),
    Field("already", Count, "that already were current", get="counts.already"),
    Field("conflicts", Count, "left unchanged because another promotion had changed them", get="counts.conflicts"),
    Field(
        "corrections_since",
        list[str] | None,
        "corrections of its buckets that were recorded after the run was planned; null: none, or this is a rollback",
        get="corrections",
    ),
    Field("failed_tasks", Count | None, "their aggregates stay as they are; null for a rollback", get="run.failed"),
    Field("failed_aggregates", Count | None, "they stay as they are; null for a rollback", get="run.failed_aggregates"),
    Field(
        "failures",
        FAILURES.kind,
        "the first of them; null: there are none, or this is a rollback",
        get="run.failures",
        text=lambda moved: failures_text(moved.run) if moved.kind == PromotionKind.PROMOTE else None,
    ),
    Field("reason", str | None),
    Field("next", str | None, get=_next),
)


def plan_text(planned: Move) -> str:
    """Return what a promote or rollback is about to do, in a sentence or two."""
    counts, run = planned.counts, planned.run
    text = f"{planned.kind} run {run.run_id}: {number_of(counts.moved, 'aggregate')} to move"
    if counts.already:
        text += f", {counts.already:,} did already"
    if counts.conflicts:
        text += f", {counts.conflicts:,} changed by another promotion and left"
    if planned.kind != PromotionKind.PROMOTE:
        return text
    if planned.corrections:
        text += f"\n{corrected_since(planned)}"
    if run.failed_aggregates:
        text += f"\n{number_of(run.failed_aggregates, 'aggregate')} could not be computed and stay as they are"
    if run.failed:
        text += f"\n{run.failed:,} of its {number_of(run.tasks, 'task')} failed; their aggregates stay as they are"
    return text


def corrected_since(move: Move) -> str:
    """Return the note that the promoted values are without later corrections."""
    ids = move.corrections
    which = ids[0] if len(ids) == 1 else f"{len(ids):,} corrections, {ids[-1]} the last"
    return (
        f"the run was planned before {'correction ' if len(ids) == 1 else ''}{which}, so its values are without"
        f" {'it' if len(ids) == 1 else 'them'}; to compute them with {'it' if len(ids) == 1 else 'them'}, replay again"
    )


@cli_command(
    "rollback",
    examples="""
    # what would move?
    pik rollback 01J8Z3 --dry-run

    pik rollback 01J8Z3 --reason 'promoted the wrong run'
    """,
)
def rollback(
    cli: Context,
    run: Annotated[
        str, argument("RUN", "The run (id or its beginning); latest or -1: the one that was promoted last, -2, ….")
    ],
    reason: options.Reason = "",
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
) -> int | None:
    """Make current again what was current before a run was promoted.

    An aggregate is changed only if the run's version is still current. If another promotion has changed it, it is a
    conflict: it is left unchanged and reported. Nothing is deleted; `pik promote` makes the run's versions current
    again.
    """
    from pik.usecases.replay.promote import rollback as go_back

    store = cli.open_store()
    return move(cli, store, go_back, cli.recent(store, "promoted run", run), reason, yes, dry_run)

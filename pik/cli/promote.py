"""`pik promote`: make what a run wrote current."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from pik.cli import options
from pik.cli.command import PARTLY, Commands
from pik.cli.context import Context
from pik.cli.render import Count, Document
from pik.cli.render.text import number_of

if TYPE_CHECKING:
    from pik.usecases.promote import Move

commands = Commands()

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run (id or its beginning); `pik runs list` has them.")]


@commands.add(
    "promote",
    examples="""
    # see what it changes, then do it
    pik diff aggregates --run 01J8Z3
    pik promote 01J8Z3 --reason 'late events of 2 March'

    # in a runbook: without a question; exit code 3 if somebody else changed some meanwhile
    pik promote 01J8Z3 --reason INC-1234 --yes
    """,
)
def promote(
    cli: Context, run: RunId, reason: options.Reason = "", yes: options.Yes = False, dry_run: options.DryRun = False
) -> int | None:
    """Make the aggregates that a run wrote current.

    Each moves only if what is current is still what the run found; one that somebody else has changed meanwhile is a
    conflict: it is left as it is, and reported. `pik rollback` goes back.
    """
    from pik.usecases.promote import promote as make_current

    return move(cli, make_current, run, reason, yes, dry_run)


def move(cli: Context, action: Callable[..., Move], run_id: str, reason: str, yes: bool, dry_run: bool) -> int | None:
    """Show the plan, ask, do it, show what was done."""
    store = cli.open_store()
    moved = action(store, run_id, 0, "", dry_run=True)
    if moved.counts.moved and not dry_run:
        options.confirm(plan_text(moved), yes)
    if not dry_run:
        moved = action(store, moved.run.run_id, time.time_ns(), reason)
    counts, run = moved.counts, moved.run
    cli.show(
        Document(
            head={
                "run_id": run.run_id,
                "action": moved.kind,
                "dry_run": dry_run,
                "moved": Count(counts.moved),
                "already": Count(counts.already),
                "conflicts": Count(counts.conflicts),
                "failed_tasks": Count(run.failed),
                "reason": reason or None,
                "next": f"pik diff aggregates --run {run.run_id} shows them" if counts.conflicts else None,
            }
        )
    )
    return PARTLY if counts.conflicts else None


def plan_text(planned: Move) -> str:
    """What a promote or rollback is about to do, in a sentence or two."""
    counts, run = planned.counts, planned.run
    text = f"{planned.kind} run {run.run_id}: {number_of(counts.moved, 'aggregate')} to move"
    if counts.already:
        text += f", {counts.already:,} did already"
    if counts.conflicts:
        text += f", {counts.conflicts:,} changed by somebody else meanwhile and left"
    if run.failed:
        text += f"\n{run.failed:,} of its {number_of(run.tasks, 'task')} failed; their aggregates stay as they are"
    return text

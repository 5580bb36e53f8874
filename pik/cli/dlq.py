"""`pik dlq`: tasks that failed too often."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from pik.cli import options
from pik.cli.command import PARTLY, Commands
from pik.cli.context import Context
from pik.cli.render import Column, Document, Instant, Shown, Table
from pik.cli.run_fields import RUN_COLUMNS
from pik.errors import UsageError
from pik.model.run import COMPLETED, Task

if TYPE_CHECKING:
    from pik.model.run import DeadLetter
    from pik.ports.store import Store

commands = Commands("Tasks that failed too often: list, show, redrive, purge.")

OfRun = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only those of this run.")]
Letters = Annotated[list[str] | None, typer.Argument(metavar="[LETTER]...", help="Ids or their beginnings.")]
Everything = Annotated[bool, typer.Option("--all", help="Every dead letter.")]


@commands.add(
    "list",
    examples="""
    pik dlq list
    pik dlq list --run 01J8Z3

    # what was given up, when, and why
    pik dlq list --purged
    """,
)
def list_(
    cli: Context,
    run: OfRun = None,
    purged: Annotated[bool, typer.Option("--purged", help="Those that were purged instead.")] = False,
) -> None:
    """List dead letters, the oldest first: tasks of replays that failed each time they were tried."""
    from pik.usecases.dlq import letters

    columns = [
        Column("letter_id"),
        Column("run_id", get=lambda letter: letter.task.run_id),
        Column("window", get=lambda letter: letter.task.window),
        Column("entities", get=lambda letter: _entities(letter.task, str(len(letter.task.entities)))),
        Column("attempts"),
        Column("failed_at", Instant),
        Column("reason", wrap=True),
    ]
    if purged:
        columns += [Column("purged_at", Instant), Column("purge_reason", wrap=True)]
    found = letters(cli.open_store(), run, purged=purged)
    cli.show(Document(tables=[Table("dead_letters", columns, found, empty="no dead letters")]))


def _entities(task: Task, text: str) -> Shown:
    return Shown(task.entities, text) if task.entities else Shown(None, "all")


@commands.add("show", examples="pik dlq show 01J8Z4")
def show(cli: Context, letter: Annotated[str, typer.Argument(metavar="LETTER", help="Id or its beginning.")]) -> None:
    """Show a dead letter: the task, whole, and why it failed."""
    from pik.usecases.dlq import letter as find

    found = find(cli.open_store(), letter)
    task = found.task
    cli.show(
        Document(
            head={
                "letter_id": found.letter_id,
                "run_id": task.run_id or None,
                "task": task.number,
                "window": task.window,
                "metrics": list(task.metrics),
                "entities": _entities(task, ", ".join(task.entities)),
                "attempts": found.attempts,
                "failed_at": Instant(found.failed_at),
                "reason": found.reason,
                "next": f"pik dlq {'redrive' if task.run_id else 'purge'} {found.letter_id}",
            }
        )
    )


@commands.add(
    "redrive",
    examples="""
    # after the cause is gone: one, or all of a run
    pik dlq redrive 01J8Z4
    pik dlq redrive --all --run 01J8Z3
    """,
)
def redrive(
    cli: Context,
    letter: Letters = None,
    everything: Everything = False,
    run: OfRun = None,
    dry_run: options.DryRun = False,
) -> int | None:
    """Do the tasks of dead letters again. A run whose tasks are then all done is COMPLETED, and can be promoted.

    A run keeps to the metrics that it was planned with: after a definition is corrected, `pik replay` again instead.
    """
    from pik.usecases import dlq
    from pik.usecases.replay import Pace

    store, chosen = _chosen(cli, "redrive", letter, everything, run)
    runs = [] if dry_run else dlq.redrive(store, cli.engine(), chosen, Pace(), cli.progress)
    cli.show(
        Document(
            head={"dry_run": dry_run, "redriven": [one.letter_id for one in chosen]},
            tables=[Table("runs", RUN_COLUMNS, runs, empty="nothing was done")],
        )
    )
    return PARTLY if any(one.state != COMPLETED for one in runs) else None


@commands.add(
    "purge",
    examples="""
    # tasks that nobody will need any more
    pik dlq purge 01J8Z4 --reason 'the metric was withdrawn'
    pik dlq purge --all --run 01J8Z3 --reason INC-1234 --yes
    """,
)
def purge(
    cli: Context,
    letter: Letters = None,
    everything: Everything = False,
    run: OfRun = None,
    reason: options.Reason = "",
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
) -> None:
    """Give up dead letters. Their tasks stay failed, so their aggregates stay as they are; `pik dlq list --purged`
    tells which, and why."""
    from pik.usecases import dlq

    if not reason.strip() and not dry_run:
        raise UsageError("why purge?", hint="--reason TEXT; it is kept with the letters")
    store, chosen = _chosen(cli, "purge", letter, everything, run)
    if chosen and not dry_run:
        options.confirm(f"give up {len(chosen):,} dead letters: their tasks stay failed", yes)
        dlq.purge(store, chosen, time.time_ns(), reason)
    cli.show(
        Document(
            head={"dry_run": dry_run, "purged": [one.letter_id for one in chosen], "reason": reason or None},
        )
    )


def _chosen(
    cli: Context, verb: str, letters: list[str] | None, everything: bool, run: str | None
) -> tuple[Store, list[DeadLetter]]:
    from pik.usecases import dlq

    if bool(letters) == everything or (run and not everything):
        raise UsageError(f"{verb} which?", hint=f"pik dlq {verb} LETTER, or --all, or --all --run RUN")
    store = cli.open_store()
    if everything:
        return store, dlq.letters(store, run)
    return store, [dlq.letter(store, one) for one in letters or ()]

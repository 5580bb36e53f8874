"""`pik dlq`: tasks that failed too often."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pik.cli import options
from pik.cli.command import PARTLY, CommandGroup
from pik.cli.commands.replay.runs import RUN_COLUMNS
from pik.cli.context import Context
from pik.cli.render import Column, Document, Instant, Moment, Shown, Table
from pik.cli.render.text import number_of
from pik.errors import UsageError, command
from pik.model.run import DeadLetter, Run, RunState, Task

if TYPE_CHECKING:
    from pik.model.run import DeadLetter
    from pik.ports.store import Store


dlq = CommandGroup("Tasks that failed too often: list, show, redrive, purge.")

OfRun = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only those of this run.")]
Letters = Annotated[list[str] | None, typer.Argument(metavar="[LETTER]...", help="Ids or their beginnings.")]
Everything = Annotated[bool, typer.Option("--all", help="Every dead letter.")]


@dlq.add(
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
    from pik.usecases.replay.runs import letters

    cli.show(_listed(letters(cli.open_store(), run, purged=purged), purged=purged))


@dlq.add("show", examples="pik dlq show 01J8Z4")
def show(cli: Context, letter: Annotated[str, typer.Argument(metavar="LETTER", help="Id or its beginning.")]) -> None:
    """Show a dead letter: the task, whole, and why it failed."""
    from pik.usecases.replay.runs import letter as find

    cli.show(_letter(find(cli.open_store(), letter)))


@dlq.add(
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
    from pik.usecases.replay import runs as dlq
    from pik.usecases.replay.execute import Pace

    store, chosen = _chosen(cli, "redrive", letter, everything, run)
    runs = [] if dry_run else dlq.redrive(store, cli.engine(), chosen, Pace(), cli.progress)
    cli.show(_redriven(chosen, runs, dry_run=dry_run))
    return PARTLY if any(one.state != RunState.COMPLETED for one in runs) else None


@dlq.add(
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
    from pik.usecases.replay import runs as dlq

    if not reason.strip() and not dry_run:
        raise UsageError("why purge?", hint="--reason TEXT; it is kept with the letters")
    store, chosen = _chosen(cli, "purge", letter, everything, run)
    if chosen and not dry_run:
        options.confirm(f"give up {number_of(len(chosen), 'dead letter')}: their tasks stay failed", yes)
        dlq.purge(store, chosen, time.time_ns(), reason)
    cli.show(_purged(chosen, reason, dry_run=dry_run))


def _chosen(
    cli: Context, verb: str, letters: list[str] | None, everything: bool, run: str | None
) -> tuple[Store, list[DeadLetter]]:
    from pik.usecases.replay import runs as dlq

    if bool(letters) == everything or (run and not everything):
        raise UsageError(
            f"{verb} which?", hint=f"--all, --all --run RUN, or a letter: {command('dlq', verb, 'LETTER')}"
        )
    store = cli.open_store()
    if everything:
        return store, dlq.letters(store, run)
    return store, [dlq.letter(store, one) for one in letters or ()]


def _listed(letters: Sequence[DeadLetter], *, purged: bool) -> Document:
    """The letters, one a row; of those that were purged also when, and why."""
    columns = [*_COLUMNS, *_PURGED] if purged else _COLUMNS
    empty = "no dead letter was purged" if purged else "no dead letters"
    return Document(tables=[Table("dead_letters", columns, letters, empty)])


def _letter(found: DeadLetter) -> Document:
    """One letter, its task whole."""
    task = found.task
    return Document(
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
            "note": found.hint or None,
            "next": _next(found),
        }
    )


def _next(found: DeadLetter) -> str | None:
    """What can help. To do a task again is worth while where nothing else is known to be wrong."""
    if not found.task.run_id:
        return command("dlq", "purge", found.letter_id, "--reason", "no task")
    return None if found.hint else command("dlq", "redrive", found.letter_id)


def _redriven(letters: Sequence[DeadLetter], runs: Sequence[Run], *, dry_run: bool) -> Document:
    """Whose tasks were done again, and how their runs ended."""
    return Document(
        head={"dry_run": dry_run, "redriven": [one.letter_id for one in letters]},
        tables=[Table("runs", RUN_COLUMNS, runs, empty="nothing was done")],
    )


def _purged(letters: Sequence[DeadLetter], reason: str, *, dry_run: bool) -> Document:
    """What was given up."""
    return Document(head={"dry_run": dry_run, "purged": [one.letter_id for one in letters], "reason": reason or None})


def _entities(task: Task, text: str) -> Shown:
    return Shown(task.entities, text) if task.entities else Shown(None, "all")


_COLUMNS = [
    Column("letter_id"),
    Column("run_id", get=lambda letter: letter.task.run_id, drop=1),
    Column("window", get=lambda letter: letter.task.window, drop=2),
    Column("entities", get=lambda letter: _entities(letter.task, str(len(letter.task.entities)))),
    Column("attempts", drop=4),
    Column("failed_at", Moment, drop=3),
    Column("reason", wrap=True),
    Column("hint", wrap=True, rare=True, advice=True),
]

_PURGED = [Column("purged_at", Moment, drop=3), Column("purge_reason", wrap=True)]

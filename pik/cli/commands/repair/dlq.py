"""`pik dlq`: tasks that failed too often."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from pik.cli import options
from pik.cli.command import PARTLY, CommandGroup
from pik.cli.commands.repair.runs import RUN_COLUMNS
from pik.cli.context import Context
from pik.cli.document import Column, Field, Rows, Schema
from pik.cli.options import argument, option
from pik.cli.values import Count, Instant, Moment
from pik.errors import StoreError, UsageError, command, number_of
from pik.model.entity_range import EntityRange
from pik.model.run import DeadLetter, RunState
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.ports.store import Store


dlq = CommandGroup("Tasks that failed too often: list, show, redrive, purge.")

OfRun = Annotated[str | None, option("--run RUN", "Only those of this run: id or its beginning, latest, -2.")]
Letters = Annotated[list[str] | None, argument("[LETTER]...", "Ids or their beginnings.")]
Everything = Annotated[bool, option("--all", "Every dead letter.")]


@dlq.add(
    "list",
    examples="""
    pik dlq list
    pik dlq list --run 01J8Z3

    # what was purged, when, and why
    pik dlq list --purged
    """,
)
def list_(
    cli: Context,
    run: OfRun = None,
    purged: Annotated[bool, option("--purged", "Those that were purged instead.")] = False,
) -> None:
    """List dead letters, the oldest first: tasks of replays that failed each time they were tried.

    Buffered requests that a stack could not record are in another queue: they are counted, not listed. docs/http.md,
    Dead letters, says how to read and move them.
    """
    from pik.usecases.replay.dead_letters import letters

    store = cli.open_store()
    found = letters(store, run and cli.recent(store, "run", run), purged=purged)
    if purged:
        cli.show(PURGED_LETTERS, dead_letters=found)
    else:
        lost = _lost_requests(cli) if store.deployed else None
        cli.show(LETTERS, lost, dead_letters=found)


@dlq.add("show", examples="pik dlq show 01J8Z4")
def show(cli: Context, letter: Annotated[str, argument("LETTER", "Id or its beginning.")]) -> None:
    """Show a dead letter: the task, whole, and why it failed."""
    from pik.usecases.replay.dead_letters import letter as find

    cli.show(LETTER, find(cli.open_store(), letter))


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
    """Run the tasks of dead letters again. A run whose tasks are then all done is COMPLETED, and can be promoted.

    A run keeps to the metrics that it was planned with: after a definition is corrected, `pik replay` again instead.
    """
    from pik.usecases.replay import dead_letters as dlq
    from pik.usecases.replay.execute import Pace

    store, chosen = _chosen(cli, "redrive", letter, everything, run)
    runs = [] if dry_run else dlq.redrive(store, cli.engine(), chosen, Pace(), cli.progress)
    cli.show(REDRIVEN, dry_run=dry_run, redriven=[one.letter_id for one in chosen], runs=runs)
    return PARTLY if any(one.state != RunState.COMPLETED for one in runs) else None


@dlq.add(
    "purge",
    examples="""
    # tasks that will not be needed any more
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
    """Give up dead letters. Their tasks stay failed, so their aggregates do not change; `pik dlq list --purged`
    lists them with the reasons."""
    from pik.usecases.replay import dead_letters as dlq

    if not reason.strip() and not dry_run:
        raise UsageError("a reason is required to purge", hint="--reason TEXT; it is kept with the letters")
    store, chosen = _chosen(cli, "purge", letter, everything, run)
    if chosen and not dry_run:
        options.confirm(f"give up {number_of(len(chosen), 'dead letter')}: their tasks stay failed", yes)
        dlq.purge(store, chosen, time.time_ns(), reason)
    cli.show(PURGED, dry_run=dry_run, purged=[one.letter_id for one in chosen], reason=reason)


def _chosen(
    cli: Context, verb: str, letters: list[str] | None, everything: bool, run: str | None
) -> tuple[Store, list[DeadLetter]]:
    from pik.usecases.replay import dead_letters as dlq

    if bool(letters) == everything or (run and not everything):
        raise UsageError(
            f"nothing selected to {verb}", hint=f"--all, --all --run RUN, or a letter: {command('dlq', verb, 'LETTER')}"
        )
    store = cli.open_store()
    if everything:
        return store, dlq.letters(store, run and cli.recent(store, "run", run))
    return store, [dlq.letter(store, one) for one in letters or ()]


def _lost_requests(cli: Context) -> int | None:
    """Return how many buffered requests are dead letters; None where that cannot be seen."""
    try:
        return cli.stack_health().lost_requests()
    except StoreError as error:
        cli.note(f"dead letters of buffered requests were not counted: {error.message}")
        return None


def _next(found: DeadLetter) -> str | None:
    """What can help. To do a task again is worth while where nothing else is known to be wrong."""
    if not found.task.run_id:
        return command("dlq", "purge", found.letter_id, "--reason", "no task")
    return None if found.hint else command("dlq", "redrive", found.letter_id)


def _entities(letter: DeadLetter) -> str | None:
    return str(len(letter.task.entities)) if letter.task.entities else _all(letter.task.entity_range)


def _all(entities: EntityRange) -> str:
    first, end = f" from {entities.first}" if entities.first else "", f" before {entities.end}" if entities.end else ""
    return f"all{first}{end}"


def _share(letter: DeadLetter) -> str | None:
    share = letter.task.share
    return None if share.is_all else f"{share.number + 1}/{share.count}"


def _lost_text(lost: int) -> str:
    return f"{number_of(lost, 'buffered request')} could not be recorded, in another queue: docs/http.md, Dead letters"


_LETTERS = Rows(
    "dead_letters",
    "the oldest first",
    Column("letter_id", str),
    Column("run_id", str | None, "null: the message is not a pik task", get="task.run_id", drop=1),
    Column("window", Window, "the task's", get="task.window", drop=2),
    Column("entities", list[str] | None, "null: all", get="task.entities", text=_entities),
    Column("attempts", int, drop=4),
    Column("failed_at", Moment, drop=3),
    Column("reason", str, "why it failed", wrap=True),
    Column("hint", str | None, "a hint; null: only another attempt can help", wrap=True, rare=True, advice=True),
    empty="no dead letters of replay tasks",
)

LETTERS = Schema(
    "pik dlq list",
    _LETTERS,
    Field(
        "lost_requests",
        Count | None,
        "buffered requests that could not be recorded, about, as SQS counts; null: a local store, or not known",
        get=lambda lost: lost,
        text=lambda lost: _lost_text(lost) if lost else None,
    ),
)

PURGED_LETTERS = Schema(
    "pik dlq list --purged",
    Rows(
        "dead_letters",
        "the oldest first",
        *_LETTERS.columns,
        Column("purged_at", Moment, drop=3),
        Column("purge_reason", str, "why it was purged", wrap=True),
        empty="no dead letter was purged",
    ),
)

LETTER = Schema(
    "pik dlq show",
    Field("letter_id", str),
    Field("run_id", str | None, "null: the message is not a pik task", get="task.run_id"),
    Field("task", int, "its number in the run", get="task.number"),
    Field("window", Window, get="task.window"),
    Field("metrics", list[str], "NAME@VERSION", get="task.metrics"),
    Field(
        "entities",
        list[str] | None,
        "null: all",
        get="task.entities",
        text=lambda letter: ", ".join(letter.task.entities) or "all",
    ),
    Field(
        "entities_from", str | None, "of all, only from this one on", get="task.entity_range.first", text=lambda _: None
    ),
    Field(
        "entities_before",
        str | None,
        "of all, only those before this one",
        get="task.entity_range.end",
        text=lambda _: None,
    ),
    Field("raw_share", str | None, "`2/5`: it reads the second of five shares of the raw; null: all of it", get=_share),
    Field("attempts", int),
    Field("failed_at", Instant),
    Field("reason", str),
    Field("note", str | None, "a hint, where another attempt alone cannot help", get="hint"),
    Field("next", str | None, get=_next),
)

REDRIVEN = Schema(
    "pik dlq redrive",
    Field("dry_run", bool),
    Field("redriven", list[str], "letters"),
    Rows("runs", "as in `pik runs list`; none in a dry run", *RUN_COLUMNS, empty="nothing was done"),
)

PURGED = Schema(
    "pik dlq purge",
    Field("dry_run", bool),
    Field("purged", list[str], "letters"),
    Field("reason", str | None),
)

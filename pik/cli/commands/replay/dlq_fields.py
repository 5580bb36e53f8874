"""What `pik dlq` shows."""

from __future__ import annotations

from collections.abc import Sequence

from pik.cli.commands.replay.run_fields import RUN_COLUMNS
from pik.cli.render import Column, Document, Instant, Moment, Shown, Table
from pik.errors import command
from pik.model.run import DeadLetter, Run, Task


def listed(letters: Sequence[DeadLetter], *, purged: bool) -> Document:
    """The letters, one a row; of those that were purged also when, and why."""
    columns = [*_COLUMNS, *_PURGED] if purged else _COLUMNS
    empty = "no dead letter was purged" if purged else "no dead letters"
    return Document(tables=[Table("dead_letters", columns, letters, empty)])


def letter(found: DeadLetter) -> Document:
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


def redriven(letters: Sequence[DeadLetter], runs: Sequence[Run], *, dry_run: bool) -> Document:
    """Whose tasks were done again, and how their runs ended."""
    return Document(
        head={"dry_run": dry_run, "redriven": [one.letter_id for one in letters]},
        tables=[Table("runs", RUN_COLUMNS, runs, empty="nothing was done")],
    )


def purged(letters: Sequence[DeadLetter], reason: str, *, dry_run: bool) -> Document:
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

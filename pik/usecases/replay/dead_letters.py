"""The tasks that failed too often: looked at, tried again, or given up."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from pik.errors import UsageError, ambiguous_id, command
from pik.model.metric import (
    DeadLetter,
    Run,
    RunState,
    TaskState,
)
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.runtime import Progress
from pik.usecases.replay.execute import Pace, execute_run


def letters(store: Store, run_id: str | None = None, *, purged: bool = False) -> list[DeadLetter]:
    """Return the dead letters, or those that were purged, oldest first, of all runs or of one (id or unambiguous
    prefix). Raises NotFound."""
    wanted = None if run_id is None else store.runs.get(run_id).run_id
    found = store.dead_letters.purged() if purged else store.dead_letters.letters()
    return [letter for letter in found if wanted in (None, letter.task.run_id)]


def letter(store: Store, letter_id: str) -> DeadLetter:
    """Return the dead letter of this id or of an unambiguous prefix. Raises NotFound."""
    found = [
        each for each in store.dead_letters.letters() if letter_id and each.letter_id.startswith(letter_id.upper())
    ]
    if len(found) != 1:
        raise ambiguous_id("dead letter", letter_id, [each.letter_id for each in found], hint="pik dlq list")
    return found[0]


def redrive(store: Store, engine: Engine, chosen: Sequence[DeadLetter], pace: Pace, progress: Progress) -> list[Run]:
    """Execute the tasks of these dead letters again, and return the runs as they end. An interrupted redrive goes on
    when the runs are resumed. Raises as `execute_run` does, and UsageError for a cancelled run, and for a letter that
    is not a task."""
    by_run: dict[str, list[DeadLetter]] = {}
    for each in chosen:
        if not each.task.run_id:
            raise UsageError(
                f"dead letter {each.letter_id} is not a pik task, so it cannot be redriven",
                hint=command("dlq", "purge", each.letter_id, "--reason", "no task"),
            )
        by_run.setdefault(each.task.run_id, []).append(each)
    for run_id in by_run:
        if store.runs.get(run_id).state == RunState.CANCELLED:
            raise UsageError(f"run {run_id} was cancelled", hint="replay again")
    ended: list[Run] = []
    for run_id, of_run in by_run.items():
        with store.runs.driving(run_id):
            store.runs.set_state(run_id, RunState.RUNNING)
            for each in of_run:  # open first, so that a crash between the two loses no task
                store.runs.mark(each.task, TaskState.OPEN)
            store.dead_letters.delete(of_run)
        ended.append(execute_run(store, engine, run_id, pace, progress))
    return ended


def purge(store: Store, chosen: Sequence[DeadLetter], at: int, reason: str) -> list[DeadLetter]:
    """Give up the tasks of these dead letters: they stay failed, and the letters are kept among the purged."""
    given_up = [structs.replace(each, purged_at=at, purge_reason=reason) for each in chosen]
    store.dead_letters.purge(given_up)
    return given_up

"""The tasks that failed too often: looked at, tried again, or given up."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from pik.errors import UsageError, ambiguous_id, command
from pik.model.run import DeadLetter, Run, RunState, TaskState
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.runtime import Progress
from pik.usecases.replay.execute import Pace, enqueue_tasks, run_locally
from pik.usecases.replay.wait import wait


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
    """Execute the tasks of these dead letters again, and return the runs as they end. Letters are deleted once their
    tasks are done, or the store's own processors have them: the same call goes on with an interrupted one.

    Raises as `execute_run` does, and UsageError for a cancelled run, and for a letter that is not a task.
    """
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
    return [_redrive_run(store, engine, run_id, of_run, pace, progress) for run_id, of_run in by_run.items()]


def _redrive_run(
    store: Store, engine: Engine, run_id: str, chosen: Sequence[DeadLetter], pace: Pace, progress: Progress
) -> Run:
    with store.runs.driving(run_id):
        run = store.runs.get(run_id)
        is_done = run.state == RunState.COMPLETED  # by a redrive that was killed before it deleted the letters
        if not is_done:
            store.runs.set_state(run_id, RunState.RUNNING)
            for each in chosen:
                store.runs.mark(each.task, TaskState.OPEN)
    if store.deployed and not is_done:
        enqueue_tasks(store, run_id)
        store.dead_letters.delete(chosen)
        return wait(store, run_id, progress)
    if not is_done:
        run = run_locally(store, engine, run_id, pace, progress)
    store.dead_letters.delete(chosen)
    return run


def purge(store: Store, chosen: Sequence[DeadLetter], at: int, reason: str) -> list[DeadLetter]:
    """Give up the tasks of these dead letters: they stay failed, and the letters are kept among the purged."""
    given_up = [structs.replace(each, purged_at=at, purge_reason=reason) for each in chosen]
    store.dead_letters.purge(given_up)
    return given_up

"""Dead letters: tasks that failed too often."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from pik.errors import UsageError, command, not_one
from pik.model.run import CANCELLED, OPEN, RUNNING, DeadLetter, Run
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.runtime.progress import Progress
from pik.usecases.replay.execute import Pace, carry_out


def letters(store: Store, run_id: str | None = None, *, purged: bool = False) -> list[DeadLetter]:
    """The dead letters, or those that were purged, oldest first, of all runs or of one (id or unambiguous prefix).
    Raises NotFound."""
    wanted = None if run_id is None else store.runs.get(run_id).run_id
    return [letter for letter in store.queue.letters(purged=purged) if wanted in (None, letter.task.run_id)]


def letter(store: Store, letter_id: str) -> DeadLetter:
    """The dead letter of this id or of an unambiguous prefix. Raises NotFound."""
    found = [each for each in store.queue.letters() if letter_id and each.letter_id.startswith(letter_id.upper())]
    if len(found) != 1:
        raise not_one("dead letter", letter_id, [each.letter_id for each in found], hint="pik dlq list")
    return found[0]


def redrive(store: Store, engine: Engine, chosen: Sequence[DeadLetter], pace: Pace, progress: Progress) -> list[Run]:
    """Do the tasks of these dead letters again; the runs, as they end. Raises as `carry_out` does, and UsageError for a
    cancelled run, and for a letter that somebody else put there. Interrupted, it goes on when the runs are resumed."""
    for each in chosen:
        if not each.task.run_id:
            raise UsageError(
                f"dead letter {each.letter_id} is no task of pik's, so there is nothing to do again",
                hint=command("dlq", "purge", each.letter_id, "--reason", "no task"),
            )
    runs = list(dict.fromkeys(each.task.run_id for each in chosen))
    for run_id in runs:
        if store.runs.get(run_id).state == CANCELLED:
            raise UsageError(f"run {run_id} was cancelled", hint="replay again")
    return [_redrive(store, engine, run_id, chosen, pace, progress) for run_id in runs]


def purge(store: Store, chosen: Sequence[DeadLetter], at: int, reason: str) -> list[DeadLetter]:
    """Give up the tasks of these dead letters: they stay failed, and the letters are kept among the purged."""
    given_up = [structs.replace(each, purged_at=at, purge_reason=reason) for each in chosen]
    store.queue.remove(given_up)
    return given_up


def _redrive(
    store: Store, engine: Engine, run_id: str, chosen: Sequence[DeadLetter], pace: Pace, progress: Progress
) -> Run:
    mine = [each for each in chosen if each.task.run_id == run_id]
    with store.runs.driving(run_id):
        store.runs.set_state(run_id, RUNNING)
        for each in mine:
            store.runs.mark(each.task, OPEN)  # first, so that a crash here loses nothing: the task is to be done
        store.queue.remove(mine)
    return carry_out(store, engine, run_id, pace, progress)  # sends what is open

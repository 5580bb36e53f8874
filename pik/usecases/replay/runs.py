"""Runs: look at, cancel, promote, roll back; and the dead letters among their tasks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from msgspec import structs

from pik.errors import Busy, UsageError, ambiguous_id, command
from pik.model.run import DeadLetter, PromotionKind, Run, RunState, TaskState
from pik.ports.engine import Engine
from pik.ports.state import Promoted, Promotion
from pik.ports.store import Store
from pik.runtime.interaction import Progress
from pik.usecases.replay.execute import Pace, execute_run, is_executing

_POLL = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class RunDetail:
    """A run, the dead letters among its tasks, and what was done with its versions since, oldest first. `driven`:
    a living process executes it."""

    run: Run
    driven: bool
    letters: list[DeadLetter]
    promotions: list[Promotion]


def detail(store: Store, run_id: str) -> RunDetail:
    """Return the run of this id or of an unambiguous prefix. Raises NotFound."""
    run = store.runs.get(run_id)
    promotions = [promotion for promotion in store.promotions.newest_first() if promotion.run_id == run.run_id]
    letters = [letter for letter in store.dead_letters.letters() if letter.task.run_id == run.run_id]
    return RunDetail(run, is_executing(store, run), letters, promotions[::-1])


def cancel(store: Store, run_id: str) -> Run:
    """Take the run's waiting tasks off the queue, wait until none is in flight, and mark it CANCELLED. What it wrote
    stays, and cannot be promoted. A run that completes meanwhile is COMPLETED. Raises NotFound; UsageError if it has
    ended already."""
    run = store.runs.get(run_id)
    if not run.is_active and run.state != RunState.CANCELLED:
        raise UsageError(
            f"run {run.run_id} is {run.state} already", hint=f"to undo a promotion: {command('rollback', run.run_id)}"
        )
    if store.deployed:  # its processors write nothing more for a run that is cancelled, and drop its tasks
        store.runs.set_state(run.run_id, RunState.CANCELLED, time.time_ns())
        return store.runs.get(run.run_id)
    with ExitStack() as stack:
        is_alone = True
        try:
            stack.enter_context(store.runs.driving(run.run_id))
            store.queue.send(store.runs.open_tasks(run.run_id))  # take back what a dead process had received
        except Busy:
            is_alone = False  # a living process executes it, and finishes what is in flight
        while run.is_active:
            in_flight = store.queue.drop(run.run_id)
            run = store.runs.get(run.run_id)
            if not in_flight and (is_alone or run.done + run.failed < run.tasks):
                store.runs.set_state(run.run_id, RunState.CANCELLED, time.time_ns())
                break
            time.sleep(_POLL)
    return store.runs.get(run.run_id)


@dataclass(frozen=True, slots=True)
class Move:
    """A promote or rollback, done or, of a dry run, what it would do. Conflicts are aggregates that others have moved
    since the run wrote its version; they are left as they are."""

    kind: PromotionKind
    run: Run
    counts: Promoted
    dry_run: bool


def promote(store: Store, run_id: str, at: int, reason: str, *, dry_run: bool = False) -> Move:
    """Make the run's versions current. Raises NotFound; UsageError for a run that has not ended, that was cancelled, or
    that counted duplicates."""
    run = store.runs.get(run_id)
    if run.request.include_duplicates:
        raise UsageError(
            f"run {run.run_id} counted duplicates, so its values must not become current",
            hint="replay without --include-duplicates to promote; to see them: "
            + command("diff", "aggregates", "--run", run.run_id),
        )
    if run.is_active:
        raise UsageError(
            f"run {run.run_id} is {run.state}; only a whole run is promoted",
            hint=" or ".join(f"`{command('runs', verb, run.run_id)}`" for verb in ("wait", "resume")),
        )
    if run.state == RunState.CANCELLED:
        raise UsageError(f"run {run.run_id} was cancelled; only a whole run is promoted", hint="replay again")
    counts = store.promotions.promote(run.run_id, at, reason, dry_run=dry_run)
    return Move(PromotionKind.PROMOTE, store.runs.get(run.run_id), counts, dry_run)


def rollback(store: Store, run_id: str, at: int, reason: str, *, dry_run: bool = False) -> Move:
    """Make current what was so before the run was promoted. Raises NotFound."""
    run = store.runs.get(run_id)
    counts = store.promotions.rollback(run.run_id, at, reason, dry_run=dry_run)
    return Move(PromotionKind.ROLLBACK, store.runs.get(run.run_id), counts, dry_run)


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

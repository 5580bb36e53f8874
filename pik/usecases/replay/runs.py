"""Runs: executed (their tasks go onto the queue, workers process them, failures are retried and then dead-lettered),
looked at, cancelled, promoted, rolled back; and the dead letters among their tasks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from msgspec import structs

from pik.errors import Busy, Damaged, EngineError, Invalid, NotFound, StoreError, UsageError, ambiguous_id, command
from pik.model.instant import displayed_in
from pik.model.metric import (
    NO_FAILURES,
    TASK_TIMEOUT,
    DeadLetter,
    Failures,
    PromotionKind,
    Run,
    RunKind,
    RunState,
    Task,
    TaskState,
)
from pik.ports.engine import Engine
from pik.ports.remote import Api
from pik.ports.state import Message, Promoted, Promotion
from pik.ports.store import Store
from pik.rawlog.corrected import concerning
from pik.runtime import Progress, showing
from pik.runtime.parallel import Pool, Tell, WorkerDied
from pik.usecases.metrics.imports import import_words
from pik.usecases.replay.plan import execute_task

POLL = 1.0
"""Seconds between two looks at a run elsewhere: each is a query over its tasks."""

PLANNED_WITHIN = 900.0
"""Seconds within which the stack plans a run that is too large for one call, or gives it up."""

IDLE = 0.05
"""Seconds between two looks at a queue whose tasks wait to be tried again."""

FIRST_DELAY = 0.1
"""Seconds until a task that failed is tried again; each further time is twice as long, up to `_LONGEST_DELAY`."""

_LOCAL_POLL = 0.1  # seconds between two looks at a run of this machine
_GRACE = 5  # looks: a run that was just planned or redriven is about to be executed
_LONGEST_DELAY = 5.0
_FEW = 2  # tasks that are not worth starting processes for
_CORRECT = "correct the definition, `pik metrics apply FILE`, then replay again: a run keeps its definitions"


@dataclass(frozen=True, slots=True)
class Pace:
    """How a run is executed: worker processes (0: only this one), tasks per second at most, attempts before a task is
    dead-lettered."""

    workers: int = 2
    rate: float | None = None
    attempts: int = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """A processed message, why its task failed (None: it did not) and what can help, how many aggregates were written
    all the same, and which ones failed."""

    message: Message
    failure: str | None
    hint: str = ""
    written: int = 0
    failures: Failures = NO_FAILURES


def execute_run(store: Store, engine: Engine, run_id: str, pace: Pace, progress: Progress) -> Run:
    """Execute the run's open tasks, and return the run as it ended, or was cancelled meanwhile. Tasks that were done
    before an interruption are not done again.

    Raises Busy while another process executes it, UsageError if it has ended, StoreError when the store cannot be used;
    the run stays RUNNING then.
    """
    _expect_replay(store.runs.get(run_id))
    if not store.deployed:
        return run_locally(store, engine, run_id, pace, progress)
    if pace.rate is not None:
        raise UsageError(
            "--rate limits this process, but a stack has its own processors",
            hint="the stack's parameter ProcessorConcurrency limits them",
        )
    _expect_active(store.runs.get(run_id))
    enqueue_tasks(store, run_id)
    return wait(store, run_id, progress)


def _expect_replay(run: Run) -> None:
    if run.kind == RunKind.IMPORT:
        raise UsageError(
            f"run {run.run_id} is an import, and {run.state}; the same command continues an interrupted one",
            hint=command(*import_words(run.request)) if run.is_active else command("runs", "show", run.run_id),
        )


def _expect_active(run: Run) -> None:
    if not run.is_active:
        hint = command(*(("dlq", "list", "--run") if run.failed else ("runs", "show")), run.run_id)
        raise UsageError(f"run {run.run_id} is {run.state}; there is nothing to resume", hint=hint)


def run_locally(store: Store, engine: Engine, run_id: str, pace: Pace, progress: Progress) -> Run:
    """Execute a run as `execute_run` does, in this process and its workers."""
    with store.runs.driving(run_id):
        _expect_active(store.runs.get(run_id))
        store.runs.set_state(run_id, RunState.RUNNING)
        _RunExecutor(store, engine, run_id, pace, progress).execute()
        finish_run(store, run_id)
        return store.runs.get(run_id)


def enqueue_tasks(store: Store, run_id: str, tasks: Iterable[Task] | None = None) -> int:
    """Send the open tasks of a run (`tasks`, if the caller has them) to the store's own processors, and return their
    number."""
    store.runs.set_state(run_id, RunState.RUNNING)
    sent = store.queue.send(store.runs.open_tasks(run_id) if tasks is None else tasks)
    if not sent:
        finish_run(store, run_id)  # a run without tasks ends at once
    return sent


def process_message(store: Store, engine: Engine, message: Message, run: Run | None = None) -> Outcome:
    """Execute the message's task, of this `run`, if that is known. Raises StoreError where the store,
    and so no task, is to blame."""
    with displayed_in(None):  # the outcome is recorded
        return _outcome(store, engine, message, run)


def _outcome(store: Store, engine: Engine, message: Message, run: Run | None) -> Outcome:
    try:
        computed = execute_task(store, engine, message.task, run)
    except (EngineError, Damaged, Invalid, NotFound) as error:
        return Outcome(message, error.message, hint=error.hint or (_CORRECT if isinstance(error, EngineError) else ""))
    except StoreError:
        raise  # a full disk fails every task: the run stops here and is resumed
    except Exception as error:  # noqa: BLE001 - whatever it is ends among the dead letters, with its reason
        return Outcome(message, f"{type(error).__name__}: {error}")
    damage = computed.damage()
    failure, hint = (None, "") if damage is None else (damage.message, damage.hint)
    return Outcome(message, failure, hint, computed.written, computed.failures())


def finish_message(store: Store, outcome: Outcome, attempts: int, *, last: bool = False) -> bool:
    """Mark a task that is done, dead-letter one that failed too often, release the message of any other. Return whether
    the message is finished: it will not come again. With `last` this also ends the run, if no task is left.

    The message is acknowledged at the end, so that it comes again to a process that was killed before.
    """
    message, queue, runs = outcome.message, store.queue, store.runs
    if outcome.failure is None:
        runs.mark(message.task, TaskState.DONE, outcome.failures)
    elif message.receives >= attempts:
        store.dead_letters.bury(message, outcome.failure, time.time_ns(), outcome.hint)
        runs.mark(message.task, TaskState.FAILED, outcome.failures)
    else:
        delay = min(FIRST_DELAY * 2 ** (message.receives - 1), _LONGEST_DELAY)
        queue.release(message, delay, outcome.failure)
        return False
    if last:
        finish_run(store, message.task.run_id)
    queue.acknowledge(message.receipt)
    return True


def finish_run(store: Store, run_id: str) -> None:
    """End the run if all of its tasks are done or failed. Called after each task, so the last one ends the run."""
    run = store.runs.get(run_id)
    if run.state != RunState.RUNNING or run.done + run.failed != run.tasks:
        return
    state = RunState.PARTIAL if run.done or run.values else RunState.FAILED
    if not run.failed and not run.failed_aggregates:
        state = RunState.COMPLETED
    store.runs.set_state(run_id, state, time.time_ns())


def wait(store: Store, run_id: str, progress: Progress) -> Run:
    """Return the run when it has ended. Raises NotFound, and StoreError when no process executes it."""
    alone = 0

    def look(run: Run) -> Run:
        nonlocal alone
        alone = 0 if is_executing(store, run) else alone + 1
        run = store.runs.get(run.run_id)
        if alone == _GRACE and run.is_active:
            raise StoreError(
                f"run {run.run_id} is {run.state}, but no process is working on it",
                hint=command(*_continuing(run)),
            )
        return run

    run = store.runs.get(run_id)
    return _until_ended(run, look, POLL if store.deployed else _LOCAL_POLL, f"waiting for {run.run_id}", progress)


def _continuing(run: Run) -> list[str]:
    """Return the words of the command that goes on with an interrupted run."""
    return import_words(run.request) if run.kind == RunKind.IMPORT else ["runs", "resume", run.run_id]


def _until_ended(run: Run, look: Callable[[Run], Run], poll: float, label: str, progress: Progress) -> Run:
    ended = run.done + run.failed
    with showing(progress, label, run.tasks, "tasks", ended):
        while run.is_active:
            time.sleep(poll)
            run = look(run)
            progress.advance(run.done + run.failed - ended)
            ended = run.done + run.failed
    return run


def is_executing(store: Store, run: Run) -> bool:
    """Whether a living process executes the run."""
    if not run.is_active or (store.deployed and run.kind == RunKind.REPLAY):
        return run.state == RunState.RUNNING
    try:
        with store.runs.driving(run.run_id):
            return False
    except Busy:
        return True


def follow(api: Api, planned: Run, progress: Progress, *, to_its_end: bool = True) -> Run:
    """Return the run that was begun through the API when it has ended; without `to_its_end` as soon as it is there.

    Raises StoreError when the API fails for good, or the run is not planned in time; the run itself goes on then.
    """
    deadline = time.monotonic() + PLANNED_WITHIN
    while True:
        try:
            run = api.run(planned.run_id)
            break
        except NotFound:  # one that is planned later is not there yet
            if planned.events_matched is not None:
                raise
        if time.monotonic() > deadline:
            raise StoreError(
                f"run {planned.run_id} was accepted, but is not planned after {PLANNED_WITHIN:.0f} seconds",
                hint="the log of the stack's ReplayFunction says why; ask for a smaller window",
            )
        time.sleep(POLL)
    if not to_its_end:
        return run
    return _until_ended(run, lambda _: api.run(planned.run_id), POLL, "replaying", progress)


def _worker(store: Store, engine: Engine, _tell: Tell) -> Callable[[Message], Outcome]:
    return partial(process_message, store, engine)


@dataclass(slots=True)
class _RunExecutor:
    """Executes a run once: until every task that it sent is finished, or the run was cancelled."""

    store: Store
    engine: Engine
    run_id: str
    pace: Pace
    progress: Progress
    remaining: set[int] = field(default_factory=set)
    deaths: Counter[int] = field(default_factory=Counter)
    """Workers that died, by the number of the task that they were at."""

    def execute(self) -> None:
        self._enqueue()
        with showing(self.progress, "replaying", len(self.remaining), "tasks"):
            while self._has_work():
                try:
                    self._process()
                except WorkerDied as death:
                    self._blame(death)

    def _has_work(self) -> bool:
        return bool(self.remaining) and self.store.runs.get(self.run_id).state != RunState.CANCELLED

    def _enqueue(self) -> None:
        def open_tasks() -> Iterator[Task]:
            for task in self.store.runs.open_tasks(self.run_id):
                self.remaining.add(task.number)
                yield task

        self.store.queue.send(open_tasks())

    def _process(self) -> None:
        workers = self.pace.workers if len(self.remaining) > _FEW or self.deaths else 0
        engine = self.engine.shared(workers) if workers else self.engine
        with Pool[Message, Outcome](partial(_worker, self.store, engine), workers) as pool:
            while self._has_work():
                outcome = None
                for outcome in pool.map(self._received()):
                    self._finish(outcome)
                if outcome is None:
                    time.sleep(IDLE)

    def _received(self) -> Iterator[Message]:
        while message := self.store.queue.receive(self.run_id, TASK_TIMEOUT):
            begun = time.monotonic()
            yield message
            if self.pace.rate:
                time.sleep(max(0.0, begun + 1 / self.pace.rate - time.monotonic()))

    def _finish(self, outcome: Outcome) -> None:
        task = outcome.message.task
        is_finished = finish_message(self.store, outcome, self.pace.attempts)
        if is_finished and task.run_id == self.run_id and task.number in self.remaining:
            self.remaining.discard(task.number)
            self.progress.advance(1)

    def _blame(self, death: WorkerDied) -> None:
        """Count the task whose worker died as failed; tasks of other workers are not."""
        message = death.argument
        assert isinstance(message, Message)
        self.deaths[message.task.number] += 1
        if self.deaths[message.task.number] >= self.pace.attempts:
            self._finish(Outcome(replace(message, receives=self.pace.attempts), "its worker process died each time"))
        self._enqueue()


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
    return RunDetail(run, is_executing(store, run), letters(store, run.run_id), promotions[::-1])


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
            time.sleep(_LOCAL_POLL)
    return store.runs.get(run.run_id)


@dataclass(frozen=True, slots=True)
class Move:
    """A promote or rollback, done or, of a dry run, what it would do. Conflicts are aggregates that others have moved
    since the run wrote its version; they are left as they are. `corrections` are those that may change what counts in
    the run's buckets and were recorded after it had been planned: the promoted values are without them."""

    kind: PromotionKind
    run: Run
    counts: Promoted
    dry_run: bool
    corrections: tuple[str, ...] = ()


def promote(store: Store, run_id: str, at: int, reason: str, actor: str = "", *, dry_run: bool = False) -> Move:
    """Make the run's versions current. Raises NotFound; UsageError for a run that has not ended, that was cancelled, or
    that counted duplicates."""
    run = store.runs.get(run_id)
    if run.request.counts_duplicates:
        raise UsageError(
            f"run {run.run_id} counted duplicates, so its values must not become current",
            hint="replay without --assume to promote; to see them: "
            + command("diff", "aggregates", "--run", run.run_id),
        )
    if run.is_active:
        raise UsageError(
            f"run {run.run_id} is {run.state}; only a whole run is promoted",
            hint=f"`{command('runs', 'wait', run.run_id)}` or `{command(*_continuing(run))}`",
        )
    if run.state == RunState.CANCELLED:
        raise UsageError(f"run {run.run_id} was cancelled; only a whole run is promoted", hint="replay again")
    counts = store.promotions.promote(run.run_id, at, reason, actor, dry_run=dry_run)
    unknown = concerning(store, store.corrections.recorded(), run.effective) if run.kind == RunKind.REPLAY else []
    since = tuple(one.correction_id for one in unknown if one.recorded_at > run.corrections_until)
    return Move(PromotionKind.PROMOTE, store.runs.get(run.run_id), counts, dry_run, since)


def rollback(store: Store, run_id: str, at: int, reason: str, actor: str = "", *, dry_run: bool = False) -> Move:
    """Make current what was so before the run was promoted. Raises NotFound."""
    run = store.runs.get(run_id)
    counts = store.promotions.rollback(run.run_id, at, reason, actor, dry_run=dry_run)
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

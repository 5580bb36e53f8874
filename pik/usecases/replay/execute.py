"""Driving a run: its tasks go onto the queue, worker processes drain it, failures come again and then are buried."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from pik.errors import Busy, Damaged, EngineError, Invalid, NotFound, StoreError, UsageError, command
from pik.model.run import NO_FAILURES, Failures, Run, RunRequest, RunState, Task, TaskState
from pik.ports.engine import Engine
from pik.ports.remote import Api
from pik.ports.state import Message
from pik.ports.store import Store
from pik.runtime.interaction import Progress
from pik.runtime.parallel import Pool, Tell, WorkerDied
from pik.usecases.replay.run_task import perform

VISIBILITY = 300.0
"""Seconds for which a task is hidden while somebody works on it. One that takes longer may be done twice: no harm."""

CORRECT = "correct the definition, `pik metrics apply FILE`, then replay again: a run keeps its definitions"
"""What helps against a metric that cannot be computed."""

_POLL = 0.1  # seconds
_POLL_DEPLOYED = 1.0  # seconds: each look is a query over the run's tasks
_GRACE = 5  # looks: whoever planned or redrove a run is about to drive it
_FIRST_DELAY, _LONGEST_DELAY, _IDLE = 0.1, 5.0, 0.05  # seconds
_FEW = 2  # tasks that are not worth starting processes for


@dataclass(frozen=True, slots=True)
class Pace:
    """How a run is driven: worker processes (0: none but this one), tasks a second at most, attempts before a task is
    buried."""

    workers: int = 2
    rate: float | None = None
    attempts: int = 5


def carry_out(store: Store, engine: Engine, run_id: str, pace: Pace, progress: Progress) -> Run:
    """Have the run's open tasks done, and tell how it ended, or that it was cancelled meanwhile. Tasks that are done
    already, before an interruption, are not done again.

    Raises Busy while another process drives it, UsageError if it has ended, StoreError when the store cannot be used;
    the run stays RUNNING then.
    """
    if not store.deployed:
        return drive(store, engine, run_id, pace, progress)
    if pace.rate is not None:
        raise UsageError(
            "--rate slows what this process does, and a stack has processors of its own",
            hint="the stack's parameter ProcessorConcurrency limits them",
        )
    _expect_unfinished(store.runs.get(run_id))
    hand_over(store, run_id)
    return wait(store, run_id, progress)


def _expect_unfinished(run: Run) -> None:
    if run.state not in (RunState.PLANNED, RunState.RUNNING):
        hint = command(*(("dlq", "list", "--run") if run.failed else ("runs", "show")), run.run_id)
        raise UsageError(f"run {run.run_id} is {run.state}; there is nothing to go on with", hint=hint)


def drive(store: Store, engine: Engine, run_id: str, pace: Pace, progress: Progress) -> Run:
    """`carry_out` in this process and its workers."""
    with store.runs.driving(run_id):
        _expect_unfinished(store.runs.get(run_id))
        store.runs.set_state(run_id, RunState.RUNNING)
        _Drive(store, engine, run_id, pace, progress).run()
        end_if_settled(store, run_id)
        return store.runs.get(run_id)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A message that was worked on, why its task failed (None: it did not) and what can help, how many aggregates were
    written all the same, and which ones failed."""

    message: Message
    failure: str | None
    hint: str = ""
    written: int = 0
    failures: Failures = NO_FAILURES


def work(store: Store, engine: Engine, message: Message, request: RunRequest | None = None) -> Outcome:
    """Perform the message's task, with the `request` of its run, if that is known. Raises StoreError where the store,
    and so no task, is to blame."""
    try:
        done = perform(store, engine, message.task, request)
    except EngineError as error:
        return Outcome(message, error.message, hint=error.hint or CORRECT)
    except (Damaged, Invalid, NotFound) as error:
        return Outcome(message, error.message, hint=error.hint)
    except StoreError:
        raise  # a full disk fails every task: the run stops here and is resumed
    except Exception as error:  # noqa: BLE001 - whatever it is ends among the dead letters, with its reason
        return Outcome(message, f"{type(error).__name__}: {error}")
    failure, hint = (None, "") if done.damage is None else (done.damage.message, done.damage.hint)
    return Outcome(message, failure, hint, done.written, done.failures)


def settle(store: Store, outcome: Outcome, attempts: int, *, last: bool = False) -> bool:
    """Mark a task that is done, bury one that failed so often, release the message of any other. Whether the task is
    settled: it will not come again. With `last` this also ends the run, if no task is left.

    The message is acknowledged at the end, so that whoever is killed before that gets it again.
    """
    message, queue, runs = outcome.message, store.queue, store.runs
    if outcome.failure is None:
        runs.mark(message.task, TaskState.DONE, outcome.failures)
    elif message.receives >= attempts:
        queue.bury(message, outcome.failure, time.time_ns(), outcome.hint)
        runs.mark(message.task, TaskState.FAILED, outcome.failures)
    else:
        delay = min(_FIRST_DELAY * 2 ** (message.receives - 1), _LONGEST_DELAY)
        queue.release(message, delay, outcome.failure)
        return False
    if last:
        end_if_settled(store, message.task.run_id)
    queue.acknowledge(message.receipt)
    return True


def end_if_settled(store: Store, run_id: str) -> None:
    """End the run if all of its tasks are settled now. Whoever settles one asks; the last one ends it."""
    run = store.runs.get(run_id)
    if run.state == RunState.RUNNING and run.done + run.failed == run.tasks:
        store.runs.set_state(run_id, _end_state(run), time.time_ns())


def _end_state(run: Run) -> RunState:
    if not run.failed and not run.failed_aggregates:
        return RunState.COMPLETED
    return RunState.PARTIAL if run.done or run.values else RunState.FAILED


def hand_over(store: Store, run_id: str, tasks: Iterable[Task] | None = None) -> int:
    """Send the open tasks of a run (`tasks`, if the caller has them) to the store's own processor, and return how many
    they are."""
    store.runs.set_state(run_id, RunState.RUNNING)
    sent = store.queue.send(store.runs.open_tasks(run_id) if tasks is None else tasks)
    if not sent:
        end_if_settled(store, run_id)  # a run without tasks ends at once
    return sent


def wait(store: Store, run_id: str, progress: Progress) -> Run:
    """The run, once it has ended. Raises NotFound, and StoreError when nobody is at work on it."""
    run = store.runs.get(run_id)
    settled = run.done + run.failed
    alone = 0
    progress.start(f"waiting for {run.run_id}", run.tasks, "tasks", settled)
    try:
        while run.state in (RunState.PLANNED, RunState.RUNNING):
            alone = 0 if is_driven(store, run) else alone + 1
            run = store.runs.get(run.run_id)
            if alone == _GRACE and run.state in (RunState.PLANNED, RunState.RUNNING):
                raise StoreError(
                    f"run {run.run_id} is {run.state}, but no process is at work on it",
                    hint=command("runs", "resume", run.run_id),
                )
            progress.advance(run.done + run.failed - settled)
            settled = run.done + run.failed
            time.sleep(_POLL_DEPLOYED if store.deployed else _POLL)
    finally:
        progress.stop()
    return run


def is_driven(store: Store, run: Run) -> bool:
    """Whether a living process is at work on the run."""
    if run.state not in (RunState.PLANNED, RunState.RUNNING):
        return False
    if store.deployed:
        return run.state == RunState.RUNNING
    try:
        with store.runs.driving(run.run_id):
            return False
    except Busy:
        return True


def _worker(store: Store, engine: Engine, _tell: Tell) -> Callable[[Message], Outcome]:
    return partial(work, store, engine)


class _Drive:
    """One drive of a run. It ends when every task that it sent has been settled, or somebody cancelled the run."""

    def __init__(self, store: Store, engine: Engine, run_id: str, pace: Pace, progress: Progress) -> None:
        self._store, self._engine, self._run_id = store, engine, run_id
        self._pace, self._progress = pace, progress
        self._remaining: set[int] = set()
        self._deaths: Counter[int] = Counter()

    def run(self) -> None:
        self._send()
        self._progress.start("replaying", len(self._remaining), "tasks")
        try:
            while self._remaining and self._store.runs.get(self._run_id).state != RunState.CANCELLED:
                try:
                    self._work()
                except WorkerDied as death:
                    self._blame(death)
        finally:
            self._progress.stop()

    def _send(self) -> None:
        self._store.queue.send(self._noted(self._store.runs.open_tasks(self._run_id)))

    def _work(self) -> None:
        workers = self._pace.workers if len(self._remaining) > _FEW or self._deaths else 0
        engine = self._engine.shared(workers) if workers else self._engine
        with Pool[Message, Outcome](partial(_worker, self._store, engine), workers) as pool:
            while self._remaining and self._store.runs.get(self._run_id).state != RunState.CANCELLED:
                if not self._round(pool):
                    time.sleep(_IDLE)

    def _blame(self, death: WorkerDied) -> None:
        """A task that took its worker along, by eating all memory perhaps, failed like any other, and so do not those
        that other workers were at work on."""
        message = death.argument
        assert isinstance(message, Message)
        self._deaths[message.task.number] += 1
        if self._deaths[message.task.number] >= self._pace.attempts:
            self._settle(Outcome(replace(message, receives=self._pace.attempts), "its worker process died each time"))
        self._send()

    def _noted(self, tasks: Iterator[Task]) -> Iterator[Task]:
        for task in tasks:
            self._remaining.add(task.number)
            yield task

    def _round(self, pool: Pool[Message, Outcome]) -> bool:
        """Work on every message that is visible; whether there was one."""
        worked = False
        for outcome in pool.map(self._received()):
            worked = True
            self._settle(outcome)
        return worked

    def _received(self) -> Iterator[Message]:
        while message := self._store.queue.receive(self._run_id, VISIBILITY):
            begun = time.monotonic()
            yield message
            if self._pace.rate:
                time.sleep(max(0.0, begun + 1 / self._pace.rate - time.monotonic()))

    def _settle(self, outcome: Outcome) -> None:
        task = outcome.message.task
        if settle(self._store, outcome, self._pace.attempts) and self._is_mine(task):
            self._remaining.discard(task.number)
            self._progress.advance(1)

    def _is_mine(self, task: Task) -> bool:
        return task.run_id == self._run_id and task.number in self._remaining


POLL = 1.0
"""Seconds between two looks at a run."""

PLANNED_WITHIN = 900.0
"""Seconds within which the stack plans a run that is too large for one call, or gives it up."""


def follow(api: Api, planned: Run, progress: Progress, *, to_its_end: bool = True, poll: float = POLL) -> Run:
    """The run that was begun, when it has ended; without `to_its_end` as soon as it is there.

    Raises StoreError when the API fails for good, or nobody plans the run; the run itself goes on then.
    """
    run = _planned(api, planned, poll)
    if not to_its_end:
        return run
    progress.start("replaying", run.tasks, "tasks")
    settled = 0
    try:
        while True:
            progress.advance(run.done + run.failed - settled)
            settled = run.done + run.failed
            if run.state not in (RunState.PLANNED, RunState.RUNNING):
                return run
            time.sleep(poll)
            run = api.run(run.run_id)
    finally:
        progress.stop()


def _planned(api: Api, planned: Run, poll: float) -> Run:
    """The run as the store has it. One that is planned later is not there yet."""
    until = time.monotonic() + PLANNED_WITHIN
    while True:
        try:
            return api.run(planned.run_id)
        except NotFound:
            if planned.events_matched is not None:
                raise
        if time.monotonic() > until:
            raise StoreError(
                f"run {planned.run_id} was accepted, but is not planned after {PLANNED_WITHIN:.0f} seconds",
                hint="the log of the stack's ReplayFunction says why; ask for a smaller window",
            )
        time.sleep(poll)

"""Executing a run: its tasks go onto the queue, workers process them, failures are retried and then dead-lettered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic, sleep, time_ns

from pik.errors import Damaged, EngineError, Invalid, NotFound, PikError, StoreError, Unreadable, UsageError, command
from pik.model.instant import displayed_in
from pik.model.run import NO_FAILURES, TASK_TIMEOUT, Failures, Run, RunKind, RunState, Task, TaskState
from pik.ports.engine import Engine
from pik.ports.fleet import Fleet
from pik.ports.state import Message
from pik.ports.store import Store
from pik.runtime import Progress, showing
from pik.runtime.parallel import Pool, Tell, WorkerDied
from pik.usecases.replay.planning import finish_planning
from pik.usecases.replay.tasks import execute_task
from pik.usecases.replay.wait import resume_command, wait

IDLE = 0.05
"""Seconds between two looks at a queue whose tasks wait to be tried again."""

LOOK = 10.0
"""Seconds between two looks whether a run on a fleet was cancelled: each is a query over its tasks."""

FIRST_DELAY = 0.1
"""Seconds until a task that failed is tried again; each further time is twice as long, up to `_LONGEST_DELAY`."""

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
class MessageOutcome:
    """A processed message, why its task failed (None: it did not) and what can help, how many aggregates were written
    all the same, and which ones failed. `unreadable` is what it failed on, if that can be read elsewhere, or later."""

    message: Message
    failure: str | None
    hint: str = ""
    written: int = 0
    failures: Failures = NO_FAILURES
    unreadable: Unreadable | None = None


def execute_run(
    store: Store, engine: Engine, run_id: str, pace: Pace, progress: Progress, fleet: Fleet | None = None
) -> Run:
    """Execute the run's open tasks, and return the run as it ended, or was cancelled meanwhile. Tasks that were done
    before an interruption are not done again. A run that is PLANNING is planned first. A `fleet` executes the tasks of
    a stack in the place of its processors.

    Raises Busy while another process plans or executes it, UsageError if it has ended, StoreError when the store cannot
    be used, Unreadable for raw that a fleet may not read; the run stays as it is then.
    """
    run = store.runs.get(run_id)
    _expect_replay(run)
    if run.state == RunState.PLANNING:
        finish_planning(store, engine, run.run_id)
    if not store.deployed:
        return run_locally(store, engine, run_id, pace, progress)
    if pace.rate is not None:
        raise UsageError(
            "--rate limits this process, but a stack has its own processors",
            hint="the stack's parameter ProcessorConcurrency limits them",
        )
    if fleet is not None and fleet.slots > 1:
        return _run_on_fleet(store, fleet, run_id, pace.attempts, progress)
    _expect_active(store.runs.get(run_id))
    enqueue_tasks(store, run_id)
    return wait(store, run_id, progress)


def _expect_replay(run: Run) -> None:
    if run.kind == RunKind.IMPORT:
        raise UsageError(
            f"run {run.run_id} is an import, and {run.state}; the same command continues an interrupted one",
            hint=resume_command(run) if run.is_active else command("runs", "show", run.run_id),
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
        run = store.runs.get(run_id)
        if run.state == RunState.COMPLETED:
            left = [one for one in store.dead_letters.letters() if one.task.run_id == run_id]
            if left:  # of a redrive that was interrupted
                store.dead_letters.delete(left)
        return run


def _run_on_fleet(store: Store, fleet: Fleet, run_id: str, attempts: int, progress: Progress) -> Run:
    """Execute a run as `execute_run` does, on a fleet: tasks that failed are tried again once all have been."""
    with store.runs.driving(run_id):
        run = store.runs.get(run_id)
        _expect_active(run)
        store.runs.set_state(run_id, RunState.RUNNING)
        with showing(progress, "replaying", run.tasks, "tasks", run.done + run.failed):
            for receives in range(1, attempts + 1):
                tasks = (Message(task, "", receives) for task in store.runs.open_tasks(run_id))
                looked_at = monotonic()
                for outcome in fleet.map(_executed, tasks):
                    progress.advance(_settle(store, outcome, attempts))
                    if monotonic() - looked_at > LOOK:
                        looked_at, run = monotonic(), store.runs.get(run_id)
                        if run.state == RunState.CANCELLED:
                            return run
        finish_run(store, run_id)
        return store.runs.get(run_id)


def _executed(store: Store, engine: Engine, message: Message) -> Iterator[MessageOutcome]:
    """Execute a task on a fleet. Raises Unreadable, too: what the fleet's machines may not read would fail every
    task, and the next fleet, or this process, goes on with the run."""
    outcome = process_message(store, engine, message)
    if outcome.unreadable is not None:
        raise outcome.unreadable
    yield outcome


def enqueue_tasks(store: Store, run_id: str, tasks: Iterable[Task] | None = None) -> int:
    """Send the open tasks of a run (`tasks`, if the caller has them) to the store's own processors, and return their
    number."""
    store.runs.set_state(run_id, RunState.RUNNING)
    sent = store.queue.send(store.runs.open_tasks(run_id) if tasks is None else tasks)
    if not sent:
        finish_run(store, run_id)  # a run without tasks ends at once
    return sent


def process_message(store: Store, engine: Engine, message: Message, run: Run | None = None) -> MessageOutcome:
    """Execute the message's task, of this `run`, if that is known. Raises StoreError where the store, and so no task,
    is to blame."""
    with displayed_in(None):  # the outcome is recorded
        return _outcome(store, engine, message, run)


def _outcome(store: Store, engine: Engine, message: Message, run: Run | None) -> MessageOutcome:
    try:
        computed = execute_task(store, engine, message.task, run)
    except (EngineError, Damaged, Invalid, NotFound) as error:
        hint = error.hint or (_CORRECT if isinstance(error, EngineError) else "")
        return MessageOutcome(message, error.message, hint, unreadable=_if_unreadable(error))
    except StoreError:
        raise  # a full disk fails every task: the run stops here and is resumed
    except Exception as error:  # noqa: BLE001 - whatever it is ends among the dead letters, with its reason
        return MessageOutcome(message, f"{type(error).__name__}: {error}")
    damage = computed.damage()
    failure, hint = (None, "") if damage is None else (damage.message, damage.hint)
    return MessageOutcome(message, failure, hint, computed.written, computed.failures(), _if_unreadable(damage))


def _if_unreadable(error: PikError | None) -> Unreadable | None:
    return error if isinstance(error, Unreadable) else None


def finish_message(store: Store, outcome: MessageOutcome, attempts: int, *, last: bool = False) -> bool:
    """Mark a task that is done, dead-letter one that failed too often, release the message of any other. Return whether
    the message is finished: it will not come again. With `last` this also ends the run, if no task is left.

    The message is acknowledged at the end, so that it comes again to a process that was killed before.
    """
    message = outcome.message
    if not _settle(store, outcome, attempts):
        delay = min(FIRST_DELAY * 2 ** (message.receives - 1), _LONGEST_DELAY)
        store.queue.release(message, delay, outcome.failure or "")
        return False
    if last:
        finish_run(store, message.task.run_id)
    store.queue.acknowledge(message.receipt)
    return True


def _settle(store: Store, outcome: MessageOutcome, attempts: int) -> bool:
    """Mark a task that is done, dead-letter one that failed too often. Return whether it is settled by that."""
    message = outcome.message
    if outcome.failure is None:
        store.runs.mark(message.task, TaskState.DONE, outcome.failures)
    elif message.receives >= attempts:
        store.dead_letters.bury(message, outcome.failure, time_ns(), outcome.hint)
        store.runs.mark(message.task, TaskState.FAILED, outcome.failures)
    else:
        return False
    return True


def finish_run(store: Store, run_id: str) -> None:
    """End the run if all of its tasks are done or failed. Called after each task, so the last one ends the run."""
    run = store.runs.get(run_id)
    if run.state != RunState.RUNNING or run.done + run.failed != run.tasks:
        return
    state = RunState.PARTIAL if run.done or run.values else RunState.FAILED
    if not run.failed and not run.failed_aggregates:
        state = RunState.COMPLETED
    if not run.failed:
        store.partials.drop(run_id)
    store.runs.set_state(run_id, state, time_ns())


def _worker(store: Store, engine: Engine, _tell: Tell) -> Callable[[Message], MessageOutcome]:
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
        with Pool[Message, MessageOutcome](partial(_worker, self.store, engine), workers) as pool:
            while self._has_work():
                outcome = None
                for outcome in pool.map(self._received()):
                    self._finish(outcome)
                if outcome is None:
                    sleep(IDLE)

    def _received(self) -> Iterator[Message]:
        while message := self.store.queue.receive(self.run_id, TASK_TIMEOUT):
            begun = monotonic()
            yield message
            if self.pace.rate:
                sleep(max(0.0, begun + 1 / self.pace.rate - monotonic()))

    def _finish(self, outcome: MessageOutcome) -> None:
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
            self._finish(
                MessageOutcome(replace(message, receives=self.pace.attempts), "its worker process died each time")
            )
        self._enqueue()

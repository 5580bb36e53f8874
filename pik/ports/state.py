"""State: metric definitions, runs, their tasks and queue, aggregates and promotions. Raw does not hold it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import msgspec

from pik.model.metric import Aggregate, BucketDigest, Computed, Metric
from pik.model.run import NO_FAILURES, DeadLetter, Failures, Run, RunRequest, RunState, Task, TaskState
from pik.model.window import Window


class Metrics(Protocol):
    """Metric definitions by name and version. The built-in event_count is always among them, as version 1."""

    def append(self, metric: Metric) -> bool:
        """Keep this version of a metric; False, keeping what is there, where its name has a version of that number."""

    def latest(self) -> list[Metric]:
        """The latest version of each metric, ordered by name."""

    def versions(self, name: str) -> list[Metric]:
        """Every version of one metric, the oldest first; empty if there is none."""


class Runs(Protocol):
    """Runs and the state of their tasks."""

    def create(self, run: Run, tasks: Iterable[Task]) -> None:
        """Store the run as PLANNED with its tasks, all at once: nobody finds it before all of them are stored."""

    def get(self, run_id: str) -> Run:
        """The run of this id or of an unambiguous prefix, with its counts as of now and the first KEPT_FAILURES of its
        failures, in the order of its tasks. Raises NotFound."""

    def newest_first(self) -> Iterator[Run]:
        """Every run, newest first, without its failures."""

    def unfinished(self, request: RunRequest) -> Run | None:
        """The newest run of this very request that is PLANNED or RUNNING."""

    def set_state(self, run_id: str, state: RunState, finished_at: int | None = None) -> None:
        """Move the run to a state; those in which it has ended are set with the time. A run that is CANCELLED gets no
        other state of ENDED any more."""

    def open_tasks(self, run_id: str) -> Iterator[Task]:
        """The run's tasks that are OPEN, in order of their numbers."""

    def mark(self, task: Task, state: TaskState, failures: Failures = NO_FAILURES) -> None:
        """Move a task, OPEN at first, to DONE, to FAILED, or to OPEN again (redriven), and keep the failures of this
        time in place of earlier ones. A task that is DONE stays as it is."""

    def driving(self, run_id: str) -> AbstractContextManager[None]:
        """Holds the right to drive this run until the context ends or the process dies (in a deployed store, half a
        minute after). Raises Busy when another has it."""


@dataclass(frozen=True, slots=True)
class Message:
    """A task received from the queue; `receipt` identifies this receiving of it, `receives` counts them, this one
    included."""

    task: Task
    receipt: str
    receives: int


UNSETTLED = "its processor ended or ran out of time, each time"
"""Why a task is given up of which nobody has told how it went."""


class Queue(Protocol):
    """At-least-once delivery of tasks, in no order that anybody may rely on."""

    def send(self, tasks: Iterable[Task]) -> int:
        """Put the tasks on the queue and return their number."""

    def receive(self, run_id: str, visibility: float) -> Message | None:
        """A visible message, hidden from others for `visibility` seconds; None if there is none now. A shared queue may
        hand out other runs' tasks as well, counts in whole seconds and may miss one that was sent just now; a local one
        hands out those of `run_id`."""

    def acknowledge(self, receipt: str) -> None:
        """Remove the message. A repeat does nothing, nor does the receipt of an earlier receiving."""

    def release(self, message: Message, delay: float, reason: str = "") -> None:
        """Make the message visible again after `delay` seconds, unless it was received again meanwhile. A shared queue
        keeps the reason, for a letter that is written when nobody knows a better one."""

    def bury(self, message: Message, reason: str, failed_at: int, hint: str = "") -> None:
        """Put the message among the dead letters, with its reason (empty: the last one that was kept, or UNSETTLED) and
        what can help. It is still to be acknowledged; until then it may be on the queue as well, so that whoever is
        interrupted gets it again."""

    def letters(self, *, purged: bool = False) -> list[DeadLetter]:
        """The dead letters, oldest first; or those that were purged. Two may be there for one task, where a burial was
        interrupted. A shared queue hides from others what is being looked at, for a moment."""

    def remove(self, letters: Iterable[DeadLetter]) -> None:
        """Take letters away, because their tasks are sent again, or, with `purged_at`, are given up: those are kept
        among the purged. One that is not there is taken away already."""

    def drop(self, run_id: str) -> int:
        """Remove the run's messages that nobody is working on and return how many are still in flight. A shared queue
        cannot look for them, so it removes none and says 0: whoever receives a task of a cancelled run acknowledges
        it."""


@dataclass(frozen=True, slots=True)
class Change:
    """A version that a run wrote, beside the one that was current when it was written (None: there was none)."""

    written: Aggregate
    base: Aggregate | None


@dataclass(frozen=True, slots=True)
class Promoted:
    """How many aggregates a promotion or rollback moved, how many were so already, and which others somebody else had
    moved."""

    moved: int
    already: int
    conflicts: int


@dataclass(frozen=True, slots=True)
class Promotion:
    """One promote or rollback, as history tells it. `kind` is promote or rollback; `at` in nanoseconds."""

    run_id: str
    kind: str
    at: int
    reason: str
    moved: int
    conflicts: int


class Aggregates(Protocol):
    """Aggregate versions, append-only, and which of them is current. Entities order by their UTF-8 bytes.

    What is iterated over is the state of one moment in a local store; in a deployed one, of the moment at which each
    page of it is read: every row is true, but two rows may be of two moments.
    """

    def write(
        self,
        task: Task,
        rows: Iterable[Computed],
        *,
        versions: Mapping[str, int],
        known_until: int,
        reason: str,
        computed_by: str = "",
    ) -> None:
        """Store one version a row for the task's run, beside what is current, noting which version that is now (the
        base). `computed_by`, a program and its version, is added to those of the run. Nothing is written if `rows`
        raises. A version that is there already stays as it is, so a task may be written any number of times; a write
        that was interrupted is finished by the next. A run that is CANCELLED writes nothing more."""

    def current(
        self,
        metric: str,
        window: Window,
        entities: Sequence[str] = (),
        *,
        history: bool = False,
        checked: bool = False,
    ) -> Iterator[Aggregate]:
        """The current versions of a metric's buckets that start in the window, ordered by bucket and entity; with
        `history` every version, ordered by bucket, entity and run_id; in a deployed store one that was written within
        the last second may be missing there. With `checked`, or where entities are named, each row tells whether it
        and the pointer to it are as they were written; Damaged is raised for a pointer to a version that is not
        there."""

    def digests(self, metric: str, window: Window) -> Iterator[BucketDigest]:
        """What the current versions of each bucket that starts in the window say, in short."""

    def changes(self, run_id: str) -> Iterator[Change]:
        """Every version that the run wrote beside its base, ordered by metric, bucket, entity."""

    def tally(self, run_id: str) -> tuple[int, int, int, int]:
        """How many of the run's versions are new, changed, unchanged, removed (a null over a value) against their
        bases; a null over nothing counts nowhere."""

    def promote(self, run_id: str, at: int, reason: str, *, dry_run: bool = False) -> Promoted:
        """Make each version of the run current, atomically per aggregate and only where its base still is. One that was
        interrupted is finished by the next, and counted as one."""

    def rollback(self, run_id: str, at: int, reason: str, *, dry_run: bool = False) -> Promoted:
        """Make each version's base current again (nothing, where it had none), where the run's version is current."""

    def promotions(self) -> Iterator[Promotion]:
        """Every promote and rollback, newest first."""


@dataclass(frozen=True, slots=True)
class StateProblem:
    """Something in the state that is not as it was written; `remedy` says what recomputes or restores it. `bucket`
    (nanoseconds) and `entity` are those of an aggregate. `is_past` where nothing current depends on it."""

    what: str
    detail: str
    remedy: str
    bucket: int | None = None
    entity: str = ""
    is_past: bool = False


class StateAudit(Protocol):
    """Looks at all of the state, in bounded memory. Others may write meanwhile: what they are at is not a problem."""

    def problems(self) -> Iterator[StateProblem]:
        """Whatever is not as it was written: rows whose digest does not hold, rows that runs and promotions wrote and
        that are not there, pointers to other versions than promotions left, definitions and promotions of which the
        row or its copy is lost."""


class MetricRow(msgspec.Struct, frozen=True, tag="metric"):
    """A version of a metric's definition."""

    metric: Metric


class RunRow(msgspec.Struct, frozen=True, tag="run"):
    """A run, with its counts."""

    run: Run


class Written(msgspec.Struct, frozen=True, gc=False):
    """What a task wrote, or in the first task of a run all that the run wrote: how the versions compare with what was
    current, how many there are, the XOR of their digests in hex, and which programs computed them."""

    new: int
    changed: int
    unchanged: int
    removed: int
    versions: int
    versions_xor: str
    computed_by: tuple[str, ...] = ()


class TaskRow(msgspec.Struct, frozen=True, tag="task"):
    """A task, its state, and the aggregates in it that failed."""

    task: Task
    state: TaskState
    reason: str = ""
    written: Written | None = None
    failures: Failures = NO_FAILURES


class VersionRow(msgspec.Struct, frozen=True, gc=False, tag="version"):
    """A version of an aggregate. `value` is an exact decimal text; `base` the run whose version was current; `kind` how
    they compare (new, changed, unchanged, removed or nothing); `digest` the row's, in hex."""

    metric: str
    bucket: int
    entity: str
    run_id: str
    value: str | None
    inputs: int
    input_ids: str
    input_contents: str
    base: str | None
    metric_version: int
    known_until: int
    reason: str
    kind: str
    digest: str


class PromotionRow(msgspec.Struct, frozen=True, tag="promotion"):
    """A promotion or rollback; they come in their order. `pointers` is how many more there were after it,
    `pointers_xor`, in hex, what changed in their digests."""

    promotion_id: str
    run_id: str
    kind: str
    at: int
    reason: str
    moved: int
    conflicts: int
    pointers: int
    pointers_xor: str


class PointerRow(msgspec.Struct, frozen=True, gc=False, tag="current"):
    """That the version of a run is current."""

    metric: str
    bucket: int
    entity: str
    run_id: str


class LetterRow(msgspec.Struct, frozen=True, tag="letter"):
    """A dead letter."""

    letter: DeadLetter


@dataclass(frozen=True, slots=True)
class Omitted:
    """A version that is not as it was written, and not current: it is left out."""

    metric: str
    bucket: int
    entity: str
    run_id: str


Row = MetricRow | RunRow | TaskRow | VersionRow | PromotionRow | PointerRow | LetterRow


class StateBackup(Protocol):
    """The state of a store as rows. Those of one kind come together, in the order of `Row`; the tasks of a run in the
    order of their numbers. Messages on the queue are not among them: the open tasks of a run are sent again by whoever
    resumes it."""

    def rows(self) -> AbstractContextManager[Iterator[Row | Omitted]]:
        """All rows. In a local store they are of one moment; in a deployed one each is as it was when it was read, and
        no promotion came in between. Of a local store, damaged versions that are not current come as Omitted, and what
        their runs wrote is without them; a damaged definition or promotion comes from its file, where that is whole.
        Raises Busy, here or while iterating, where promotions are under way; Damaged for any other row that is not as
        it was written."""

    def has_state(self, resuming: str = "") -> bool:
        """Whether anything is there that a restore could not be told from. What an interrupted restore with the name
        `resuming` has left does not count."""

    def restore(self, rows: Iterable[Row], name: str) -> tuple[str, ...]:
        """Make the rows the state of the store, which must have none; all of them or, where `rows` raises, as good as
        none: the same call again goes on. `name` tells one restore from another. Raises Damaged for a version that is
        not as it was written, StoreError where there is state. Returns the definitions and promotions that the store
        had kept a second time and that the rows lack; those files are set aside."""

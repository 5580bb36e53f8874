"""State: metric definitions, runs, their tasks and queue, aggregates, promotions and republishes. Raw does not hold
it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from pik.model.aggregate import Aggregate, BucketDigest, Computed, DigestLines
from pik.model.entity_range import EVERY_ENTITY, EntityRange
from pik.model.metric import Metric
from pik.model.republish import Refusal, Republish, SendingPlace
from pik.model.run import NO_FAILURES, DeadLetter, Failures, PromotionKind, Run, RunRequest, RunState, Task, TaskState
from pik.model.window import Window


class Metrics(Protocol):
    """Metric definitions by name and version. The built-in event_count is always among them, as version 1."""

    def append(self, metric: Metric) -> bool:
        """Keep this version of a metric; return False, keeping what is there, if its name has a version of that
        number."""

    def latest(self) -> list[Metric]:
        """Return the latest version of each metric, ordered by name."""

    def versions(self, name: str) -> list[Metric]:
        """Return every version of one metric, the oldest first; empty if there is none."""


class Runs(Protocol):
    """Runs and the state of their tasks."""

    def create(self, run: Run, tasks: Iterable[Task]) -> bool:
        """Store a run that is PLANNED with its tasks, or one that is PLANNING without any; it cannot be found before
        all of them are stored. It takes the place of one with its id that is PLANNING. Any other stays as it is, and
        False is returned."""

    def get(self, run_id: str) -> Run:
        """Return the run with this id or unambiguous prefix, with its current counts and the first KEPT_FAILURES of its
        failures, in the order of its tasks. Raises NotFound."""

    def newest_first(self) -> Iterator[Run]:
        """Yield every run, newest first, without its failures."""

    def unfinished(self, request: RunRequest) -> Run | None:
        """Return the newest run of exactly this request that has not ended."""

    def set_state(
        self, run_id: str, state: RunState, finished_at: int | None = None, planning_failure: str = ""
    ) -> None:
        """Move the run to a state, with the time if it has ended in it, and why if it could not be planned. A CANCELLED
        run does not move to a state in ENDED any more."""

    def open_tasks(self, run_id: str) -> Iterator[Task]:
        """Yield the run's OPEN tasks, ordered by number."""

    def mark(self, task: Task, state: TaskState, failures: Failures = NO_FAILURES) -> None:
        """Move a task, OPEN at first, to DONE, to FAILED, or to OPEN again (redriven), and replace its failures. A DONE
        task stays as it is."""

    def driving(self, run_id: str) -> AbstractContextManager[None]:
        """Hold the right to drive this run until the context ends, or the process dies and the store notices: at once,
        or when its lease of half a minute expires. Raises Busy when another process has it."""


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """What an idempotency key stands for: the digest of a request, and the run that it made or is going to make."""

    request: str
    run_id: str


class IdempotencyKeys(Protocol):
    """The keys by which a caller marks a request that it may send again."""

    def claim(self, key: str, claim: KeyClaim, at: int, until: int) -> KeyClaim:
        """Keep the claim under this key until a time (both in seconds since the epoch) and return it. One that is there
        already, and at this moment still kept, stays, and is returned instead; of several at once, one is kept."""


@dataclass(frozen=True, slots=True)
class Message:
    """A task received from the queue; `receipt` identifies this receiving of it, `receives` counts them, this one
    included."""

    task: Task
    receipt: str
    receives: int


UNSETTLED = "its processor ended or ran out of time, each time"
"""The reason of a dead letter whose task was given up without a recorded reason."""


class Queue(Protocol):
    """At-least-once delivery of tasks, in no guaranteed order."""

    def send(self, tasks: Iterable[Task]) -> int:
        """Put the tasks on the queue and return their number."""

    def receive(self, run_id: str, visibility: float) -> Message | None:
        """Return a visible message, hidden from other receivers for `visibility` seconds; None if none was found, which
        may miss one that was sent just now. A queue that cannot select may return a task of another run."""

    def acknowledge(self, receipt: str) -> None:
        """Remove the message. A repeat does nothing, nor does the receipt of an earlier receiving."""

    def release(self, message: Message, delay: float, reason: str = "") -> None:
        """Make the message visible again after `delay` seconds, unless it was received again meanwhile. The reason may
        be kept for a dead letter that is written without one."""

    def drop(self, run_id: str) -> int:
        """Remove those of the run's messages that can be found and that no receiver holds; return how many are still in
        flight, as far as is known. A receiver acknowledges a task of a cancelled run."""


PARTIALS_KEPT = 30
"""Days for which partial values are kept at least."""


class Partials(Protocol):
    """Partial values that tasks of a run computed, until one of the tasks merges them; and which one that is. A store
    may remove what is older than PARTIALS_KEPT days."""

    def keep(self, run_id: str, number: int, data: bytes) -> None:
        """Keep the partial values of the run's task of this number, durably; what is there already stays."""

    def kept(self, run_id: str) -> set[int]:
        """Return the numbers of the run's tasks whose partial values are kept, of all that were before the call."""

    def read(self, run_id: str, number: int, target: Path) -> None:
        """Write what was kept into a file, a part at a time. Raises Damaged where it is missing, or not as it was
        written."""

    def merger(self, run_id: str, first: int, number: int) -> int:
        """Return which task merges the group that begins with the task `first`: this one, if none was before."""

    def drop(self, run_id: str) -> None:
        """Remove all of the run's, now or when it is old: no task needs them any more."""


class DeadLetters(Protocol):
    """Tasks that failed too often, and those that were given up."""

    def bury(self, message: Message, reason: str, failed_at: int, hint: str = "") -> None:
        """Add a dead letter for the message, with its reason (empty: the last one that was kept, or UNSETTLED) and what
        can help. Acknowledge the message afterwards: if that is interrupted, it is received again."""

    def letters(self) -> list[DeadLetter]:
        """Return the dead letters, oldest first. There may be two for one task, where a burial was interrupted. Looking
        may hide them from others for a moment."""

    def purged(self) -> list[DeadLetter]:
        """Return the letters that were purged, oldest first."""

    def delete(self, letters: Iterable[DeadLetter]) -> None:
        """Delete letters, because their tasks are sent again. A repeat changes nothing."""

    def purge(self, letters: Iterable[DeadLetter]) -> None:
        """Move letters, which have `purged_at`, to the purged ones. A repeat changes nothing."""


@dataclass(frozen=True, slots=True)
class Change:
    """A version that a run wrote, and the one that was current when it was written (None: there was none)."""

    written: Aggregate
    base: Aggregate | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What became of the versions that a run wrote: how many there are, how many are `current`, how many aggregates are
    as they were before it (`restored`), and the latest known until."""

    versions: int = 0
    current: int = 0
    restored: int = 0
    known_until: int = 0


class Aggregates(Protocol):
    """Aggregate versions, append-only, and which of them is current. Entities order by their UTF-8 bytes.

    Every row of an iteration was true at some moment of it; two rows may be of two moments.
    """

    def write(
        self,
        task: Task,
        rows: Iterable[Computed],
        *,
        versions: Mapping[str, int],
        known_until: int,
        reason: str,
        actor: str = "",
        computed_by: Sequence[str] = (),
    ) -> None:
        """Store one version per row for the task's run, beside the version that is current, which becomes its base.

        `computed_by`, programs with their versions, is added to that of the run. Nothing is written if `rows` raises. A
        version that is there already stays as it is, so a task may be written any number of times; an interrupted write
        is finished by the next. A CANCELLED run writes nothing more.
        """

    def current(
        self,
        metric: str,
        window: Window,
        entities: Sequence[str] = (),
        *,
        entity_range: EntityRange = EVERY_ENTITY,
        checked: bool = False,
    ) -> Iterator[Aggregate]:
        """Yield the current versions of a metric's buckets that start in the window, of the named entities or of those
        in the range, ordered by bucket and entity.

        With `checked`, or where entities are named, each row tells whether it and the pointer to it are as they were
        written; Damaged is raised for a pointer to a version that is not there.
        """

    def versions(
        self, metric: str, window: Window, entities: Sequence[str] = (), *, checked: bool = False
    ) -> Iterator[Aggregate]:
        """Yield every version, with its base, as `current` does, ordered by bucket, entity and run_id. One that was
        written within the last second may be missing."""

    def digests(self, metric: str, window: Window) -> Iterator[BucketDigest]:
        """Yield the digest of the current versions of each bucket that starts in the window."""

    def lines(self, metric: str, window: Window) -> Iterator[DigestLines]:
        """Yield the lines that these digests are of, by bucket."""

    def changes(self, run_id: str) -> Iterator[Change]:
        """Yield every version that the run wrote with its base, ordered by metric, bucket, entity."""

    def standing(self, run_id: str) -> Standing:
        """Return what became of the versions that the run wrote."""


@dataclass(frozen=True, slots=True)
class PointerCounts:
    """How many aggregates a promotion or rollback moved, how many were so already, and how many others another run had
    moved."""

    moved: int
    already: int
    conflicts: int


class Promotion(msgspec.Struct, frozen=True, tag="promotion"):
    """A promotion or rollback, by `actor`; `at` in nanoseconds. `pointers` is how many more there were after it,
    `pointers_xor`, in hex, what changed in their digests."""

    promotion_id: str
    run_id: str
    kind: PromotionKind
    at: int
    reason: str
    actor: str
    moved: int
    conflicts: int
    pointers: int
    pointers_xor: str


class Republishes(Protocol):
    """What was sent again to consumers, and how far each republish is."""

    def create(self, republish: Republish) -> None:
        """Store a new republish."""

    def get(self, republish_id: str) -> Republish:
        """Return the republish with this id or unambiguous prefix. Raises NotFound, Damaged."""

    def newest_first(self) -> Iterator[Republish]:
        """Yield every republish, newest first. Raises Damaged."""

    def record(self, republish: Republish, refused: Sequence[Refusal] = (), taken: Sequence[SendingPlace] = ()) -> None:
        """Store how far the republish is, what was refused since, and that refused deliveries were taken now.

        Its `refused` is the number of refusals that there are then. If this is interrupted, the republish may be as it
        was before, with refusals of what it sent since; recording the same again repairs that.
        """

    def refusals(self, republish_id: str) -> Iterator[Refusal]:
        """Yield what was refused and not taken since, ordered by batch and seq."""

    def sending(self, republish_id: str) -> AbstractContextManager[None]:
        """Hold the right to send it until the context ends, or the process dies and the store notices. Raises Busy when
        another process has it."""

    def is_sending(self, republish_id: str) -> bool:
        """Return whether a process seems to have that right. Writes nothing."""


class Promotions(Protocol):
    """Moves what is current, atomically per aggregate. An interrupted move is finished by the next, and counts as
    one."""

    def promote(self, run_id: str, at: int, reason: str, actor: str = "", *, dry_run: bool = False) -> PointerCounts:
        """Make each version of the run current where its base still is."""

    def rollback(self, run_id: str, at: int, reason: str, actor: str = "", *, dry_run: bool = False) -> PointerCounts:
        """Make each version's base current again (nothing, where it had none), where the run's version is current."""

    def newest_first(self) -> Iterator[Promotion]:
        """Yield every promotion and rollback, newest first."""


@dataclass(frozen=True, slots=True)
class StateProblem:
    """Something in the state that is not as it was written; `remedy` recomputes or restores it. `bucket` (nanoseconds)
    and `entity` are those of an aggregate. `is_past`: nothing current depends on it."""

    what: str
    detail: str
    remedy: str
    bucket: int | None = None
    entity: str = ""
    is_past: bool = False


class StateAudit(Protocol):
    """Checks all of the state, in bounded memory. What other processes write meanwhile is not a problem."""

    def problems(self) -> Iterator[StateProblem]:
        """Yield what is not as it was written: rows whose digest does not match, missing rows that runs and promotions
        wrote, pointers to other versions than promotions left, definitions and promotions that lost their row or its
        copy."""

"""All of the state as rows, in and out: what a backup holds, the same of every store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import msgspec

from pik.model.metric import Metric
from pik.model.run import NO_FAILURES, DeadLetter, Failures, Run, Task, TaskState


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

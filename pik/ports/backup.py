"""The port StateBackup: all state of a store as rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import msgspec

from pik.model.metric import Metric
from pik.model.republish import Refusal, Republish
from pik.model.run import NO_FAILURES, DeadLetter, Failures, Run, Task, TaskState
from pik.ports.state import Promotion


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
    inputs: int | None
    input_ids: str
    input_contents: str
    base: str | None
    metric_version: int
    known_until: int
    reason: str
    actor: str
    kind: str
    digest: str


class PointerRow(msgspec.Struct, frozen=True, gc=False, tag="current"):
    """That the version of a run is current."""

    metric: str
    bucket: int
    entity: str
    run_id: str


class LetterRow(msgspec.Struct, frozen=True, tag="letter"):
    """A dead letter."""

    letter: DeadLetter


class RepublishRow(msgspec.Struct, frozen=True, tag="republish"):
    """A republish."""

    republish: Republish


class RefusalRow(msgspec.Struct, frozen=True, tag="refusal"):
    """What a republish could not send."""

    republish_id: str
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class OmittedVersion:
    """A version that is not as it was written, and not current: it is left out."""

    metric: str
    bucket: int
    entity: str
    run_id: str


Row = MetricRow | RunRow | TaskRow | VersionRow | Promotion | PointerRow | LetterRow | RepublishRow | RefusalRow


class StateBackup(Protocol):
    """The state of a store as rows: those of one kind together, in the order of `Row`; the tasks of a run ordered by
    number. Messages on the queue are not among them: resuming a run sends its open tasks again."""

    def rows(self) -> AbstractContextManager[Iterator[Row | OmittedVersion]]:
        """Provide all rows, of one moment or, where that is not possible, with no promotion in between.

        A damaged version that is not current may come as OmittedVersion, and what its run wrote without it; a damaged
        definition or promotion comes from its copy, where that is whole. Raises Busy, here or while iterating, where
        promotions are under way; Damaged for any other row that is not as it was written.
        """

    def has_state(self, resuming: str = "") -> bool:
        """Return whether the store has state, other than what an interrupted restore named `resuming` has left."""

    def restore(self, rows: Iterable[Row], name: str) -> tuple[str, ...]:
        """Make the rows the state of the store, which must have none.

        If `rows` raises or the restore is interrupted, the same call (`name` tells one restore from another) resumes
        it. Returns the definitions and promotions of which the store had kept a copy and that the rows lack; those
        copies are set aside. Raises Damaged for a version that is not as it was written, StoreError where there is
        state.
        """

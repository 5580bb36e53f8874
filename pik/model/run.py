"""Runs: what a replay or an import was asked for, its tasks, and what became of them."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from pik.model.entity_range import EVERY_ENTITY, EntityRange
from pik.model.share import WHOLE, Share
from pik.model.window import Window


class RunState(StrEnum):
    """The state of a run."""

    PLANNING = "PLANNING"
    """It was accepted, and has no tasks yet: a stack plans a large one after it has answered."""
    PLANNED = "PLANNED"
    RUNNING = "RUNNING"
    CANCELLED = "CANCELLED"
    COMPLETED = "COMPLETED"
    """Everything was computed."""
    PARTIAL = "PARTIAL"
    """Some aggregates or tasks failed."""
    FAILED = "FAILED"
    """All tasks failed, or it could not be planned."""


ACTIVE = frozenset({RunState.PLANNING, RunState.PLANNED, RunState.RUNNING})
"""States of a run that has not ended."""

ENDED = frozenset({RunState.COMPLETED, RunState.PARTIAL, RunState.FAILED})
"""States in which a run ends by itself."""


class TaskState(StrEnum):
    """The state of a task."""

    OPEN = "OPEN"
    DONE = "DONE"
    FAILED = "FAILED"


TASK_TIMEOUT = 300
"""Seconds that a task may take: a worker hides its message from others for so long, and the template gives the
processor as much. One that takes longer may be done twice, without harm."""


class PromotionKind(StrEnum):
    """Which way a promotion moves."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Some entities (where `entities` is empty, all of the range that have events) and some whole buckets of metrics
    with the same buckets; a task of metrics over all entities names none, and is not cut into ranges.

    Tasks of one group, numbered one after the other, have a share of the segments each, of those recorded until
    `known_until` (nanoseconds); see usecases/replay/shares.py.

    `metrics` are NAME@VERSION: a run keeps to the definitions it was planned with. `start` and `end` are nanoseconds,
    aligned to buckets.
    """

    run_id: str
    number: int
    metrics: tuple[str, ...]
    start: int
    end: int
    entities: tuple[str, ...] = ()
    entity_range: EntityRange = EVERY_ENTITY
    share: Share = WHOLE
    known_until: int = 0

    @property
    def window(self) -> Window:
        """[start, end)."""
        return Window(self.start, self.end)


class RunKind(StrEnum):
    """What a run does."""

    REPLAY = "replay"
    IMPORT = "import"


class ImportedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file whose numbers a run imports: its name as it was typed, its SHA-256 in hex, and the columns that were
    taken. `metric` is the one that names the metric of each row, if there is such."""

    name: str
    digest: str
    bucket: str
    entity: str | None
    value: str
    metric: str | None = None


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was asked for: a replay or, with a `file`, an import. Two equal requests are the same work. Instants
    in nanoseconds. `source`, `event_type` and `correction`, the id of one, choose buckets."""

    start: int
    end: int
    entities: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    source: str | None = None
    event_type: str | None = None
    assumed: tuple[str, ...] = ()
    correction: str | None = None
    reason: str = ""
    file: ImportedFile | None = None

    @property
    def counts_duplicates(self) -> bool:
        """Whether every delivery counts, the only assumption that a replay knows; its values must not become
        current."""
        return bool(self.assumed)

    @property
    def chooses_buckets(self) -> bool:
        """Whether it is not about all buckets of its window and entities."""
        return not (self.source is self.event_type is self.correction is None)

    @property
    def window(self) -> Window:
        """The requested window."""
        return Window(self.start, self.end)


class FailedAggregate(msgspec.Struct, frozen=True, kw_only=True):
    """An aggregate that could not be computed from its events, and why: a metric's Failure, and its place. `inputs` are
    the events that its value would be made of."""

    metric: str
    metric_version: int
    bucket: int
    entity_id: str
    inputs: int
    reason: str
    events: int = 0
    event_ids: tuple[str, ...] = ()


KEPT_FAILURES = 100
"""Failed aggregates that a task keeps, and that a run shows, at most; all are counted."""


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """The aggregates of a task that failed: how many, and the first of them."""

    count: int = 0
    kept: tuple[FailedAggregate, ...] = ()


NO_FAILURES = Failures()


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One replay, or one import. `tasks`, `done`, `failed` count tasks; `new`, `changed`, `unchanged` values against
    what was current, `removed` current values that have no events any more.

    `events_matched` counts the events that the request chose, `buckets` those with events, each metric's own, when
    the run was planned; None: too many for the planner to count, some of their raw was damaged, or it is PLANNING.

    `promoted` counts aggregates that it made current, less those that were `rolled_back`.

    `actor` asked for it. `computed_by` are the programs that computed its versions, with their versions.
    `effective_start` and `effective_end` bound the whole buckets that the requested window touches.

    `failed_aggregates` counts those that failed in tasks that were done all the same, `failures` has the first of them,
    in the order of the tasks; a listing of runs has none.

    `planning_failure` is why a run that was PLANNING has FAILED without tasks.

    All of its tasks compute with the corrections recorded until `corrections_until`, the last one that the planner
    knew (nanoseconds; 0: there was none).
    """

    run_id: str
    request: RunRequest
    actor: str = ""
    state: RunState
    created_at: int
    finished_at: int | None
    effective_start: int
    effective_end: int
    events_matched: int | None
    buckets: int | None
    tasks: int
    corrections_until: int = 0
    done: int = 0
    failed: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    promoted: int = 0
    rolled_back: int = 0
    computed_by: tuple[str, ...] = ()
    failed_aggregates: int = 0
    failures: tuple[FailedAggregate, ...] = ()
    planning_failure: str = ""

    @property
    def kind(self) -> RunKind:
        """What it does."""
        return RunKind.REPLAY if self.request.file is None else RunKind.IMPORT

    @property
    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self.state in ACTIVE

    @property
    def effective(self) -> Window:
        """The whole buckets that its window touches."""
        return Window(self.effective_start, self.effective_end)

    @property
    def values(self) -> int:
        """How many aggregates it computed, or found to be without events."""
        return self.new + self.changed + self.unchanged + self.removed

    @property
    def without_value(self) -> int | None:
        """Buckets whose value is NULL, or none of whose events the metric lets in: with new, changed, unchanged and
        failed_aggregates they are all buckets. None until all tasks of the run are done, or if buckets were not
        counted; 0 where events that came after the plan made more values than it counted."""
        if self.state not in (RunState.COMPLETED, RunState.PARTIAL) or self.failed or self.buckets is None:
            return None
        return max(0, self.buckets - self.new - self.changed - self.unchanged - self.failed_aggregates)


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A task that failed too often, why, and what can help (`hint`; empty: doing it again); with `purged_at` and
    `purge_reason` if it was given up."""

    letter_id: str
    task: Task
    reason: str
    hint: str = ""
    attempts: int
    failed_at: int
    purged_at: int | None = None
    purge_reason: str = ""

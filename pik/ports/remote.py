"""What is not a store: the stack's HTTP API, the stack itself, and files in S3 to ingest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, NamedTuple, Protocol

import msgspec
from msgspec import Meta, structs

from pik.errors import StoreError
from pik.model.batch import Verdict
from pik.model.instant import format_instant, parse_instant
from pik.model.metric import ALL_ENTITIES
from pik.model.run import FailedAggregate, ImportedFile, Run, RunRequest, RunState


@dataclass(frozen=True, slots=True)
class Deployment:
    """Which stack it is, and what it was deployed with. `version` is that of its functions, empty if unknown; `url` the
    store's, with every resource named."""

    name: str
    region: str
    account: str
    version: str
    outputs: Mapping[str, str]
    url: str


@dataclass(frozen=True, slots=True)
class StackPart:
    """A part of the stack as it was found. Where that is unknown, `healthy` is None and `detail` has the reason."""

    name: str
    state: str | None
    healthy: bool | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Depth:
    """How many tasks wait, are being worked on, are to wait a little longer, and are among the dead letters; all about,
    as SQS counts. `oldest` is the age of the oldest one in seconds, None if none is there, or if it is `hidden`."""

    visible: int
    in_flight: int
    delayed: int
    dead: int
    oldest: int | None
    hidden: str = ""


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm of the stack. `state` is OK, ALARM or INSUFFICIENT_DATA; `since` in nanoseconds."""

    name: str
    state: str
    since: int
    reason: str


class Level(StrEnum):
    """What a person or a role does with a stack. docs/iam.md has a policy for each."""

    READING = "reading"
    REPLAYING = "replaying"
    CORRECTING = "correcting"
    ADMINISTERING = "administering"
    INSPECTING = "inspecting"
    PRODUCING = "producing"

    @property
    def needed(self) -> tuple[Level, ...]:
        """The levels whose permissions it takes: its own and those below."""
        below = dict.fromkeys((Level.REPLAYING, Level.CORRECTING, Level.INSPECTING), Level.READING)
        below[Level.ADMINISTERING] = Level.REPLAYING
        return (*(below[self].needed if self in below else ()), self)


@dataclass(frozen=True, slots=True)
class Permission:
    """Whether the caller may do an action on a resource (an ARN), as a level needs.

    Where that is unknown, `allowed` is None and `detail` has the reason. If it is `forbidden`, another policy denies it
    explicitly, so that allowing it changes nothing.
    """

    level: Level
    action: str
    resource: str
    allowed: bool | None
    detail: str = ""
    forbidden: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """How something is set, how it is expected to be, and the command that makes it so. Where that is unknown, `right`
    is None and `found` has the reason."""

    name: str
    right: bool | None
    found: str
    expected: str
    fix: str


class StackHealth(Protocol):
    """Looks and changes nothing: no event, task, object or item is written, removed or hidden from others."""

    def deployment(self) -> Deployment:
        """Return the stack's name, version and outputs. Raises NotFound, StoreError."""

    def parts(self) -> Iterator[StackPart]:
        """Yield every part on whose state the stack depends."""

    def depth(self) -> Depth:
        """Return what is in the queues of replay tasks. Raises StoreError."""

    def lost_requests(self) -> int:
        """Return how many buffered requests could not be recorded, and are dead letters of a queue of their own, about,
        as SQS counts. Raises StoreError."""

    def alarms(self) -> list[Alarm]:
        """Return the stack's alarms by name. Raises StoreError."""

    def permissions(self) -> Iterator[Permission]:
        """Everything that the levels of docs/iam.md need, by level."""

    def settings(self) -> Iterator[Setting]:
        """Yield every setting that the kit relies on."""


class Unanswered(StoreError):
    """The API is busy, failing or out of reach; asking again later may help. `maybe_done` tells whether the call may
    have taken effect all the same."""

    def __init__(self, message: str, *, hint: str = "", maybe_done: bool = True) -> None:
        super().__init__(message, hint=hint)
        self.maybe_done = maybe_done


class RecordStatus(StrEnum):
    """The status of a record in the API's answer. VALID: it would be recorded, but the stack is in a dry run."""

    ACCEPTED = "ACCEPTED"
    DUPLICATE = "DUPLICATE"
    REJECTED = "REJECTED"
    VALID = "VALID"


@dataclass(frozen=True, slots=True)
class RecordResult:
    """What became of a record: its verdict, or None if it was rejected, with the reason and maybe the field."""

    verdict: Verdict | None
    reason: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A result for each record. `repeated` tells whether the request was sent before without an answer: then what that
    one recorded are duplicates now."""

    results: Sequence[RecordResult]
    repeated: bool = False


class PlannedReplay(NamedTuple):
    """A run as it was planned, and the metrics over all entities that it leaves out, since it is of one entity."""

    run: Run
    metrics_left_out: tuple[str, ...]


class Api(Protocol):
    """May be called by several threads at once. Every call raises Unanswered, and StoreError where the caller is denied
    or what answers is not such an API."""

    def ingest(self, records: Sequence[bytes]) -> Answer:
        """Record these lines, UTF-8 without a line break and not blank, in this order. A repeat records each once more,
        as a duplicate. Raises StoreError if the stack is in a dry run."""

    def replay(self, request: RunRequest, *, key: str, dry_run: bool = False) -> PlannedReplay:
        """Begin a run for the request's one entity, or return the one that an earlier call with this `key` (visible
        ASCII) began; a key is for one request. The run is as it was planned: with
        `events_matched` None it was too large for one call and is planned later; with `dry_run` there is none.
        Raises Invalid, NotFound (an unknown metric, a store without events)."""

    def run(self, run_id: str) -> Run:
        """Return the run of this id as it is now. Raises NotFound."""


# The JSON documents of the API: its functions encode them, its client decodes them, docs/openapi.yaml describes them.

Ulid = Annotated[str, Meta(pattern="^[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
Count = Annotated[int, Meta(ge=0)]
Time = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}|\.\d{6}|\.\d{9})?Z$")]


GZIP = "application/gzip"
"""The media type of a body of NDJSON that is compressed, which the API passes on as it is."""


class ApiError(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong with a request, and with which of its fields. `request_id` is API Gateway's; logs have it, too."""

    error: Annotated[str, Meta(min_length=1)]
    request_id: Annotated[str, Meta(min_length=1)]
    field: Annotated[str, Meta(min_length=1)] = ""


class BufferedView(msgspec.Struct, frozen=True):
    """A request that the queue has, and the id by which it will be recorded."""

    buffered_id: Ulid
    request_id: Annotated[str, Meta(min_length=1)]


class PlannedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that was begun; its counts are null where it is planned later."""

    run_id: Annotated[Ulid | None, Meta(description="null in a dry run, which begins none")]
    entity_id: str
    start_time: Time
    end_time: Annotated[Time, Meta(description="As requested, or with truncated where the limit cut")]
    effective_start_time: Time
    effective_end_time: Annotated[Time, Meta(description="The end of the whole buckets that are computed")]
    scanned: Annotated[Count | None, Meta(description="Events in the window; null where it is too large to count")]
    buckets: Count | None
    tasks: Count | None
    sent: Annotated[Count | None, Meta(description="Tasks sent to the processor; null where that comes later")]
    truncated: Annotated[bool, Meta(description="Whether limit left out later buckets")]
    metrics_left_out: Annotated[
        tuple[str, ...], Meta(description="Metrics over all entities, which a replay of one entity does not compute")
    ]
    dry_run: bool

    def run(self, request: RunRequest, created_at: int) -> Run:
        """Return the run of this request as it was planned."""
        return Run(
            run_id=self.run_id or "",
            request=request,
            state=RunState.PLANNED if self.tasks is not None else RunState.PLANNING,
            created_at=created_at,
            finished_at=None,
            effective_start=parse_instant(self.effective_start_time),
            effective_end=parse_instant(self.effective_end_time),
            events_matched=self.scanned,
            buckets=self.buckets,
            tasks=self.tasks or 0,
        )


class FailureView(msgspec.Struct, frozen=True, kw_only=True):
    """An aggregate that could not be computed."""

    metric: str
    metric_version: int
    bucket: Time
    entity_id: Annotated[str | None, Meta(description="Null: the metric is over all entities")]
    inputs: Count
    reason: Annotated[str, Meta(description="It may quote a payload")]
    events: Count
    event_ids: Annotated[tuple[str, ...], Meta(description="The first of the events that cannot be computed")]

    @classmethod
    def of(cls, failed: FailedAggregate) -> FailureView:
        """Return the view of a failed aggregate."""
        shown = {"bucket": format_instant(failed.bucket), "entity_id": failed.entity_id or None}
        return cls(**structs.asdict(failed) | shown)

    def failed(self) -> FailedAggregate:
        """Return the failed aggregate that this is the view of."""
        place = {"bucket": parse_instant(self.bucket), "entity_id": self.entity_id or ALL_ENTITIES}
        return FailedAggregate(**structs.asdict(self) | place)


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it is now: what was requested, and its progress."""

    run_id: Ulid
    state: RunState
    events_matched: Annotated[Count | None, Meta(description="Null where they were not counted (202)")]
    buckets: Count | None
    tasks: Count
    done: Count
    failed: Count
    new: Count
    changed: Count
    unchanged: Count
    removed: Count
    promoted: Count
    rolled_back: Count
    corrections_until: Annotated[
        Time | None, Meta(description="Its values are with the corrections until then; null: there were none")
    ]
    computed_by: Annotated[tuple[str, ...], Meta(description="The programs that computed its versions")]
    failed_aggregates: Count
    failures: Annotated[
        tuple[FailureView, ...], Meta(description="The first of the aggregates that failed in tasks that were done")
    ]
    start_time: Time
    end_time: Time
    effective_start_time: Time
    effective_end_time: Time
    created_at: Time
    finished_at: Time | None
    entities: Annotated[tuple[str, ...], Meta(description="Empty: every entity")]
    source: str | None
    event_type: str | None
    metrics: Annotated[tuple[str, ...], Meta(description="Empty: all metrics")]
    assumed: Annotated[tuple[str, ...], Meta(description="Empty: what counts today")]
    correction: Annotated[str | None, Meta(description="Chooses the buckets that this correction changes")]
    reason: str | None
    actor: Annotated[str | None, Meta(description="Who asked for it; null: not known")] = None
    file: Annotated[ImportedFile | None, Meta(description="What it imported; null: it is a replay")] = None
    planning_failure: Annotated[
        str | None, Meta(description="Why it could not be planned; null: it was, or may be")
    ] = None

    @classmethod
    def of(cls, run: Run) -> RunView:
        """Return the view of a run."""
        request = run.request
        fields = {
            **structs.asdict(request),
            **structs.asdict(run),
            "failures": tuple(map(FailureView.of, run.failures)),
            "start_time": format_instant(request.start),
            "end_time": format_instant(request.end),
            "effective_start_time": format_instant(run.effective_start),
            "effective_end_time": format_instant(run.effective_end),
            "created_at": format_instant(run.created_at),
            "finished_at": None if run.finished_at is None else format_instant(run.finished_at),
            "corrections_until": format_instant(run.corrections_until) if run.corrections_until else None,
            "reason": request.reason or None,
            "actor": run.actor or None,
            "planning_failure": run.planning_failure or None,
        }
        return cls(**{name: fields[name] for name in cls.__struct_fields__})

    def run(self) -> Run:
        """Return the run that this is the view of."""
        fields = structs.asdict(self) | {
            "start": parse_instant(self.start_time),
            "end": parse_instant(self.end_time),
            "reason": self.reason or "",
            "actor": self.actor or "",
            "planning_failure": self.planning_failure or "",
            "failures": tuple(one.failed() for one in self.failures),
            "effective_start": parse_instant(self.effective_start_time),
            "effective_end": parse_instant(self.effective_end_time),
            "created_at": parse_instant(self.created_at),
            "finished_at": None if self.finished_at is None else parse_instant(self.finished_at),
            "corrections_until": parse_instant(self.corrections_until) if self.corrections_until else 0,
        }
        fields["request"] = RunRequest(**{name: fields[name] for name in RunRequest.__struct_fields__})
        return Run(**{name: fields[name] for name in Run.__struct_fields__})


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """A file by the URL that people call it; its size in bytes; `version` changes when its content does."""

    name: str
    size: int
    version: str


class Foreign(Protocol):
    """Reads only."""

    def find(self, url: str) -> list[ForeignFile]:
        """Return the files that a URL names, or that match its glob, ordered by name. Raises UsageError for any
        other URL, InputError where there is no such file, StoreError without credentials or access."""

    def read(self, file: ForeignFile, offset: int, length: int) -> bytes:
        """Return bytes of the file from `offset`, fewer than `length` only at its end. Raises InputError if it is not
        the version that was found any more, StoreError."""

"""What is not a store: the stack's HTTP API, the stack itself, and files in S3 to ingest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pik.errors import StoreError
from pik.model.batch import Verdict
from pik.model.run import Run, RunRequest


@dataclass(frozen=True, slots=True)
class Deployment:
    """Which stack it is, and what it was deployed with. `version` is that of its functions, empty if it says none."""

    name: str
    region: str
    account: str
    version: str
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the stack as it was found. `healthy` is None, and `detail` says why, where that cannot be known."""

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


@dataclass(frozen=True, slots=True)
class Permission:
    """Whether the caller may do one action on one resource (an ARN), which somebody of that level needs.

    `how` is tried, or simulated where trying would leave a trace. `allowed` is None, `how` empty, and `detail` says
    why, where neither tells. With `forbidden` a policy denies it explicitly, so that allowing it mends nothing.
    """

    level: str
    action: str
    resource: str
    allowed: bool | None
    how: str
    detail: str = ""
    forbidden: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """How one thing is set, how the kit needs it, and the command that makes it so. `right` is None, and `found` says
    why, where that cannot be told."""

    name: str
    right: bool | None
    found: str
    needed: str
    command: str


class StackHealth(Protocol):
    """Looks and changes nothing: no event, task, object or item is written, removed or hidden from others."""

    def deployment(self) -> Deployment:
        """What the stack says about itself. Raises NotFound, StoreError."""

    def parts(self) -> Iterator[Part]:
        """Every part whose state tells whether the stack works."""

    def depth(self) -> Depth:
        """What is in the queues. Raises StoreError."""

    def alarms(self) -> list[Alarm]:
        """The stack's alarms by name. Raises StoreError."""

    def permissions(self) -> Iterator[Permission]:
        """Everything that the levels of docs/iam.md need, by level."""

    def settings(self) -> Iterator[Setting]:
        """Every setting that the kit relies on."""


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
class Answered:
    """A result for each record. `repeated` tells whether the request was sent before without an answer: then what that
    one recorded are duplicates now."""

    results: Sequence[RecordResult]
    repeated: bool = False


class Api(Protocol):
    """May be called by several threads at once. Every call raises Unanswered, and StoreError where the caller is denied
    or what answers is no such API."""

    def ingest(self, records: Sequence[bytes]) -> Answered:
        """Record these lines, UTF-8 without a line break and not blank, in this order. A repeat records each once more,
        as a duplicate. Raises StoreError if the stack is in a dry run."""

    def replay(self, request: RunRequest, *, dry_run: bool = False) -> Run:
        """Begin a run for the request's one entity; each call begins another one. The run is as it was planned: with
        `events_matched` None it was too large for one call and is planned later; with `dry_run` there is none.
        Raises Invalid, NotFound (an unknown metric, a store without events)."""

    def run(self, run_id: str) -> Run:
        """The run of this id as it is now. Raises NotFound."""


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """A file by the URL that people call it; its size in bytes; `version` changes when its content does."""

    name: str
    size: int
    version: str


class Foreign(Protocol):
    """Reads; there is no way to change anything."""

    def find(self, url: str) -> list[ForeignFile]:
        """The files that a URL names, or that match its glob, ordered by name. Raises UsageError for what is no such
        URL, InputError where there is no such file, StoreError without credentials or access."""

    def read(self, file: ForeignFile, offset: int, length: int) -> bytes:
        """Bytes of the file from `offset`, fewer than `length` only at its end. Raises InputError if it is not the
        version that was found any more, StoreError."""

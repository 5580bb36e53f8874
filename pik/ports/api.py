"""The HTTP API of a deployed stack, for whoever may not, or need not, touch its storage (docs/http.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pik.errors import StoreError
from pik.model.batch import Verdict
from pik.model.run import Run, RunRequest


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

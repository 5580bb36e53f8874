"""Rows of state, the same in every store: their JSON, their digests, and the words for damage to them.

A row's digest is the first 128 bits of SHA-256 over a JSON array: the kind of row, its key and its columns. Bytes are
in it as lower-case hex digits. Runs and promotions keep the XOR of the digests of the rows that they wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from pik.errors import Damaged
from pik.model.metric import EVENT_COUNT, Definition, Metric
from pik.model.run import NO_FAILURES, DeadLetter, FailedAggregate, Failures, PromotionKind, Run, RunRequest, Task
from pik.ports.state import StateProblem

RESTORE = "into this store without its state, as docs/backup.md tells: pik restore BACKUP"
RECOMPUTE = "replay that bucket with `pik replay`, then `pik promote RUN`: that writes a version beside it"
LEAVE_OUT = (
    "it is not current, so no value is wrong; `pik backup FILE` leaves it out, and what that restores is without it;"
    " docs/backup.md tells how"
)
TAKE_COPY = "`pik backup FILE` takes the copy; then, into this store without its state: pik restore FILE"
_ALTERED = "its digest does not hold"


@dataclass(frozen=True, slots=True)
class Place:
    """The aggregate that a version or a pointer is of."""

    metric: str
    bucket: int
    entity: str


def row_altered(what: str) -> StateProblem:
    """A row that is not as it was written."""
    return StateProblem(what, _ALTERED, RESTORE)


def version_altered(place: Place, run_id: str) -> StateProblem:
    """A version that is not as it was written."""
    what = f"version of {place.metric} by run {run_id}"
    return StateProblem(what, _ALTERED, RECOMPUTE, place.bucket, place.entity)


def past_version_altered(place: Place, run_id: str) -> StateProblem:
    """A version that is not as it was written, and that nothing current depends on."""
    what = f"version of {place.metric} by run {run_id}"
    return StateProblem(what, _ALTERED, LEAVE_OUT, place.bucket, place.entity, is_past=True)


def row_has_copy(what: str, where: str) -> StateProblem:
    """A definition or a promotion that is not as it was written, but its copy is."""
    detail = f"{_ALTERED}, and its copy {where} is whole"
    return StateProblem(what, detail, TAKE_COPY)


def pointer_altered(place: Place) -> StateProblem:
    """A pointer that is not as it was written."""
    return StateProblem(f"current {place.metric}", _ALTERED, RESTORE, place.bucket, place.entity)


def pointer_without_version(place: Place, run_id: str) -> StateProblem:
    """A pointer to a version that is not there."""
    detail = f"it points to a version by run {run_id}, which is not there"
    return StateProblem(f"current {place.metric}", detail, RECOMPUTE, place.bucket, place.entity)


def pointer_differs(place: Place, now: str | None, expected: str | None) -> StateProblem:
    """A pointer that is not where promotions left it."""
    there = f"it is the version by run {now}" if now else "there is none"
    left = f"left the version by run {expected}" if expected else "left none"
    return StateProblem(f"current {place.metric}", f"{there}; promotions {left}", RECOMPUTE, place.bucket, place.entity)


def versions_lost(run_id: str, written: int, there: int) -> StateProblem:
    """A run of which other versions are there than it wrote."""
    detail = f"it wrote {written:,} versions, and {there:,} are there"
    if written == there:
        detail = f"the {there:,} versions that are there are not those that it wrote"
    return StateProblem(f"run {run_id}", detail, "`pik replay` of its window writes them again, in a run of their own")


def run_lost(run_id: str) -> StateProblem:
    """A run that wrote versions and is not there."""
    return StateProblem(f"run {run_id}", "its row is lost; versions that it wrote are there", RESTORE)


def tasks_lost(run_id: str, planned: int, there: int) -> StateProblem:
    """A run of which tasks are lost."""
    return StateProblem(f"run {run_id}", f"it was planned with {planned:,} tasks, and {there:,} are there", RESTORE)


def row_lost(what: str, where: str) -> StateProblem:
    """A definition or a promotion of which only the copy is there."""
    return StateProblem(what, f"it is in {where}, and not in the state", RESTORE)


def copy_lost(what: str, where: str) -> StateProblem:
    """A definition or a promotion of which only the row is there."""
    detail = f"its copy {where} is lost or altered"
    return StateProblem(what, detail, "the row itself is whole; pik backup, then pik restore, writes the copy again")


def expected_pointer(
    bases: Mapping[str, str | None], moves: Iterable[tuple[str, str]]
) -> tuple[str | None, str | None]:
    """The run whose version promotions left current, and the run that was promoted last, of one aggregate. `bases` are
    its versions, by run, with the run that was current when each was written; `moves` are kind and run."""
    now = last = None
    for kind, run_id in moves:
        if run_id not in bases:
            continue
        base = bases[run_id]
        old, new = (base, run_id) if kind == PromotionKind.PROMOTE else (run_id, base)
        last = new
        if now == old:
            now = new
    return now, last


def is_explained(now: str | None, bases: Mapping[str, str | None], moves: Iterable[tuple[str, str]]) -> bool:
    """Whether promotions left the pointer there. A version that was computed after the pointer had been lost, and was
    promoted last, has mended it."""
    expected, last = expected_pointer(bases, moves)
    return now == expected or (now is not None and now == last)


def damaged_row(what: str) -> Damaged:
    """The error for a row of state that is not as it was written."""
    return Damaged(
        f"{what} is not as it was written: its digest does not hold",
        hint="what is damaged, and what recomputes or restores it: pik verify",
    )


def lost_version(metric: str, entity: str) -> Damaged:
    """The error for a backup with a pointer to a version that is not in it."""
    return Damaged(
        f"the backup says which {metric} of {entity} is current, and does not have that version",
        hint="use an earlier backup; `pik verify` names what is damaged in the store that this one was made of",
    )


NO_ROWS = bytes(16)
"""The XOR of no digests."""

_encode = msgspec.json.Encoder().encode


def row_digest(kind: str, *columns: object) -> bytes:
    """The digest of a row."""
    plain = [column.hex() if type(column) is bytes else column for column in columns]
    return sha256(_encode([kind, *plain])).digest()[:16]


def pointer_digest(metric: str, bucket: int, entity: str, run_id: str) -> bytes:
    """The digest of a pointer to the version of a run that is current; NO_ROWS where `run_id` is empty: there is no
    pointer."""
    return row_digest("current", metric, bucket, entity, run_id) if run_id else NO_ROWS


class RowTally:
    """The number of some rows, and the XOR of their digests. `xor_of` for each row would take several times as long."""

    __slots__ = ("_total", "count")

    def __init__(self) -> None:
        self.count = self._total = 0

    def add(self, digest: object) -> None:
        """Count a row; damage may have left anything in the place of its digest."""
        self.count += 1
        if type(digest) is bytes and len(digest) == len(NO_ROWS):
            self._total ^= int.from_bytes(digest)

    @property
    def xor(self) -> bytes:
        """The XOR of the digests."""
        return self._total.to_bytes(len(NO_ROWS))


def xor_of(digests: Iterable[bytes | None], start: bytes = NO_ROWS) -> bytes:
    """Return the XOR of the digests. What is not a digest (damage may leave that) is passed over."""
    total = int.from_bytes(start)
    for digest in digests:
        if type(digest) is bytes and len(digest) == len(NO_ROWS):
            total ^= int.from_bytes(digest)
    return total.to_bytes(len(NO_ROWS))


read_task = msgspec.json.Decoder(Task).decode
read_run = msgspec.json.Decoder(Run).decode
read_request = msgspec.json.Decoder(RunRequest).decode
read_letter = msgspec.json.Decoder(DeadLetter).decode
read_failed = msgspec.json.Decoder(tuple[FailedAggregate, ...]).decode

_read_definition = msgspec.json.Decoder(Definition).decode


def failures_of(count: int, kept: bytes | str | None) -> Failures:
    """Return the failures of a task, of which `kept` are the first; there are none where the count is 0."""
    return Failures(count=count, kept=read_failed(kept)) if count and kept is not None else NO_FAILURES


def metric_columns(metric: Metric) -> tuple[str, int, str, int, int]:
    """Return the columns of a version of a metric, over which its digest is: name, version, definition, when it was
    applied, and the scale of its values."""
    definition = msgspec.json.encode(metric.definition).decode()
    return metric.name, metric.version, definition, metric.applied_at, metric.scale


def metric_of(version: int, definition: str, applied_at: int, scale: int) -> Metric:
    """Return the version of a metric that has these columns."""
    return Metric(definition=_read_definition(definition), version=version, applied_at=applied_at, scale=scale)


def all_versions(name: str, stored: Iterable[Metric]) -> list[Metric]:
    """Return every version of a metric, given those that are stored: a built-in one is not among them."""
    return [*([EVENT_COUNT] if name == EVENT_COUNT.name else []), *stored]


def latest_versions(stored: Iterable[Metric]) -> list[Metric]:
    """Return the latest version of each metric by name, given all that are stored, the versions in order."""
    newest = {EVENT_COUNT.name: EVENT_COUNT} | {metric.name: metric for metric in stored}
    return [newest[name] for name in sorted(newest)]

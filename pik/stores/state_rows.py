"""Rows of state, the same in every store: their JSON, their digests, and the words for damage to them.

A row's digest is the first 128 bits of SHA-256 over a JSON array: the kind of row, its key and its columns. Bytes are
in it as lower-case hex digits. Runs and promotions keep the XOR of the digests of the rows that they wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import NamedTuple

import msgspec

from pik.errors import Damaged
from pik.model.metric import EVENT_COUNT, Definition, Metric
from pik.model.republish import Refusal, Republish
from pik.model.run import NO_FAILURES, DeadLetter, FailedAggregate, Failures, PromotionKind, Run, RunRequest, Task
from pik.ports.state import StateProblem

RESTORE = "into this store without its state (see docs/backup.md): pik restore BACKUP"
RECOMPUTE = "replay that bucket with `pik replay`, then `pik promote RUN`: that writes a version beside it"
LEAVE_OUT = (
    "it is not current, so no value is wrong; `pik backup FILE` leaves it out, and so does what is restored from that;"
    " see docs/backup.md"
)
TAKE_COPY = "`pik backup FILE` takes the copy; then, into this store without its state: pik restore FILE"
_ALTERED = "its digest does not match"


class AggregatePlace(NamedTuple):
    """The aggregate of a version or a pointer."""

    metric: str
    bucket: int
    entity: str

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"{self.metric} of {self.entity or 'all entities'}"


def row_altered(what: str) -> StateProblem:
    """Return the problem of a row that is not as it was written."""
    return StateProblem(what, _ALTERED, RESTORE)


def row_has_copy(what: str, where: str) -> StateProblem:
    """Return the problem of a definition or promotion that is not as it was written, but has a whole copy."""
    return StateProblem(what, f"{_ALTERED}, and its copy {where} is whole", TAKE_COPY)


def row_lost(what: str, where: str) -> StateProblem:
    """Return the problem of a definition or promotion of which there is only the copy."""
    return StateProblem(what, f"it is in {where}, and not in the state", RESTORE)


def copy_lost(what: str, where: str) -> StateProblem:
    """Return the problem of a definition or promotion of which there is only the row."""
    remedy = "the row itself is whole; pik backup, then pik restore, writes the copy again"
    return StateProblem(what, f"its copy {where} is lost or altered", remedy)


def version_altered(place: AggregatePlace, run_id: str) -> StateProblem:
    """Return the problem of a current version that is not as it was written."""
    return StateProblem(f"version of {place.metric} by run {run_id}", _ALTERED, RECOMPUTE, place.bucket, place.entity)


def past_version_altered(place: AggregatePlace, run_id: str) -> StateProblem:
    """Return the problem of a version that is not as it was written, and on which nothing current depends."""
    return replace(version_altered(place, run_id), remedy=LEAVE_OUT, is_past=True)


def pointer_altered(place: AggregatePlace) -> StateProblem:
    """Return the problem of a pointer that is not as it was written."""
    return _pointer(place, _ALTERED, RESTORE)


def pointer_without_version(place: AggregatePlace, run_id: str) -> StateProblem:
    """Return the problem of a pointer to a version that is missing."""
    return _pointer(place, f"it points to a version by run {run_id}, which is not there", RECOMPUTE)


def pointer_differs(
    place: AggregatePlace, now: str | None, bases: Mapping[str, str | None], moves: Iterable[tuple[str, str]]
) -> StateProblem | None:
    """Return the problem of a pointer that is not where promotions left it. `bases` are the versions of the aggregate,
    by run, with the run that was current when each was written; `moves` are kind and run of promotions."""
    expected = last = None
    for kind, run_id in moves:
        if run_id not in bases:
            continue
        base = bases[run_id]
        old, new = (base, run_id) if kind == PromotionKind.PROMOTE else (run_id, base)
        last = new
        if expected == old:
            expected = new
    # A version that was computed after the pointer had been lost, and was promoted last, has repaired it.
    if now == expected or (now is not None and now == last):
        return None
    there = f"it is the version by run {now}" if now else "there is none"
    left = f"left the version by run {expected}" if expected else "left none"
    return _pointer(place, f"{there}; promotions {left}", RECOMPUTE)


def _pointer(place: AggregatePlace, detail: str, remedy: str) -> StateProblem:
    return StateProblem(f"current {place.metric}", detail, remedy, place.bucket, place.entity)


def versions_lost(run_id: str, written: int, there: int) -> StateProblem:
    """Return the problem of a run whose versions are not those that it wrote."""
    detail = f"it wrote {written:,} versions, and {there:,} are there"
    if written == there:
        detail = f"the {there:,} versions that are there are not those that it wrote"
    return StateProblem(f"run {run_id}", detail, "`pik replay` of its window writes them again, in a new run")


def run_lost(run_id: str) -> StateProblem:
    """Return the problem of a run that wrote versions and is missing."""
    return StateProblem(f"run {run_id}", "its row is lost; versions that it wrote are there", RESTORE)


def tasks_lost(run_id: str, planned: int, there: int) -> StateProblem:
    """Return the problem of a run with lost tasks."""
    return StateProblem(f"run {run_id}", f"it was planned with {planned:,} tasks, and {there:,} are there", RESTORE)


def refusals_lost(republish_id: str, counted: int, there: int) -> StateProblem:
    """Return the problem of a republish with lost refusals."""
    detail = f"it counts {counted:,} refused deliveries, and {there:,} are there"
    return StateProblem(f"republish {republish_id}", detail, RESTORE)


def republish_lost(republish_id: str) -> StateProblem:
    """Return the problem of a republish that refusals are of and that is missing."""
    return StateProblem(f"republish {republish_id}", "its row is lost; what it could not send is there", RESTORE)


def damaged_row(what: str) -> Damaged:
    """Return the error for a row of state that is not as it was written."""
    return Damaged(
        f"{what} is not as it was written: its digest does not match",
        hint="what is damaged, and what recomputes or restores it: pik verify",
    )


def versions_missing(run_id: str, written: int, there: int) -> Damaged:
    """Return the error for a run whose versions are not those that it wrote, where they would become current."""
    return Damaged(
        f"run {run_id} wrote {written:,} versions, and {there:,} of its versions are there",
        hint="replay again to compute it anew; what is damaged: pik verify",
    )


def lost_version(metric: str, entity: str) -> Damaged:
    """Return the error for a backup with a pointer to a version that is not in it."""
    return Damaged(
        f"the backup lacks the current version of {metric} of {entity}",
        hint="use an earlier backup; `pik verify` names what is damaged in the store that this one was made of",
    )


NO_ROWS = bytes(16)
"""The XOR of no digests."""

_encode = msgspec.json.Encoder().encode


def row_digest(kind: str, *columns: object) -> bytes:
    """Return the digest of a row."""
    plain = [column.hex() if type(column) is bytes else column for column in columns]
    return sha256(_encode([kind, *plain])).digest()[:16]


def pointer_digest(metric: str, bucket: int, entity: str, run_id: str) -> bytes:
    """Return the digest of a pointer to the current version, by its run; NO_ROWS if `run_id` is empty: without a
    pointer."""
    return row_digest("current", metric, bucket, entity, run_id) if run_id else NO_ROWS


class RowTally:
    """The number of some rows, and the XOR of their digests. `xor_of` for each row would take several times as long."""

    __slots__ = ("_total", "count")

    def __init__(self) -> None:
        self.count = self._total = 0

    def add(self, digest: object, count: int = 1) -> None:
        """Count a row, or several with this XOR; damage may have left anything in the place of a digest."""
        self.count += count
        if type(digest) is bytes and len(digest) == len(NO_ROWS):
            self._total ^= int.from_bytes(digest)

    @property
    def xor(self) -> bytes:
        """The XOR of the digests."""
        return self._total.to_bytes(len(NO_ROWS))


def xor_of(digests: Iterable[bytes | None], start: bytes = NO_ROWS) -> bytes:
    """Return the XOR of the digests. What damage has put in the place of a digest is skipped."""
    total = int.from_bytes(start)
    for digest in digests:
        if type(digest) is bytes and len(digest) == len(NO_ROWS):
            total ^= int.from_bytes(digest)
    return total.to_bytes(len(NO_ROWS))


read_task = msgspec.json.Decoder(Task).decode
read_run = msgspec.json.Decoder(Run).decode
read_request = msgspec.json.Decoder(RunRequest).decode
read_letter = msgspec.json.Decoder(DeadLetter).decode
read_republish = msgspec.json.Decoder(Republish).decode
read_refusal = msgspec.json.Decoder(Refusal).decode
read_failed = msgspec.json.Decoder(tuple[FailedAggregate, ...]).decode

_read_definition = msgspec.json.Decoder(Definition).decode


def failures_of(count: int, kept: bytes | str | None) -> Failures:
    """Return the failures of a task, of which `kept` are the first; there are none where the count is 0."""
    return Failures(count=count, kept=read_failed(kept)) if count and kept is not None else NO_FAILURES


def metric_columns(metric: Metric) -> tuple[str, int, str, int, int, str, str, int]:
    """Return the columns of a version of a metric, over which its digest is: name, version, definition, when it was
    applied, the scale of its values, by whom it was applied, and why; 1 if it is retired, else 0."""
    definition = msgspec.json.encode(metric.definition).decode()
    why = metric.actor, metric.reason, int(metric.retired)
    return metric.name, metric.version, definition, metric.applied_at, metric.scale, *why


def metric_of(
    version: int, definition: str, applied_at: int, scale: int, actor: str, reason: str, retired: int
) -> Metric:
    """Return the version of a metric that has these columns."""
    return Metric(
        definition=_read_definition(definition),
        version=version,
        applied_at=applied_at,
        scale=scale,
        actor=actor,
        reason=reason,
        retired=retired == 1,
    )


def all_versions(name: str, stored: Iterable[Metric]) -> list[Metric]:
    """Return every version of a metric, given those that are stored: a built-in one is not among them."""
    return [*([EVENT_COUNT] if name == EVENT_COUNT.name else []), *stored]


def latest_versions(stored: Iterable[Metric]) -> list[Metric]:
    """Return the latest version of each metric by name, given all that are stored, the versions in order."""
    newest = {EVENT_COUNT.name: EVENT_COUNT} | {metric.name: metric for metric in stored}
    return [newest[name] for name in sorted(newest)]

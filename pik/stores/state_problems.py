"""How a damaged state is described: the same words for every store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pik.ports.state_audit import StateProblem

PROMOTE, ROLLBACK = "promote", "rollback"

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
        old, new = (base, run_id) if kind == PROMOTE else (run_id, base)
        last = new
        if now == old:
            now = new
    return now, last


def is_explained(now: str | None, bases: Mapping[str, str | None], moves: Iterable[tuple[str, str]]) -> bool:
    """Whether promotions left the pointer there. A version that was computed after the pointer had been lost, and was
    promoted last, has mended it."""
    expected, last = expected_pointer(bases, moves)
    return now == expected or (now is not None and now == last)

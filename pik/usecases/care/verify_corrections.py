"""Verify: corrections and their lists, and what cannot be proven while one of them cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import groupby
from time import time_ns

from pik.errors import Damaged, StoreError, number_of
from pik.model.aggregate import Aggregate
from pik.model.correction import Correction, CorrectionKind, CorrectionList
from pik.model.instant import DAY, SECOND, day_of, day_text, display_instant
from pik.model.metric import Metric, entities_of
from pik.model.window import Window
from pik.ports.raw import RawKey, RawKind
from pik.rawlog.corrections import read_correction, read_winners, without_frames
from pik.rawlog.sealed_records import parts
from pik.usecases.care.verify_findings import Problem, ProblemKind, entity_ranges
from pik.usecases.care.verify_run import UnreadableCorrection, Verification
from pik.usecases.metrics.winners import Winners
from pik.usecases.pull.corrections import is_pulled

RECENT = 60 * SECOND
"""Age up to which a correction that the index does not follow may be one that is being recorded."""

_NOT_PROVABLE = "values that were computed with it cannot be proven"


def correction_problems(run: Verification) -> Iterator[Problem]:
    """Check each correction that is in raw or that the index follows, and its lists; a quick verification looks at
    presence and sizes only."""
    followed: Mapping[str, Correction] | None = None
    try:
        followed = {one.correction_id: one for one in run.store.corrections.recorded()}
    except StoreError as error:
        run.knows_corrections = False
        yield Problem(ProblemKind.INDEX, "the corrections that the index follows", error.message)
    sizes = {found.key: found.size for found in run.store.raw.objects(RawKind.CORRECTION)}
    names = [name for name in map(RawKey.parse, sizes) if name is not None]
    ids = {name.id for name in names if name.kind is RawKind.CORRECTION}
    listed: set[str] = set()
    for correction_id in sorted(ids.union(followed or ())):
        key = RawKind.CORRECTION.key(correction_id)
        row = None if followed is None else followed.get(correction_id)
        found, problem = _checked(run, key, row, is_there=key in sizes)
        if problem is not None:
            run.unreadable += [UnreadableCorrection(row, _days_under(run, row))] if row is not None else []
            yield problem
        elif found is not None and followed is not None and row is None:
            if not ids.union(followed).issuperset(found.group):
                run.counts["in_progress" if _is_recent(found) else "unacknowledged"] += 1
                continue
            yield from _not_followed(run, key, found)
        if known := found or row:
            listed.update(one.key for one in known.lists)
            for one in known.lists:
                yield from _list_problems(run, known, one, sizes.get(one.key))
    # Others were left by a process that was killed, or their correction is about to come.
    run.counts["unacknowledged"] += sum(name.kind is RawKind.LIST and str(name) not in listed for name in names)


def _not_followed(run: Verification, key: str, found: Correction) -> Iterator[Problem]:
    if _is_recent(found):
        run.counts["in_progress"] += 1
        return
    detail = f"the index does not follow {_described(found)}; recording another correction, or a rebuild, mends that"
    yield Problem(ProblemKind.INDEX, key, detail)


def _is_recent(correction: Correction) -> bool:
    return time_ns() - correction.recorded_at < RECENT


def _checked(
    run: Verification, key: str, row: Correction | None, *, is_there: bool
) -> tuple[Correction | None, Problem | None]:
    """Return the correction as raw has it, and what is wrong with it."""
    if not is_there:
        assert row is not None
        return None, Problem(ProblemKind.MISSING, key, f"the index follows {_described(row)}; {_NOT_PROVABLE}")
    if run.quick:
        return row, None
    try:
        found = read_correction(run.store.raw, key)
        if found.kind is CorrectionKind.VERDICT:
            for _ in read_winners(run.store.raw, key):
                pass
    except Damaged as error:
        under = f": {_described(row)}; {_NOT_PROVABLE}" if row else ""
        return None, Problem(ProblemKind.of(error), key, f"{error.message}{under}")
    if row is not None and without_frames(found) != row:
        detail = f"the index follows something else in its place: {_described(row)}; it says {_described(found)}"
        return found, Problem(ProblemKind.INDEX, key, detail)
    return found, None


def _list_problems(
    run: Verification, correction: Correction, listed: CorrectionList, size: int | None
) -> Iterator[Problem]:
    if not any(map(run.includes, _days_of(listed))):
        return
    if size is None and run.store.copy is not None and not is_pulled(correction, listed, parts(run.store)):
        return
    if size is None:
        kind, detail = ProblemKind.MISSING, "it is not there"
    elif size != listed.size:
        kind, detail = ProblemKind.MODIFIED, f"it has {size} bytes instead of {listed.size}"
    elif not run.quick and (found := _damage_of(run, listed)) is not None:
        kind, detail = found
    else:
        return
    run.unreadable.append(UnreadableCorrection(correction, _days_of(listed), listed.frames))
    first, last = display_instant(listed.first_event), display_instant(listed.last_event)
    number = number_of(listed.deliveries, "delivery")
    under = f"{number} that happened from {first} to {last} according to {_described(correction)}"
    entities = entity_ranges(listed.frames) if listed.frames else ()
    yield Problem(kind, listed.key, f"{detail}; it lists {under}; {_NOT_PROVABLE}", day_text(listed.day), entities)


def _damage_of(run: Verification, listed: CorrectionList) -> tuple[ProblemKind, str] | None:
    """Return what is wrong with the bytes of a list; None: nothing."""
    try:
        is_same = sha256(run.store.raw.read(listed.key)).hexdigest() == listed.digest
    except Damaged as error:
        return ProblemKind.of(error), error.message
    return None if is_same else (ProblemKind.MODIFIED, "its SHA-256 differs")


def _described(correction: Correction) -> str:
    """Return what a correction says, who recorded it and why."""
    what = correction.statement or correction.kind
    by = f" by {correction.actor}" if correction.actor else ""
    days = sorted({one.day for one in correction.lists})
    of = f", {number_of(correction.events, 'event')}" if correction.events else ""
    if days:
        of += f" received on {day_text(days[0])}" + (f" … {day_text(days[-1])}" if len(days) > 1 else "")
    return f"{what}{by} ({correction.reason}{of})"


def _days_of(listed: CorrectionList) -> set[int]:
    """Return the days on which a list's deliveries were received, or happened according to the correction."""
    return {listed.day, *range(day_of(listed.first_event), day_of(listed.last_event) + 1)}


def _days_under(run: Verification, correction: Correction) -> set[int]:
    """Return the days of all deliveries that a correction is about."""
    days = set().union(*map(_days_of, correction.lists))
    batch = run.find_batch(correction.batch_id) if correction.batch_id else None
    if batch is not None and batch.first_event is not None and batch.last_event is not None:
        days.update(range(day_of(batch.first_event), day_of(batch.last_event) + 1))
    return days


def values_under(run: Verification, metric: Metric, winners: Winners) -> Iterator[Problem]:
    """Yield the current values of a metric that were computed with a correction that cannot be read; of others in the
    same buckets, which are not checked, how many there are."""
    others = 0
    days = {day for one in run.unreadable for day in one.days if run.includes(day)}
    buckets = {day for window in windows_of(days) for day in _days_in(metric.buckets.widened(window))}
    for window in windows_of(buckets):
        for current in run.store.aggregates.current(metric.name, window):
            row = current.computed
            touched = _days_in(metric.buckets.around(row.bucket))
            under = [one for one in run.unreadable if not one.days.isdisjoint(touched)]
            names = [one.correction.correction_id for one in under if _may_concern(one, current, winners)]
            if not names:
                others += 1
                continue
            run.counts.update(not_proven=1, unproven=1)
            run.aggregates = (run.aggregates or 0) + 1
            detail = f"it was computed with correction {', '.join(dict.fromkeys(names))}, which cannot be read"
            of_run, day = f"{metric.name} of run {current.run_id}", day_text(row.bucket // DAY)
            yield Problem(ProblemKind.UNPROVEN, of_run, detail, day, entities_of(row.entity_id))
    if others:
        detail = f"not checked in the same buckets: {number_of(others, 'other value')}"
        yield Problem(ProblemKind.UNCERTAIN, metric.name, detail)


def _days_in(window: Window) -> range:
    first, last = window.days
    return range(first, last + 1)


def _may_concern(unreadable: UnreadableCorrection, current: Aggregate, winners: Winners) -> bool:
    """Return whether a value was computed with a correction, as far as can be told."""
    planned = winners.planned(current.run_id)
    if current.file_digest is not None or planned < unreadable.correction.recorded_at:
        return False
    names = entities_of(current.computed.entity_id)
    return not unreadable.frames or not names or any(one.first <= names[0] <= one.last for one in unreadable.frames)


def windows_of(days: Iterable[int]) -> Iterator[Window]:
    """Yield windows that cover these days and no others."""
    for _, group in groupby(enumerate(sorted(set(days))), key=lambda numbered: numbered[1] - numbered[0]):
        adjacent = [day for _, day in group]
        yield Window(adjacent[0] * DAY, (adjacent[-1] + 1) * DAY)

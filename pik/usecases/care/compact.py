"""`pik compact`: making a store that has grown cheaper to read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from pik.model.instant import SECOND
from pik.model.window import ALL_TIME, Window
from pik.ports.compaction import Compaction, Packed
from pik.ports.store import Store, expect_unsealed
from pik.runtime import Progress, showing

SETTLED_AFTER = 600 * SECOND
"""Nanoseconds after which what began is left alone by its writer, as a rule. What is not, is compacted later."""

_REASONS = 10


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What was compacted, or could be. Unless the store `is_compacted` at all there is nothing to do. `batches` are
    those whose counts became part of the totals, `packed` the segments of these `days`. If it `is_unfinished`, it
    stopped before the end."""

    is_compacted: bool
    batches: int = 0
    days: int = 0
    packed: Packed = Packed()  # noqa: RUF009 - frozen
    is_unfinished: bool = False


def compact(
    store: Store,
    progress: Progress,
    window: Window = ALL_TIME,
    *,
    dry_run: bool = False,
    goes_on: Callable[[], bool] = lambda: True,
) -> CompactReport:
    """Compact what was recorded until some minutes ago: the totals, and the segments of the days that the window
    touches. It may end at any moment, and stops between two steps when `goes_on` returns False; the next call
    continues. Raises StoreError, Busy."""
    expect_unsealed(store)
    compaction, before = store.compaction, time.time_ns() - SETTLED_AFTER
    if compaction is None:
        return CompactReport(is_compacted=False)
    if dry_run:
        return _possible(compaction, window, before)
    report = CompactReport(is_compacted=True)
    with compaction.compacting(), showing(progress, "compacting", None, "segments"):
        for step in chain(_sum_up(compaction, before), _pack(compaction, window, before)):
            report = _added(report, step)
            progress.advance(step.packed.segments)
            if not goes_on():
                return replace(report, is_unfinished=True)
    return report


def _possible(compaction: Compaction, window: Window, before: int) -> CompactReport:
    found = [compaction.waiting(day, before) for day in compaction.days(*window.days)]
    packed = Packed(segments=sum(due for due, _ in found), young=sum(young for _, young in found))
    return CompactReport(True, compaction.countable(before), sum(due > 0 for due, _ in found), packed)


def _sum_up(compaction: Compaction, before: int) -> Iterator[CompactReport]:
    for batches in compaction.sum_up(before):
        yield CompactReport(True, batches)


def _pack(compaction: Compaction, window: Window, before: int) -> Iterator[CompactReport]:
    for day in compaction.days(*window.days):
        is_first = True
        for packed in compaction.pack(day, before):
            yield CompactReport(True, days=int(is_first and packed.segments > 0), packed=packed)
            is_first &= not packed.segments


def _added(report: CompactReport, step: CompactReport) -> CompactReport:
    one, other = report.packed, step.packed
    reasons = (*one.reasons, *other.reasons)[:_REASONS]
    left, young = one.left + other.left, one.young + other.young
    packed = Packed(one.segments + other.segments, one.size + other.size, left, reasons, young)
    return CompactReport(True, report.batches + step.batches, report.days + step.days, packed)

"""`pik compact`: making a store that has grown cheaper to read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pik.model.instant import SECOND
from pik.ports.store import Store, expect_unsealed
from pik.runtime import Progress, showing

SETTLED_AFTER = 600 * SECOND
"""Nanoseconds after which what began is left alone by its writer, as a rule. What is not, is compacted later."""


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What was compacted, or could be. Unless the store `is_compacted` at all there is nothing to do. `batches` are
    those whose counts became part of the totals. If it `is_unfinished`, it stopped before the end."""

    is_compacted: bool
    batches: int = 0
    is_unfinished: bool = False


def compact(
    store: Store, progress: Progress, *, dry_run: bool = False, goes_on: Callable[[], bool] = lambda: True
) -> CompactReport:
    """Compact what was recorded until some minutes ago. It may end at any moment, and stops between two steps when
    `goes_on` returns False; the next call continues. Raises StoreError, Busy."""
    expect_unsealed(store)
    compaction, before = store.compaction, time.time_ns() - SETTLED_AFTER
    if compaction is None:
        return CompactReport(is_compacted=False)
    if dry_run:
        return CompactReport(is_compacted=True, batches=compaction.countable(before))
    batches, is_unfinished = 0, False
    with compaction.compacting(), showing(progress, "summing up", None, "batches"):
        for count in compaction.sum_up(before):
            batches += count
            progress.advance(count)
            if not goes_on():
                is_unfinished = True
                break
    return CompactReport(True, batches, is_unfinished)

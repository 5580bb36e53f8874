"""The scheduled compaction of the stack's index."""

from __future__ import annotations

from typing import Any

from pik.errors import Busy
from pik.lambdas import logger
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.usecases.care.compact import compact

_LEFT = 60_000
"""Milliseconds before the function's end at which it begins nothing more: the next call continues."""


def compact_index(store: Store, context: Any, *, dry_run: bool) -> None:
    """Compact until there is nothing left, or little time. Raises StoreError; Lambda calls again."""
    try:
        done = compact(store, SILENT, dry_run=dry_run, goes_on=lambda: context.get_remaining_time_in_millis() > _LEFT)
    except Busy as error:  # which the next call finds ended
        logger.warning("not compacted", extra={"reason": error.message})
        return
    packed = done.packed
    extra = {"segments": packed.segments, "left": packed.left, "batches": done.batches, "all": not done.is_unfinished}
    log = logger.warning if done.is_unfinished or packed.left else logger.info
    log("dry run: would compact" if dry_run else "compacted", extra=extra)

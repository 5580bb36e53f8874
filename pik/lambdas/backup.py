"""The scheduled backup: the state of the stack, as an object in its own bucket."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from pik.lambdas import logger
from pik.model.instant import SECOND, format_instant
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.usecases.care.backup import backup

PREFIX = "backups/"


def back_up(store: Store, *, dry_run: bool) -> None:
    """Create an object that is a file of `pik backup`, named by the time. Raises StoreError, Busy; Lambda calls again,
    and then the record of a call that failed goes to the replay queue."""
    if dry_run:
        logger.info("dry run: no backup")
        return
    now = time.time_ns() // SECOND * SECOND
    key = f"{PREFIX}{format_instant(now)}.backup"
    with TemporaryDirectory() as directory:
        path = Path(directory) / "state.backup"
        done = backup(store, path, SILENT)
        store.raw.create(key, path.read_bytes())  # it fits the function's scratch space, which is less than its memory
    log = logger.warning if done.omitted else logger.info
    log("backed up", extra={"key": key, "rows": done.rows, "omitted": len(done.omitted), "digest": done.digest})

"""Opening and creating a local store."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from pik.errors import NotFound, StoreError
from pik.ports.store import Store
from pik.stores.local.aggregates import LocalAggregates
from pik.stores.local.audit import LocalAudit
from pik.stores.local.batches import LocalBatches
from pik.stores.local.index import LocalIndex, index_database
from pik.stores.local.metrics import LocalMetrics
from pik.stores.local.queue import LocalQueue
from pik.stores.local.raw import LocalRaw
from pik.stores.local.runs import LocalRuns
from pik.stores.local.state import state_database

_LEFT_BEHIND = 24 * 3600.0  # seconds

FORMAT = 1
"""The version of the layout and of everything in it; docs/format.md tells what changed with each."""


def open_local(path: Path, *, create: bool = False) -> Store:
    """The store in this directory. Raises NotFound unless there is one or `create` is set, StoreError if it cannot be
    used or has a newer format than this program knows."""
    path = path.absolute()
    marker = path / "format.json"
    if not marker.exists():
        if not create:
            raise NotFound(f"there is no store at {path}", hint="pik ingest FILE creates it; --store names another one")
        _create(path, marker)
    version = _format(marker)
    if version > FORMAT:
        raise StoreError(
            f"the store at {path} has format {version}; this pik reads up to format {FORMAT}",
            hint="pip install --upgrade pik",
        )
    if create:
        _sweep(path / "tmp")
    return _assemble(path, version)


def _create(path: Path, marker: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()) and not (path / "tmp").is_dir():
            raise StoreError(f"{path} is a directory with other things in it", hint="--store DIR, a new or empty one")
        (path / "tmp").mkdir(exist_ok=True)
        (path / "raw").mkdir(exist_ok=True)
        index_database(path).create()
        state_database(path).create()
        beside = path / "tmp" / f"format-{os.getpid()}.json"  # others may be creating the store as well
        beside.write_text(json.dumps({"format": FORMAT}) + "\n", encoding="ascii")
        beside.replace(marker)
    except OSError as error:
        raise StoreError(
            f"cannot create a store at {path}: {error.strerror}", hint="--store DIR, somewhere else"
        ) from None


def _sweep(directory: Path) -> None:
    """Remove what processes that were killed have left half-written. Nobody who lives writes one file for a day."""
    for leftover in directory.glob("*"):
        with suppress(OSError):  # another process may sweep as well
            if time.time() - leftover.stat().st_mtime > _LEFT_BEHIND:
                leftover.unlink()


def _format(marker: Path) -> int:
    try:
        version = json.loads(marker.read_text(encoding="ascii"))["format"]
    except OSError as error:
        raise StoreError(
            f"cannot read {marker}: {error.strerror}", hint="look at the permissions of its directory"
        ) from None
    except (ValueError, KeyError, TypeError):
        version = None
    if not isinstance(version, int):
        raise StoreError(f"{marker} does not say which format the store has", hint='it should say {"format": 1}')
    return version


def _assemble(path: Path, version: int) -> Store:
    locks = path / "locks"
    index = index_database(path)
    state = state_database(path)
    return Store(
        url=str(path),
        format_version=version,
        raw=LocalRaw(path),
        batches=LocalBatches(index, locks),
        index=LocalIndex(index, locks),
        audit=LocalAudit(index),
        metrics=LocalMetrics(state),
        runs=LocalRuns(state, locks),
        queue=LocalQueue(state),
        aggregates=LocalAggregates(state),
    )

"""Opening and creating a local store."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from pik.errors import NotFound, StoreError, command
from pik.ports.store import Store
from pik.runtime.spool import sync, sync_directory
from pik.stores.common import FORMAT, expect_format
from pik.stores.local.catalog.audit import LocalAudit
from pik.stores.local.catalog.batches import LocalBatches
from pik.stores.local.catalog.index import LocalIndex, index_database
from pik.stores.local.raw import LocalRaw
from pik.stores.local.state.aggregates import LocalAggregates
from pik.stores.local.state.audit import LocalStateAudit
from pik.stores.local.state.backup import LocalBackup
from pik.stores.local.state.database import LocalMetrics, state_database
from pik.stores.local.state.replica import LocalCopy
from pik.stores.local.state.runs import LocalQueue, LocalRuns

_MARKER = "format.json"
_LEFT_BEHIND = 24 * 3600.0  # seconds


class Marker(msgspec.Struct, frozen=True, omit_defaults=True):
    """format.json. `copy_of` is the URL of the store that this one is a copy of, if it is one."""

    format: int
    copy_of: str | None = None


def open_local(path: Path, *, create: bool = False) -> Store:
    """The store in this directory. Raises NotFound unless there is one or `create` is set, StoreError if it cannot be
    used or has another format than this program's."""
    path = path.absolute()
    if create:
        _create(path, Marker(FORMAT))
    marker = _marker(path)
    if create:
        _sweep(path / "tmp")
    return _assemble(path, marker)


def open_copy(path: Path, source: str, *, create: bool = True) -> Store:
    """The copy of the store `source` in this directory; `create` makes one that is not there yet. Raises as
    `open_local`, and StoreError if what is there is no copy, or one of another store."""
    path = path.absolute()
    if create:
        _create(path, Marker(FORMAT, source))
    marker = _marker(path)
    if marker.copy_of != source:
        what = f"a copy of {marker.copy_of}" if marker.copy_of else "no copy: it takes in events of its own"
        raise StoreError(f"the store at {path} is {what}", hint="--into a new directory")
    if create:
        _sweep(path / "tmp")
    return _assemble(path, marker)


def _create(path: Path, marker: Marker) -> None:
    """Make a store in the directory, unless there is one."""
    if (path / _MARKER).exists():
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()) and not (path / "tmp").is_dir():
            raise StoreError(f"{path} is a directory with other things in it", hint="--store DIR, a new or empty one")
        (path / "tmp").mkdir(exist_ok=True)
        (path / "raw").mkdir(exist_ok=True)
        index_database(path).create()
        state_database(path).create()
        beside = path / "tmp" / f"format-{os.getpid()}.json"  # others may be creating the store as well
        with open(beside, "wb") as file:
            file.write(msgspec.json.encode(marker) + b"\n")
            file.flush()
            sync(file.fileno())
        beside.replace(path / _MARKER)
        sync_directory(path)
        sync_directory(path.parent)
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


def _marker(path: Path) -> Marker:
    file = path / _MARKER
    try:
        marker = msgspec.json.decode(file.read_bytes(), type=Marker)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"no store at {path}", hint=f"to create an empty one there: {command('init', '--store', str(path))}"
        ) from None
    except OSError as error:
        raise StoreError(
            f"cannot read {file}: {error.strerror}", hint="look at the permissions of its directory"
        ) from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise StoreError(
            f"{file} does not say which format the store has", hint=f'it should say {{"format": {FORMAT}}}'
        ) from None
    expect_format(str(path), marker.format)
    return marker


def _assemble(path: Path, marker: Marker) -> Store:
    locks = path / "locks"
    index = index_database(path)
    state = state_database(path)
    return Store(
        url=str(path),
        format_version=marker.format,
        raw=LocalRaw(path),
        batches=LocalBatches(index, locks),
        index=LocalIndex(index, locks),
        audit=LocalAudit(index),
        metrics=LocalMetrics(state),
        runs=LocalRuns(state, locks),
        queue=LocalQueue(state),
        aggregates=LocalAggregates(state),
        backup=LocalBackup(state),
        state_audit=LocalStateAudit(state, copied=marker.copy_of is not None),
        copy=LocalCopy(marker.copy_of, state, locks) if marker.copy_of else None,
    )

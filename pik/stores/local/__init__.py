"""The local store: a directory with raw objects, and two SQLite files.

format.json   the version of the layout; what it is a copy of
raw/          immutable objects
index.db      what can be rebuilt from raw
state.db      metric definitions, runs, aggregates, promotions, republishes
locks         who is writing what; empty
partials/     partial values of runs that have not completed
tmp/          objects that are not whole yet
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from pik.errors import NotFound, StoreError, command
from pik.ports.index import unheard
from pik.ports.store import Store
from pik.rawlog.replacements import ReplacingRaw
from pik.runtime.storage import remedy, sync, sync_directory
from pik.stores import FORMAT, expect_format
from pik.stores.local.access import inherit, make_directory
from pik.stores.local.catalog.batches import LocalBatches
from pik.stores.local.catalog.corrections import LocalCorrections
from pik.stores.local.catalog.index import LocalIndex
from pik.stores.local.catalog.rebuild import LocalAudit
from pik.stores.local.catalog.tables import index_database
from pik.stores.local.partials import LocalPartials
from pik.stores.local.raw import LocalRaw
from pik.stores.local.state.aggregates import LocalAggregates
from pik.stores.local.state.assignments import LocalAssignments
from pik.stores.local.state.audit import LocalStateAudit
from pik.stores.local.state.backup import LocalBackup
from pik.stores.local.state.copy import LocalCopy
from pik.stores.local.state.idempotency_keys import LocalIdempotencyKeys
from pik.stores.local.state.metrics import LocalMetrics
from pik.stores.local.state.republishes import LocalRepublishes
from pik.stores.local.state.runs import LocalQueue, LocalRuns
from pik.stores.local.state.tables import state_database

_MARKER = "format.json"
_ABANDONED = 24 * 3600.0
"""Seconds after which a file in tmp/ was left by a process that was killed: none takes so long to write one."""


class Marker(msgspec.Struct, frozen=True, omit_defaults=True):
    """format.json. `copy_of` is the URL of the store that this one is a copy of, if it is one."""

    format: int
    copy_of: str | None = None


def open_local(path: Path, *, create: bool = False, waiting: Callable[[str], None] = unheard) -> Store:
    """Open the store in a directory; `waiting` is told of writers that are waited for. Raises NotFound unless it exists
    or `create` is set; StoreError if it cannot be used or has another format than this program's."""
    path = path.absolute()
    return _assemble(path, _marker(path, Marker(FORMAT) if create else None), waiting)


def open_copy(path: Path, source: str, *, create: bool = True) -> Store:
    """Open the copy of the store `source` in a directory; `create` makes one that is not there yet. Raises as
    `open_local`, and StoreError if the store is not a copy, or one of another store."""
    path = path.absolute()
    marker = _marker(path, Marker(FORMAT, source) if create else None)
    if marker.copy_of != source:
        what = f"a copy of {marker.copy_of}" if marker.copy_of else "not a copy: it ingests events itself"
        raise StoreError(f"the store at {path} is {what}", hint="--into a new directory")
    return _assemble(path, marker)


def _marker(path: Path, created: Marker | None) -> Marker:
    """Return the content of format.json. A store that does not exist is made with `created`."""
    if created is not None:
        _create(path, created)
    file = path / _MARKER
    try:
        marker = msgspec.json.decode(file.read_bytes(), type=Marker)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"no store at {path}",
            hint=f"another directory, or --store DIR? To create an empty one: {command('init', '--store', str(path))}",
        ) from None
    except OSError as error:
        raise StoreError(
            f"cannot read {file}: {error.strerror}", hint=remedy(error, "look at the permissions of its directory")
        ) from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise StoreError(
            f"{file} does not name the format of the store", hint=f'it should say {{"format": {FORMAT}}}'
        ) from None
    expect_format(str(path), marker.format)
    for leftover in (path / "tmp").glob("*") if created is not None else ():
        with suppress(OSError):  # another process may remove it as well
            if time.time() - leftover.stat().st_mtime > _ABANDONED:
                leftover.unlink()
    return marker


def _create(path: Path, marker: Marker) -> None:
    """Make a store in the directory, unless there is one."""
    if (path / _MARKER).exists():
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()) and not (path / "tmp").is_dir():
            raise StoreError(f"{path} is a directory with other things in it", hint="name a new or an empty one")
        make_directory(path / "tmp")
        make_directory(path / "raw")
        index_database(path).create()
        state_database(path).create()
        beside = path / "tmp" / f"format-{os.getpid()}.json"  # others may be creating the store as well
        with open(beside, "wb") as file:
            file.write(msgspec.json.encode(marker) + b"\n")
            file.flush()
            sync(file.fileno())
        inherit(beside, 0o666)
        beside.replace(path / _MARKER)
        sync_directory(path)
        sync_directory(path.parent)
    except FileExistsError:
        raise StoreError(f"{path} is a file, not a directory", hint="name a new or an empty directory") from None
    except OSError as error:
        raise StoreError(
            f"cannot create a store at {path}: {error.strerror}",
            hint=remedy(error, f"make room or get write access to {path.parent}, or name a directory somewhere else"),
        ) from None


def _assemble(path: Path, marker: Marker, waiting: Callable[[str], None] = unheard) -> Store:
    locks = path / "locks"
    index = index_database(path, waiting)
    state = state_database(path, waiting)
    batches, queue, aggregates = LocalBatches(index, locks), LocalQueue(state), LocalAggregates(state)
    reader = LocalIndex(index, locks)
    return Store(
        url=str(path),
        format_version=marker.format,
        raw=ReplacingRaw(LocalRaw(path)),
        batches=batches,
        requests=batches,
        index=reader,
        overview=reader,
        repeats=reader,
        assignments=LocalAssignments(state),
        audit=LocalAudit(index),
        corrections=LocalCorrections(index),
        metrics=LocalMetrics(state),
        runs=LocalRuns(state, locks),
        idempotency_keys=LocalIdempotencyKeys(state),
        queue=queue,
        dead_letters=queue,
        partials=LocalPartials(LocalRaw(path), path),
        aggregates=aggregates,
        promotions=aggregates,
        republishes=LocalRepublishes(state, locks),
        backup=LocalBackup(state, locks),
        state_audit=LocalStateAudit(state, copied=marker.copy_of is not None),
        copy=LocalCopy(marker.copy_of, state, locks) if marker.copy_of else None,
    )

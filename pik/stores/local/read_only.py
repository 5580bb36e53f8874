"""Reading a database where this process cannot write: a snapshot, a read-only mount, another user's, a full disk.

SQLite needs to write beside a database with a write-ahead log even to read it, unless its files are there already.
Where no log lies beside the database, nothing can be in it, and SQLite may take the file as it is (`immutable`); if the
file is written to meanwhile, the reader notices and gives up. Where a log lies there, ignoring it would silently lose
what was committed last, so database and log are copied and the copy is read.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from pathlib import Path

from pik.errors import Busy, StoreError

_TRIES = 5
_ROOM = 1 << 17
"""Bytes that SQLite may need beside a database that it only reads."""

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Changes when a database or its log is written to."""

_copies: dict[tuple[Path, Stamp], tuple[tempfile.TemporaryDirectory[str], Path]] = {}
"""The copies of this process, by what they are copies of, in directories that are removed when it ends."""
_guard = threading.Lock()


def is_read_only(path: Path) -> bool:
    """Return whether this process must not write beside the file."""
    return path.parent.is_dir() and not os.access(path.parent, os.W_OK)


def read_only_error(store: Path) -> StoreError:
    """Return the error for a store that would have to be written to."""
    return StoreError(
        f"the store at {store} is read-only",
        hint="commands that only read work on it; for a copy to work with: pik pull --into DIR",
    )


def is_full(path: Path) -> bool:
    """Return whether the disk has no room for what SQLite writes beside the file, even to read it."""
    try:
        found = os.statvfs(path.parent)
    except OSError:  # the directory is gone
        return False
    return found.f_bavail * found.f_frsize < _ROOM


def has_log(path: Path) -> bool:
    """Return whether a write-ahead log with anything in it lies beside the database."""
    try:
        return os.stat(_log(path)).st_size > 0
    except FileNotFoundError:
        return False


def private_copy(path: Path) -> Path:
    """Return a copy of the database with its log, one for each state that they have, removed when this process ends.

    Raises Busy if writing to it never pauses, StoreError if there is no room for the copy.
    """
    with _guard:
        for _ in range(_TRIES):
            before = stamp_of(path)
            if (path, before) in _copies:
                return _copies[path, before][1]
            directory, copy = _copied(path)
            if stamp_of(path) == before:
                _copies[path, before] = directory, copy
                return copy
    raise Busy(f"{path} is being written to", hint="run the same command again")


def _copied(path: Path) -> tuple[tempfile.TemporaryDirectory[str], Path]:
    try:
        directory = tempfile.TemporaryDirectory(prefix="pik-read-only-")
        copy = Path(directory.name) / path.name
        shutil.copyfile(path, copy)
        if has_log(path):
            shutil.copyfile(_log(path), _log(copy))
    except OSError as error:
        raise StoreError(
            f"cannot copy {path} to {tempfile.gettempdir()}: {error.strerror}",
            hint="the store is read-only, so its log is read from a copy; TMPDIR names a directory with room for it",
        ) from error
    return directory, copy


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def stamp_of(path: Path) -> Stamp:
    """Return the stamp of a database and its log."""
    stamps: list[tuple[int, int, int] | None] = []
    for file in (path, _log(path)):
        try:
            found = os.stat(file)
            stamps.append((found.st_ino, found.st_size, found.st_mtime_ns))
        except FileNotFoundError:
            stamps.append(None)
    return tuple(stamps)

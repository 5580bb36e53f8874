"""The write-ahead log beside a SQLite database, and copies of both, for whoever must not write beside them."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from tempfile import gettempdir

from pik.errors import Busy, StoreError
from pik.runtime.storage import PrivateDirectory

_TRIES = 5

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Changes when a database or its log is written to."""

_copies: dict[tuple[Path, Stamp], tuple[PrivateDirectory, Path]] = {}
"""The copies of this process, by what they are copies of, in directories that are removed when it ends."""
_guard = threading.Lock()


def has_log(path: Path) -> bool:
    """Return whether a write-ahead log with anything in it lies beside the database."""
    found = _stat(_log(path))
    return found is not None and found.st_size > 0


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


def _copied(path: Path) -> tuple[PrivateDirectory, Path]:
    try:
        directory = PrivateDirectory()
        copy = Path(directory.name) / path.name
        shutil.copyfile(path, copy)
        if has_log(path):
            shutil.copyfile(_log(path), _log(copy))
    except OSError as error:
        raise StoreError(
            f"cannot copy {path} to {gettempdir()}: {error.strerror}",
            hint="the store is read-only, so its log is read from a copy; TMPDIR names a directory with room for it",
        ) from error
    return directory, copy


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def stamp_of(path: Path) -> Stamp:
    """Return the stamp of a database and its log."""
    found = map(_stat, (path, _log(path)))
    return tuple(each and (each.st_ino, each.st_size, each.st_mtime_ns) for each in found)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:  # of any other error a log must not be taken for absent
        return None

"""Reading a database where this process cannot write: a snapshot, a read-only mount, another user's, a full disk.

SQLite needs to write beside a database with a write-ahead log even to read it, unless its files are there already.
Where no log lies beside the database, nothing can be in it, and SQLite may take the file as it is (`immutable`); should
somebody write meanwhile, the reader notices and gives up. Where a log lies there, ignoring it would silently lose what
was committed last, so database and log are copied and the copy is read.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from pathlib import Path
from urllib.parse import quote

from pik.errors import Busy, StoreError

_TRIES = 5
_ROOM = 1 << 17

_copies: dict[tuple[Path, object], Path] = {}
_directories: list[tempfile.TemporaryDirectory[str]] = []
"""Removed when the process ends."""
_guard = threading.Lock()

Stamp = tuple[tuple[int, int, int] | None, ...]
"""What shows that a database or its log has been written to."""


def is_read_only(path: Path) -> bool:
    """Whether this process must not write beside the file."""
    return path.parent.is_dir() and not os.access(path.parent, os.W_OK)


def is_full(path: Path) -> bool:
    """Whether the disk has no room for what SQLite writes beside the file, even to read it."""
    try:
        found = os.statvfs(path.parent)
    except OSError:  # the directory is gone
        return False
    return found.f_bavail * found.f_frsize < _ROOM


def has_log(path: Path) -> bool:
    """Whether a write-ahead log with anything in it lies beside the database."""
    try:
        return os.stat(_log(path)).st_size > 0
    except FileNotFoundError:
        return False


def immutable_url(path: Path) -> str:
    """The URL with which SQLite reads the file as it is, without a log and without locks."""
    return f"file:{quote(os.fsencode(path.absolute()))}?immutable=1"


def stamp(path: Path) -> Stamp:
    """The state of database and log; another one later means that somebody has written."""
    return _stamp(path), _stamp(_log(path))


def unchanged(path: Path, before: Stamp) -> None:
    """Raises Busy if somebody has written to the database since."""
    if stamp(path) != before:
        raise Busy(f"{path} was written to while it was being read", hint="run the same command again")


def private_copy(path: Path) -> Path:
    """A copy of the database with its log, one for each state that they have, removed when this process ends.

    Raises Busy while somebody keeps writing, StoreError if there is no room for it.
    """
    with _guard:
        for _ in range(_TRIES):
            before = stamp(path)
            if (path, before) in _copies:
                return _copies[path, before]
            copy = _copied(path)
            if stamp(path) == before:
                _copies[path, before] = copy
                return copy
    raise Busy(f"{path} is being written to", hint="run the same command again")


def _copied(path: Path) -> Path:
    try:
        directory = tempfile.TemporaryDirectory(prefix="pik-read-only-")
        _directories.append(directory)
        copy = Path(directory.name) / path.name
        shutil.copyfile(path, copy)
        if has_log(path):
            shutil.copyfile(_log(path), _log(copy))
    except OSError as error:
        raise StoreError(
            f"cannot copy {path} to {tempfile.gettempdir()}: {error.strerror}",
            hint="the store is read-only, so its log is read from a copy; TMPDIR names a directory with room for it",
        ) from error
    return copy


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns

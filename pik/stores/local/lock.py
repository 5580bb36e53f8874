"""Named locks that end with the process: POSIX record locks on one file, a byte for each name.

A file for each name, locked by `flock`, would do without the state below, but leave a file for each input ever
ingested, and be held by worker processes that outlive their parent for a moment.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep

from pik.errors import Busy, StoreError
from pik.runtime.storage import remedy
from pik.stores.local.access import make_file, read_only_error

_PATIENCE = 0.3  # seconds; testing whether a lock is held holds it for a moment

_guard = threading.Lock()
"""Guards everything below: the system does not keep the locks of one process apart, so this module must."""

_handles: dict[Path, int] = {}
"""Open lock files, one handle each: closing any handle of a file ends every lock that this process has on it."""

_mine: dict[tuple[Path, str], list[int]] = {}
"""The kinds in which this process holds each lock: one LOCK_EX, or any number of LOCK_SH."""

os.register_at_fork(after_in_child=_mine.clear)  # children do not inherit the locks


@contextmanager
def holding(path: Path, name: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock called `name` until the context ends or the process dies. Raises Busy if another process has it, or
    another part of this one; StoreError if the lock file cannot be used."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = monotonic() + _PATIENCE
    while not _acquire(path, name, kind):
        if monotonic() > deadline:
            raise Busy(f"another pik process is working on {name}", hint="wait until it has ended, then run this again")
        sleep(0.02)
    try:
        yield
    finally:
        _release(path, name, kind)


def held(path: Path, name: str, *, shared: bool = False) -> bool:
    """Return whether a living process holds the lock; with `shared`, so that it cannot be shared."""
    if not shared and (path, name) in _mine:
        return True
    if not path.exists():
        return False
    # An exclusive lock needs write access.
    kind = fcntl.LOCK_EX if not shared and os.access(path, os.W_OK) else fcntl.LOCK_SH
    if not _acquire(path, name, kind):
        return True
    _release(path, name, kind)
    return False


def _acquire(path: Path, name: str, kind: int) -> bool:
    with _guard:
        mine = _mine.get((path, name), [])
        if mine and (kind == fcntl.LOCK_EX or fcntl.LOCK_EX in mine):
            return False
        try:
            fcntl.lockf(_handle(path), kind | fcntl.LOCK_NB, 1, _byte(name))
        except (BlockingIOError, PermissionError):  # POSIX leaves the choice of the two
            return False
        except OSError as error:
            if error.errno == errno.EBADF:  # the file could only be opened for reading
                raise read_only_error(path.parent) from None
            raise StoreError(
                f"cannot lock {path}: {error.strerror}", hint="--store DIR, on a disk with locks"
            ) from None
        _mine[path, name] = [*mine, kind]
        return True


def _release(path: Path, name: str, kind: int) -> None:
    with _guard:
        mine = _mine[path, name]
        mine.remove(kind)
        if not mine:
            del _mine[path, name]
            fcntl.lockf(_handle(path), fcntl.LOCK_UN, 1, _byte(name))
        if not any(other == path for other, _ in _mine):
            os.close(_handles.pop(path))


def _handle(path: Path) -> int:
    if path not in _handles:
        try:
            make_file(path)
            _handles[path] = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM) or not os.access(path, os.R_OK):
                raise StoreError(
                    f"cannot use the lock file {path}: {error.strerror}",
                    hint=remedy(error, "look at the permissions of its directory"),
                ) from None
            _handles[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return _handles[path]


def _byte(name: str) -> int:
    return int.from_bytes(sha256(name.encode()).digest()[:7], "big")

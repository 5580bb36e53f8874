"""The hidden directory beside a target in which an export is made, and how its files get their names.

Whoever makes one holds a lock on it until done or dead. So the next export to the same target knows which of them a
killed process has left, and removes those.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pik.errors import UsageError

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


@contextmanager
def hidden_directory(target: Path) -> Iterator[Path]:
    """A new directory beside `target`, removed when the context ends. Raises OSError."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        handle = os.open(path, os.O_RDONLY)
        with suppress(OSError):  # a file system without such locks, where nobody sweeps
            fcntl.flock(handle, fcntl.LOCK_EX)
        if path.exists():  # somebody may have taken it for a dead one before it was locked
            break
        os.close(handle)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def sweep(target: Path) -> None:
    """Remove the hidden directories that killed processes have left beside `target`, and a file's manifest that one of
    them had shown already, the file itself not yet."""
    ours = re.compile(re.escape(_prefix(target)) + "[a-z0-9_]{8}")
    for path in target.parent.iterdir() if target.parent.is_dir() else ():
        if ours.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            with suppress(OSError), _dead(path):
                if not os.path.lexists(target):
                    _unshow(path, target)
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _dead(path: Path) -> Iterator[None]:
    """Holds the lock of a directory that nobody holds. Raises OSError if somebody does, or nobody could."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _unshow(path: Path, target: Path) -> None:
    for hidden in path.iterdir():
        shown = target.with_name(hidden.name)
        if hidden.is_file() and shown.exists() and shown.samefile(hidden):
            shown.unlink()


def show(hidden: Path, visible: Path) -> None:
    """Give what is hidden its name. Raises UsageError where another file has taken it meanwhile, OSError."""
    if hidden.is_dir():
        hidden.rename(visible)  # which replaces an empty directory and nothing else
        return
    try:
        try:
            os.link(hidden, visible)  # unlike rename, link never replaces
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.close(os.open(visible, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # take the name, and replace ourselves
            hidden.rename(visible)
    except FileExistsError:
        raise exists_already(visible) from None


def exists_already(path: Path) -> UsageError:
    """The error for a name that is taken."""
    return UsageError(f"{path} exists already", hint="--out another name; pik overwrites nothing")


def _prefix(target: Path) -> str:
    return f".{target.name}.pik-"

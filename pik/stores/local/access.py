"""Who may read and write what a store creates: those who may do so with the directory that it lies in.

The members of a group can share a store. SQLite creates databases that only their owner may write to, and the umask is
that of whoever happens to be the first to write on a day; so neither decides, but the directory of the store.
"""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE

from pik.errors import StoreError


def make_directory(path: Path) -> None:
    """Make a directory and those above it, unless they are there. Raises OSError."""
    if path.is_dir():
        return
    make_directory(path.parent)
    with suppress(FileExistsError):  # another process was faster
        path.mkdir()
        inherit(path, 0o777)


def make_file(path: Path) -> None:
    """Make an empty file, unless it is there. Raises OSError."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        inherit(path, 0o666)


def inherit(path: Path, most: int) -> None:
    """Give what was just created the permissions of its directory, limited to the bits `most`. Raises OSError."""
    wanted, mode = os.stat(path.parent).st_mode & most, S_IMODE(os.stat(path).st_mode)
    if mode & 0o777 != wanted:
        os.chmod(path, mode & ~0o777 | wanted)


def is_read_only(path: Path) -> bool:
    """Return whether this process must not write to the file, or beside it."""
    if path.parent.is_dir() and not os.access(path.parent, os.W_OK):
        return True
    return path.exists() and not os.access(path, os.W_OK)


def expect_files(database: Path) -> None:
    """Raise StoreError if a directory stands in the place of the database, or of a file beside it."""
    for path in (database, *(database.with_name(database.name + end) for end in ("-wal", "-shm"))):
        if path.is_dir():
            aside = shlex.join(("mv", str(path), f"{path}.aside"))
            raise StoreError(f"{path} is a directory, not a file", hint=f"move it aside: {aside}")


def access_error(database: Path, error: Exception) -> StoreError:
    """Return the error for a database that SQLite cannot open. Raises as `expect_files`."""
    expect_files(database)
    if is_read_only(database):
        return read_only_error(database.parent)
    return StoreError(f"no access to {database}: {error}", hint="look at the permissions of the file and its directory")


def read_only_error(store: Path) -> StoreError:
    """Return the error for a store that would have to be written to."""
    return StoreError(
        f"the store at {store} is read-only",
        hint="commands that only read work on it; for a copy to work with: pik pull --into DIR",
    )

"""Files that a command writes where its user said: each is there whole and durable, or it is not there.

They are written beside their place, under a hidden name, and get theirs at the end. A process that is killed leaves the
hidden file; the next one that writes to the same place removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom, FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from pik.errors import StoreError, UsageError
from pik.runtime.storage import sync, sync_directory

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


def expect_new(path: Path, option: str = "") -> None:
    """Raise UsageError if there is something of that name, or no directory that it would be in; `option` is what the
    user named it with."""
    if path == Path("-"):
        raise UsageError(
            f"{option or 'FILE'} -: it is written whole or not at all, so not to standard output", hint="name a file"
        )
    if path.exists() or path.is_symlink():
        raise _exists(path, option)
    expect_directory(path, f"{option} {path}: " if option else "")


def expect_directory(path: Path, before: str = "") -> None:
    """Raise UsageError unless the directory is there that the file would be in; the message begins with `before`."""
    parent = path.parent
    if parent.is_dir():
        return
    there = next((one for one in (parent, *parent.parents) if os.path.lexists(one)), None)
    if there is None or there.is_dir():
        hint = f"mkdir -p {shlex.quote(str(parent))}"
        raise UsageError(f"{before}there is no directory {str(parent)!r}", hint=hint)
    what = "a file, not a directory" if there.exists() else f"a link to {os.readlink(there)!r}, which is not there"
    raise UsageError(f"{before}{str(there)!r} is {what}", hint="name a place in a directory")


@contextmanager
def created_whole(path: Path, option: str = "", *, replace: bool = False) -> Iterator[BufferedRandom]:
    """Create a file outside of a store: it is there, whole and durable, when the context ends without an error, and
    otherwise nothing has changed. With `replace` it may take the place of another one. Raises UsageError if it exists
    or has no directory, StoreError if it cannot be written. Errors of other files pass through."""
    if not replace:
        expect_new(path, option)
    _remove_abandoned(path)
    with _translated(path, option):
        beside, file = _hidden(path)
    try:
        with _translated(path, option, beside), file:
            yield file
            with _translated(path, option):
                file.flush()
                sync(file.fileno())
                if replace:
                    os.replace(beside, path)
                    sync_directory(path.parent)
                else:
                    _publish(beside, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(beside)


def _publish(beside: Path, path: Path) -> None:
    take_name(beside, path)
    try:
        sync_directory(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def take_name(hidden: Path, visible: Path) -> None:
    """Give a hidden file its name, which nothing else has. Raises FileExistsError, OSError."""
    try:
        os.link(hidden, visible)  # unlike rename, link never replaces
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(visible, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # take the name, then replace that file
        hidden.rename(visible)


class _Named(FileIO):
    """A file whose errors name it: those of writing do not, and another file may be written in the same context."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.name) from None


def _hidden(path: Path) -> tuple[Path, BufferedRandom]:
    """Create the file beside the path. It is locked until it is closed, so that others know that it is being
    written."""
    while True:
        beside = path.with_name(f"{_prefix(path)}{secrets.token_hex(4)}")
        file = BufferedRandom(_Named(beside, "x+b"))
        with suppress(OSError):  # a file system without such locks, where nothing is ever removed
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        if beside.exists():  # it may have been taken for an abandoned one before it was locked
            return beside, file
        file.close()


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes have left beside the path."""
    ours = re.compile(re.escape(_prefix(path)) + "[0-9a-f]{8}")
    with suppress(OSError):
        for one in path.parent.iterdir():
            if ours.fullmatch(one.name) and one.is_file() and not one.is_symlink():
                with suppress(OSError), open(one, "rb") as file:
                    fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                    one.unlink()


def _prefix(path: Path) -> str:
    return f".{path.name}.pik-"


@contextmanager
def _translated(path: Path, option: str, only: Path | None = None) -> Iterator[None]:
    """Turn errors of the system into ours; with `only` those that name that file."""
    try:
        yield
    except FileExistsError:
        raise _exists(path, option) from None
    except OSError as error:
        if only is not None and error.filename != only:
            raise
        hint = "name a file in a directory that can be written to"
        if error.errno in _NO_ROOM:
            hint = (
                f"make room on the disk of {path.absolute().parent}, or name a file on another disk; then run it again"
            )
        raise StoreError(f"cannot write {str(path)!r}: {error.strerror or error}", hint=hint) from None


def _exists(path: Path, option: str) -> UsageError:
    return UsageError(
        f"{option or 'the file'} {str(path)!r} exists already",
        hint="give another name; an existing file is never overwritten",
    )

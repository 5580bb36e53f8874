"""Raw in a directory. Objects appear whole, and no object ever replaces another."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeVar

from pik.errors import AlreadyExists, Damaged, StoreError, Unreadable
from pik.ports.raw import Object, RawObject
from pik.runtime import exhaust
from pik.runtime.storage import (
    hint_for_room,
    is_exhausted,
    reading_failure,
    remedy,
    scratch,
    sort_bounded,
    sync,
    sync_directory,
)
from pik.stores import missing
from pik.stores.local.access import inherit, make_directory

_OPEN_FILES = 64
"""Objects that are written together: all their files are open, and some systems allow a process 256."""

_FEW_SYNCS = 4
"""So many syncs are done one after the other, more of them by threads."""

_SYNC_THREADS = 8

_Thing = TypeVar("_Thing")


@dataclass(frozen=True, slots=True)
class LocalRaw:
    """Objects below `root`, a key being a relative path. `root`/tmp is for files that are not whole yet."""

    root: Path

    def create(self, key: str, data: bytes) -> None:
        self.create_all([(key, data)])

    def create_all(self, objects: Sequence[Object]) -> None:
        """Files are synced several at a time, which the system does together, and directories once, after all files:
        those of the objects and all above, as another process may have made one and not have synced it yet."""
        key = objects[0][0] if objects else ""
        try:
            for directory in {(self.root / each).parent for each, _ in objects}:
                make_directory(directory)
            for begin in range(0, len(objects), _OPEN_FILES):
                self._create_some(objects[begin : begin + _OPEN_FILES])
            above = {parent for each, _ in objects for parent in PurePath(each).parents if parent.name}
            _sync_all(sync_directory, sorted(self.root / parent for parent in above))
        except OSError as error:
            others = "" if len(objects) == 1 else f" or one of {len(objects) - 1:,} more"
            room = hint_for_room(
                self.root, f"make room or get write access to {self.root}, then run the same command again"
            )
            raise StoreError(
                f"cannot write raw object {key}{others}: {error.strerror}", hint=remedy(error, room)
            ) from error

    def _create_some(self, objects: Sequence[Object]) -> None:
        with ExitStack() as leftovers:
            files = [self._write(data, leftovers) for _, data in objects]
            _sync_all(sync, [handle for _, handle in files])
            for (key, _), (path, _) in zip(objects, files, strict=True):
                try:
                    os.link(path, self.root / key)  # unlike rename, link never replaces
                except FileExistsError:
                    raise AlreadyExists(f"raw object {key} exists already; raw is never overwritten") from None

    def _write(self, data: bytes, leftovers: ExitStack) -> tuple[str, int]:
        """Write a new file, which stays open and is not synced yet; `leftovers` closes it and removes its name."""
        handle, path = tempfile.mkstemp(dir=self.root / "tmp")
        leftovers.callback(os.unlink, path)
        file = leftovers.enter_context(os.fdopen(handle, "wb"))
        file.write(data)
        file.flush()
        inherit(Path(path), 0o444)
        return path, handle

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        try:
            with open(self.root / key, "rb") as file:
                file.seek(offset)
                data = file.read() if length is None else file.read(length)
                short = len(data) < length if length is not None else os.fstat(file.fileno()).st_size < offset
        except OSError as error:
            raise self._failure(key, error) from None
        if short:
            raise Damaged(f"raw object {key} ends before byte {offset + (length or 0)}", hint="pik verify --full")
        return data

    def size(self, key: str) -> int | None:
        try:
            try:
                return os.stat(self.root / key).st_size
            except FileNotFoundError:
                return None
            except OSError:  # a link that leads back to itself
                return os.lstat(self.root / key).st_size
        except OSError as error:
            raise self._failure(key, error) from None

    def stored_digest(self, key: str) -> str | None:
        """A file system keeps no digests."""
        del key
        return None

    def objects(self, prefix: str) -> Iterator[RawObject]:
        folder = prefix[: prefix.rfind("/") + 1]
        directory = self.root / folder
        for name in sort_bounded(_names(directory), str):
            key = folder + name
            if name.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self.objects(key)
            elif key.startswith(prefix):
                with _listing(directory):
                    size = _size(directory / name)
                yield RawObject(key, size)

    @contextmanager
    def files(self, keys: Sequence[str]) -> Iterator[list[Path]]:
        with _named_in_utf8(self.root) as root:
            paths = [root / key for key in keys]
            for key, path in zip(keys, paths, strict=True):
                try:
                    open(path, "rb").close()
                except OSError as error:  # which DuckDB would tell in its own words
                    raise self._failure(key, error) from None
            yield paths

    def _failure(self, key: str, error: OSError) -> StoreError:
        """Return the error for an object that cannot be opened or read."""
        path = self.root / key
        if error.errno == errno.ENOENT and not path.is_symlink():
            return missing(key)
        reason, hint = reading_failure(path, error)
        if is_exhausted(error):  # which says nothing about the object
            return StoreError(f"cannot read raw object {key}: {reason}", hint=hint)
        return Unreadable(f"raw object {key}", reason, hint=hint)


@contextmanager
def _listing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason, hint = reading_failure(directory, error)
        raise Unreadable(f"directory {directory}", reason, hint=hint) from None


def _names(directory: Path) -> Iterator[str]:
    """Yield the names in a directory, in no order; those of directories end with a slash. Raises Unreadable."""
    with _listing(directory):
        if directory.is_dir():
            with os.scandir(directory) as entries:
                for entry in entries:
                    yield entry.name + "/" * _is_directory(entry)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def _size(path: Path) -> int:
    """Return the size of an object; of a link that leads nowhere, its own."""
    try:
        return path.stat().st_size
    except OSError:
        return path.lstat().st_size


@contextmanager
def _named_in_utf8(root: Path) -> Iterator[Path]:
    """Yield the directory by a name in UTF-8, which DuckDB requires: its own, or that of a link to it."""
    try:
        str(root.absolute()).encode()
    except UnicodeEncodeError:
        with scratch() as directory:
            link = directory / "store"
            link.symlink_to(root.absolute(), target_is_directory=True)
            yield link
    else:
        yield root


def _sync_all(sync_one: Callable[[_Thing], None], things: Sequence[_Thing]) -> None:
    """Sync files or directories. A file system commits at once what several threads request at the same time."""
    if len(things) <= _FEW_SYNCS:
        for thing in things:
            sync_one(thing)
        return
    from concurrent.futures import ThreadPoolExecutor  # imported late: most processes never write

    with ThreadPoolExecutor(_SYNC_THREADS) as threads:
        exhaust(threads.map(sync_one, things))

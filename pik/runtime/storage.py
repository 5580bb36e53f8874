"""What work with storage takes: items that do not fit into memory, and durable writes."""

from __future__ import annotations

import errno
import fcntl
import heapq
import os
import pickle
import re
import secrets
import shlex
import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import SpooledTemporaryFile, TemporaryDirectory, TemporaryFile, gettempdir
from time import time
from typing import IO, Any, Generic, TypeVar

import msgspec

from pik.errors import StoreError

Item = TypeVar("Item")

IN_MEMORY = 1 << 20
"""Bytes up to which a spool stays in memory."""

SORTED_IN_MEMORY = 50_000
"""Items that a sorter holds in memory."""

_MERGED = 64
"""Sorted files of about one size that are merged into one, so that few are open however many items there are."""


def remedy(error: OSError, otherwise: str) -> str:
    """Return the hint for an error of the system: `otherwise`, unless its number tells what is the matter."""
    found = _REMEDIES.get(error.errno or 0, otherwise)
    return found.replace("that path", repr(error.filename)) if isinstance(error.filename, str) else found


_REMEDIES = {
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE), "allow more open files, then run the same command again: ulimit -n 1024"
    ),
    errno.ELOOP: "a link in that path leads back to itself",
    errno.ENAMETOOLONG: "a name in that path is too long for the file system",
    errno.ENOTDIR: "a part of that path is a file, not a directory",
    errno.EIO: "the disk, or the connection to it, does not work",
}


def room_hint(error: OSError) -> str:
    """Return the hint for a disk that is full, where it is not known which one; empty for another error."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "make room (df shows which disk is full), then run the same command again" if is_full else ""


_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def is_exhausted(error: OSError) -> bool:
    """Return whether the process or the system lacks something, so that the error says nothing about the file."""
    return error.errno in _EXHAUSTED


def reading_failure(path: Path, error: OSError) -> tuple[str, str]:
    """Return why a file or directory cannot be read, in plain words, and the hint."""
    if error.errno in (errno.EACCES, errno.EPERM):
        closed = next((one for one in reversed(path.parents) if one.is_dir() and not os.access(one, os.X_OK)), path)
        place, letters = shlex.quote(str(closed)), "rx" if closed.is_dir() else "r"
        is_own = os.stat(closed).st_uid == os.geteuid()
        hint = f"chmod u+{letters} {place}" if is_own else f"ask its owner for the right to read: ls -ld {place}"
        return f"no permission to read {'it' if closed == path else closed}", hint
    if error.errno == errno.EISDIR:
        return "it is a directory, not a file", f"look at what is in it: ls -la {shlex.quote(str(path))}"
    if error.errno == errno.ENOENT and path.is_symlink():
        return f"it is a link to {str(path.readlink())!r}, which is not there", "put the file there again"
    return (error.strerror or str(error)).lower(), remedy(error, "")


class CarriedFile(type(Path())):  # type: ignore[misc]
    """The path of a file that is pickled with its content; where it is unpickled, it lies among the temporary files
    until it is not used any more."""

    def __reduce__(self) -> tuple[Callable[[bytes], CarriedFile], tuple[bytes]]:
        return _unpacked, (self.read_bytes(),)


def _unpacked(content: bytes) -> CarriedFile:
    with temporary_files():
        directory = PrivateDirectory()
        path = CarriedFile(directory.name, "carried")
        path.write_bytes(content)
    weakref.finalize(path, directory.cleanup)
    return path


class Spool(Generic[Item]):
    """Items of one type, kept in the order in which they were added, as JSON lines in a temporary file.

    It may be read any number of times, one reading at a time, once all items have been added. The file is gone when the
    spool is.
    """

    def __init__(self, kind: type[Item], items: Iterable[Item] = (), *, in_memory: int = IN_MEMORY) -> None:
        self._decode = msgspec.json.Decoder(kind).decode
        self._file = SpooledTemporaryFile(in_memory)  # noqa: SIM115 - closed with this object
        self._items = 0
        for item in items:
            self.add(item)

    def add(self, item: Item) -> None:
        """Append an item. Raises StoreError if there is no room for it."""
        with temporary_files():
            self._file.write(msgspec.json.encode(item) + b"\n")
        self._items += 1

    def __len__(self) -> int:
        return self._items

    def __iter__(self) -> Iterator[Item]:
        with temporary_files():
            self._file.seek(0)
        yield from map(self._decode, self._file)


class Sorter(Generic[Item]):
    """Collects items and yields them ordered by key, those with equal keys as they were added, with at most `in_memory`
    of them in memory: sorted runs go into temporary files, which are merged."""

    def __init__(self, key: Callable[[Item], Any], *, reverse: bool = False, in_memory: int | None = None) -> None:
        self._key, self._reverse, self._in_memory = key, reverse, in_memory or SORTED_IN_MEMORY
        self._held: list[Item] = []
        self._runs: list[tuple[int, IO[bytes]]] = []  # how often each was merged, never rising, and its file

    def add(self, item: Item) -> None:
        """Add an item. Raises StoreError if there is no room for it."""
        self._held.append(item)
        if len(self._held) < self._in_memory:
            return
        self._held.sort(key=self._key, reverse=self._reverse)
        self._write(0, self._held)
        self._held = []
        while len(self._runs) >= _MERGED and self._runs[-_MERGED][0] == self._runs[-1][0]:
            times, merged = self._runs[-1][0], self._runs[-_MERGED:]
            self._runs[-_MERGED:] = []
            self._write(times + 1, self._merge([_unpickled(run) for _, run in merged]))

    def __iter__(self) -> Iterator[Item]:
        self._held.sort(key=self._key, reverse=self._reverse)
        yield from self._merge([*(_unpickled(run) for _, run in self._runs), self._held])

    def _merge(self, runs: Iterable[Iterable[Item]]) -> Iterator[Item]:
        return heapq.merge(*runs, key=self._key, reverse=self._reverse)

    def _write(self, times: int, items: Iterable[Item]) -> None:
        with temporary_files():
            run = TemporaryFile()  # noqa: SIM115 - closed with this object
            for each in items:
                pickle.dump(each, run, pickle.HIGHEST_PROTOCOL)
        self._runs.append((times, run))


class SortedBytes:
    """Collects byte strings of one length, and yields them in order. Each is kept with those that begin alike, in
    temporary files where there are many, and these are sorted together: for digests, whose first bytes differ."""

    def __init__(self, length: int, in_memory: int = IN_MEMORY) -> None:
        self._length, self._in_memory = length, in_memory
        self._parts = [SpooledTemporaryFile(in_memory >> 1) for _ in range(_PARTS)]  # noqa: SIM115 - closed with this object

    def add(self, items: Iterable[bytes]) -> None:
        """Add items. Raises StoreError if there is no room for them."""
        parts: list[list[bytes]] = [[] for _ in self._parts]
        for item in items:
            parts[item[0] % _PARTS].append(item)
        with temporary_files():
            for part, file in zip(parts, self._parts, strict=True):
                if part:
                    file.write(b"".join(part))

    def __iter__(self) -> Iterator[bytes]:
        """Yield them: those that begin alike follow each other in order."""
        for file in self._parts:
            with temporary_files():
                size = file.tell()
                file.seek(0)
            if size <= self._length * _TOGETHER:
                yield from sorted(self._read(file))
            else:
                yield from sort_bounded(self._read(file), bytes)
            file.seek(0, os.SEEK_END)

    def _read(self, file: IO[bytes]) -> Iterator[bytes]:
        with temporary_files():
            while data := file.read(self._length << 10):
                yield from (data[at : at + self._length] for at in range(0, len(data), self._length))


_PARTS = 64
"""Files of sorted bytes."""

_TOGETHER = 1_000_000
"""Byte strings that are sorted in memory."""


def sort_bounded(items: Iterable[Item], key: Callable[[Item], Any]) -> Iterator[Item]:
    """Yield the items ordered by key, with at most SORTED_IN_MEMORY of them in memory."""
    sorter = Sorter(key)
    for item in items:
        sorter.add(item)
    yield from sorter


def _unpickled(file: IO[bytes]) -> Iterator[Any]:
    with temporary_files():
        file.seek(0)
    while True:
        try:
            yield pickle.load(file)
        except EOFError:
            return


class PrivateDirectory(TemporaryDirectory[str]):
    """A private directory for temporary files, removed when it is not used any more or the process ends. What a killed
    process left, the first one of a later process removes: nothing holds the lock on it. Raises OSError."""

    def __init__(self) -> None:
        _remove_abandoned(gettempdir())
        super().__init__(prefix=f"{_PREFIX}{secrets.token_hex(8)}-", ignore_cleanup_errors=True)
        handle = os.open(self.name, os.O_RDONLY)
        weakref.finalize(self, os.close, handle)
        with suppress(OSError):  # a file system without such locks, where nothing is ever removed
            fcntl.flock(handle, fcntl.LOCK_EX)


_PREFIX = f"pik-tmp-{sha256(os.uname().nodename.encode()).hexdigest()[:8]}-"
"""Begins the names of this host's: whether another host holds a lock shows on some file systems only there."""

_ABANDONED = re.compile(f"{_PREFIX}[0-9a-f]{{16}}-[a-z0-9_]{{8}}")

_LOCKED_AFTER = 60
"""Seconds after which a directory is locked, if its process lives."""


@cache
def _remove_abandoned(directory: str) -> None:
    """Remove the private directories of processes that were killed."""
    with suppress(OSError), os.scandir(directory) as entries:
        for one in entries:
            with suppress(OSError):
                if _ABANDONED.fullmatch(one.name) and one.stat().st_mtime < time() - _LOCKED_AFTER:
                    _remove_unlocked(one.path)


def _remove_unlocked(path: str) -> None:
    """Remove a directory, unless a process holds its lock, which raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(handle)


def hint_for_room(path: Path, otherwise: str) -> str:
    """Return the hint for a disk that has no room for this file: `otherwise`, unless it is a temporary one, which the
    user did not name and which is gone by now."""
    return _ROOM if any(part.startswith(_PREFIX) for part in path.parts) else otherwise


_ROOM = "free space there, or set TMPDIR to another directory"


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a private directory for temporary files, removed when the context ends. Raises StoreError, also for errors
    inside that name no other file."""
    with temporary_files(), temporary_directory() as directory:
        yield directory


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Yield a private directory, removed when the context ends. Raises StoreError if it cannot be made."""
    with temporary_files():
        made = PrivateDirectory()
    with made as directory:
        yield Path(directory)


@contextmanager
def temporary_files() -> Iterator[None]:
    """Turn errors of writing temporary files into StoreError, with what to do."""
    try:
        yield
    except BrokenPipeError:  # whatever reads the output stopped reading
        raise
    except OSError as error:
        if error.filename and not str(error.filename).startswith(gettempdir()):
            raise
        what = f"cannot use the directory for temporary files: {error.strerror}"
        raise StoreError(what, hint=_ROOM) from error


_NO_FULLFSYNC = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY}
"""Errors of file systems without F_FULLFSYNC, such as network ones."""


def sync(handle: int) -> None:
    """Write an open file through to the disk. macOS' fsync leaves it in the disk's cache; F_FULLFSYNC does not.

    Raises OSError.
    """
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            fcntl.fcntl(handle, full)
            return
        except OSError as error:
            if error.errno not in _NO_FULLFSYNC:
                raise
    os.fsync(handle)


def sync_directory(directory: Path) -> None:
    """Write the names in a directory through to the disk. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        sync(handle)
    finally:
        os.close(handle)

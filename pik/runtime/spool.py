"""What memory should not hold, kept in temporary files, in order or sorted; and durable writes."""

from __future__ import annotations

import errno
import fcntl
import heapq
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import IO, Any, Generic, TypeVar

import msgspec

from pik.errors import StoreError

Item = TypeVar("Item")

IN_MEMORY = 1 << 20
"""Bytes up to which a spool stays in memory."""

SORTED_IN_MEMORY = 50_000
"""Items that a sorter holds in memory."""


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
        with _translated():
            self._file.write(msgspec.json.encode(item) + b"\n")
        self._items += 1

    def __len__(self) -> int:
        return self._items

    def __iter__(self) -> Iterator[Item]:
        with _translated():
            self._file.seek(0)
        yield from map(self._decode, self._file)


class Sorter(Generic[Item]):
    """Collects items and yields them ordered by key, with at most `in_memory` of them in memory: sorted runs go into
    temporary files, which are merged."""

    def __init__(self, key: Callable[[Item], Any], *, reverse: bool = False, in_memory: int | None = None) -> None:
        self._key, self._reverse, self._in_memory = key, reverse, in_memory or SORTED_IN_MEMORY
        self._held: list[Item] = []
        self._runs: list[IO[bytes]] = []

    def add(self, item: Item) -> None:
        """Add an item. Raises StoreError if there is no room for it."""
        self._held.append(item)
        if len(self._held) < self._in_memory:
            return
        self._held.sort(key=self._key, reverse=self._reverse)
        with _translated():
            self._runs.append(TemporaryFile())  # noqa: SIM115 - closed with this object
            for each in self._held:
                pickle.dump(each, self._runs[-1], pickle.HIGHEST_PROTOCOL)
        self._held = []

    def __iter__(self) -> Iterator[Item]:
        self._held.sort(key=self._key, reverse=self._reverse)
        runs: list[Iterable[Item]] = [_unpickled(run) for run in self._runs]
        yield from heapq.merge(*runs, self._held, key=self._key, reverse=self._reverse)


def sort_bounded(items: Iterable[Item], key: Callable[[Item], Any]) -> Iterator[Item]:
    """Yield the items ordered by key, with at most SORTED_IN_MEMORY of them in memory."""
    sorter = Sorter(key)
    for item in items:
        sorter.add(item)
    yield from sorter


def _unpickled(file: IO[bytes]) -> Iterator[Any]:
    with _translated():
        file.seek(0)
    while True:
        try:
            yield pickle.load(file)
        except EOFError:
            return


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot use the directory for temporary files: {error.strerror}") from error


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

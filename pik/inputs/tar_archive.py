"""The files of a tar archive, in one pass over a stream."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from pik.errors import InputError

BLOCK = tarfile.BLOCKSIZE
"""Bytes by which a tar archive is recognized."""

_HEADER = 1 << 20
"""Most bytes of a header, a long name and its attributes: more is not held in memory."""

_DAMAGED = (tarfile.TarError, ValueError, OverflowError, RecursionError)


class TarEntry(NamedTuple):
    """An entry of the archive: `what` it is, if not a file, and where its data begins. `read` returns the next bytes of
    it, until the next entry is asked for."""

    name: str
    what: str
    size: int
    offset: int
    read: Callable[[int], bytes]


def is_tar(head: bytes) -> bool:
    """Return whether an archive begins so: with a header whose checksum is right. NUL bytes fill up every header."""
    if b"\0" not in head[:BLOCK]:
        return False
    with suppress(tarfile.TarError):
        tarfile.TarInfo.frombuf(head[:BLOCK], "utf-8", "surrogateescape")
        return True
    return False


def tar_entries(stream: io.BufferedReader, name: str, hint: str) -> Iterator[TarEntry]:
    """Yield the entries of an archive, but not its directories, and of those that follow it in the stream.

    Raises InputError, after the entries before that, where it is damaged or ends without the mark of its end, and where
    something else follows it. `hint` is that of the error.
    """
    forward = _Forward(stream, lambda why: InputError(f"{name} cannot be read to its end: {why}", hint=hint))
    while True:
        yield from _entries(forward)
        if not forward.ends_with_zeros():
            raise forward.error("the archive is cut" if forward.is_at_end() else "it is damaged")
        if not forward.find_next():
            return


def _entries(forward: _Forward) -> Iterator[TarEntry]:
    try:
        archive = tarfile.TarFile(fileobj=forward, errors="surrogateescape", encoding="utf-8")  # type: ignore[arg-type]
        while (entry := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep all
            if entry.isdir():
                continue
            name = os.fsencode(entry.name).decode(errors="backslashreplace")
            what = "" if entry.isreg() else "link" if entry.issym() or entry.islnk() else "special file"
            if entry.issparse():
                what = "sparse file"
            if entry.size < 0:
                raise tarfile.ReadError("a size is negative")
            yield TarEntry(name, what, entry.size, forward.tell(), forward.data)
    except _DAMAGED as error:
        raise forward.error(f"{error}") from None


class _Forward:
    """A stream for tarfile, which moves forward only. It remembers the last block: that shows how an archive ends."""

    def __init__(self, stream: io.BufferedReader, error: Callable[[str], InputError]) -> None:
        self._stream, self.error = stream, error
        self._position = 0
        self._pushed = self._last = b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        """Return what tarfile asks for: headers."""
        if size > _HEADER:
            raise self.error(f"it has a header of {size:,} bytes")
        self._last = self.data(size)
        return self._last

    def data(self, size: int) -> bytes:
        """Return the next bytes."""
        found, self._pushed = self._pushed[:size], self._pushed[size:]
        while len(found) < size and (more := self._stream.read(size - len(found))):
            found += more
        self._position += len(found)
        return found

    def seek(self, position: int) -> int:
        if position < self._position:
            raise self.error("it is damaged")
        while self._position < position and self.data(min(position - self._position, _HEADER)):
            pass
        return self._position

    def is_at_end(self) -> bool:
        return len(self._last) < BLOCK

    def ends_with_zeros(self) -> bool:
        return len(self._last) == BLOCK and not self._last.strip(b"\0")

    def find_next(self) -> bool:
        """Read past zeros. Return whether another archive begins there."""
        while block := self.data(BLOCK):
            if block.strip(b"\0"):
                if not is_tar(block):
                    raise self.error("something else follows it")
                self._pushed, self._position = block, self._position - len(block)
                return True
        return False

"""Copies of what passes by once, and parts of files, so that an input can be read again."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import IO, Any, BinaryIO, Protocol, cast

import zstandard

from pik.errors import InputError
from pik.inputs.compression import PatientReader, zstd_reader
from pik.runtime.storage import temporary_files

IN_MEMORY = 1 << 20
"""Bytes up to which a copy is held in memory."""

_STEP = 1 << 20


class Readable(Protocol):
    """What can be read forward."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, none at the end."""


Opener = Callable[[], AbstractContextManager[BinaryIO]]
"""Opens an input at its beginning, any number of times."""


def copy(read: Callable[[int], bytes], size: int, name: str) -> Opener:
    """Copy as many of the next bytes, and return what opens the copy. Raises InputError where there are fewer.

    What does not fit into memory goes into a temporary file, compressed: of a small archive with gigabytes of one
    letter it is small.
    """
    if size <= IN_MEMORY:
        data = read(size)
        _expect(len(data) == size, name)
        return lambda: io.BufferedReader(io.BytesIO(data))
    with temporary_files():
        file = TemporaryFile()  # noqa: SIM115 - closed with what opens it
        with zstandard.ZstdCompressor(level=1).stream_writer(file, closefd=False) as writer:
            left = size
            while left:
                data = read(min(left, _STEP))
                _expect(bool(data), name)
                writer.write(data)
                left -= len(data)
        file.flush()
        stored = file.tell()

    def begin() -> Readable:
        return zstd_reader(io.BufferedReader(FileRange(file, 0, stored)), name)

    return reopened(begin, size)


def part(file: IO[bytes], offset: int, size: int, name: str) -> Opener:
    """Return what opens a part of a file, which must stay open. Raises InputError where the file ends before."""
    _expect(os.fstat(file.fileno()).st_size >= offset + size, name)
    return lambda: io.BufferedReader(FileRange(file, offset, size))


def reopened(begin: Callable[[], Readable], size: int) -> Opener:
    """Return what opens an input that can be read forward only, and opens it again to go back."""
    return lambda: PatientReader(Reread(begin, size))


@contextmanager
def seekable(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Provide the stream so that it can be read at any place, as Parquet and zip must be: what is not a file on a disk
    is copied to a temporary one."""
    if isinstance(stream, io.BufferedReader) and isinstance(stream.raw, io.FileIO) and stream.seekable():
        stream.seek(0)
        yield stream
        return
    with copied(stream) as file:
        yield file


@contextmanager
def copied(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Provide a copy of what is left of the stream, in a temporary file. Raises StoreError if there is no room."""
    with ExitStack() as stack:
        with temporary_files():
            file = cast(BinaryIO, stack.enter_context(TemporaryFile()))
        while data := stream.read(_STEP):
            with temporary_files():
                file.write(data)
        with temporary_files():
            file.seek(0)
        yield file


@contextmanager
def kept(stream: BinaryIO) -> Iterator[io.BufferedReader]:
    """Provide the stream so that it can be read again from its beginning: what has been read of it is kept, in memory
    or in a temporary file. It is never read further than asked for, so it need not end."""
    with SpooledTemporaryFile(IN_MEMORY) as file:
        yield io.BufferedReader(_Kept(stream, file))


def _expect(is_whole: bool, name: str) -> None:
    if not is_whole:
        raise InputError(f"{name} is not whole: the archive is cut")


class _Seekable(io.RawIOBase):
    """A reader with a position. `size` is how many bytes there are."""

    def __init__(self, size: int) -> None:
        self._size, self._position = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence] + offset
        return self._position


class FileRange(_Seekable):
    """A part of an open file. Reading it does not move the file."""

    def __init__(self, file: IO[bytes], offset: int, size: int) -> None:
        super().__init__(size)
        self._file, self._offset = file, offset

    def readinto(self, buffer: Any, /) -> int:
        size = max(0, min(len(buffer), self._size - self._position))
        data = os.pread(self._file.fileno(), size, self._offset + self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class Reread(_Seekable):
    """What can be read only forward, opened again to go back."""

    def __init__(self, begin: Callable[[], Readable], size: int) -> None:
        super().__init__(size)
        self._begin, self._stream, self._read = begin, begin(), 0

    def readinto(self, buffer: Any, /) -> int:
        if self._position < self._read:
            self._stream, self._read = self._begin(), 0
        while self._read < self._position:
            if not self._next(min(self._position - self._read, _STEP)):
                return 0
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _next(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._read += len(data)
        return data


class _Kept(io.RawIOBase):
    """A stream of which all that was read is kept in a file. Raises StoreError if there is no room."""

    def __init__(self, stream: BinaryIO, file: IO[bytes]) -> None:
        self._stream, self._file, self._read = stream, file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END or offset + (self._file.tell() if whence == io.SEEK_CUR else 0) > self._read:
            raise io.UnsupportedOperation("a stream cannot be read from a place that was not reached yet")
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        if self._file.tell() == self._read:
            data = self._stream.read(len(buffer))
            with temporary_files():
                self._file.write(data)
            self._read += len(data)
        else:
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

"""Inputs: files, streams and S3 objects."""

from __future__ import annotations

import fnmatch
import glob
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from pik.errors import InputError, command
from pik.inputs.blocks import BLOCK
from pik.ports.foreign import Foreign, ForeignFile


@dataclass(frozen=True, slots=True)
class Source:
    """An input: its name for people, its size in bytes where known, and a way to open it.

    `path` is that of a file, which can be read again, as what `remote` opens can: that reads as many bytes at a time
    as it is told. Without either the input is a stream,
    and read once: `pipe`, or standard input.
    """

    name: str
    size: int | None
    path: Path | None
    pipe: Path | None = None
    looked_at: list[BinaryIO] = field(default_factory=list, compare=False, repr=False)
    remote: Callable[[int], BinaryIO] | None = None

    @property
    def is_stream(self) -> bool:
        """Whether it can be read only once."""
        return self.path is None and self.remote is None

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The input's bytes as stored. Raises InputError, and StoreError where it is elsewhere."""
        if self.remote is not None:
            with self.remote(BLOCK) as remote:
                yield remote
            return
        path = self.path or self.pipe
        if path is None:
            yield sys.stdin.buffer
            return
        with self.looked_at.pop() if self.looked_at else io.BufferedReader(_File(path, self.name)) as file:
            yield file

    @contextmanager
    def opened(self) -> Iterator[OpenedInput]:
        """Open the input once for all that an ingest asks of it. Raises as `open` does."""
        with self.open() as file:
            yield OpenedInput(self, file, None if self.path is None else _file_state(file))

    def head(self, size: int) -> bytes:
        """As many bytes of its beginning as stored, at most. Of a stream, which still has them afterwards, what came
        first."""
        if self.remote is not None:
            with self.remote(size) as remote:
                return remote.read(size)
        if self.pipe is not None:
            # What was looked at of a pipe is only there: the next to open it gets this.
            if not self.looked_at:
                self.looked_at.append(io.BufferedReader(_File(self.pipe, self.name)))
            return _peeked(self.looked_at[0], size)
        with self.open() as file:
            return _peeked(file, size) if self.is_stream else file.read(size)

    def digest(self) -> str:
        """SHA-256 of the bytes as stored, in hex: what names this content."""
        with self.open() as file:
            digest = sha256()
            while data := file.read(1 << 20):
                digest.update(data)
            return digest.hexdigest()


FileState = tuple[int, int, int]
"""What changes when somebody writes to a file, or puts another in its place: inode, size and time of change."""


@dataclass(frozen=True, slots=True)
class OpenedInput:
    """An input that is open: `file` has its bytes as stored, `state` is the file's when it was opened.

    Each method starts at the input's beginning, so they may be called in any order; but a stream is read once, and only
    `head` leaves it where it was. `state` is None for a stream, and for an S3 object, whose reader notices a change.
    """

    source: Source
    file: BinaryIO
    state: FileState | None = None

    def start(self) -> BinaryIO:
        """Return the bytes as stored, from their beginning."""
        if not self.source.is_stream:
            self.file.seek(0)
        return self.file

    def head(self, size: int) -> bytes:
        """Return at most `size` bytes of the beginning, of a stream what came first."""
        if self.source.is_stream:
            return self.file.peek(size)[:size] if isinstance(self.file, io.BufferedReader) else b""
        if self.source.remote is not None:
            with self.source.remote(size) as remote:  # a read of its own, of no more than that
                return remote.read(size)
        return self.start().read(size)

    def digest(self) -> str:
        """Return the SHA-256 of the bytes as stored, in hex, which names the content."""
        file, digest = self.start(), sha256()
        while data := file.read(1 << 20):
            digest.update(data)
        return digest.hexdigest()

    def expect_unchanged(self) -> None:
        """Raise InputError if the file has been written to since it was opened."""
        if self.state is not None and _file_state(self.file) != self.state:
            raise InputError(
                f"{self.source.name} changed while it was being read",
                hint="what was read is kept; ingest the file again when nothing writes to it",
            )


def _file_state(file: BinaryIO) -> FileState:
    state = os.fstat(file.fileno())
    return state.st_ino, state.st_size, state.st_mtime_ns


def _peeked(file: BinaryIO, size: int) -> bytes:
    return file.peek(size)[:size] if isinstance(file, io.BufferedReader) else b""


class _File(io.FileIO):
    """A file whose every failure to be read is an InputError that names it."""

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        try:
            super().__init__(path)
        except OSError as error:
            raise self._unreadable(error) from None

    def readinto(self, buffer: Any, /) -> int:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError) -> InputError:
        return InputError(f"cannot read {self._name}: {error.strerror}")


def file_source(path: str) -> Source:
    """The Source of a file path, or of `-`, standard input. Raises InputError for what is not a readable file."""
    if path == "-":
        return _standard_input()
    name = shown_name(path)
    if not path:
        raise InputError("the name of a file is empty", hint="a variable that is not set, perhaps; - is standard input")
    if os.path.isdir(path):
        raise InputError(f"{name} is a directory", hint=_inside(path, name))
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        raise InputError(f"there is no file {name}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {name[:60]!r}: {getattr(error, 'strerror', None) or error}") from None
    file = Path(path)
    return Source(name, size, file) if file.is_file() else Source(name, None, None, file)


def _inside(path: str, name: str) -> str:
    """What takes the files of the directory instead: by the first pattern that any of them has."""
    files = [] if not os.access(path, os.R_OK | os.X_OK) else [one.name for one in os.scandir(path) if one.is_file()]
    for pattern in ("*.jsonl", "*.ndjson", "*.json", "*.jsonl.*", "*.ndjson.*", "*.json.*", "*"):
        if fnmatch.filter((one for one in files if not one.startswith(".")), pattern):
            return command("ingest", f"{glob.escape(name.rstrip('/'))}/{pattern}")
    return "give files; there are none in it"


def _standard_input() -> Source:
    hint = "give a file, or send it through a pipe: … | pik ingest -"
    if sys.stdin is None:
        raise InputError("standard input is closed", hint=hint)
    with suppress(OSError, ValueError):  # of a standard input that is not a file at all
        if stat.S_ISDIR(os.fstat(sys.stdin.fileno()).st_mode):
            raise InputError("standard input is a directory", hint=hint)
    return Source("standard input", None, None)


def shown_name(path: str) -> str:
    """The name of a file as text: bytes that are not UTF-8 are escaped, \\xe9."""
    return os.fsencode(path).decode(errors="backslashreplace")


def foreign_sources(foreign: Foreign, url: str) -> list[Source]:
    """The sources that a URL names. Raises as `Foreign.find` does."""
    return [_source(foreign, file) for file in foreign.find(url)]


def _source(foreign: Foreign, file: ForeignFile) -> Source:
    return Source(
        file.name, file.size, None, remote=lambda size: io.BufferedReader(_Pieces(foreign, file, min(size, BLOCK)))
    )


class _Pieces(io.RawIOBase):
    """The file's bytes. Holds one piece of it, of `size` bytes."""

    def __init__(self, foreign: Foreign, file: ForeignFile, size: int) -> None:
        self._foreign, self._file, self._size = foreign, file, size
        self._piece = b""
        self._begin = self._position = 0  # of the piece, and of the next byte to read

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        """So that others can ask where it stands."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._file.size:
            return 0
        if not self._begin <= self._position < self._begin + len(self._piece):
            self._piece = b""  # before the next one comes, so that there are never two
            self._piece = self._foreign.read(self._file, self._position, self._size)
            self._begin = self._position
        inside = self._position - self._begin
        size = min(len(buffer), len(self._piece) - inside)
        buffer[:size] = self._piece[inside : inside + size]
        self._position += size
        return size

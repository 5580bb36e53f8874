"""Inputs and what opens them: files, pipes, standard input, and objects in S3."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pik.errors import InputError, PikError
from pik.inputs.advice import STANDARD_INPUT, Advice, Read
from pik.inputs.blocks import BLOCK
from pik.inputs.compression import WINDOW
from pik.inputs.copies import Opener
from pik.inputs.opened import OpenedInput
from pik.inputs.opened_file import BEGINNING, OpenedFile
from pik.ports.remote import Foreign, ForeignFile


class Input(Protocol):
    """What becomes one batch: its name for people, its size in bytes where known, and whether it can be read only
    once."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int | None: ...
    @property
    def is_stream(self) -> bool: ...
    def open(self) -> AbstractContextManager[OpenedInput]:
        """Open the input. Raises InputError if it cannot be opened."""


Refuse = Callable[[str, PikError], None]
"""Is given the name of an input that cannot be read, and why; it raises that, or returns, and the next one is read."""


def stop(_name: str, error: PikError) -> None:
    """Raise the error: no other input is read."""
    raise error


@dataclass(frozen=True, slots=True)
class Source:
    """One input, and what opens its bytes at their beginning: of a stream once, of anything else any number of times.

    A file has a `path`. Of a file of an archive, `in_archive` is its path there, with that of the archive, and
    `unchanged` raises InputError where the archive was written to. Decompressing may look back `window` bytes. An
    object in S3 has a `version`, and so has a file that is `portable`.
    """

    name: str
    size: int | None
    opener: Opener
    path: str | None = None
    is_stream: bool = False
    unchanged: Callable[[str], None] | None = None
    in_archive: str | None = None
    window: int = WINDOW
    version: str = ""

    @property
    def file(self) -> str:
        """The path of the file, with that of its archive; of a stream, none."""
        if self.path is not None:
            return shown_name(os.path.abspath(self.path))
        if self.in_archive is not None:
            return self.in_archive
        return "" if self.is_stream else self.name

    @contextmanager
    def open(self) -> Iterator[OpenedFile]:
        """Open the input. Raises InputError if it cannot be opened."""
        with self.opener() as stored:
            yield OpenedFile(
                self.name,
                stored,
                file=self.file,
                is_stream=self.is_stream,
                is_file=self.path is not None,
                size=self.size,
                unchanged=self.unchanged,
                window=self.window,
            )

    @contextmanager
    def held(self) -> Iterator[Source]:
        """Provide an input that can be opened several times: a stream stays open meanwhile, and goes on where it is."""
        if not self.is_stream:
            yield self
            return
        with self.opener() as stored:
            yield replace(self, opener=lambda: nullcontext(stored))


def file_state(path: str) -> tuple[int, int, int] | None:
    """Return what changes when a file is written to or replaced; None where it cannot be found."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns, state.st_ino


def portable(source: Source) -> Source:
    """Return the source of a file or an object so that another process opens the same: by its absolute path, with its
    version. Raises InputError where it is not there any more."""
    if source.path is None:
        return source
    path = os.path.abspath(source.path)
    version = _version(path)
    if version is None:
        raise InputError(f"there is no file {source.name}")
    unchanged = partial(_expect_version, path, source.name, version)
    return replace(source, path=path, opener=partial(_file, path, source.name), unchanged=unchanged, version=version)


def _version(path: str) -> str | None:
    state = file_state(path)
    return None if state is None else f"{state[0]}-{state[1]}"


def _expect_version(path: str, name: str, version: str, hint: str) -> None:
    if _version(path) != version:
        raise InputError(
            f"{name} changed while it was being read", hint=hint or "run this again when nothing writes to it"
        )


class _File(io.FileIO):
    """A file whose every failure to be read is an InputError that names it."""

    def __init__(self, path: str | Path, name: str) -> None:
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


class _Filling(io.RawIOBase):
    """A stream that fills what it is to read into, so that a look at its beginning shows all of it."""

    def __init__(self, stored: BinaryIO) -> None:
        self._stored = stored

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        filled = 0
        while filled < len(buffer) and (data := self._stored.read(len(buffer) - filled)):
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        return filled


def file_source(path: str) -> Source:
    """Return the source of a file path, or of `-`, standard input. Raises InputError for an unreadable file."""
    if path == "-":
        return _standard_input()
    name = shown_name(path)
    if not path:
        raise InputError("the name of a file is empty", hint="a variable that is not set, perhaps; - is standard input")
    try:
        state = os.stat(path)
    except FileNotFoundError:
        raise InputError(f"there is no file {name}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {name[:60]!r}: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(state.st_mode):
        raise InputError(f"{name} is a directory", hint="give a file in it")
    if not stat.S_ISREG(state.st_mode):
        return stream_source(name, path)
    return regular_file(path, state.st_size)


def regular_file(path: str, size: int) -> Source:
    """Return the source of a path that is known to be a file of that size."""
    name = shown_name(path)
    return Source(name, size, partial(_file, path, name), path)


def _file(path: str, name: str) -> io.BufferedReader:
    return io.BufferedReader(_File(path, name))


def stream_source(name: str, path: str | Path) -> Source:
    """Return the source of a pipe, or of another file that is read only once."""
    return Source(name, None, partial(_pipe, path, name), is_stream=True)


@contextmanager
def _pipe(path: str | Path, name: str) -> Iterator[BinaryIO]:
    with _File(path, name) as pipe:
        yield _filled(pipe)


def _filled(stream: BinaryIO) -> io.BufferedReader:
    return io.BufferedReader(_Filling(stream), BEGINNING)


def _standard_input() -> Source:
    hint = Advice(("give a file, or send it through a pipe: ", Read(convert="…")))
    if sys.stdin is None:
        raise InputError("standard input is closed", hint=hint)
    with suppress(OSError, ValueError):  # standard input may not be a file at all
        if stat.S_ISDIR(os.fstat(sys.stdin.fileno()).st_mode):
            raise InputError("standard input is a directory", hint=hint)
    return Source(STANDARD_INPUT, None, lambda: _filled(sys.stdin.buffer), is_stream=True)


def shown_name(path: str | Path) -> str:
    """Return the name of a file as text: bytes that are not UTF-8 are escaped, \\xe9."""
    text = os.fspath(path)
    return text if text.isascii() else os.fsencode(text).decode(errors="backslashreplace")


def foreign_sources(foreign: Foreign, url: str) -> list[Source]:
    """Return the sources that a URL names. Raises as `Foreign.find` does."""

    def source(file: ForeignFile) -> Source:
        return Source(file.name, file.size, partial(_foreign_file, foreign, file), version=file.version)

    return [source(file) for file in foreign.find(url)]


def _foreign_file(foreign: Foreign, file: ForeignFile) -> io.BufferedReader:
    return io.BufferedReader(_Pieces(foreign, file))


class _Pieces(io.RawIOBase):
    """The bytes of a file in S3. Holds one piece of it, as large as a block."""

    def __init__(self, foreign: Foreign, file: ForeignFile) -> None:
        self._foreign, self._file = foreign, file
        self._piece = b""
        self._begin = self._position = 0  # of the piece, and of the next byte to read

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
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
            self._piece = self._foreign.read(self._file, self._position, BLOCK)
            self._begin = self._position
        inside = self._position - self._begin
        size = min(len(buffer), len(self._piece) - inside)
        buffer[:size] = self._piece[inside : inside + size]
        self._position += size
        return size

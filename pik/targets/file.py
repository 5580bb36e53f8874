"""A file as a target: one line per message."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from pik.errors import TargetUnavailable, UsageError
from pik.ports.target import Message
from pik.runtime.new_file import expect_directory
from pik.runtime.storage import sync, sync_directory


class FileTarget:
    """Appends the body of each message as a line; attributes have no place in it."""

    at_most = 1000

    def __init__(self, path: Path, taken: int | None) -> None:
        self._path, self._taken = path.expanduser().absolute(), taken  # it may be resumed from another directory
        self._begun = taken is not None
        self.shown = str(self._path)
        self._file: FileIO | None = None

    def check(self) -> None:
        if self._path.is_dir():
            raise UsageError(f"--target {self.shown} is a directory", hint="--target FILE, a new one")
        if self._path.exists() and not self._begun:
            raise UsageError(f"--target {self.shown} exists already", hint="--target FILE, a new one")
        if self._taken and not self._path.exists():
            raise UsageError(
                f"--target {self.shown}: the file with what was sent before is gone",
                hint="put it back, or cancel this one (`pik republish cancel --help`) and send it anew",
            )
        expect_directory(self._path, f"--target {self.shown}: ")
        if not os.access(self._path if self._path.exists() else self._path.parent, os.W_OK):
            raise TargetUnavailable(f"cannot write {self.shown}: permission denied", hint="--target FILE elsewhere")

    def send(self, messages: Sequence[Message], answers: dict[int, str]) -> None:
        with self._translated():
            file = self._file or self._open()
            start = file.tell()
            try:
                _write(file, b"".join([message.body + b"\n" for message in messages]))
                sync(file.fileno())
                answers.update(dict.fromkeys(range(len(messages)), ""))
            except BaseException:
                if not answers:  # those that have no answer are sent again
                    with suppress(OSError):
                        file.truncate(start)
                raise

    def _open(self) -> FileIO:
        file = self._file = self._path.open("r+b" if self._begun and self._path.exists() else "x+b", buffering=0)
        self._begun = True
        _cut_half_line(file)
        sync_directory(self._path.parent)
        return file

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with self._translated():
                file.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise UsageError(f"--target {self.shown} exists already", hint="--target FILE, a new one") from None
        except OSError as error:
            raise TargetUnavailable(
                f"cannot write {self.shown}: {(error.strerror or 'it failed').lower()}",
                hint="df, and the directory's permissions",
            ) from error


def _write(file: FileIO, data: bytes) -> None:
    """Write all of it: the system may take a part at a time."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


_PIECE = 1 << 16


def _cut_half_line(file: FileIO) -> None:
    """Leave the file at its end, without the part of a line that a killed process may have written there."""
    end = size = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _PIECE)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        file.truncate(end)
    file.seek(end)

"""What long work has finished, kept in a file, so that it can go on after an interruption."""

from __future__ import annotations

import os
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from io import BufferedReader
from pathlib import Path

WAIT = 10.0
"""Seconds that work takes which is worth keeping."""


class Checkpoint:
    """Entries of a name and bytes, in a file that is only appended to and belongs to one kind of work.

    The file is written once the work has taken WAIT seconds, and what an earlier one has in it is kept until then.
    That it cannot be written stops nothing: `tell` is called with the reason, once. Each entry has a digest; one that
    does not agree with it is not used. So two processes may append to the same file.
    """

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self._path, self._tell = path, tell
        self._due = time.monotonic() + WAIT
        self._waiting: list[bytes] = []
        self._offsets: dict[str, int] = {}
        self._read: BufferedReader | None = None
        self._write: int | None = None
        self._failed = False
        self._has_written = False

    @property
    def has_entries(self) -> bool:
        """Whether the next process could resume."""
        return self._has_written or bool(self._offsets)

    def resume(self) -> bool:
        """Use the entries that an earlier process left, and return whether there are any."""
        damaged = 0
        try:
            self._read = self._path.open("rb")
            offset = 0
            for line in self._read:
                name = _name(line)
                if name:
                    self._offsets[name] = offset
                damaged += not name and line != b"\n"
                offset += len(line)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._offsets.clear()
            self._tell(f"{self._path}: {error.strerror}; nothing is taken over from it")
        if damaged:
            self._tell(f"{self._path}: {damaged} of its lines are damaged; nothing is taken over from these")
        return bool(self._offsets)

    def get(self, name: str) -> bytes | None:
        """Return the bytes of the entry, if an earlier process left it."""
        offset = self._offsets.get(name)
        if offset is None or self._read is None:
            return None
        self._read.seek(offset)
        line = self._read.readline()
        return b64decode(line.split()[2]) if _name(line) == name else None

    def add(self, name: str, data: bytes) -> None:
        """Keep an entry."""
        if self._failed:
            return
        body = name.encode() + b" " + b64encode(data)
        self._waiting.append(_digest(body) + b" " + body + b"\n")
        if time.monotonic() < self._due:
            return
        try:
            if self._write is None:
                self._write = self._open()
            for line in self._waiting:
                os.write(self._write, line)
        except OSError as error:
            self._failed = True
            self._tell(f"{self._path}: {error.strerror}; if this is interrupted, it cannot be continued")
        else:
            self._has_written = True
        self._waiting.clear()

    def _open(self) -> int:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._offsets:
            self._path.unlink(missing_ok=True)
        found = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(found, b"\n")  # ends a line that a killed process began
        return found

    def close(self) -> None:
        """Leave the file to the next process."""
        if self._write is not None:
            os.close(self._write)
        if self._read is not None:
            self._read.close()
        self._write = self._read = None
        self._failed = True

    def remove(self) -> None:
        """Remove the file: the work has ended."""
        self.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _digest(body: bytes) -> bytes:
    return sha256(body).hexdigest().encode()


def _name(line: bytes) -> str:
    """Return the name of the entry; empty if it is damaged."""
    digest, _, body = line.removesuffix(b"\n").partition(b" ")
    name = body.partition(b" ")[0]
    return name.decode() if line.endswith(b"\n") and digest == _digest(body) else ""

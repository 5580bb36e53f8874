"""Files of others as sources: read a piece at a time, each time from the version that was found."""

from __future__ import annotations

import io
from typing import Any

from pik.inputs.source import BLOCK, Source
from pik.ports.foreign import Foreign, ForeignFile


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

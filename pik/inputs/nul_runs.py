"""Runs of NUL bytes, as a log has them where a disk lost power or `copytruncate` cut it, as records of their own."""

from __future__ import annotations

import re
from typing import BinaryIO

_EDGE = re.compile(rb"(?<=[^\n\0])(?=\0)|(?<=\0)(?=[^\n\0])")


class NulRuns:
    """A stream in which line breaks stand around each run of NUL bytes, wherever reads end.

    So the run is one record, which is no event, and what comes before and after it is read as if it were not there.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._last = b""

    def read(self, size: int) -> bytes:
        """The next bytes: about `size`, none at the end."""
        data = self._stream.read(size)
        if b"\0" in data or self._last == b"\0":
            before = self._last
            self._last = data[-1:]
            return _EDGE.sub(b"\n", before + data)[len(before) :]
        self._last = data[-1:]
        return data

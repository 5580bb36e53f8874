"""Reading parts of large objects that follow each other, in few calls."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable
from threading import Lock

LEAST, MOST = 64 << 10, 4 << 20
"""Bytes of the first read of an object, at least, and of one after many that followed each other, at most."""

_OBJECTS = 16
"""Objects of which the last read is remembered."""


class ReadAhead:
    """Remembers the last read of each of some objects, which never change. A read that goes on after it, or not far
    after it, gets twice as much; any other begins anew. For several threads."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._lock = Lock()
        self._reading: defaultdict[str, Lock] = defaultdict(Lock)

    def __reduce__(self) -> tuple[type[ReadAhead], tuple[()]]:
        return ReadAhead, ()

    def read(self, key: str, offset: int, length: int, fetch: Callable[[str, int, int], bytes]) -> bytes:
        """Return bytes of an object, fewer than `length` only at its end; `fetch` gets what is not held."""
        with self._lock:
            mine = self._reading[key]
        with mine:
            with self._lock:
                begin, data = self._held.get(key, (0, b""))
            if not begin <= offset <= offset + length <= begin + len(data):
                is_near = begin <= offset <= begin + 2 * len(data)
                size = min(MOST, 2 * len(data)) if is_near and data else LEAST
                begin, data = offset, fetch(key, offset, max(length, size))
                self._hold(key, begin, data)
            return data[offset - begin :][:length]

    def _hold(self, key: str, begin: int, data: bytes) -> None:
        with self._lock:
            self._held[key] = begin, data
            self._held.move_to_end(key)
            while len(self._held) > _OBJECTS:
                oldest, _ = self._held.popitem(last=False)
                self._reading.pop(oldest, None)

"""A share of segments: the part of a bucket's raw that one of several tasks reads."""

from __future__ import annotations

from zlib import crc32

import msgspec


class Share(msgspec.Struct, frozen=True, array_like=True):
    """One of `count` shares, the first of which has the number 0. Each segment is in one of them, whatever other
    segments there are."""

    number: int = 0
    count: int = 1

    @property
    def is_all(self) -> bool:
        """Whether it has every segment."""
        return self.count == 1

    def has(self, key: str) -> bool:
        """Return whether it has the segment with this key."""
        return self.is_all or crc32(key.encode()) % self.count == self.number


WHOLE = Share()

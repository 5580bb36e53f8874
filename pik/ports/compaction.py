"""Compaction: making what a store has kept item by item cheaper to read, without changing any answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Compaction(Protocol):
    """Compacts the index of a store in which each item that is read has its price. Raw is left as it is. Each call may
    be repeated, and may end at any moment: what was done stands, and readers see the same store all the time."""

    def compacting(self) -> AbstractContextManager[None]:
        """Hold the right to compact until the context ends or the process dies. Raises Busy if another living process
        holds it, or while the index is being rebuilt."""

    def countable(self, before: int) -> int:
        """Return how many batches `sum_up` would add to the sums now."""

    def sum_up(self, before: int) -> Iterator[int]:
        """Add the finished batches that began before this moment (nanoseconds) to the sums that `Overview` begins with,
        many at a time; yield how many were added each time. Those that are not finished are added later. The caller
        holds the right to compact. Raises Busy if another process changes the sums meanwhile."""

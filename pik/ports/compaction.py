"""Compaction: making what a store has kept item by item cheaper to read, without changing any answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Packed:
    """What a step of packing a day did: segments of API requests that were moved into a pack, and the bytes of their
    objects; segments that were left because their object is not as recorded, with the reasons of the first ones; and
    those that are too young."""

    segments: int = 0
    size: int = 0
    left: int = 0
    reasons: tuple[str, ...] = ()
    young: int = 0


class Compaction(Protocol):
    """Compacts the index of a store in which each item that is read has its price. Raw is left as it is. Each call may
    be repeated, and may end at any moment: what was done stands, and readers see the same store all the time."""

    def compacting(self) -> AbstractContextManager[None]:
        """Hold the right to compact until the context ends or the process dies. Where it ends without an error, what
        nothing has named for a day is removed: packs that were replaced, and what killed processes left. Raises Busy if
        another living process holds the right, or while the index is being rebuilt."""

    def countable(self, before: int) -> int:
        """Return how many batches `sum_up` would add to the sums now."""

    def sum_up(self, before: int) -> Iterator[int]:
        """Add the finished batches that began before this moment (nanoseconds) to the sums that `Overview` begins with,
        many at a time; yield how many were added each time. Those that are not finished are added later. The caller
        holds the right to compact. Raises Busy if another process changes the sums meanwhile."""

    def days(self, first: int | None = None, last: int | None = None) -> Iterator[int]:
        """Yield, in order, the days (since 1970-01-01) from the first to the last (None: without end) on which segments
        of API requests are listed one by one, recorded just now or long ago."""

    def waiting(self, day: int, before: int) -> tuple[int, int]:
        """Return how many segments of a day `pack` would look at, and how many are too young. Reads what lists them."""

    def pack(self, day: int, before: int) -> Iterator[Packed]:
        """Move the segments of a day's API requests that were recorded before this moment into packs, one pack after
        the other; yield what was moved, and left, each time, and nothing after each that packs were merged into. The
        caller holds the right to compact. Raises StoreError."""

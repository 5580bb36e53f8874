"""Buckets: how a metric divides time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce
from math import lcm

from pik.model.instant import DAY, MAX_INSTANT, MIN_INSTANT, Window, parse_duration


@dataclass(frozen=True, slots=True, order=True)
class Buckets:
    """Buckets of `size` nanoseconds each; they are aligned to 1970-01-01T00:00:00Z.

    A bucket is known by its start. The first and the last one end where time does: what lies beyond is not an instant.
    """

    size: int

    def start_of(self, instant: int) -> int:
        """Return the start of the bucket that contains the instant."""
        return max(instant - instant % self.size, MIN_INSTANT)

    def end_of(self, instant: int) -> int:
        """Return the end of the bucket that contains the instant."""
        return min(instant - instant % self.size + self.size, MAX_INSTANT + 1)

    def around(self, instant: int) -> Window:
        """Return the bucket that contains the instant."""
        return Window(self.start_of(instant), self.end_of(instant))

    def widened(self, window: Window) -> Window:
        """Return the smallest window of whole buckets that contains this one."""
        return Window(self.start_of(window.start), self.end_of(window.end - 1))


@lru_cache(maxsize=256)
def buckets_of(text: str) -> Buckets:
    """Return the buckets that a definition names. Raises Invalid."""
    return Buckets(parse_duration(text))


def common(each: Iterable[Buckets]) -> Buckets:
    """Return the smallest buckets whose bounds are bounds of all of these."""
    return Buckets(reduce(lcm, (one.size for one in each)))


def covering(window: Window, each: Iterable[Buckets]) -> Window:
    """Return what the whole buckets of all of these cover that the window touches."""
    windows = [window, *(one.widened(window) for one in each)]
    return Window(min(one.start for one in windows), max(one.end for one in windows))


UTC_DAYS = Buckets(DAY)

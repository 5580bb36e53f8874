"""How fast work is going, of late."""

from __future__ import annotations

from collections import deque

WINDOW = 15.0
"""Seconds that a rate is of, at most: it follows when work gets slower, and falls while nothing moves."""

FIRST = 1.0
"""Seconds before which no rate is known: what is fetched ahead would make it far too high."""


class Rate:
    """How many units a second were done of late."""

    def __init__(self, done: float, now: float) -> None:
        self._began = now
        self._samples = deque([(now, done)])

    def add(self, done: float, now: float) -> None:
        """So many are done now, in all."""
        if now - self._samples[-1][0] >= FIRST / 4:
            self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW:
            self._samples.popleft()

    def at(self, done: float, now: float) -> float | None:
        """None where it is too early to tell."""
        since, before = self._samples[0]
        return (done - before) / (now - since) if now - self._began >= FIRST else None

"""Trying again: how often, and how long to wait in between."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from time import monotonic, sleep
from typing import TypeVar

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often and how long to wait between attempts.

    A delay is a random part of a limit that begins at `first` seconds and doubles up to `longest`. The last attempt is
    number `attempts` (None: no limit), or the first one that begins after `patience` seconds (None: no limit).
    """

    first: float = 0.05
    longest: float = 10.0
    attempts: int | None = 12
    patience: float | None = None

    def delays(self) -> Iterator[float]:
        """Yield the delay before each further attempt."""
        deadline = None if self.patience is None else monotonic() + self.patience
        for attempt in count(1):
            if attempt == self.attempts or (deadline is not None and monotonic() > deadline):
                return
            yield random.uniform(0, min(self.longest, self.first * 2.0 ** min(attempt - 1, 60)))


BACKOFF = Backoff()


def attempts(backoff: Backoff = BACKOFF, wait: Callable[[float], object] | None = None) -> Iterator[None]:
    """Yield once per attempt, waiting before each but the first; the caller leaves the loop when it has succeeded.

    for _ in attempts():
        left = send(left)
        if not left:
            return
    raise StoreError("throttled")
    """
    yield
    for delay in backoff.delays():
        (wait or sleep)(delay)
        yield


def retry(
    call: Callable[[], _Result], is_transient: Callable[[Exception], bool], backoff: Backoff = BACKOFF
) -> _Result:
    """Return the result of the first call that succeeds. Raises what a call raises if that is not transient, or if it
    was the last attempt."""
    for delay in backoff.delays():
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
        sleep(delay)
    return call()

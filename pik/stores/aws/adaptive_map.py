"""Concurrent calls, as many at a time as the service takes swiftly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import TypeVar

from pik.runtime.parallel import map_in_threads
from pik.stores.aws.clients import CONNECTIONS

_FIRST = 8
_SLOW = 1.0  # seconds: a call that took so long has been throttled or kept waiting

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Flow:
    """Grows by one call with each answer that came swiftly, and halves with each slow one, as TCP does."""

    def __init__(self) -> None:
        self._allowed = float(_FIRST)

    def map(self, function: Callable[[Argument], Result], arguments: Iterable[Argument]) -> Iterator[Result]:
        """Yield the results in the order of the arguments, of which no more are taken than are in flight."""

        def timed(argument: Argument) -> Result:
            begun = monotonic()
            try:
                return function(argument)
            finally:
                swift = monotonic() - begun < _SLOW
                allowed = self._allowed
                self._allowed = min(CONNECTIONS, allowed + 1 / allowed) if swift else max(1, allowed / 2)

        return map_in_threads(timed, arguments, CONNECTIONS, lambda: int(self._allowed))

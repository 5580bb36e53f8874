"""Several calls at a time: how many, the service decides by how it takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import TypeVar

from pik.stores.aws.clients import CONNECTIONS

_FIRST = 8
_SLOW = 1.0  # seconds: a call that took so long has been throttled or kept waiting

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Flow:
    """Grows by one call with each answer that came swiftly, and halves with each slow one (as TCP does it)."""

    def __init__(self) -> None:
        self._allowed = float(_FIRST)

    def map(self, function: Callable[[Argument], Result], arguments: Iterable[Argument]) -> Iterator[Result]:
        """The results in the order of the arguments, of which no more are taken than are under way."""
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            working: deque[Future[Result]] = deque()
            try:
                for argument in arguments:
                    while len(working) >= int(self._allowed):
                        yield working.popleft().result()
                    working.append(pool.submit(self._timed, function, argument))
                while working:
                    yield working.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _timed(self, function: Callable[[Argument], Result], argument: Argument) -> Result:
        begun = monotonic()
        try:
            return function(argument)
        finally:
            swift = monotonic() - begun < _SLOW
            self._allowed = min(CONNECTIONS, self._allowed + 1 / self._allowed) if swift else max(1, self._allowed / 2)

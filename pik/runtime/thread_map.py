"""A few threads that map a function over arguments, in order, with a bounded number in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


def in_threads(
    function: Callable[[_Argument], _Result], arguments: Iterable[_Argument], threads: int, ahead: int = 1
) -> Iterator[_Result]:
    """The results in the order of the arguments, `threads` at work and `ahead` more done or waiting."""
    with ThreadPoolExecutor(threads) as pool:
        working: deque[Future[_Result]] = deque()
        try:
            for argument in arguments:
                working.append(pool.submit(function, argument))
                if len(working) >= threads + ahead:
                    yield working.popleft().result()
            while working:
                yield working.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

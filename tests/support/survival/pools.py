"""Pools of workers that are done with their blocks in another order than that of the input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Self

from pik.rawlog.reading import Reading
from pik.rawlog.segment_writer import building


class LastFirst:
    """A pool whose workers are done with the last block first."""

    def __init__(self, raw: Any, reading: Reading) -> None:
        self.build = building(raw, reading, lambda _done: None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, works: Iterable[Any], tell: Any, label: Any) -> Iterator[Any]:
        return reversed([self.build(work) for work in reversed(list(works))])


class KilledAhead(LastFirst):
    """A pool that is killed when the third block is in raw and the second is not."""

    def map(self, works: Iterable[Any], tell: Any, label: Any) -> Iterator[Any]:
        first, _, third = islice(works, 3)
        self.build(third)
        yield self.build(first)
        raise InterruptedError

"""Fleets as hard on functions as a cluster is, in this process."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from random import Random
from typing import Any

from pik.ports.engine import Engine
from pik.ports.fleet import Body, Item, Keyed, Merge, Result
from pik.ports.store import Store


def nothing() -> None:
    """What happens before a function is run."""


@dataclass(frozen=True, slots=True)
class RepeatingFleet:
    """The Fleet port with all that a function may meet in a cluster: it, its items and its results are pickled, each
    call is made twice and must give the same, and of some items the last is run first. `before` is called before
    each of them."""

    store: Store
    engine: Engine
    slots: int = 2
    before: Callable[[], object] = nothing

    def map(self, body: Body[Item, Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results of each item."""
        job, sent = pickle.dumps((self.store, self.engine, body)), map(pickle.dumps, items)
        while some := list(islice(sent, 2 * self.slots)):
            for results in reversed([self._run(job, item) for item in reversed(some)]):
                yield from results

    def map_reduce(
        self, body: Body[Item, Keyed], items: Iterable[Item], merge: Merge[Result], keys: int
    ) -> Iterator[Result]:
        """Yield what each key's values come to."""
        job, sent = pickle.dumps((self.store, self.engine, body)), [pickle.dumps(item) for item in items]
        values = [self._run(job, item) for item in reversed(sent)]
        merging = pickle.dumps((self.store, self.engine, merge))
        found: dict[int, list[Any]] = {}
        for key in reversed(range(keys)):
            of_key = [value for each in reversed(values) for its_key, value in each if its_key == key]
            if of_key:
                found[key] = self._twice(partial(_merged, merging, key, of_key))
        assert {key for each in values for key, _ in each} <= set(range(keys))
        yield from (one for key in sorted(found) for one in found[key])

    def _run(self, job: bytes, item: bytes) -> list[Any]:
        return self._twice(partial(_results, job, item))

    def _twice(self, run: Callable[[], list[Any]]) -> list[Any]:
        self.before()
        first, second = pickle.dumps(run()), pickle.dumps(run())
        results: list[Any] = pickle.loads(first)
        assert first == second or results == pickle.loads(second)
        return results


def _results(job: bytes, item: bytes) -> list[Any]:
    store, engine, body = pickle.loads(job)
    return list(body(store, engine, pickle.loads(item)))


def _merged(job: bytes, key: int, values: list[bytes]) -> list[Any]:
    store, engine, merge = pickle.loads(job)
    return list(merge(store, engine, key, iter(values)))


@dataclass
class ShuffledFleet:
    """The Fleet port with the very store that it is given, which a test can make fail: `slots` items at a time are run
    in any order, and some of them again."""

    store: Store
    engine: Any = None
    slots: int = 3
    random: Random = field(default_factory=lambda: Random(1))

    def map(self, body: Body[Item, Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results of each item; each is run once or twice, and must give the same."""
        following = iter(items)
        while wave := list(islice(following, self.slots)):
            runs = [*range(len(wave)), *self.random.sample(range(len(wave)), self.random.randint(0, len(wave)))]
            self.random.shuffle(runs)
            results: dict[int, bytes] = {}
            for number in runs:
                function, item = pickle.loads(pickle.dumps((body, wave[number])))
                made = pickle.dumps(list(function(self.store, self.engine, item)))
                assert results.setdefault(number, made) == made
            for number in range(len(wave)):
                yield from pickle.loads(results[number])

    def map_reduce(
        self, body: Body[Item, Keyed], items: Iterable[Item], merge: Merge[Result], keys: int
    ) -> Iterator[Result]:
        """Not needed yet."""
        raise NotImplementedError

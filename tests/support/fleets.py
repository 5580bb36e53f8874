"""A fleet like a cluster, in this process: whatever a cluster moves between its machines is pickled."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from random import Random
from typing import Any

from pik.fleets.tasks import ERROR, VERSIONS, Job, Row, results_of, run_item, run_keys, versions
from pik.ports.engine import Engine
from pik.ports.fleet import Body, Item, Keyed, Merge, Result
from pik.ports.store import Store


@dataclass(frozen=True, slots=True)
class PickledFleet:
    """The Fleet port as executors run it, one task after the other."""

    store: Store
    engine: Engine
    slots: int = 3

    def map(self, body: Body[Item, Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results of each item, in the order of the items."""
        job = pickle.dumps(tuple(Job(self.store, self.engine, body)))
        for number, item in enumerate(items):
            yield from _results(list(run_item(versions(), job, number, pickle.dumps(item))))

    def map_reduce(
        self, body: Body[Item, Keyed], items: Iterable[Item], merge: Merge[Result], keys: int
    ) -> Iterator[Result]:
        """Yield what each key's values come to, in the order of the keys."""
        job = pickle.dumps(tuple(Job(self.store, self.engine, body, merge)))
        values = [
            row for number, item in enumerate(items) for row in run_item(versions(), job, number, pickle.dumps(item))
        ]
        yield from _results(list(run_keys(versions(), job, sorted(values, key=itemgetter(0, 1, 2)))))


def _results(rows: list[Row]) -> Iterator[Any]:
    for row in rows:
        assert row.kind != VERSIONS
        if row.kind == ERROR:
            raise pickle.loads(row.data)
        yield from results_of(row.data)


@dataclass
class Unruly:
    """The Fleet port as a cluster may run it: `slots` items at a time, in any order, and some of them again."""

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

"""A fleet as unruly as a cluster, in this process: it runs items in any order, and some of them again."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Any

from pik.ports.fleet import Body, Item, Keyed, Merge, Result
from pik.ports.store import Store


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

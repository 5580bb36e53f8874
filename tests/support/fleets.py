"""A fleet like a cluster, in this process: whatever a cluster moves between its machines is pickled."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
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

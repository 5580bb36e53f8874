"""A fleet whose tasks tell what they took: their calls of AWS, items, seconds and memory."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from pik.ports.engine import Engine
from pik.ports.fleet import Body, Fleet, Item, Keyed, Merge, Result
from pik.ports.store import Store
from tests.support.aws.calls import Calls, counting


@dataclass
class Counts(Calls):
    """Calls by operation, and how many items the statements among them write; no list of them."""

    items: int = 0

    def asked(self, params: Mapping[str, Any], event_name: str, **_: Any) -> None:  # noqa: ARG002 - botocore names it
        with self._lock:
            self.items += len(params.get("Statements", ()))


class TaskCost(NamedTuple):
    """What a task of an executor took: calls by operation, items that it wrote, seconds, and the most memory of its
    process so far, in MiB."""

    made: Counter[str]
    items: int
    seconds: float
    memory: float


@dataclass
class CountingFleet:
    """The Fleet port over another fleet, noting what its tasks take."""

    fleet: Fleet
    tasks: list[TaskCost] = field(default_factory=list)

    @property
    def slots(self) -> int:
        """How many items run at a time."""
        return self.fleet.slots

    def map(self, body: Body[Item, Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results of each item."""
        for result in self.fleet.map(partial(counted, body), items):
            if isinstance(result, TaskCost):
                self.tasks.append(result)
            else:
                yield result

    def map_reduce(
        self, body: Body[Item, Keyed], items: Iterable[Item], merge: Merge[Result], keys: int
    ) -> Iterator[Result]:
        """Not needed."""
        raise NotImplementedError


def counted(body: Body[Any, Any], store: Store, engine: Engine, item: object) -> Iterator[Any]:
    """Yield the results of an item, and what they took."""
    calls, begun = Counts(), time.monotonic()
    with calls_of(store, calls):
        yield from body(store, engine, item)
    yield TaskCost(calls.made, calls.items, time.monotonic() - begun, memory())


def calls_of(store: Store, calls: Calls) -> AbstractContextManager[object]:
    """Return a context in which the calls of a stack's store are counted."""
    return counting(store, calls) if store.deployed else nullcontext()


def memory() -> float:
    """Return the most memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

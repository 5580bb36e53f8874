"""Running functions over many items: in this process, or on the machines of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from pik.ports.engine import Engine
from pik.ports.store import Store

LOCAL = "local"
"""The location of the fleet that is this process."""

Item = TypeVar("Item")
Result = TypeVar("Result")

Body = Callable[[Store, Engine, Item], Iterable[Result]]
"""What is done with an item: a function of the store, of an engine for one of the tasks that run beside each other, and
of the item."""

Keyed = tuple[int, bytes]
"""A value and its key, from 0 upwards."""

Merge = Callable[[Store, Engine, int, Iterator[bytes]], Iterable[Result]]
"""What is done with all values of a key, which can be read once, in the order of their items."""


class Fleet(Protocol):
    """Runs functions over many items, for one store.

    A cluster calls a function for the same item again when a machine is lost or slow, and takes the results of one
    call. So a function must give equal results each time: it computes, or creates objects that are named by what they
    hold, and what may change meanwhile (until when deliveries count) is part of the item. Functions, items and results
    are pickled; functions are module-level ones, or `partial`s of those.

    Both methods raise, while iterating, what a function raises for an item, and StoreError where the cluster cannot be
    used or the job failed there. Memory is bounded by the items that run at a time, whatever their number.
    """

    @property
    def slots(self) -> int:
        """How many items run at a time, about; 1 only where that is in this process."""

    def map(self, body: Body[Item, Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results of each item, in the order of the items."""

    def map_reduce(
        self, body: Body[Item, Keyed], items: Iterable[Item], merge: Merge[Result], keys: int
    ) -> Iterator[Result]:
        """Yield what `merge` makes of the values that the items have for each of so many keys, in the order of the
        keys; a key without values is left out."""

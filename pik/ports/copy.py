"""A copy: a store that holds a part of another one, as it is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from pik.model.metric import Aggregate, Metric
from pik.model.window import Window


class Copy(Protocol):
    """What a store has if it is a copy: where it comes from, and the way by which state is taken over.

    Its raw and its index are taken over by the ports that every store has.
    """

    @property
    def source(self) -> str:
        """The URL of the store that this is a copy of."""

    def pulling(self) -> AbstractContextManager[None]:
        """Holds the right to take anything over until the context ends or the process dies. Raises Busy."""

    def take_metrics(self, metrics: Iterable[Metric]) -> None:
        """Keep these versions under their own numbers, all or none. One that is there already stays. Raises StoreError
        if another definition has the name and number of one of them."""

    def take_aggregates(
        self, scopes: Mapping[str, Window], entities: Sequence[str], rows: Iterable[Aggregate]
    ) -> tuple[int, int]:
        """Keep these versions, and make current what is current among them, all at once: of the metrics in `scopes`, in
        buckets that start in their windows, of these entities (none: all), nothing else is current then.

        Return how many are current, and how many of those that were current before, and are no more, had been promoted
        here. Nothing is kept if `rows` raises.
        """

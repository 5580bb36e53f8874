"""A copy: a store that holds a part of another one, as it is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from pik.model.metric import Aggregate, Metric
from pik.model.window import Window


@dataclass(frozen=True, slots=True)
class TakenOver:
    """How many aggregates are current now, and what that changed: versions that are `new` here, aggregates whose
    current version `moved`, and how many of those had been promoted here before (`replaced`)."""

    current: int
    new: int
    moved: int
    replaced: int


class Copy(Protocol):
    """What a store has if it is a copy: where it comes from, and the way by which state is taken over.

    Its raw and its index are taken over by the ports that every store has.
    """

    @property
    def source(self) -> str:
        """The URL of the store that this is a copy of."""

    def pulling(self) -> AbstractContextManager[None]:
        """Holds the right to take anything over until the context ends or the process dies. Raises Busy."""

    def take_metrics(self, metrics: Iterable[Metric]) -> int:
        """Keep these versions under their own numbers, all or none, and return how many are new here. Raises StoreError
        if another definition has the name and number of one of them."""

    def take_aggregates(
        self, scopes: Mapping[str, Window], entities: Sequence[str], rows: Iterable[Aggregate]
    ) -> TakenOver:
        """Keep these versions, and make current what is current among them, all at once: of the metrics in `scopes`, in
        buckets that start in their windows, of these entities (none: all), nothing else is current then. Nothing is
        kept if `rows` raises.
        """

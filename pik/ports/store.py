"""A store: one of each port; and what a copy of another store has beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from pik.model.metric import Aggregate, Metric
from pik.model.window import Window
from pik.ports.catalog import Audit, Batches, Index, Requests
from pik.ports.raw import Raw
from pik.ports.state import Aggregates, DeadLetters, Metrics, Promotions, Queue, Runs, StateAudit, StateBackup


@dataclass(frozen=True, slots=True)
class Store:
    """Where everything lives. Picklable: a worker process opens its own connections. `url` names it for people.

    `deployed`: the store's own processor works on the queue; otherwise the process that replays does. Raw expires after
    `retention_days` (None: never). With `copy` it holds a part of another store, and accepts nothing else.
    """

    url: str
    format_version: int
    raw: Raw
    batches: Batches
    requests: Requests
    index: Index
    audit: Audit
    metrics: Metrics
    runs: Runs
    queue: Queue
    dead_letters: DeadLetters
    aggregates: Aggregates
    promotions: Promotions
    state_audit: StateAudit
    backup: StateBackup
    deployed: bool = False
    retention_days: int | None = None
    copy: Copy | None = None


@dataclass(frozen=True, slots=True)
class TakenOver:
    """How many aggregates are current now, and what that changed: versions that are `new` here, aggregates whose
    current version `moved`, and how many of those had been promoted here before (`replaced`)."""

    current: int
    new: int
    moved: int
    replaced: int


class Copy(Protocol):
    """What a copy has beside the ports of every store: its source, and state taken over under its own names."""

    @property
    def source(self) -> str:
        """The URL of the store that this is a copy of."""

    def pulling(self) -> AbstractContextManager[None]:
        """Hold the right to take anything over until the context ends or the process dies. Raises Busy."""

    def take_metrics(self, metrics: Iterable[Metric]) -> int:
        """Keep these versions under their own numbers, all or none, and return how many are new here. Raises StoreError
        if another definition has the name and number of one of them."""

    def take_aggregates(
        self, scopes: Mapping[str, Window], entities: Sequence[str], rows: Iterable[Aggregate]
    ) -> TakenOver:
        """Keep these versions, and make current what is current among them, all at once: of the metrics in `scopes`, in
        buckets that start in their windows, of these entities (none: all), nothing else is current then. Nothing is
        kept if `rows` raises."""

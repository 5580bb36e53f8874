"""A store: one of each port, and what a copy of another store has beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from pik.errors import StoreError, command
from pik.model.aggregate import Aggregate
from pik.model.metric import Metric
from pik.model.window import Window
from pik.ports.backup import StateBackup
from pik.ports.buffer import Assignments
from pik.ports.compaction import Compaction
from pik.ports.index import Audit, Batches, Corrections, Index, Overview, Repeats, Requests
from pik.ports.raw import Raw
from pik.ports.state import (
    Aggregates,
    DeadLetters,
    IdempotencyKeys,
    Metrics,
    Partials,
    Promotions,
    Queue,
    Republishes,
    Runs,
    StateAudit,
)


def bundle_error(url: str) -> StoreError:
    """Return the error for an evidence bundle that would have to be written to."""
    pull = command("pull", "--store", url, "--from", "TIME", "--to", "TIME", "--into", "DIR")
    return StoreError(
        f"{url} is an evidence bundle, which nothing can be written to", hint=f"for a copy to work with: {pull}"
    )


def expect_unsealed(store: Store) -> None:
    """Raise StoreError for an evidence bundle."""
    if store.sealed:
        raise bundle_error(store.url)


@dataclass(frozen=True, slots=True)
class Store:
    """Where everything lives. Picklable: a worker process opens its own connections. `url` names it for people.

    `deployed`: the store's own processor works on the queue; otherwise the process that replays does. Raw expires after
    `retention_days` (None: never). With `copy` it holds a part of another store, and accepts nothing else; if it is
    `sealed`, it is read from an evidence bundle, and accepts nothing at all. `caller` returns the name by which the
    store knows the caller, or raises StoreError; None: callers have no names there. Without `compaction` there is
    nothing to compact.
    """

    url: str
    format_version: int
    raw: Raw
    batches: Batches
    requests: Requests
    index: Index
    overview: Overview
    repeats: Repeats
    assignments: Assignments
    audit: Audit
    corrections: Corrections
    metrics: Metrics
    runs: Runs
    idempotency_keys: IdempotencyKeys
    queue: Queue
    dead_letters: DeadLetters
    partials: Partials
    aggregates: Aggregates
    promotions: Promotions
    republishes: Republishes
    state_audit: StateAudit
    backup: StateBackup
    compaction: Compaction | None = None
    deployed: bool = False
    retention_days: int | None = None
    copy: Copy | None = None
    sealed: bool = False
    caller: Callable[[], str] | None = None


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
        kept if `rows` raises, or (Damaged) if two of them are current of one value."""

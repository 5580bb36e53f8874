"""A store: one of each port."""

from __future__ import annotations

from dataclasses import dataclass

from pik.ports.index import Audit, Batches, Index
from pik.ports.raw import Raw
from pik.ports.state import Aggregates, Metrics, Queue, Runs


@dataclass(frozen=True, slots=True)
class Store:
    """Where everything lives. Picklable: a worker process opens its own connections. `url` names it for people.

    With `deployed` a processor of the store's own works on the queue; otherwise whoever replays does.
    """

    url: str
    format_version: int
    raw: Raw
    batches: Batches
    index: Index
    audit: Audit
    metrics: Metrics
    runs: Runs
    queue: Queue
    aggregates: Aggregates
    deployed: bool = False

"""A store: one of each port."""

from __future__ import annotations

from dataclasses import dataclass

from pik.ports.copy import Copy
from pik.ports.index import Audit, Batches, Index
from pik.ports.raw import Raw
from pik.ports.state import Aggregates, Metrics, Queue, Runs
from pik.ports.state_audit import StateAudit
from pik.ports.state_backup import StateBackup


@dataclass(frozen=True, slots=True)
class Store:
    """Where everything lives. Picklable: a worker process opens its own connections. `url` names it for people.

    With `deployed` a processor of the store's own works on the queue; otherwise whoever replays does. Raw expires after
    `retention_days`; None: never. With `copy` it holds a part of another store, and takes in nothing but that.
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
    state_audit: StateAudit
    backup: StateBackup
    deployed: bool = False
    retention_days: int | None = None
    copy: Copy | None = None

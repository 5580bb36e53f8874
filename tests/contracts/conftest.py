"""The stores that every contract is held against: a fixture a family of ports, one parameter a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pik.ports.state import Aggregates, Metrics, Queue, Runs
from pik.ports.store import Store
from pik.stores import open_store
from pik.stores.local.aggregates import LocalAggregates
from pik.stores.local.metrics import LocalMetrics
from pik.stores.local.queue import LocalQueue
from pik.stores.local.runs import LocalRuns
from pik.stores.local.state import state_database


@dataclass(frozen=True)
class State:
    """The ports of pik.ports.state, of one empty store."""

    metrics: Metrics
    runs: Runs
    queue: Queue
    aggregates: Aggregates


def local_state(directory: Path) -> State:
    """Picklable, as a store is."""
    database = state_database(directory)
    database.create()
    return State(
        LocalMetrics(database),
        LocalRuns(database, directory / "locks"),
        LocalQueue(database),
        LocalAggregates(database),
    )


@pytest.fixture(params=[local_state], ids=["local"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> State:
    made: State = request.param(tmp_path)
    return made


def local_store(directory: Path) -> Store:
    return open_store(str(directory / "store"), create=True)


@pytest.fixture(params=[local_store], ids=["local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Empty."""
    made: Store = request.param(tmp_path)
    return made

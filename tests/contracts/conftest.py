"""The stores that every contract is held against: a fixture a family of ports, one parameter a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pik.ports.state import Aggregates, Metrics, Queue, Runs
from pik.ports.store import Store
from pik.stores import open_store
from pik.stores.aws.aggregates import AwsAggregates
from pik.stores.aws.clients import Clients
from pik.stores.aws.metrics import AwsMetrics
from pik.stores.aws.queue import AwsQueue
from pik.stores.aws.runs import AwsRuns
from pik.stores.aws.table import Table
from pik.stores.local.aggregates import LocalAggregates
from pik.stores.local.metrics import LocalMetrics
from pik.stores.local.queue import LocalQueue
from pik.stores.local.runs import LocalRuns
from pik.stores.local.state import state_database
from tests.aws.emulator import make_stack


@dataclass(frozen=True)
class State:
    """The ports of pik.ports.state, of one empty store."""

    metrics: Metrics
    runs: Runs
    queue: Queue
    aggregates: Aggregates
    deployed: bool = False


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


def aws_state(clients: Clients) -> State:
    """As local_state."""
    stack = make_stack(clients)
    table = Table(clients, stack.state_table)
    return State(
        AwsMetrics(table),
        AwsRuns(table),
        AwsQueue(clients, stack, table, patience=0),
        AwsAggregates(table),
        deployed=True,
    )


@pytest.fixture(params=["local", "aws"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> State:
    if request.param == "local":
        return local_state(tmp_path)
    return aws_state(request.getfixturevalue("aws"))


def local_store(directory: Path) -> Store:
    return open_store(str(directory / "store"), create=True)


@pytest.fixture(params=[local_store], ids=["local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Empty."""
    made: Store = request.param(tmp_path)
    return made

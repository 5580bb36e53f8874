"""The stores that every contract is held against: a fixture a family of ports, one parameter a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from pik.ports.state import Aggregates, DeadLetters, Metrics, Promotions, Queue, Runs, StateAudit
from pik.ports.store import Store
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from pik.stores.aws.queue import AwsQueue
from pik.stores.aws.state.aggregates import AwsAggregates, AwsMetrics
from pik.stores.aws.state.audit import AwsStateAudit
from pik.stores.aws.state.runs import AwsRuns
from pik.stores.aws.table import Table
from pik.stores.local.state.aggregates import LocalAggregates
from pik.stores.local.state.audit import LocalStateAudit
from pik.stores.local.state.metrics import LocalMetrics
from pik.stores.local.state.runs import LocalQueue, LocalRuns
from pik.stores.local.state.tables import state_database
from tests.support.aws.compacted import compacting
from tests.support.aws.emulator import make_stack, publish

STORES = ["local", "aws"]
"""Every store. A contract that takes one of the fixtures below runs on all of them."""

WITH_MOTO = [*STORES, "moto"]
"""The stores of suites that moto serves faithfully as well; docs/dev/testing.md says why others are not among them."""


@dataclass(frozen=True)
class State:
    """The ports of pik.ports.state, of one empty store."""

    metrics: Metrics
    runs: Runs
    queue: Queue
    dead_letters: DeadLetters
    aggregates: Aggregates
    promotions: Promotions
    audit: StateAudit
    deployed: bool = False


def local_state(directory: Path) -> State:
    """Picklable, as a store is."""
    (directory / "tmp").mkdir(exist_ok=True)
    database = state_database(directory)
    database.create()
    queue = LocalQueue(database)
    return State(
        LocalMetrics(database),
        LocalRuns(database, directory / "locks"),
        queue,
        queue,
        LocalAggregates(database),
        LocalAggregates(database),
        LocalStateAudit(database),
    )


def aws_state(clients: Clients) -> State:
    """As local_state."""
    stack = make_stack(clients)
    table = Table(clients, stack.state_table)
    queue, aggregates = AwsQueue(clients, stack, table), AwsAggregates(table)
    return State(
        AwsMetrics(table),
        AwsRuns(table),
        queue,
        queue,
        aggregates,
        aggregates,
        AwsStateAudit(table),
        deployed=True,
    )


@pytest.fixture(params=STORES)
def state(request: pytest.FixtureRequest, tmp_path: Path) -> State:
    return state_of(request, tmp_path)


def state_of(request: pytest.FixtureRequest, tmp_path: Path) -> State:
    """The state of the store that a parameter names."""
    if request.param == "local":
        return local_state(tmp_path)
    return aws_state(request.getfixturevalue(request.param))


def local_store(directory: Path) -> Store:
    directory.mkdir()
    return open_store(str(directory / "store"), create=True)


def aws_store(clients: Clients) -> Store:
    return open_store(publish(clients, make_stack(clients)))


@pytest.fixture
def new_store(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Callable[[], Store]:
    """Makes empty stores."""
    if kind == "local":
        return lambda: local_store(tmp_path / uuid4().hex)
    clients: Clients = request.getfixturevalue("aws")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    if kind == "compacted":
        return lambda: compacting(aws_store(clients), monkeypatch)
    return lambda: aws_store(clients)


LOCAL_FIRST = ["local", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("aws", "compacted"))]
"""The kinds of stores of a contract that other tests hold against a deployed store too."""


@pytest.fixture(params=[*STORES, pytest.param("compacted", marks=pytest.mark.slow)])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of store that `new_store` and `store` make."""
    made: str = request.param
    return made


@pytest.fixture
def store(new_store: Callable[[], Store]) -> Store:
    """Empty."""
    return new_store()

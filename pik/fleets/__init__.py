"""Opening fleets by location: `local` is this process, everything else a Spark cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pik.fleets.tasks import versions
from pik.model.cluster import Cluster
from pik.ports.engine import Engine
from pik.ports.fleet import LOCAL, Fleet
from pik.ports.store import Store

__all__ = ["expect_usable", "open_fleet", "versions", "within_job"]

_SUBMITTED_TO = "PYSPARK_GATEWAY_PORT"
"""The variable that spark-submit gives to the process that it starts."""


def within_job() -> bool:
    """Return whether spark-submit has started this process."""
    return _SUBMITTED_TO in os.environ


def expect_usable(location: str, cluster: Cluster) -> None:
    """Raise UsageError for an unknown location, and for a missing package or archive. Commands call it before they do
    anything else, long before they open the fleet."""
    if location != LOCAL:
        from pik.fleets.session import expect_usable

        expect_usable(location, cluster)


@contextmanager
def open_fleet(
    location: str, store: Store, engine: Engine, cluster: Cluster, note: Callable[[str], object]
) -> Iterator[Fleet]:
    """Provide the fleet at a location, for a store. `engine` is for each of the tasks that run at the same time; `note`
    is told what the cluster waits for. Raises UsageError for an unknown location or a package that is not installed,
    StoreError where the cluster cannot be used."""
    if location == LOCAL:
        from pik.fleets.here import Here

        yield Here(store, engine)
        return
    from pik.fleets.session import open_session
    from pik.fleets.spark import SparkFleet

    with open_session(location, cluster, note) as session:
        yield SparkFleet(session, location, store, engine)

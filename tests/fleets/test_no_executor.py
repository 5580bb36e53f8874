"""A cluster that cannot run anything: the command says so, instead of waiting for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.spark import TOP, packages
from tests.support.spark_servers import HOST, free_port, standalone_cluster

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark_faults")]

PROGRAM = """
import sys
from pik.errors import StoreError
from pik.fleets import session
from pik.model.cluster import Cluster
session.NOTED_AFTER, session.EXECUTORS_WITHIN = 1, 5
try:
    with session.open_session(sys.argv[1], Cluster(), print):
        pass
except StoreError as error:
    print(error.message)
"""


def said(location: str) -> list[str]:
    found = os.pathsep.join([str(TOP), str(packages("spark"))])
    environment = {**os.environ, "PYTHONPATH": found}
    command = [sys.executable, "-c", PROGRAM, location]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_there_are_no_workers(tmp_path: Path) -> None:
    with standalone_cluster(tmp_path, hosts=()) as location:
        assert said(location) == [
            f"waiting for an executor of {location} …",
            f"no executor of {location} has run anything within 5 seconds",
        ]


def test_there_is_no_master() -> None:
    location = f"spark://{HOST}:{free_port()}"
    what = "Application has been killed. Reason: All masters are unresponsive! Giving up."
    assert said(location)[-1] == f"Spark did not start for {location}: {what}"


def test_a_worker_has_less_memory_than_an_executor_asks_for() -> None:
    """What Spark says of it, without where in its code."""
    location = "local-cluster[1,1,100]"
    what = "Asked to launch cluster with 100 MiB/worker but requested 1024 MiB/executor"
    assert said(location)[-1] == f"Spark did not start for {location}: {what}"

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
    with standalone_cluster(tmp_path, workers=0) as location:
        assert said(location) == [
            f"waiting for an executor of {location} …",
            f"no executor of {location} has run anything within 5 seconds",
        ]


def test_there_is_no_master() -> None:
    location = f"spark://{HOST}:{free_port()}"
    *_, last = said(location)
    assert location in last
    assert "\n" not in last

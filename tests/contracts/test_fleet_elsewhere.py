"""The contract of the Fleet port where Spark is not `local-cluster` of the newest release.

A process has one package `pyspark`, so the contract runs in others: with the client of a Connect server, on a cluster
of a master and two workers, and with Spark 3.5. On that cluster, executors also use a stack.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import pytest

from tests.support.spark import TOP, packages
from tests.support.spark_servers import connect_server, standalone_cluster

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark")]

Place = Callable[[Path], AbstractContextManager[str]]

EXECUTORS = {"spark.executorEnv.PYTHONPATH": str(TOP)}

PLACES: dict[str, tuple[str, Place]] = {
    "connect": ("spark-connect", partial(connect_server, settings=EXECUTORS)),
    "standalone": ("spark", standalone_cluster),
    "3.5": ("spark35", lambda _: nullcontext("local-cluster[2,1,1024]")),
}

CONTRACT = "tests/contracts/test_fleet.py"
ON_STACK = [
    f"tests/cli/test_on_stack.py::test_{name}"
    for name in ("executors_read_a_packed_stack", "objects_are_ingested_the_same", "a_replay_is_the_same")
]


@pytest.mark.parametrize("place", PLACES)
def test_the_contract_holds(place: str, tmp_path: Path) -> None:
    environment, opened = PLACES[place]
    packages(environment)
    with opened(tmp_path) as location:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environ |= {"PIK_SPARK_ON": location, "PIK_SPARK_ENVIRONMENT": environment}
        words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", CONTRACT, *(ON_STACK if place == "standalone" else [])]
        ran = subprocess.run([sys.executable, *words], cwd=TOP, env=environ, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "skipped" not in ran.stdout, ran.stdout

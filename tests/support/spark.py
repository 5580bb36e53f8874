"""Spark as the tests run it: real executors on this machine, one session for each process of tests."""

from __future__ import annotations

import os
import shutil
import site
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pik.fleets.session import Session, open_session
from pik.model.cluster import Cluster

TOP = Path(__file__).parents[2]

LOCATION = os.environ.get("PIK_SPARK_ON", "local-cluster[2,1,1024]")
"""Where the tests run Spark. tests/contracts/test_fleet_elsewhere.py names other places."""

ENVIRONMENT = os.environ.get("PIK_SPARK_ENVIRONMENT", "spark")
"""The environment that has the package `pyspark`, without `.venv-`. A process has one, and the modules of it."""

CLUSTER = Cluster(spark={} if LOCATION.startswith("sc:") else {"spark.executorEnv.PYTHONPATH": str(TOP)})
"""Executors find the functions of tests as well."""

REQUIRED = "PIK_REQUIRE_JAVA"
"""The variable with which a machine without Java fails the tests instead of skipping those of Spark."""


def packages(environment: str) -> Path:
    """Return where an environment has its packages. Skips the test without it or Java."""
    found = TOP / f".venv-{environment}" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    missing = "Java" if shutil.which("java") is None else f"{found}: make .venv-{environment}"
    if missing != "Java" and found.is_dir():
        return found
    if os.environ.get(REQUIRED):
        pytest.fail(f"Spark needs {missing}, and {REQUIRED} is set")
    pytest.skip(f"Spark needs {missing}")


def require_spark() -> None:
    """Make pyspark importable, which has an environment of its own. Skips the test without it or Java."""
    site.addsitedir(str(packages(ENVIRONMENT)))


@contextmanager
def spark_session() -> Iterator[Session]:
    """Provide a session with two executors."""
    require_spark()
    with open_session(LOCATION, CLUSTER, print) as session:
        yield session

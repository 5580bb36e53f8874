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

from pik.fleets.session import Session, driver
from pik.model.cluster import Cluster

TOP = Path(__file__).parents[2]

LOCATION = "local-cluster[2,1,1024]"

CLUSTER = Cluster(spark={"spark.executorEnv.PYTHONPATH": str(TOP)})
"""Executors find the functions of tests as well."""

REQUIRED = "PIK_REQUIRE_JAVA"
"""The variable with which a machine without Java fails the tests instead of skipping those of Spark."""


def require_spark() -> None:
    """Make pyspark importable, which has an environment of its own. Skips the test without it or Java."""
    packages = TOP / ".venv-spark" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    missing = "Java" if shutil.which("java") is None else f"{packages}: make .venv-spark"
    if missing != "Java" and packages.is_dir():
        site.addsitedir(str(packages))
        return
    if os.environ.get(REQUIRED):
        pytest.fail(f"Spark needs {missing}, and {REQUIRED} is set")
    pytest.skip(f"Spark needs {missing}")


@contextmanager
def spark_session() -> Iterator[Session]:
    """Provide a session with two executors."""
    require_spark()
    with driver(LOCATION, CLUSTER) as session:
        yield session

"""Executors and their Python that are killed in the middle of a job change no result.

Spark runs no second copy of a task on the host of the first, so speculation needs two hosts; what it may do to results
is proven by `RepeatingFleet`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from pik.engine import DuckEngine
from pik.fleets.session import driver
from pik.fleets.spark import SparkFleet
from pik.model.cluster import Cluster
from pik.stores import open_store
from tests.support.contracts import fleet as of
from tests.support.spark import CLUSTER, LOCATION, TOP, require_spark
from tests.support.spark_servers import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark_faults")]

ITEMS = 24


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkFleet]:
    require_spark()
    store = open_store(str(tmp_path_factory.mktemp("faults") / "store"), create=True)
    cluster = Cluster(spark={**CLUSTER.spark, "spark.task.maxFailures": "8"})
    with driver(LOCATION, cluster) as session:
        yield SparkFleet(session, LOCATION, store, DuckEngine(threads=1))


def processes(words: str) -> list[int]:
    """Those of executors of this process's cluster, or their Pythons: descendants whose command line has the words."""
    parents, found = {}, []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            stat, line = (path / "stat").read_text(), (path / "cmdline").read_bytes().decode()
        except OSError:
            continue
        parents[int(path.name)] = int(stat.rpartition(")")[2].split()[1])
        if words in line:
            found.append(int(path.name))
    return [one for one in found if os.getpid() in ancestors(one, parents)]


def ancestors(one: int, parents: dict[int, int]) -> list[int]:
    found = []
    while one in parents:
        one = parents[one]
        found.append(one)
    return found


@contextmanager
def killing_one(words: str, after: float) -> Iterator[None]:
    """One of the cluster's processes is killed meanwhile."""
    ended = Event()

    def run() -> None:
        ended.wait(after)
        while not ended.is_set():
            with suppress(IndexError, ProcessLookupError):  # it is just being started again
                os.kill(processes(words)[-1], signal.SIGKILL)
                return

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("words", ["CoarseGrainedExecutorBackend", "pyspark.daemon"])
@pytest.mark.parametrize("after", [0.5, 2.0, 4.0])
def test_promise_6_a_process_is_killed_in_the_middle_of_a_job(
    fleet: SparkFleet, tmp_path: Path, words: str, after: float
) -> None:
    calls = str(tmp_path / "calls")
    items = [(number, calls) for number in range(ITEMS)]
    assert list(fleet.map(of.slow, items[:2])) == [0, 1]  # the executors are there
    with killing_one(words, after):
        assert list(fleet.map(of.slow, items)) == list(range(ITEMS))
    with killing_one(words, after):
        found = list(fleet.map_reduce(of.slow_keyed, items, of.lengths, 5))
    assert [key for key, _ in found] == list(range(5))
    assert [[value[1] for value in values] for _, values in found] == [
        [bytes([number]) for number in range(ITEMS) if number % 5 == key] for key in range(5)
    ]


def test_the_driver_is_killed(tmp_path: Path) -> None:
    """Nothing of it is left: neither Java nor executors."""
    require_spark()
    program = tmp_path / "driver.py"
    program.write_text(
        "import time\n"
        "from pik.fleets.session import driver\n"
        "from tests.support.spark import CLUSTER, LOCATION, require_spark\n"
        "require_spark()\n"
        "with driver(LOCATION, CLUSTER) as session:\n"
        "    print('started', flush=True)\n"
        "    time.sleep(600)\n"
    )
    marker = f"driver-of-{os.getpid()}"
    environment = {**os.environ, "PYTHONPATH": str(TOP), "SPARK_JAVA_OPTS": "", "SPARK_MARKER": marker}
    started = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, env=environment)
    assert started.stdout is not None
    assert started.stdout.readline() == b"started\n"
    children = with_variable(marker) - {started.pid}
    assert children
    started.kill()
    started.wait()
    until = time.monotonic() + PATIENCE
    while with_variable(marker) and time.monotonic() < until:
        time.sleep(0.5)
    assert with_variable(marker) == set()


def with_variable(text: str) -> set[int]:
    """The processes whose environment has the text."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (path / "environ").read_bytes():
                found.add(int(path.name))
        except OSError:
            continue
    return found

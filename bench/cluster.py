"""What a Spark cluster costs beside pik in one process: `python -m bench.cluster --lines 2000000`.

Ingests events, makes their values current, and compares them with what is recomputed (`diff aggregates`), in this
process and on `local-cluster` with one and with two workers (`make .venv-spark`; Java 17). Each runs three times in one
session; the last counts, when Java has compiled what it runs. The seconds of processors are those of Python (the driver
and the executors' Python) and of Java, apart.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pik.engine import DuckEngine
from pik.fleets.session import driver
from pik.fleets.spark import SparkFleet
from pik.model.instant import ALL_TIME
from pik.stores import open_store
from pik.usecases.metrics.diff import diff_aggregates
from tests.support.spark import CLUSTER, require_spark

TICKS = os.sysconf("SC_CLK_TCK")

LOCATIONS = ("local", "local-cluster[1,1,1024]", "local-cluster[2,1,1024]")

RUNS = 3


class Used(NamedTuple):
    """Seconds that went by, those of processors in Python and in Java, and the most memory of the driver, in MiB."""

    seconds: float
    python: float
    java: float
    driver: float


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=2_000_000)
    parser.add_argument("--store", help="of an earlier run; with --on: compare it there and print what that used")
    parser.add_argument("--on")
    given = parser.parse_args()
    if given.on:
        print(json.dumps(measured(given.store, given.on)))
        return
    with tempfile.TemporaryDirectory() as directory:
        store = given.store or made(Path(directory), given.lines)
        print(f"{'':26} {'seconds':>8} {'Python':>8} {'Java':>8} {'driver':>8}")
        for location in LOCATIONS:
            command = [sys.executable, "-m", "bench.cluster", "--store", store, "--on", location]
            used = Used(*json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
            print(
                f"{location:26} {used.seconds:8.1f} {used.python:8.1f} {used.java:8.1f} {used.driver:5.0f} MiB",
                flush=True,
            )


def made(directory: Path, lines: int) -> str:
    """Return a store with so many deliveries, whose values are current."""
    events, store = directory / "events.jsonl", str(directory / "store")
    pik = [sys.executable, "-m", "pik", "--store", store]
    subprocess.run([sys.executable, "-m", "bench.gen_events", str(lines), events], check=True)
    for words in (["init"], ["ingest", str(events)], ["replay", "--all", "--promote", "--yes"]):
        subprocess.run([*pik, *words], check=True, capture_output=True)
    return store


def measured(url: str, location: str) -> Used:
    """Return what the last of several comparisons used."""
    store = open_store(url)
    if location == "local":
        engine = DuckEngine()
        return [used(lambda: list(diff_aggregates(store, engine, ALL_TIME).rows)) for _ in range(RUNS)][-1]
    require_spark()
    with driver(location, CLUSTER) as session:
        engine = DuckEngine(threads=1)
        fleet = SparkFleet(session, location, store, engine)
        compare: Callable[[], Any] = lambda: list(diff_aggregates(store, engine, ALL_TIME, fleet=fleet).rows)  # noqa: E731
        return [used(compare) for _ in range(RUNS)][-1]


def used(work: Callable[[], object]) -> Used:
    """Do the work, and return what it used."""
    begun, python, java = time.monotonic(), *processors()
    work()
    now_python, now_java = processors()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Used(time.monotonic() - begun, now_python - python, now_java - java, most)


def processors() -> tuple[float, float]:
    """Return the seconds of processors that this process and those that it started have used, Python's and Java's."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    python, java = usage.ru_utime + usage.ru_stime, 0.0
    parents: dict[int, int] = {}
    seconds: dict[int, tuple[str, float]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
        except OSError:  # it has ended
            continue
        fields = rest.split()
        parents[int(path.parent.name)] = int(fields[1])
        own = fields[11:13] if name == "java" else fields[11:15]  # Java's children are alive, and counted by themselves
        seconds[int(path.parent.name)] = name, sum(map(int, own)) / TICKS
    for process, (name, its) in seconds.items():
        if is_ours(process, parents):
            python, java = (python, java + its) if name == "java" else (python + its, java)
    return python, java


def is_ours(process: int, parents: dict[int, int]) -> bool:
    """Return whether this process is an ancestor of another one."""
    while process := parents.get(process, 0):
        if process == os.getpid():
            return True
    return False


if __name__ == "__main__":
    main()

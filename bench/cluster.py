"""What a Spark cluster costs beside pik in one process: `make bench-cluster`, or `python -m bench.cluster --help`.

Eight files are ingested into a new store, and the current values of a store are compared with what is recomputed (`diff
aggregates`): by this process, and on `local-cluster` with one and with two workers. Each runs several times in one
session, and the last counts, when Java has compiled what it runs. The seconds of processors are those of Python (the
driver and the executors' Python) and of Java, apart. The exit code is 1 if a bar is not met.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from pik.engine import DuckEngine
from pik.fleets.here import Here
from pik.fleets.session import Session, open_session
from pik.fleets.spark import SparkFleet
from pik.inputs.source import file_source, stop
from pik.model.window import ALL_TIME
from pik.ports.fleet import LOCAL, Fleet
from pik.ports.store import Store
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.ingest.batch_ingest import IngestOptions
from pik.usecases.ingest.bulk import ingest_in_bulk
from pik.usecases.ingest.many_inputs import ingest_all
from pik.usecases.metrics.diff import diff_aggregates
from tests.support.spark import CLUSTER, require_spark

TICKS = os.sysconf("SC_CLK_TCK")

ONE, TWO = "local-cluster[1,1,1024]", "local-cluster[2,1,1024]"

FILES = 8


class Used(NamedTuple):
    """Seconds that went by, those of processors in Python and in Java, and the most memory of the driver, in MiB."""

    seconds: float
    python: float
    java: float
    driver: float


class Bar(NamedTuple):
    """A figure that must not exceed a limit, or must reach it."""

    what: str
    figure: Callable[[dict[str, Used]], float]
    limit: float
    at_least: bool = False

    def verdict(self, used: dict[str, Used]) -> tuple[bool, str]:
        """Return whether it is met, and a line that says so."""
        found = self.figure(used)
        is_met = found >= self.limit if self.at_least else found <= self.limit
        sign, missed = ("≥" if self.at_least else "≤"), ("" if is_met else "; not met")
        return is_met, f"{self.what}: {found:.4g} ({sign} {self.limit}{missed})"


def of_python(limit: float) -> Bar:
    """Return the bar of what Python takes more than in one process."""
    return Bar("Python's seconds, of those of one process", lambda used: used[TWO].python / used[LOCAL].python, limit)


DRIVER = Bar("MiB of the driver", lambda used: used[TWO].driver, 400)

SECOND_WORKER = Bar("a second worker is faster by", lambda used: used[ONE].seconds / used[TWO].seconds, 1.3, True)

BARS = {"diff": (of_python(2), SECOND_WORKER, DRIVER), "ingest": (of_python(1.5), DRIVER)}


def main() -> int:
    """Measure and print; return 1 if a bar is not met."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    parser.add_argument("--lines", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=3, help="in one session; the last counts")
    parser.add_argument("--work", type=Path, help="where files and their store go, and are looked for")
    parser.add_argument("--only", choices=BARS, help="this alone")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "LOCATION"), help="this alone, and print it as JSON")
    given = parser.parse_args()
    with TemporaryDirectory() as directory:
        work = (given.work or Path(directory)).absolute()
        if given.measure:
            what, location = given.measure
            print(json.dumps(measured(work, what, location, given.runs)))
            return 0
        prepare(work, given.lines)
        return max([compared(work, what, given.runs) for what in ([given.only] if given.only else BARS)])


def compared(work: Path, what: str, runs: int) -> int:
    """Print what each location used, and the bars; return 1 if one is not met."""
    print(f"{what:24} {'seconds':>8} {'Python':>8} {'Java':>8} {'driver':>10}")
    used: dict[str, Used] = {}
    for location in (LOCAL, ONE, TWO):
        words = "--work", str(work), "--runs", str(runs), "--measure", what, location
        printed = subprocess.run([sys.executable, "-m", "bench.cluster", *words], check=True, stdout=subprocess.PIPE)
        one = used[location] = Used(*json.loads(printed.stdout))
        print(f"{location:24} {one.seconds:8.1f} {one.python:8.1f} {one.java:8.1f} {one.driver:6.0f} MiB", flush=True)
    verdicts = [bar.verdict(used) for bar in BARS[what]]
    print("\n".join(line for _, line in verdicts), flush=True)
    return int(not all(is_met for is_met, _ in verdicts))


def prepare(work: Path, lines: int) -> None:
    """Make files of so many events, and a store of them whose values are current, unless they are there."""
    files, store = work / "files", work / "store"
    if store.exists():
        return
    files.mkdir(parents=True)
    events = work / "events.jsonl"
    subprocess.run([sys.executable, "-m", "bench.gen_events", str(lines), events], check=True, capture_output=True)
    subprocess.run(["split", "-n", f"l/{FILES}", "--additional-suffix=.jsonl", events, files / "part-"], check=True)
    events.unlink()
    for words in (["init"], ["ingest", files], ["replay", "--all", "--promote", "--yes"]):
        subprocess.run([sys.executable, "-m", "pik", "--store", store, *words], check=True, capture_output=True)


def measured(work: Path, what: str, location: str, runs: int) -> Used:
    """Return what the last of so many runs used."""
    done = diff if what == "diff" else ingest
    if location == LOCAL:
        return [done(work, None) for _ in range(runs)][-1]
    require_spark()
    with open_session(location, CLUSTER, say) as session:
        return [done(work, session) for _ in range(runs)][-1]


def diff(work: Path, session: Session | None) -> Used:
    """Compare all values."""
    store = open_store(str(work / "store"))
    engine = DuckEngine() if session is None else DuckEngine(threads=1)
    fleet = fleet_of(session, store, engine)
    return used(lambda: sum(1 for _ in diff_aggregates(store, engine, ALL_TIME, fleet=fleet).rows))


def ingest(work: Path, session: Session | None) -> Used:
    """Ingest the files into a new store."""
    options = IngestOptions(Reading(1 << 20, mixed=True))
    sources = [file_source(str(path)) for path in sorted((work / "files").iterdir())]
    with TemporaryDirectory(dir=work) as directory:
        store = open_store(f"{directory}/store", create=True)
        fleet = fleet_of(session, store, DuckEngine(threads=1))
        if session is None:
            return used(lambda: list(ingest_all(store, sources, options, SILENT)))
        return used(lambda: list(ingest_in_bulk(store, fleet, sources, options, SILENT, stop, say)))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fleet_of(session: Session | None, store: Store, engine: DuckEngine) -> Fleet:
    return Here(store, engine) if session is None else SparkFleet(session, "a cluster", store, engine)


def used(work: Callable[[], object]) -> Used:
    """Do the work, and return what it used."""
    begun, python, java = time.monotonic(), *processors()
    work()
    now_python, now_java = processors()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Used(time.monotonic() - begun, now_python - python, now_java - java, most)


def processors() -> tuple[float, float]:
    """Return the seconds of processors that this process and those that it started have used, Python's and Java's."""
    of_all = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    python, java = sum(usage.ru_utime + usage.ru_stime for usage in of_all), 0.0
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
    sys.exit(main())

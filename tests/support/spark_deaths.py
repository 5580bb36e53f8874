"""Commands on a Spark of their own, of which a process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.support.spark import TOP, packages

PATIENCE = 600
"""Seconds after which a command, or what is left of it, counts as hanging."""

PROGRAM = """
import os, sys
from pik.__main__ import program
from pik.cli.context import Context
from pik.usecases.export import fleet
from pik.usecases.ingest import bulk_plan

bulk_plan.SMALL, bulk_plan.PART = 1 << 10, 1 << 19
fleet.TASK_BYTES, fleet.PARTITIONED_BYTES = 60_000, 1 << 20
if "PIK_HERE" in os.environ:
    from pik.engine import DuckEngine
    from pik.fleets.here import Here

    Context.fleet = lambda _cli, _on, store: Here(store, DuckEngine(threads=1))
sys.exit(program())
"""
"""pik, with tasks that are many for little raw; with PIK_HERE they run in its process, whatever `--on` says."""

DRIVER, JAVA, EXECUTOR, PYTHON = "pik_program", "SparkSubmit", "CoarseGrainedExecutorBackend", "pyspark.daemon"
"""Words by which the command lines of pik, its Java, an executor and its Pythons are known."""


class Ended(NamedTuple):
    """The exit code and output of a command, and how many of its processes were killed."""

    code: int
    out: str
    err: str
    kills: int = 0


class Death(NamedTuple):
    """Kill one of the processes that have these words in their command lines, when so much is made."""

    words: str
    made: int


class Machine(NamedTuple):
    """Where commands run: a directory; `name` marks their processes."""

    directory: Path
    name: str

    def run(self, *words: str, deaths: Sequence[Death] = (), made: Callable[[], int] = int, draw: Random) -> Ended:
        """Run pik, and kill some of its processes. Nothing of it is left."""
        out, err = self.directory / "out", self.directory / "err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            started = subprocess.Popen(
                self._words(words), cwd=self.directory, env=self._environment(), stdout=stdout, stderr=stderr
            )
        kills = sum(self._kill(started, death, made, draw) for death in deaths)
        code = started.wait(PATIENCE)
        until = time.monotonic() + PATIENCE
        while self.processes("") and time.monotonic() < until:
            time.sleep(0.1)
        assert self.processes("") == []
        return Ended(code, out.read_text(), err.read_text(), kills)

    def _kill(self, started: subprocess.Popen[bytes], death: Death, made: Callable[[], int], draw: Random) -> bool:
        """Kill a process while the command runs; return whether it did run so long."""
        while started.poll() is None:
            if self.processes(PYTHON) and made() >= death.made and (victims := self.processes(death.words)):
                with suppress(ProcessLookupError):
                    os.kill(draw.choice(victims), signal.SIGKILL)
                    return True
            time.sleep(draw.uniform(0, 0.1))
        return False

    def here(self, *words: str) -> Ended:
        """Run pik without Spark, in the same parts."""
        environment = {**self._environment(), "PIK_HERE": "1"}
        done = subprocess.run(
            self._words(words), cwd=self.directory, env=environment, capture_output=True, text=True, check=False
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def _words(self, words: Sequence[str]) -> list[str]:
        program = self.directory / f"{DRIVER}.py"
        program.write_text(PROGRAM)
        return [sys.executable, str(program), *words]

    def _environment(self) -> Mapping[str, str]:
        """Return the variables of its processes, which find pyspark and pik."""
        temporary = self.directory / "tmp"
        temporary.mkdir(exist_ok=True)
        found = os.pathsep.join([str(TOP), str(packages("spark"))])
        own = {"PYTHONPATH": found, "PIK_TEST_MACHINE": self.name, "TMPDIR": str(temporary)}
        return {**os.environ, **own, "SPARK_LOCAL_DIRS": str(temporary)}

    def processes(self, words: str) -> list[int]:
        """Return those of its processes whose command line has the words."""
        return [one for one, line in _with_variable(f"PIK_TEST_MACHINE={self.name}\0") if words in line]


def _with_variable(text: str) -> Iterator[tuple[int, str]]:
    """Yield the processes whose environment has the text, and their command lines; those that have ended have none."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (path / "environ").read_bytes():
                yield int(path.name), (path / "cmdline").read_bytes().decode()
        except OSError:
            continue


@contextmanager
def machine(directory: Path) -> Iterator[Machine]:
    """Provide a machine; whatever is left of its commands is killed in the end."""
    directory.mkdir(parents=True, exist_ok=True)
    found = Machine(directory, f"{os.getpid()}-{directory.name}")
    try:
        yield found
    finally:
        for one in found.processes(""):
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)

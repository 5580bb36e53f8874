"""Run a command as a process of its own: wall time, and the peak memory of it and its children together.

Memory is the sum of PSS (each process's share of the pages it maps, from /proc/PID/smaps_rollup) over the process tree,
sampled every 20 ms: unlike RSS it counts a page that several workers share once. Peaks shorter than that can be missed.
"""

import os
import resource
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.02
PROC = Path("/proc")


class CommandFailed(Exception):
    """The command did not end as expected; the message holds what it wrote to stderr."""


@dataclass(frozen=True)
class Run:
    """`cpu_seconds` are those of the process and of all its children."""

    seconds: float
    cpu_seconds: float
    peak_mib: float | None
    stdout: str


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    sample: bool,
    codes: Sequence[int] = (0,),
) -> Run:
    """Run to the end; raises CommandFailed unless the exit code is one of `codes`."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        cpu_before, begin = _cpu_of_children(), time.perf_counter()
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env={**os.environ, **(env or {})}
            )
        except OSError as problem:
            raise CommandFailed(f"{argv[0]}: {problem.strerror}") from problem
        sampler = _Sampler(process.pid) if sample else None
        try:
            code = process.wait()
            seconds, cpu_seconds = time.perf_counter() - begin, _cpu_of_children() - cpu_before
        finally:
            process.kill()  # after Ctrl-C; does nothing to a process that has ended
            process.wait()
            peak = sampler.stop() if sampler else None
        out.seek(0)
        err.seek(0)
        stdout, stderr = out.read(), err.read()
    if code not in codes:
        raise CommandFailed(f"exit code {code}: {' '.join(argv)}\n{(stderr or stdout).strip()[-2000:]}")
    return Run(seconds, cpu_seconds, peak, stdout)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _Sampler:
    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, sum(_pss_kib(pid) for pid in _tree(self._pid)))

    def stop(self) -> float:
        self._ended.set()
        self._thread.join()
        return self._peak / 1024


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:  # grows while it is walked
        for children in (PROC / str(parent) / "task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:  # the process ended meanwhile
                continue
    return found


def _pss_kib(pid: int) -> int:
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:  # the process ended meanwhile
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))

"""Instances of a function, each a process that does one thing at a time, with AWS as it is on a bad day: some of their
calls fail, and whoever wants can kill them.

`python -m tests.support.lambdas.instances MODULE SEED` is such a process: events come on its standard input, a line
each, and answers go to its standard output.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import count
from queue import Queue
from random import Random
from threading import Lock
from time import monotonic
from typing import Any

SHARE = 0.05
"""Of the calls of AWS that fail."""


@dataclass
class Instances:
    """Instances of the function in `pik.lambdas.MODULE`; `answered` counts calls, `killed` the
    instances that were killed."""

    module: str
    idle: Queue[subprocess.Popen[str]] = field(default_factory=Queue)
    busy: list[subprocess.Popen[str]] = field(default_factory=list)
    answered: int = 0
    killed: int = 0
    _seeds: Iterator[int] = field(default_factory=lambda: count(1))
    _lock: Lock = field(default_factory=Lock)

    def invoke(self, event: dict[str, Any]) -> tuple[dict[str, Any] | None, float]:
        """Return what the function answers, None if it died over it, and after how many seconds of work. Who asks first
        gets the next instance that is idle."""
        process = self.idle.get()
        begun = monotonic()
        assert process.stdin is not None
        assert process.stdout is not None
        with self._lock:
            self.busy.append(process)
        try:
            process.stdin.write(json.dumps(event) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        seconds = monotonic() - begun
        with self._lock:
            self.busy.remove(process)
            self.answered += bool(answer)
            if not answer:
                process.wait()
                process = self._begun()
        self.idle.put(process)
        return (json.loads(answer) if answer else None), seconds

    def kill(self, random: Random) -> None:
        """Kill an instance that is at work, if one is."""
        with self._lock:
            if self.busy:
                random.choice(self.busy).kill()
                self.killed += 1

    def _begun(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", __name__, self.module, str(next(self._seeds))]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begin(self, number: int) -> None:
        """Begin so many."""
        for _ in range(number):
            self.idle.put(self._begun())

    def end(self) -> None:
        """End all of them, which must be idle."""
        while not self.idle.empty():
            process = self.idle.get()
            process.communicate()


@contextmanager
def running(module: str, number: int) -> Iterator[Instances]:
    """Provide instances of a function, in the environment of this process."""
    made = Instances(module)
    made.begin(number)
    try:
        yield made
    finally:
        made.end()


def _serve(module: str, seed: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    for number in (1, 2):  # where metrics and logs go
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    from pik import lambdas
    from tests.support.aws.unreliable import unreliable
    from tests.support.lambdas.gateway import CONTEXT

    handler = import_module(f"pik.lambdas.{module}").handler
    with unreliable(lambdas.store(), seed, SHARE):
        for line in sys.stdin:
            answers.write(json.dumps(handler(json.loads(line), CONTEXT)) + "\n")
            answers.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _serve(sys.argv[1], int(sys.argv[2]))

"""What a case of the benchmarks is."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.workspace import Workspace


def _nothing() -> None:
    pass


def _fine(_stdout: str) -> None:
    pass


@dataclass(frozen=True)
class Step:
    """A command; `before` runs untimed, `check` raises CommandFailed where the command did not do its work. `codes`
    are the exit codes of one that did. `less` is the part of it that is not counted, as a command, which runs after it
    with a `before` of its own."""

    argv: tuple[str, ...]
    before: Callable[[], None] = _nothing
    check: Callable[[str], None] = _fine
    codes: tuple[int, ...] = (0,)
    less: "Step | None" = None


@dataclass(frozen=True)
class Pair:
    ours: Step
    peer: Step | None = None


@dataclass(frozen=True)
class Case:
    name: str
    what: str
    against: str
    build: Callable[[Workspace], Pair]
    ratio: float | None = None
    mib: float | None = None
    lines: int | None = None  # where it is not --rows
    pairs: int | None = None  # where it is not --pairs
    warm_up: bool = True
    deep: bool = False
    cpu: bool = False  # seconds of CPU instead of those of the clock


PEERS = Path(__file__).with_name("peers")


def peer_step(script: str, *args: str | Path, before: Callable[[], None] = lambda: None) -> Step:
    return Step((sys.executable, str(PEERS / script), *map(str, args)), before)

"""Sorting more than memory should hold: sorted runs in temporary files, merged."""

from __future__ import annotations

import heapq
import pickle
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

Item = TypeVar("Item")

RUN = 50_000
"""Items that are held at a time."""


def sort_bounded(items: Iterable[Item], key: Callable[[Item], Any], scratch: Path) -> Iterator[Item]:
    """The items ordered by key, with at most RUN of them in memory; `scratch` is a private directory."""
    remaining = iter(items)
    runs: list[Path] = []
    while run := sorted(islice(remaining, RUN), key=key):
        if not runs and len(run) < RUN:
            yield from run
            return
        runs.append(scratch / f"run-{len(runs)}")
        with open(runs[-1], "wb") as file:
            for item in run:
                pickle.dump(item, file, pickle.HIGHEST_PROTOCOL)
    yield from heapq.merge(*(_read(open(run, "rb")) for run in runs), key=key)  # noqa: SIM115 - closed by _read


def _read(file: BinaryIO) -> Iterator[Any]:
    with file:
        while True:
            try:
                yield pickle.load(file)
            except EOFError:
                return

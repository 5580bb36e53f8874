"""Sorting more than memory should hold: sorted runs in temporary files, merged."""

from __future__ import annotations

import heapq
import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

Item = TypeVar("Item")

RUN = 50_000
"""Items that are held at a time."""


class Sorter(Generic[Item]):
    """Takes in items, of which at most RUN are in memory, and gives them back ordered by key.

    `scratch` is a private directory, `name` the beginning of the names of the files that it makes there.
    """

    def __init__(self, key: Callable[[Item], Any], scratch: Path, name: str = "run", *, reverse: bool = False) -> None:
        self._key, self._reverse = key, reverse
        self._file = scratch / name
        self._held: list[Item] = []
        self._runs: list[Path] = []

    def add(self, item: Item) -> None:
        """Take in an item."""
        self._held.append(item)
        if len(self._held) >= RUN:
            self._write()

    def __iter__(self) -> Iterator[Item]:
        self._held.sort(key=self._key, reverse=self._reverse)
        runs: list[Iterable[Item]] = [_read(open(run, "rb")) for run in self._runs]  # noqa: SIM115 - closed by _read
        yield from heapq.merge(*runs, self._held, key=self._key, reverse=self._reverse)

    def _write(self) -> None:
        self._held.sort(key=self._key, reverse=self._reverse)
        self._runs.append(self._file.with_name(f"{self._file.name}-{len(self._runs)}"))
        with open(self._runs[-1], "wb") as file:
            for item in self._held:
                pickle.dump(item, file, pickle.HIGHEST_PROTOCOL)
        self._held = []


def sort_bounded(items: Iterable[Item], key: Callable[[Item], Any], scratch: Path) -> Iterator[Item]:
    """The items ordered by key, with at most RUN of them in memory; `scratch` is a private directory."""
    sorter = Sorter(key, scratch)
    for item in items:
        sorter.add(item)
    yield from sorter


def _read(file: BinaryIO) -> Iterator[Any]:
    with file:
        while True:
            try:
                yield pickle.load(file)
            except EOFError:
                return

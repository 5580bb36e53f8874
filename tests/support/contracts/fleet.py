"""Functions that the contract suite runs on fleets."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pik
from pik.errors import Damaged
from pik.ports.engine import Engine
from pik.ports.store import Store

LONG = 700_000
"""Bytes of a value for each unit of its item: some are longer than what Spark takes in one row."""


def multiples(_store: Store, _engine: Engine, item: int) -> Iterator[tuple[int, int]]:
    """None for 0, and for others many short ones."""
    for number in range(item * 1000):
        yield item, number


def whereabouts(store: Store, engine: Engine, item: int) -> Iterator[tuple[int, str, str, int]]:
    """What the function is given, and which process runs it."""
    yield item, store.url, engine.version, os.getpid()


def origins(_store: Store, _engine: Engine, _item: int) -> Iterator[tuple[str, str]]:
    """Where pik lies, and the Python that runs it."""
    yield pik.__file__, sys.prefix


def failing(_store: Store, _engine: Engine, item: int) -> Iterator[int]:
    yield item
    if item == 3:
        raise Damaged("object 3 is damaged", hint="pik verify")


class Unknown(Exception):
    """Cannot be pickled: it asks for more than its text."""

    def __init__(self, text: str, more: object) -> None:
        super().__init__(text)
        self.more = more


def breaking(_store: Store, _engine: Engine, item: int) -> Iterator[int]:
    yield item
    raise Unknown(f"of {item}", lambda: None)


def opening(_store: Store, _engine: Engine, item: str) -> Iterator[int]:
    """Read a file that may not be there."""
    yield len(Path(item).read_bytes())


def appending(_store: Store, _engine: Engine, item: tuple[int, str]) -> Iterator[int]:
    """Note each call in a file, to tell how often the item was run."""
    number, path = item
    with Path(path).open("a", encoding="ascii") as file:
        file.write(f"{number}\n")
    yield number


def endless(_store: Store, _engine: Engine, item: str) -> Iterator[int]:
    """Note in a directory that it has begun, and wait to be interrupted; after minutes the interruption was lost."""
    (Path(item) / "begun").touch()
    time.sleep(300)
    yield 0


def keyed(_store: Store, _engine: Engine, item: int) -> Iterator[tuple[int, bytes]]:
    """For item n a value for each key below n, of another length for each; none for key 2."""
    for key in range(item):
        if key != 2:
            yield key, bytes([item]) * (item * LONG // (key + 1))
            yield key, b""


def failing_at_4(store: Store, engine: Engine, item: int) -> Iterator[tuple[int, bytes]]:
    yield from keyed(store, engine, item)
    if item == 4:
        raise Damaged("object 4 is damaged", hint="pik verify")


def lengths(
    _store: Store, _engine: Engine, key: int, values: Iterator[bytes]
) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
    yield key, [(len(value), value[:1]) for value in values]


def unmerged(_store: Store, _engine: Engine, key: int, values: Iterator[bytes]) -> Iterator[int]:
    next(values)
    raise Damaged(f"key {key} cannot be merged")


def slow(store: Store, engine: Engine, item: tuple[int, str]) -> Iterator[int]:
    time.sleep(0.4)
    yield from appending(store, engine, item)


def slow_keyed(store: Store, engine: Engine, item: tuple[int, str]) -> Iterator[tuple[int, bytes]]:
    for number in slow(store, engine, item):
        yield number % 5, bytes([number])

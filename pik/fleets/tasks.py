"""What an executor of a cluster does with an item or a key; nothing here knows which cluster it is.

All that it gives back are rows (see `Row`), errors too: an exception would be tried again, and come back wrapped.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from hashlib import sha256
from importlib.metadata import version
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import pik
from pik.ports.engine import Engine
from pik.ports.fleet import Body, Merge
from pik.ports.store import Store

ROW_BYTES = 1 << 20
"""What a row holds, about: results are packed together up to this, longer values are cut into pieces of this."""

RESULTS, PIECE, VALUE, ERROR, VERSIONS = range(5)
"""Kinds of rows: pickled results, one after the other; a piece of a value, and its last one; a pickled exception; the
versions of an executor that has others."""


_FIRST = (-1, -1)
"""The item and part of what comes before all other rows of a number, and takes their place."""


class Row(NamedTuple):
    """Some of an item's results, under its number, or of its values, under the number of their key. `part` counts the
    rows of an item, or of what a key's values were merged to."""

    number: int
    item: int
    part: int
    kind: int
    data: bytes


class Job(NamedTuple):
    """What is done with items, and with `merge` what is made of what that yields for each key."""

    store: Store
    engine: Engine
    body: Body[Any, Any]
    merge: Merge[Any] | None = None


def versions() -> str:
    """Return what must be the same everywhere for equal results and equal bytes: pik and its code, what it computes
    and compresses with, the time zones, and Python."""
    python = ".".join(map(str, sys.version_info[:2]))
    packages = " ".join(f"{name} {version(name)}" for name in ("duckdb", "zstandard", "tzdata"))
    return f"pik {pik.__version__} (code {_code_digest()}), {packages}, Python {python}"


@lru_cache(maxsize=1)
def _code_digest() -> str:
    top = Path(pik.__file__).parent
    digest = sha256()
    for path in sorted(top.rglob("*.py")):
        digest.update(f"{path.relative_to(top)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def run_item(expected: str, job: bytes, number: int, item: bytes) -> Iterator[Row]:
    """Yield the rows of an item: its results under its number or, if they are to be merged, its values under the
    numbers of their keys."""
    yield from _guarded(expected, number, partial(_results, job, number, item))


def _results(job: bytes, number: int, item: bytes) -> Iterator[Row]:
    opened = _opened(job)
    results = iter(opened.body(opened.store, opened.engine, pickle.loads(item)))
    return _packed(results, number) if opened.merge is None else _cut(results, number)


def run_keys(expected: str, job: bytes, rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the rows of what each key's values come to. They are given by number, item and part; what is not a value
    passes through."""
    for number, of_key in groupby(rows, key=attrgetter("number")):
        ordered = iter(of_key)
        first = next(ordered)
        if first.kind in (PIECE, VALUE):
            yield from _guarded(expected, number, partial(_merged, job, number, chain([first], ordered)))
        else:
            yield first


def _merged(job: bytes, number: int, rows: Iterable[Row]) -> Iterator[Row]:
    opened = _opened(job)
    assert opened.merge is not None
    return _packed(iter(opened.merge(opened.store, opened.engine, number, _values(rows))), number)


def results_of(data: bytes) -> Iterator[Any]:
    """Yield the results in a row's data."""
    stream = io.BytesIO(data)
    while stream.tell() < len(data):
        yield pickle.load(stream)


@lru_cache(maxsize=2)
def _opened(job: bytes) -> Job:
    """Return the job; an executor's process opens it once, so that its items share connections."""
    return Job(*pickle.loads(job))


def _guarded(expected: str, number: int, rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    if (found := versions()) != expected:
        yield Row(number, *_FIRST, VERSIONS, found.encode())
        return
    try:
        yield from rows()
    except MemoryError:
        raise  # the process cannot go on; it is started again
    except Exception as error:  # noqa: BLE001 - the caller of the fleet raises it
        yield Row(number, *_FIRST, ERROR, _pickled(error))


def _pickled(error: Exception) -> bytes:
    try:
        return pickle.dumps(error)
    except Exception:  # noqa: BLE001 - whatever an exception carries
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def _packed(results: Iterator[Any], number: int) -> Iterator[Row]:
    held, part = io.BytesIO(), 0
    for result in results:
        pickle.dump(result, held, pickle.HIGHEST_PROTOCOL)
        if held.tell() >= ROW_BYTES:
            yield Row(number, 0, part, RESULTS, held.getvalue())
            held, part = io.BytesIO(), part + 1
    if held.tell():
        yield Row(number, 0, part, RESULTS, held.getvalue())


def _cut(values: Iterator[tuple[int, bytes]], item: int) -> Iterator[Row]:
    part = 0
    for key, value in values:
        for start in range(0, len(value) or 1, ROW_BYTES):
            kind = VALUE if start + ROW_BYTES >= len(value) else PIECE
            yield Row(key, item, part, kind, value[start : start + ROW_BYTES])
            part += 1


def _values(rows: Iterable[Row]) -> Iterator[bytes]:
    pieces: list[bytes] = []
    for row in rows:
        pieces.append(row.data)
        if row.kind == VALUE:
            yield b"".join(pieces)
            pieces.clear()

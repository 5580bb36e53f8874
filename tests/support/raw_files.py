"""Raw files to compute from, made as ingest makes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import zstandard

from pik.engine import DuckEngine
from pik.model.aggregate import Computed
from pik.model.delivery import raw_line, stamp
from pik.model.event import read_event
from pik.model.instant import parse_instant
from pik.model.metric import Definition
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Engine, Inputs

BATCH = "01J00000000000000000000001"


def event(payload: Any = None, **fields: Any) -> dict[str, Any]:
    """An event as a producer sends it."""
    plain = {"source": "web", "event_type": "t", "entity_id": "e", "event_time": "2026-01-01T00:00:00Z"}
    return {**plain, **fields, "payload": {} if payload is None else payload}


def raw_lines(events: Iterable[dict[str, Any] | bytes], batch: str = BATCH) -> list[bytes]:
    """The raw line of each event (bytes: the event's own text), with seqs from 1."""
    shared = stamp(parse_instant("2026-02-01T00:00:00Z"), batch)
    texts = [text if isinstance(text, bytes) else json.dumps(text).encode() for text in events]
    return [raw_line(read_event(text), seq, shared) for seq, text in enumerate(texts, 1)]


def frame(lines: Sequence[bytes]) -> bytes:
    """One zstd frame."""
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(b"".join(line + b"\n" for line in lines))


def raw(path: Path, events: Iterable[dict[str, Any] | bytes], batch: str = BATCH, per_frame: int = 1000) -> Inputs:
    """A raw file of the events, in frames."""
    lines = raw_lines(events, batch)
    path.write_bytes(b"".join(frame(lines[at : at + per_frame]) for at in range(0, len(lines), per_frame)))
    return Inputs([path], len(lines))


def metric(
    value: str = "count(*)",
    where: str | None = None,
    bucket: str = "1d",
    name: str = "m",
    timezone: str | None = None,
) -> Definition:
    """A definition."""
    return Definition(name=name, value=value, where=where, bucket=bucket, timezone=timezone)


def compute(
    inputs: Inputs, *metrics: Definition, window: Window = ALL_TIME, entities: Sequence[str] = (), threads: int = 2
) -> list[Computed]:
    """All that the engine computes; the values alone are those of the rows."""
    with DuckEngine(threads).computation(inputs, metrics, window, entities) as computation:
        found = list(computation.rows())
        for name in {metric.name for metric in metrics}:
            values = (row.value for row in found if row.metric == name and row.value is not None)
            assert sorted(computation.values(name)) == sorted(values)
    return found


def rows(
    engine: Engine,
    inputs: Inputs,
    metrics: Sequence[Definition],
    window: Window = ALL_TIME,
    entities: Sequence[str] = (),
) -> Iterator[Computed]:
    """Each row as the engine yields it."""
    with engine.computation(inputs, metrics, window, entities) as computation:
        yield from computation.rows()

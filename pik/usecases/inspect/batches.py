"""Batches, their rejects, and what the store holds."""

from __future__ import annotations

import io
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import zstandard

from pik.errors import UsageError
from pik.model.batch import OTHERS, Batch, BatchState, Reject, are_exact, with_names
from pik.model.run import Run
from pik.model.window import Part
from pik.ports.catalog import Totals
from pik.ports.store import Store
from pik.rawlog.frames import damaged
from pik.rawlog.store_records import parts
from pik.usecases.ingest.replaced_batches import with_closing


def list_rejects(store: Store, batch: Batch) -> Iterator[Reject]:
    """Yield the rejected records of the batch, in the order of the input. Raises Damaged."""
    decode = msgspec.json.Decoder(Reject).decode
    for file in store.index.rejects(batch.batch_id):
        count = 0
        try:
            with zstandard.ZstdDecompressor().stream_reader(store.raw.read(file.key)) as reader:
                for line in io.BufferedReader(reader):
                    yield decode(line)
                    count += 1
        except (zstandard.ZstdError, msgspec.MsgspecError) as error:
            raise damaged(file.key, str(error)) from None
        if count != file.records:
            raise damaged(file.key, f"it holds {count} of {file.records} rejects")


def write_rejects(store: Store, batches: list[Batch], path: Path) -> int:
    """Write the rejected records of the batches as they came, one per line, to a new file; return how many there are.

    Raises UsageError if the file exists or cannot be written.
    """
    try:
        with open(path, "xb") as file:
            written = 0
            for batch in batches:
                for reject in list_rejects(store, batch):
                    file.write(record_bytes(reject) + b"\n")
                    written += 1
            return written
    except FileExistsError:
        raise UsageError(f"--rejects {path}: the file exists already", hint="name another one") from None
    except OSError as error:
        hint = "the input is recorded, rejects and all; to list them: pik batches BATCH --rejects"
        raise UsageError(f"--rejects {path}: {error.strerror}", hint=hint) from None


def record_bytes(reject: Reject) -> bytes:
    """Return the rejected record as it came."""
    return b64decode(reject.bytes) if reject.bytes else reject.line.encode()


@dataclass(frozen=True, slots=True)
class Lags:
    """Percentiles of lag, in nanoseconds; `skewed` deliveries have a negative one. Unless `exact`, each is rounded
    down to three significant digits."""

    min: int
    p50: int
    p95: int
    p99: int
    max: int
    skewed: int
    exact: bool


def lags(batch: Batch) -> Lags | None:
    """Return the nearest-rank percentiles of the lags of a batch; None if it has no deliveries."""
    ordered = sorted(batch.lags.items())
    if not ordered:
        return None
    total = sum(batch.lags.values())

    def percentile(percent: int) -> int:
        rank, seen = -(-total * percent // 100), 0
        for lag, count in ordered:
            seen += count
            if seen >= rank:
                return lag
        return ordered[-1][0]

    skewed = sum(count for lag, count in ordered if lag < 0)
    return Lags(
        min=ordered[0][0],
        p50=percentile(50),
        p95=percentile(95),
        p99=percentile(99),
        max=ordered[-1][0],
        skewed=skewed,
        exact=are_exact(batch.lags),
    )


@dataclass(frozen=True, slots=True)
class Status:
    """The contents of a store. `sources` counts deliveries by source, duplicates included, `other_sources` those of all
    sources that are not counted by name; `size` is the bytes of raw. In a copy, `copy_of` is the URL of the source and
    `pulled` what was pulled."""

    url: str
    format_version: int
    totals: Totals
    last_batch: Batch | None
    interrupted: int
    replaced: int
    last_run: Run | None
    metrics: int
    sources: Mapping[str, int]
    other_sources: int
    size: int
    copy_of: str | None
    pulled: tuple[Part, ...]


def status(store: Store) -> Status:
    """Return what the store holds."""
    last, interrupted, replaced, sources = None, 0, 0, dict[str, int]()
    for found in store.index.batches():
        batch = with_closing(store, found)
        last = last or batch
        interrupted += batch.state == BatchState.INTERRUPTED
        replaced += batch.state == BatchState.REPLACED
        sources = with_names(sources, batch.sources)
    others = sources.pop(OTHERS, 0)
    return Status(
        url=store.url,
        format_version=store.format_version,
        totals=store.index.totals(),
        last_batch=last,
        interrupted=interrupted,
        replaced=replaced,
        last_run=next(store.runs.newest_first(), None),
        metrics=len(store.metrics.latest()),
        sources=sources,
        other_sources=others,
        size=sum(each.size for each in store.raw.objects("raw/")),
        copy_of=store.copy.source if store.copy else None,
        pulled=tuple(parts(store)) if store.copy else (),
    )

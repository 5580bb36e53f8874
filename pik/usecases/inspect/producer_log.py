"""A producer's own log, read as an ingest would read it, into raw lines in a temporary directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from time import time_ns

from pik.errors import InputError
from pik.inputs.blocks import BLOCK
from pik.inputs.source import Source
from pik.model.batch import Chunk
from pik.rawlog.segment_writer import InvalidRecord, Reading, SegmentBuilder, Work
from pik.runtime import Progress, showing
from pik.runtime.parallel import Pool


@dataclass(slots=True)
class ProducerLog:
    """The log as raw files: how many records were read and rejected, and what the files hold."""

    names: list[str]
    files: list[Path]
    read: int = 0
    rejected: int = 0
    deliveries: int = 0
    first: int | None = None
    last: int | None = None


def read_log(
    sources: Sequence[Source], reading: Reading, directory: Path, workers: int, progress: Progress
) -> ProducerLog:
    """Read the log into files in the directory. Raises InputError where it cannot be read to its end."""
    log = ProducerLog([source.name for source in sources], [])
    for number, source in enumerate(sources):
        size = 0 if source.size is not None and source.size < BLOCK else workers
        pool: Pool[Work, Chunk] = Pool(partial(_building, directory, reading), size)
        with source.open() as opened, pool, showing(progress, f"reading {source.name}", None, "bytes"):
            opened.examine(reading.record_mapping(), mixed=reading.mixed)
            blocks = enumerate(opened.blocks(reading.max_line), 1)
            works = ((f"{number:026d}", block, place, time_ns()) for place, block in blocks)
            try:
                for chunk in pool.map(works, progress.advance, label=itemgetter(2)):
                    _add(log, chunk, directory)
            except InvalidRecord as error:
                raise InputError(f"{source.name}: {error.message}", hint=error.hint) from None
            opened.expect_unchanged()
    return log


def _add(log: ProducerLog, chunk: Chunk, directory: Path) -> None:
    log.read += chunk.read
    log.rejected += chunk.rejects.records if chunk.rejects else 0
    for segment in (arrivals.segment for arrivals in chunk.arrivals):
        log.files.append(directory / _file(segment.key))
        log.deliveries += segment.deliveries
        log.first = segment.first_event if log.first is None else min(log.first, segment.first_event)
        log.last = segment.last_event if log.last is None else max(log.last, segment.last_event)


def _building(directory: Path, reading: Reading, tell: Callable[[int], None]) -> Callable[[Work], Chunk]:
    """Return what workers run: it writes the events of a block as raw lines into the directory."""

    def build(work: Work) -> Chunk:
        batch_id, block, number, ingest_time = work
        chunk, objects = SegmentBuilder(batch_id, reading, tell).build(block, number, ingest_time)
        rejects = chunk.rejects.key if chunk.rejects else None
        for key, data in objects:
            if key != rejects:
                (directory / _file(key)).write_bytes(data)
        return chunk

    return build


def _file(key: str) -> str:
    return key.replace("/", "-")

"""A producer's own log, read as an ingest would read it, into raw lines in a temporary directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from time import time_ns
from typing import NamedTuple

import msgspec

from pik.errors import InputError
from pik.inputs.blocks import BLOCK
from pik.inputs.source import Input
from pik.model.batch import Chunk, Reject
from pik.rawlog.objects import unpacked
from pik.rawlog.reading import Reading
from pik.rawlog.segment_writer import InvalidRecord, SegmentBuilder, Work
from pik.runtime import Progress, showing
from pik.runtime.parallel import Pool


@dataclass(slots=True)
class ProducerLog:
    """The log as raw files: how many records were read and rejected, what the files hold, how times were read, as in
    Chunk, and the named mappings that read records, as in Reading."""

    names: list[str]
    files: list[Path]
    read: int = 0
    rejected: int = 0
    deliveries: int = 0
    first: int | None = None
    last: int | None = None
    times: Counter[str] = field(default_factory=Counter)
    mappings: set[str] = field(default_factory=set)


class LogBlock(NamedTuple):
    """A block of the log: what it holds, the raw files of its events, the first record that is not an event, and the
    named mapping that read it, if one did, as in Reading."""

    chunk: Chunk
    files: list[Path]
    reject: Reject | None
    named: str


def read_log(
    sources: Iterable[Input], reading: Reading, directory: Path, workers: int, progress: Progress
) -> ProducerLog:
    """Read the log into files in the directory. Raises InputError where it cannot be read to its end."""
    log = ProducerLog([], [])
    for number, source in enumerate(sources):
        log.names.append(source.name)
        for block in read_blocks(source, reading, f"{number:026d}", directory, workers, progress):
            _add(log, block)
    return log


def read_blocks(
    source: Input, reading: Reading, batch_id: str, directory: Path, workers: int, progress: Progress
) -> Iterator[LogBlock]:
    """Yield the blocks of an input in order, with their events in the directory. Raises InputError where it cannot be
    read to its end."""
    size = 0 if source.size is not None and source.size < BLOCK else workers
    with ExitStack() as stack:
        opened = stack.enter_context(source.open())
        reading = reading.of(opened)
        pool: Pool[Work, LogBlock] = Pool(partial(_building, directory, reading), size)
        stack.enter_context(pool)
        stack.enter_context(showing(progress, f"reading {source.name}", None, "bytes"))
        blocks = enumerate(opened.blocks(reading.layout, reading.max_line), 1)
        works = ((batch_id, block, place, time_ns()) for place, block in blocks)
        try:
            yield from pool.map(works, progress.advance, label=itemgetter(2))
        except InvalidRecord as error:
            raise InputError(f"{source.name}: {error.message}", hint=error.hint) from None
        opened.expect_unchanged("run the command again when nothing writes to the file")


def _add(log: ProducerLog, block: LogBlock) -> None:
    chunk = block.chunk
    log.read += chunk.read
    log.rejected += chunk.rejects.records if chunk.rejects else 0
    log.files += block.files
    log.times.update(chunk.times)
    log.mappings.update(filter(None, [block.named]))
    for segment in (arrivals.segment for arrivals in chunk.arrivals):
        log.deliveries += segment.deliveries
        log.first = segment.first_event if log.first is None else min(log.first, segment.first_event)
        log.last = segment.last_event if log.last is None else max(log.last, segment.last_event)


def _building(directory: Path, reading: Reading, tell: Callable[[int], None]) -> Callable[[Work], LogBlock]:
    """Return what workers run: it writes the events of a block as raw lines into the directory."""

    def build(work: Work) -> LogBlock:
        batch_id, block, number, ingest_time = work
        chunk, objects = SegmentBuilder(batch_id, reading, tell).build(block, number, ingest_time)
        files: list[Path] = []
        reject = None
        for key, data in objects:
            if chunk.rejects is not None and key == chunk.rejects.key:
                reject = msgspec.json.decode(unpacked(key, data)[0], type=Reject)
                continue
            files.append(directory / key.replace("/", "-"))
            files[-1].write_bytes(data)
        return LogBlock(chunk, files, reject, reading.named)

    return build

"""Ingest many inputs: small files several at a time.

What costs most of a small file is waiting for the disk. So the objects of a group of files are created together, and
the index takes the group in three transactions where each file alone would take three. What is durable when is as in
`ingest`: each file is its own batch, opened before its segments are there, recorded when they are durable, and
complete when its record is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice, takewhile
from time import monotonic, time_ns

from pik.errors import InputError, PikError, UsageError
from pik.inputs.blocks import BLOCK, Block
from pik.inputs.source import Input, Refuse, stop
from pik.model.batch import Batch, BatchState, Origin
from pik.model.ids import new_id
from pik.ports.index import batch_of
from pik.ports.raw import Object
from pik.ports.store import Store
from pik.rawlog.reading import Reading
from pik.rawlog.sealed_records import record_object
from pik.rawlog.segment_writer import SegmentBuilder
from pik.runtime import Progress, showing
from pik.usecases.availability import require_writable
from pik.usecases.ingest.batch_ingest import (
    IngestOptions,
    IngestReport,
    Outcome,
    expect_none_invalid,
    ingest,
    input_lock,
    origin_of,
)
from pik.usecases.ingest.earlier import ReadOtherwise, find_ingested, find_read_otherwise
from pik.usecases.ingest.withdrawn import corrected_duplicates

SMALL = 64 << 10
"""Stored bytes up to which a file is small."""

FILES = 64
"""Most small files that are ingested together."""


def ingest_all(
    store: Store, sources: Iterable[Input], options: IngestOptions, progress: Progress, refuse: Refuse = stop
) -> Iterator[IngestReport]:
    """Ingest the inputs in their order, and yield the result of each when it is durable.

    An input that cannot be read, or not to its end, or that has an invalid record where none may be, is refused. Raises
    as `ingest` does, and as `sources` does; the inputs before are ingested, and those after are not.
    """
    require_writable(store)
    # A record or conflict that stops an ingest must stop it at its own file, and a deployed store has no transactions
    # over several batches.
    may_group = not (store.deployed or options.reading.stop or options.refuse_conflicts or options.batch_key)
    ahead = _Ahead(sources)
    while ahead.fill(FILES if may_group else 1):
        group = list(takewhile(_is_small, ahead.sources)) if may_group else []
        done = _ingest_group(store, group, options, progress) if len(group) > 1 else []
        yield from done
        for _ in done:
            ahead.sources.popleft()
        if not done:
            source = ahead.sources.popleft()
            try:
                yield ingest(store, source, options, progress)
            except (InputError, UsageError) as error:
                refuse(source.name, error)


class _Ahead:
    """The next sources. An error while looking for more of them is raised when those before it are ingested."""

    def __init__(self, sources: Iterable[Input]) -> None:
        self.sources: deque[Input] = deque()
        self._following = iter(sources)
        self._error: PikError | None = None

    def fill(self, most: int) -> bool:
        """Look for up to so many, no further than the first that is not a small file. Return whether there are any."""
        try:
            while self._error is None and len(self.sources) < most:
                if self.sources and not _is_small(self.sources[-1]):
                    break
                self.sources.append(next(self._following))
        except StopIteration:
            pass
        except PikError as error:
            self._error = error
        if not self.sources and self._error is not None:
            raise self._error
        return bool(self.sources)


def _is_small(source: Input) -> bool:
    return not source.is_stream and source.size is not None and source.size <= SMALL


@dataclass(frozen=True, slots=True)
class _File:
    """A small file: its only block, None if it holds no record; or the batch that it became before. `otherwise` as in
    IngestReport."""

    source: Input
    origin: Origin
    reading: Reading
    block: Block | None = None
    ingested: Batch | None = None
    otherwise: ReadOtherwise | None = None


def _ingest_group(
    store: Store, sources: Sequence[Input], options: IngestOptions, progress: Progress
) -> list[IngestReport]:
    """Ingest as many of the first files as can be ingested together; none if the first one cannot, or fails."""
    require_writable(store)
    began = monotonic()
    with ExitStack() as locks:
        files = _read(store, sources, options, locks)
        with showing(progress, f"ingesting {len(files)} small files", None, "files"):
            batches = _record(store, [file for file in files if file.ingested is None], options)
            progress.advance(len(files))
    seconds = (monotonic() - began) / max(1, len(files))
    return [
        IngestReport(file.source.name, Outcome.ALREADY, file.ingested, None, 0.0)
        if file.ingested
        else _new_report(store, file, *next(batches), seconds)
        for file in files
    ]


def _new_report(store: Store, file: _File, batch: Batch, longer: Mapping[str, int], seconds: float) -> IngestReport:
    corrected = corrected_duplicates(store, batch)
    return IngestReport(file.source.name, Outcome.NEW, batch, None, seconds, corrected, longer, file.otherwise)


def _read(store: Store, sources: Sequence[Input], options: IngestOptions, locks: ExitStack) -> list[_File]:
    """Read the files up to the first one that cannot be ingested together with the others. If that one is invalid,
    `ingest` raises the error."""
    files: list[_File] = []
    contents: set[str] = set()
    size = 0  # of all blocks, which may be much larger than compressed files
    with suppress(PikError):
        for source in sources:
            with source.open() as opened:
                here = options.of(opened)
                content = opened.digest()
                if content in contents:
                    break
                contents.add(content)
                locks.enter_context(input_lock(store, source, content))
                origin = origin_of(source, here, content)
                there = find_ingested(store, origin)
                if there is not None and there.state != BatchState.COMPLETE:
                    break
                if there is not None and not options.again:
                    expect_none_invalid(source, options, there)
                    files.append(_File(source, origin, here.reading, ingested=there))
                    continue
                blocks = list(islice(opened.blocks(here.reading.layout, here.reading.max_line), 2))
                opened.expect_unchanged()
            size += sum(len(block.data) for block in blocks)
            if len(blocks) > 1 or size > BLOCK:
                break
            otherwise = find_read_otherwise(store, origin)
            files.append(_File(source, origin, here.reading, next(iter(blocks), None), otherwise=otherwise))
    return files


def _record(store: Store, files: Sequence[_File], options: IngestOptions) -> Iterator[tuple[Batch, Mapping[str, int]]]:
    """Record the files, and return their batches, each with the lists of which one element was taken."""
    with store.batches.together():
        batches = [store.batches.open(file.origin, new_id(), time_ns(), options.actor) for file in files]
    chunks, objects = [], list[Object]()
    for file, batch in zip(files, batches, strict=True):
        if file.block is not None:
            chunk, made = SegmentBuilder(batch.batch_id, file.reading).build(file.block, 1)
            chunks.append(chunk)
            objects += made
    store.raw.create_all(objects)
    with store.batches.together():
        for chunk in chunks:
            store.batches.record(chunk)
    finished_at = time_ns()
    recorded = [batch_of(store.index, batch.batch_id) for batch in batches]
    store.raw.create_all([record_object(store, batch, finished_at) for batch in recorded])
    with store.batches.together():
        done = [store.batches.finish(batch.batch_id, finished_at) for batch in batches]
    longer = {chunk.batch_id: chunk.longer for chunk in chunks}
    return iter([(batch, longer.get(batch.batch_id, {})) for batch in done])

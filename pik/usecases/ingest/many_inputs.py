"""Ingest many inputs: small files several at a time.

What costs most of a small file is waiting for the disk. So the objects of a group of files are created together, and
the index takes the group in three transactions where each file alone would take three. What is durable when is as in
`ingest`: each file is its own batch, opened before its segments are there, recorded when they are durable, and
complete when its record is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from time import monotonic, time_ns

from ulid import ULID

from pik.errors import PikError
from pik.inputs.blocks import BLOCK, Block
from pik.inputs.source import Source
from pik.model.batch import Batch, BatchState, Origin
from pik.ports.raw import Object
from pik.ports.store import Store
from pik.rawlog.sealed_records import record_object
from pik.rawlog.segment_writer import SegmentBuilder
from pik.runtime import Progress
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

SMALL = 64 << 10
"""Stored bytes up to which a file is small."""

FILES = 64
"""Most small files that are ingested together."""


def ingest_all(
    store: Store, sources: Sequence[Source], options: IngestOptions, progress: Progress
) -> Iterator[IngestReport]:
    """Ingest the inputs in their order, and yield the result of each when it is durable.

    Raises as `ingest` does for the first input that fails; those before it are ingested, and those after it are not.
    """
    left = list(sources)
    while left:
        group = _small(left) if _may_group(store, options) else []
        done = _Group(store, options, progress).ingest(group) if len(group) > 1 else []
        if not done:
            done = [ingest(store, left[0], options, progress)]
        yield from done
        del left[: len(done)]


def _may_group(store: Store, options: IngestOptions) -> bool:
    """Whether files may be ingested together: a record or conflict that stops an ingest must stop it at its own file,
    and a deployed store has no transactions over several batches."""
    return not (store.deployed or options.reading.stop or options.refuse_conflicts)


def _small(sources: Sequence[Source]) -> list[Source]:
    """Return the sources up to the first one that is not a small file."""
    group: list[Source] = []
    for source in islice(sources, FILES):
        if source.path is None or source.size is None or source.size > SMALL:
            break
        group.append(source)
    return group


@dataclass(slots=True)
class _NewFile:
    """A file that becomes a batch: its only block, None if it holds no record."""

    source: Source
    origin: Origin
    block: Block | None
    batch: Batch | None = None


class _Group:
    """Ingests several small files together."""

    def __init__(self, store: Store, options: IngestOptions, progress: Progress) -> None:
        self._store, self._options, self._progress = store, options, progress
        self._bytes = 0  # of all blocks, which may be much larger than compressed files

    def ingest(self, sources: Sequence[Source]) -> list[IngestReport]:
        """Ingest as many of the first files as can be ingested together; none if the first one cannot, or fails."""
        require_writable(self._store)
        began = monotonic()
        with ExitStack() as locks:
            found = self._read(sources, locks)
            self._progress.start(f"ingesting {len(found)} small files", None, "files")
            try:
                self._record([one for one in found if isinstance(one, _NewFile)])
                self._progress.advance(len(found))
            finally:
                self._progress.stop()
        seconds = (monotonic() - began) / max(1, len(found))
        return [self._ingested(one, seconds) for one in found]

    def _ingested(self, one: _NewFile | IngestReport, seconds: float) -> IngestReport:
        if isinstance(one, IngestReport):
            return one
        assert one.batch is not None
        return IngestReport(one.source.name, Outcome.NEW, one.batch, None, seconds)

    def _read(self, sources: Sequence[Source], locks: ExitStack) -> list[_NewFile | IngestReport]:
        """Read the files up to the first one that cannot be ingested together with the others. If that one is invalid,
        `ingest` raises the error."""
        found: list[_NewFile | IngestReport] = []
        contents: set[str] = set()
        for source in sources:
            try:
                one = self._read_one(source, contents, locks)
            except PikError:
                break
            if one is None:
                break
            found.append(one)
        return found

    def _read_one(self, source: Source, contents: set[str], locks: ExitStack) -> _NewFile | IngestReport | None:
        with source.open() as opened:
            content = opened.digest()
            if content in contents:
                return None
            contents.add(content)
            locks.enter_context(input_lock(self._store, source, content))
            origin = origin_of(source, self._options, content)
            there = self._store.batches.find(origin)
            if there is not None and there.state != BatchState.COMPLETE:
                return None
            if there is not None and not self._options.again:
                expect_none_invalid(source, self._options, there)
                return IngestReport(source.name, Outcome.ALREADY, there, None, 0.0)
            reading = self._options.reading
            opened.examine(reading.record_mapping(), mixed=reading.mixed)
            read = list(islice(opened.blocks(reading.max_line), 2))
            opened.expect_unchanged()
        self._bytes += sum(len(block.data) for block in read)
        if len(read) > 1 or self._bytes > BLOCK:
            return None
        return _NewFile(source, origin, read[0] if read else None)

    def _record(self, files: Sequence[_NewFile]) -> None:
        store = self._store
        with store.batches.together():
            for file in files:
                file.batch = store.batches.open(file.origin, str(ULID()), time_ns())
        chunks, objects = [], list[Object]()
        for file in files:
            if file.block is not None and file.batch is not None:
                builder = SegmentBuilder(None, file.batch.batch_id, self._options.reading)
                chunk, made = builder.prepare(file.block, 1)
                chunks.append(chunk)
                objects += made
        store.raw.create_all(objects)
        with store.batches.together():
            for chunk in chunks:
                store.batches.record(chunk)
        finished_at = time_ns()
        recorded = [self._recorded(file) for file in files]
        store.raw.create_all([record_object(store, batch, finished_at) for batch in recorded])
        with store.batches.together():
            for file in files:
                assert file.batch is not None
                file.batch = store.batches.finish(file.batch.batch_id, finished_at)

    def _recorded(self, file: _NewFile) -> Batch:
        """Return the file's batch as it is in the index now."""
        found = self._store.batches.find(file.origin)
        assert found is not None
        assert file.batch is not None
        assert found.batch_id == file.batch.batch_id, "its content is locked"
        return found

"""Ingest many inputs: small files are taken several at a time.

What costs most of a small file is waiting for the disk. So the objects of a group of files are created together, and
the index takes the group in three transactions where each file alone would take three. What is durable when is as in
`ingest`: each file is a batch of its own, opened before its segments are there, recorded when they are durable, and
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
from pik.rawlog.batch_records import record_object
from pik.rawlog.segment_writer import SegmentBuilder
from pik.runtime.interaction import Progress
from pik.usecases.availability import expect_own
from pik.usecases.ingest.batch_ingest import (
    ALREADY,
    NEW,
    Ingested,
    IngestOptions,
    expect_none_invalid,
    holding_input,
    ingest,
    origin_of,
)

SMALL = 64 << 10
"""Stored bytes up to which a file is small."""

FILES = 64
"""Small files that are taken together."""


def ingest_all(
    store: Store, sources: Sequence[Source], options: IngestOptions, progress: Progress
) -> Iterator[Ingested]:
    """Ingest the inputs in their order; what became of one is told when it is durable. Raises as `ingest` does, of the
    first input that fails; those before it are ingested, and those behind it are not."""
    left = list(sources)
    while left:
        group = _small(left) if _may_group(store, options) else []
        done = _Group(store, options, progress).ingest(group) if len(group) > 1 else []
        if not done:
            done = [ingest(store, left[0], options, progress)]
        yield from done
        del left[: len(done)]


def _may_group(store: Store, options: IngestOptions) -> bool:
    """A record or conflict that stops an ingest must stop it at its own file. A deployed store has no transactions over
    several batches."""
    return not (store.deployed or options.reading.stop or options.refuse_conflicts)


def _small(sources: Sequence[Source]) -> list[Source]:
    """The first of the sources, as long as they are small files."""
    group: list[Source] = []
    for source in islice(sources, FILES):
        if source.path is None or source.size is None or source.size > SMALL:
            break
        group.append(source)
    return group


@dataclass(slots=True)
class _New:
    """A file that becomes a batch: all that there is of it in one block, None where it holds no record."""

    source: Source
    origin: Origin
    block: Block | None
    batch: Batch | None = None


class _Group:
    """Several small files."""

    def __init__(self, store: Store, options: IngestOptions, progress: Progress) -> None:
        self._store, self._options, self._progress = store, options, progress
        self._bytes = 0  # of blocks; compressed files hold more than one sees

    def ingest(self, sources: Sequence[Source]) -> list[Ingested]:
        """Ingest the first of these files, as many as can be taken together; none if the first has to be taken by
        itself, or is not as it should be."""
        expect_own(self._store)
        began = monotonic()
        with ExitStack() as held:
            found = self._read(sources, held)
            new = [one for one in found if isinstance(one, _New)]
            self._progress.start(f"ingesting {len(found)} small files", None, "files")
            try:
                self._record(new)
                self._progress.advance(len(found))
            finally:
                self._progress.stop()
        seconds = (monotonic() - began) / max(1, len(found))
        return [self._ingested(one, seconds) for one in found]

    def _ingested(self, one: _New | Ingested, seconds: float) -> Ingested:
        if isinstance(one, Ingested):
            return one
        assert one.batch is not None
        return Ingested(one.source.name, NEW, one.batch, None, seconds)

    def _read(self, sources: Sequence[Source], held: ExitStack) -> list[_New | Ingested]:
        """What the files hold, up to the first one that cannot be taken together with the others: `ingest` tells what
        is wrong with it."""
        found: list[_New | Ingested] = []
        contents: set[str] = set()
        for source in sources:
            try:
                one = self._read_one(source, contents, held)
            except PikError:
                break
            if one is None:
                break
            found.append(one)
        return found

    def _read_one(self, source: Source, contents: set[str], held: ExitStack) -> _New | Ingested | None:
        with source.open() as opened:
            content = opened.digest()
            if content in contents:
                return None
            contents.add(content)
            held.enter_context(holding_input(self._store, source, content))
            origin = origin_of(source, self._options, content)
            there = self._store.batches.find(origin)
            if there is not None and there.state != BatchState.COMPLETE:
                return None
            if there is not None and not self._options.again:
                expect_none_invalid(source, self._options, there)
                return Ingested(source.name, ALREADY, there, None, 0.0)
            reading = self._options.reading
            opened.examine(reading.record_mapping(), mixed=reading.mixed)
            read = list(islice(opened.blocks(reading.max_line), 2))
        self._bytes += sum(len(block.data) for block in read)
        if len(read) > 1 or self._bytes > BLOCK:
            return None
        return _New(source, origin, read[0] if read else None)

    def _record(self, files: Sequence[_New]) -> None:
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

    def _recorded(self, file: _New) -> Batch:
        """The file's batch as the index has it now."""
        found = self._store.batches.find(file.origin)
        assert found is not None
        assert file.batch is not None
        assert found.batch_id == file.batch.batch_id, "its content is locked"
        return found

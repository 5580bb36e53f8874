"""Ingest: an input becomes a batch, exactly once.

The order that makes promise 1 true: a block's segments are durable in raw; when its turn has come its block record is
created; then the index takes the block's deliveries and the batch's progress in one transaction; when all are taken,
the batch's record is created; then the batch is complete. A crash between two of these leaves raw that no index row
names, which is harmless, and a batch that the next run goes on with.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from hashlib import sha256
from itertools import chain, islice
from operator import itemgetter
from time import monotonic, time_ns
from typing import TypeVar

from pik.errors import ConflictFound, InputError, UsageError, busy_as, command
from pik.inputs.blocks import BLOCK, Block, UntilError
from pik.inputs.opened import OpenedInput
from pik.inputs.source import Input
from pik.model.batch import Batch, BatchState, Chunk, Origin
from pik.model.ids import new_id
from pik.ports.index import batch_of
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.reading import Reading
from pik.rawlog.sealed_records import ATTEMPT, BlockLog, write_record
from pik.rawlog.segment_writer import InvalidRecord, SegmentBuilder, Work, building, increasing_times
from pik.runtime import SILENT, Progress, exhaust, showing
from pik.runtime.parallel import Pool
from pik.usecases.availability import require_writable
from pik.usecases.ingest.earlier import ReadOtherwise, find_ingested, find_read_otherwise
from pik.usecases.ingest.withdrawn import NOT_CORRECTED, CorrectedDuplicates, corrected_duplicates
from pik.usecases.inspect.batches import close_replaced


class Outcome(StrEnum):
    """What an ingest did with its input."""

    NEW = "ingested"
    RESUMED = "resumed"
    ALREADY = "already ingested"
    CUT = "interrupted"


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How to ingest: `batch_key` names a stream so that it can be resumed; `workers` processes parse (0: this one);
    `actor` is who ingests."""

    reading: Reading
    refuse_conflicts: bool = False
    again: bool = False
    batch_key: str | None = None
    workers: int = 2
    actor: str = ""

    def of(self, opened: OpenedInput) -> IngestOptions:
        """Return the options for this input, its layout recognized. Raises as `Reading.of` does."""
        return replace(self, reading=self.reading.of(opened))


@dataclass(frozen=True, slots=True)
class IngestReport:
    """The result of an ingest. `batch` is the whole batch; `resumed_from` is the first seq of this attempt, of which
    `longer` counts the events that a mapping made of one element of a longer list. `otherwise` is an earlier batch of
    the same content, read with other options."""

    source: str
    outcome: Outcome
    batch: Batch
    resumed_from: int | None
    seconds: float
    corrected: CorrectedDuplicates = NOT_CORRECTED
    longer: Mapping[str, int] = field(default_factory=dict)
    otherwise: ReadOtherwise | None = None


class PartlyRead(InputError):
    """An input cannot be read to its end. `report` has the batch of the records before, which stands."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str, report: IngestReport) -> None:
        super().__init__(message, hint=hint)
        self.report = report


def ingest(store: Store, source: Input, options: IngestOptions, progress: Progress) -> IngestReport:
    """Ingest one input, or resume it, or find that it was ingested before.

    Raises InputError (the input cannot be read, or has an invalid record where none may be), PartlyRead, ConflictFound,
    Busy (another process ingests this very input), UsageError (the store is a copy), StoreError. What was recorded
    before stands, and the same call resumes.
    """
    require_writable(store)
    began = monotonic()
    with ExitStack() as stack:
        opened = stack.enter_context(source.open())
        options = options.of(opened)
        pool = stack.enter_context(block_builders(store.raw, source, options))
        content = content_of(opened, options)  # while the workers start
        with input_lock(store, source, content):
            origin = origin_of(source, options, content)
            found = find_ingested(store, origin)
            if found and found.state == BatchState.COMPLETE and not options.again:
                if opened.is_stream and next(blocks_of(opened, options, found), None) is not None:
                    raise _other_stream(found)
                expect_none_invalid(source, options, found)
                return IngestReport(source.name, Outcome.ALREADY, found, None, monotonic() - began)
            otherwise = find_read_otherwise(store, origin)
            interrupted = found if found and found.state != BatchState.COMPLETE else None
            following: Iterator[Block] = iter(())
            if interrupted is None:
                following = blocks_of(opened, options, None)
                # Without a first block there would be a batch that holds nothing and stays interrupted for ever.
                following = chain(list(islice(following, 1)), following)
            batch_id = interrupted.batch_id if interrupted else new_id()
            batch = store.batches.open(origin, batch_id, time_ns(), options.actor)
            if interrupted is not None:
                following = blocks_of(opened, options, batch)
            log = BlockLog(store, batch)
            following = log.opened(following, is_stream=opened.is_stream)
            with showing(progress, f"ingesting {source.name}", source.size, "bytes"):
                chunks = build_blocks(pool, opened, following, batch, progress)
                return record_all(store, log, chunks, source.name, options, began, otherwise)


def record_all(
    store: Store,
    log: BlockLog,
    chunks: Iterable[Chunk],
    name: str,
    options: IngestOptions,
    began: float,
    otherwise: ReadOtherwise | None,
) -> IngestReport:
    """Record the chunks of a batch, whose objects are durable, and finish it. The caller holds the right to write its
    content. Raises as `ingest` does."""
    batch, longer = log.batch, Counter[str]()
    try:
        for number, chunk in _numbered(batch, chunks):
            log.add(chunk, number)
            longer.update(chunk.longer)
            store.batches.record(chunk, refuse_conflicts=options.refuse_conflicts)
    except ConflictFound as error:
        raise ConflictFound(f"{name}: {error.message}", hint=error.hint) from None
    except InputError as error:
        before = batch_of(store.index, batch.batch_id)
        if options.reading.stop or not before.counts.read:
            raise
        part = IngestReport(name, Outcome.CUT, before, None, monotonic() - began, longer=longer)
        raise PartlyRead(error.message, hint=error.hint, report=part) from None
    recorded = batch_of(store.index, batch.batch_id)
    finished_at = write_record(store, recorded, time_ns(), close_replaced(store, recorded))
    done = store.batches.finish(batch.batch_id, finished_at)
    outcome, resumed_from = (Outcome.RESUMED, batch.next_seq) if batch.attempt > 1 else (Outcome.NEW, None)
    corrected, seconds = corrected_duplicates(store, done), monotonic() - began
    return IngestReport(name, outcome, done, resumed_from, seconds, corrected, longer, otherwise)


def expect_none_invalid(source: Input, options: IngestOptions, found: Batch) -> None:
    """Raise InputError if the input was recorded before, with invalid records, and the options allow none."""
    if options.reading.stop and found.counts.rejected:
        rejected = f"{found.counts.rejected:,} of its {found.counts.read:,} records were rejected"
        raise InputError(
            f"{source.name} was ingested before, and {rejected}", hint=command("batches", found.batch_id, "--rejects")
        )


def probe(source: Input, options: IngestOptions) -> None:
    """Read the beginning of a file as `ingest` would, and store nothing. Raises as it does.

    A stream is left alone: it can be read only once. Records are looked at only where an invalid one would stop it, and
    then all of a short file.
    """
    if source.is_stream:
        return
    with source.open() as opened:
        options = options.of(opened)
        blocks = blocks_of(opened, options, None)
        here: Pool[Work, Chunk] = Pool(partial(checking, options.reading), 0)
        chunks = build_blocks(here, opened, blocks, None, SILENT)
        # Reading the second block of a short file shows how it ends. What is before a cut is recorded otherwise.
        exhaust(islice(chunks, 2) if options.reading.stop else islice(blocks, 1))


def content_of(opened: OpenedInput, options: IngestOptions) -> str:
    """Return the identity of the input: a file's digest, the key given to a stream, or a new one."""
    if options.batch_key is not None:
        if not opened.is_stream:
            raise UsageError(
                f"--batch-key names one stream, but {opened.name} is a file of an archive",
                hint="files of an archive are known by their content; leave it out",
            )
        return f"key:{options.batch_key}"
    return f"stream:{new_id()}" if opened.is_stream else opened.digest()


def input_lock(store: Store, source: Input, content: str) -> AbstractContextManager[None]:
    """Return a context that holds the right to ingest this content. Raises Busy."""
    busy = f"another pik process is ingesting {source.name}, or rebuilding the index"
    return busy_as(store.batches.writing(content), busy)


def origin_of(source: Input, options: IngestOptions, content: str) -> Origin:
    """Return the origin of a batch, with those options that change what is recorded."""
    reading = options.reading
    chosen = {"max_line": str(reading.max_line)}
    chosen.update(reading.layout.recorded)
    if reading.is_mapped:
        chosen["time_format"] = "rfc3339"
        chosen.update({f"map.{name}": expression for name, expression in reading.mapping.items()})
    chosen.update(reading.seen)
    chosen.update(reading.times.recorded)
    if reading.named:
        chosen["mapping"] = reading.named
    return Origin(name=source.name, content=content, options=tuple(sorted(chosen.items())), again=options.again)


def workers_for(source: Input, options: IngestOptions) -> int:
    """Return how many worker processes build the blocks; a small input needs none."""
    return 0 if source.size is not None and source.size < BLOCK else options.workers


def block_builders(raw: Raw, source: Input, options: IngestOptions) -> Pool[Work, Chunk]:
    """Return the processes that turn the blocks of an input into segments."""
    return Pool(partial(building, raw, options.reading), workers_for(source, options))


Built = TypeVar("Built")


def build_blocks(
    pool: Pool[Work, Built], opened: OpenedInput, following: Iterator[Block], batch: Batch | None, progress: Progress
) -> Generator[Built, None, None]:
    """Yield what worker processes make of the blocks, in order. Raises InputError for an invalid record if the options
    allow none, and at the end where the input cannot be read further, or was written to meanwhile."""
    batch_id = batch.batch_id if batch else ""
    meter = _Meter(opened, progress)
    readable = UntilError(meter.ahead(following))  # blocks that are still with the workers are not lost by an error
    works = (
        (batch_id, block, number, now)
        for number, (block, now) in _numbered(batch, zip(readable, increasing_times(), strict=False))
    )
    try:
        for chunk in pool.map(works, meter.advance, label=itemgetter(2)):
            meter.finish()
            yield chunk
    except InvalidRecord as error:
        raise InputError(f"{opened.name}: {error.message}", hint=error.hint) from None
    readable.raise_error()
    opened.expect_unchanged()  # now that all that was read has been recorded


def _numbered(batch: Batch | None, blocks: Iterable[Built]) -> Iterator[tuple[int, Built]]:
    """Yield the blocks of this attempt, each with its number."""
    return enumerate(blocks, (batch.attempt - 1) * ATTEMPT + 1 if batch else 1)


class _Meter:
    """Shows how many stored bytes the workers have read."""

    def __init__(self, opened: OpenedInput, progress: Progress) -> None:
        self._opened, self._progress = opened, progress
        self._ahead: deque[tuple[int, int]] = deque()  # of each block that is not built yet: stored bytes, bytes
        self._read = self._reported = 0  # of the first of them

    def ahead(self, following: Iterator[Block]) -> Iterator[Block]:
        """Yield the blocks, as they are read ahead."""
        position = 0
        for block in following:
            self._ahead.append((self._opened.position - position, len(block.data)))
            position = self._opened.position
            yield block

    def advance(self, read: int) -> None:
        """So many bytes more of the first block are read."""
        stored, size = self._ahead[0]
        self._read = min(self._read + read, size)
        done = stored * self._read // max(size, 1)
        self._progress.advance(done - self._reported)
        self._reported = done

    def finish(self) -> None:
        """The first block is built."""
        stored, _ = self._ahead.popleft()
        self._progress.advance(stored - self._reported)
        self._read = self._reported = 0


def blocks_of(opened: OpenedInput, options: IngestOptions, batch: Batch | None) -> Iterator[Block]:
    """Return the blocks from where the batch stands to the end of the input."""
    layout, max_line = options.reading.layout, options.reading.max_line
    if opened.is_stream:
        return _stream_blocks(opened.blocks(layout, max_line), batch)
    if batch is None:
        return opened.blocks(layout, max_line)
    return opened.blocks(layout, max_line, first_seq=batch.next_seq, offset=batch.offset)


def _stream_blocks(following: Iterator[Block], batch: Batch | None) -> Iterator[Block]:
    """Yield a stream's blocks that are not recorded yet, each with the digest of the stream up to its end.

    A stream cannot be identified before it was read. So one that resumes a batch is read from its beginning, and that
    must be what the batch recorded. Raises InputError if it is not.
    """
    digest = sha256()
    recorded, seen = batch.next_seq - 1 if batch else 0, 0
    for block in following:
        seen = block.last_seq
        if batch and block.first_seq <= recorded <= seen:
            # The batch may have ended within this block, where compressed data was cut.
            begin, block = block.split(recorded)
            digest.update(begin.data)
            if digest.hexdigest() != batch.prefix_digest:
                raise _other_stream(batch)
        digest.update(block.data)
        if seen > recorded:
            yield replace(block, prefix_digest=digest.hexdigest())
    if batch and seen < recorded:
        raise _other_stream(batch)


def _other_stream(batch: Batch) -> InputError:
    name = batch.origin.content.removeprefix("key:")
    return InputError(
        f"standard input is not what batch {batch.batch_id} (--batch-key {name}) began with",
        hint="give this stream another --batch-key",
    )


def checking(reading: Reading, tell: Callable[[int], None]) -> Callable[[Work], Chunk]:
    """Return what reads a block as an ingest would, and stores nothing."""

    def check(work: Work) -> Chunk:
        batch_id, block, number, ingest_time = work
        return SegmentBuilder(batch_id, reading, tell).build(block, number, ingest_time)[0]

    return check

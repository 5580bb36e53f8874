"""Bulk ingest: the files of an archive become segments on the machines of a fleet.

A file ends as if `ingest` had read it: the same batch, deliveries, verdicts and rejects. What takes the processors,
reading records and making segments, is done by the fleet, of several files at a time. Recording stays here, in the
order of the files, as the store's claims decide which delivery of an event is the first: whatever else is recorded
meanwhile.

The order that makes promise 1 true: the plan is durable first; then each file's batch is opened; then its segments are
made, ahead of those before it; when its turn has come its blocks are recorded, and it is finished, as by `ingest`. A
plan that was begun is gone on with: what was made of a part before has the same key, and the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from pik.errors import Busy, InputError, UsageError, number_of
from pik.inputs.archives import with_members
from pik.inputs.source import Refuse, Source, portable
from pik.model.batch import Batch, BatchState, Chunk
from pik.ports.fleet import Fleet
from pik.ports.store import Store
from pik.rawlog.plans import FileLine
from pik.rawlog.sealed_records import BlockLog
from pik.runtime import SILENT, Progress, showing
from pik.usecases.availability import require_writable
from pik.usecases.ingest.batch_ingest import (
    IngestOptions,
    IngestReport,
    Outcome,
    expect_none_invalid,
    input_lock,
    record_all,
)
from pik.usecases.ingest.bulk_plan import PART, TOGETHER, BulkPlan, options_for, part_of, plan
from pik.usecases.ingest.bulk_tasks import Built, Work, build, whole
from pik.usecases.ingest.earlier import find_ingested, find_read_otherwise
from pik.usecases.ingest.many_inputs import ingest_all


def ingest_in_bulk(
    store: Store,
    fleet: Fleet,
    sources: Sequence[Source],
    options: IngestOptions,
    progress: Progress,
    refuse: Refuse,
    note: Callable[[str], None],
) -> Iterator[IngestReport]:
    """Ingest files and objects in their order, and yield the result of each when it is durable; each machine of the
    fleet must be able to read them under these names. The files of archives, and small files, are read here.

    Refuses and raises as `ingest_all` and `with_members` do. What was recorded before stands, and the same call goes
    on.
    """
    require_writable(store)
    files = _present(sources)
    chosen = [options_for(source, options) for source in files]
    planned = plan(store, fleet, files, chosen, progress)
    size = sum(source.size or 0 for source in files)
    with showing(progress, f"ingesting {number_of(len(files), 'file')}", size, "bytes"):
        yield from _Run(store, planned, files, chosen, options, progress, refuse, note).through(fleet)


def _present(sources: Sequence[Source]) -> list[Source]:
    """Return what other processes can open; a file that is gone stays as it is, to be refused when it is opened."""
    found: list[Source] = []
    for source in sources:
        with suppress(InputError):
            source = portable(source)
        found.append(source)
    return found


class _ReadOtherwiseMeanwhile(Exception):
    """What was made of a file does not follow what is recorded of it: another process went on with its batch."""


@dataclass(slots=True)
class _Run:
    """One way through a plan. `options` are those that were `given`, for each file. `begun` are the files that the
    fleet works on or has done, with their batches."""

    store: Store
    plan: BulkPlan
    sources: Sequence[Source]
    options: Sequence[IngestOptions]
    given: IngestOptions
    progress: Progress
    refuse: Refuse
    note: Callable[[str], None]
    begun: dict[int, BlockLog] = field(default_factory=dict)

    def through(self, fleet: Fleet) -> Iterator[IngestReport]:
        results = _ByFile(whole(fleet.map(build, self._together())), self.progress.advance)
        here: list[Source] = []
        for place, source in enumerate(self.sources):
            error, line = self.plan.errors.get(place), self.plan.files.get(place)
            if error is None and line is None:
                here.append(source)
                continue
            yield from self._read_here(here)
            here = []
            if line is None:
                assert error is not None
                self.refuse(source.name, error)
                continue
            try:
                report = self._planned(place, line, results)
            except (InputError, UsageError) as failure:
                self.refuse(source.name, failure)
                continue
            if report is None:
                yield from self._read_here([source])
            else:
                yield report
        yield from self._read_here(here)

    def _read_here(self, sources: Sequence[Source]) -> Iterator[IngestReport]:
        """Ingest files in this process: archives, small ones, and what the plan is not for."""
        here = with_members(sources, self.note, self.refuse)
        yield from ingest_all(self.store, here, self.given, SILENT, self.refuse)
        self.progress.advance(sum(source.size or 0 for source in sources))

    def _planned(self, place: int, line: FileLine, results: _ByFile) -> IngestReport | None:
        """Record what the fleet makes of a file; return None where its batch is not the one that was planned."""
        results.expect(place)  # so that its work has begun, if there is any
        log = self.begun.pop(place, None)
        if log is None:
            return self._done_before(line)
        try:
            return self._record(line, log, results.chunks(place))
        except _ReadOtherwiseMeanwhile:
            return None
        finally:
            results.skip(place)

    def _done_before(self, line: FileLine) -> IngestReport | None:
        """Return what became of a file that is ingested already; or, if it is to be ingested again, by this plan."""
        store, source, options = self.store, self.sources[line.place], self.options[line.place]
        of_plan = next(store.index.batches(line.batch_id), None)
        batch = of_plan if options.again else find_ingested(store, line.origin)
        if batch is None or batch.state != BatchState.COMPLETE:
            return None
        expect_none_invalid(source, options, batch)
        return IngestReport(source.name, Outcome.ALREADY, batch, None, 0.0)

    def _together(self) -> Iterator[tuple[Work, ...]]:
        """Yield work that one machine does, and begin the batches that it is for."""
        some: list[Work] = []
        size = 0
        for place, line in sorted(self.plan.files.items()):
            for work in self._works(place, line):
                if some and (len(some) == TOGETHER or size + work.size > PART):
                    yield tuple(some)
                    some, size = [], 0
                some.append(work)
                size += work.size
        if some:
            yield tuple(some)

    def _works(self, place: int, line: FileLine) -> list[Work]:
        """Begin the batch of a file, and return what there is to be done for it; nothing, if it is ingested already or
        the batch is not the one that was planned."""
        batch = self._open(place, line)
        if batch is None:
            return []
        source, reading = self.sources[place], self.options[place].reading
        all_of_it = Work(
            place, source, reading, line.batch_id, line.ingest_time, batch.next_seq, part=part_of(self.store)
        )
        if not line.splits:
            return [all_of_it]
        start = line.splits[0].begin
        return [
            all_of_it._replace(number=number, split=split, offset=split.end - start)
            for number, split in enumerate(line.splits, 1)
            if split.last_seq >= batch.next_seq
        ]

    def _open(self, place: int, line: FileLine) -> Batch | None:
        store, source, options = self.store, self.sources[place], self.options[place]
        with suppress(Busy), input_lock(store, source, line.origin.content):
            found = find_ingested(store, line.origin)
            if found is not None and found.state == BatchState.COMPLETE and options.again:
                found = next(store.index.batches(line.batch_id), None)
            elif found is None and next(store.index.batches(line.batch_id), None) is not None:
                return None  # it was ingested as planned, and withdrawn
            if found is not None and (found.batch_id != line.batch_id or found.state == BatchState.COMPLETE):
                return None
            self.plan.write()
            batch = store.batches.open(line.origin, line.batch_id, line.ingest_time, options.actor)
            log = BlockLog(store, batch)
            if len(line.splits) != 1:
                log.begin()
            self.begun[place] = log
            return batch
        return None

    def _record(self, line: FileLine, log: BlockLog, chunks: Iterator[Chunk]) -> IngestReport:
        began, store, source, options = monotonic(), self.store, self.sources[line.place], self.options[line.place]
        with input_lock(store, source, line.origin.content):
            now = next(store.index.batches(line.batch_id), None)
            if now is None or (now.attempt, now.finished_at) != (log.batch.attempt, None):
                raise _ReadOtherwiseMeanwhile
            otherwise = find_read_otherwise(store, line.origin)
            chunks = _following(chunks, log.batch.next_seq)
            return record_all(store, log, chunks, source.name, options, began, otherwise)


def _following(chunks: Iterator[Chunk], next_seq: int) -> Iterator[Chunk]:
    """Yield the chunks, the first of which begins there."""
    for chunk in chunks:
        if chunk.first_seq != next_seq:
            raise _ReadOtherwiseMeanwhile
        yield chunk
        next_seq = chunk.last_seq + 1


class _ByFile:
    """The results of a fleet, which come in the order of the files. `advance` is told how many bytes are done."""

    def __init__(self, results: Iterator[Built], advance: Callable[[int], None]) -> None:
        self._results, self._advance = results, advance
        self._next: Built | None = None

    def expect(self, place: int) -> None:
        """Wait until the fleet has something of this file, or of a later one, or has ended."""
        while (found := self._peek()) is not None and found.place < place:
            self._take()

    def chunks(self, place: int) -> Iterator[Chunk]:
        """Yield the chunks of a file. Raises what ended it early."""
        while (found := self._peek()) is not None and found.place == place:
            self._take()
            if found.error is not None:
                raise found.error
            if found.chunk is not None:
                yield found.chunk

    def skip(self, place: int) -> None:
        """Pass over what is left of a file."""
        self.expect(place + 1)

    def _peek(self) -> Built | None:
        if self._next is None:
            self._next = next(self._results, None)
        return self._next

    def _take(self) -> None:
        assert self._next is not None
        self._advance(self._next.size)
        self._next = None

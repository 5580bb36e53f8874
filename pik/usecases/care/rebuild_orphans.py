"""Restoring batches without a record from raw: what the replaced index has lost or never recorded, and, where it is
gone, everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter, itemgetter

from pik.errors import Damaged, StoreError
from pik.model.batch import OF_REQUEST, Arrivals, RejectFile, Segment, Verdict
from pik.model.instant import Window
from pik.ports.raw import RawKey, RawKind, keys_of, number_of
from pik.ports.store import batch_of
from pik.rawlog.sealed_records import Place, attempt_of
from pik.rawlog.segment_reader import Salvaged, ids_of, salvage_unknown, scan_segment, seqs
from pik.runtime.storage import sort_bounded
from pik.usecases.care.rebuild_segments import (
    LoggedBatch,
    ReplacedExtent,
    Restoration,
    interrupted,
    read_reject_file,
    restored_block,
)
from pik.usecases.ingest.api_request import recovered_request

SHOWN = 100
"""Undecided events that are kept as examples."""

StraySegments = Mapping[str, Sequence[tuple[Segment, dict[int, Verdict]]]]
"""Segments that the replaced index has of batches that it has lost, with their duplicates, by batch."""


@dataclass(slots=True)
class OrphanReport:
    """What was found. `undecided` are events with a key of whose contents only the order of arrival decides."""

    batches: int = 0
    superseded: int = 0
    unacknowledged: int = 0
    uncertain: int = 0
    undecided: set[str] = field(default_factory=set)
    undecided_examples: list[tuple[str, Place, Place]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Span:
    """What order and supersession need to know of an object. Of a block record, which stands for the segments that it
    names, `ingest_time` is that of its block, but later than that of the block before."""

    ingest_time: int
    batch_id: str
    attempt: int
    first_seq: int
    last_seq: int
    key: str


@dataclass(frozen=True, slots=True)
class _Batch:
    """The objects of a batch."""

    batch_id: str
    segments: list[str]
    rejects: list[str]
    openings: list[str]
    blocks: list[str]

    @property
    def is_request(self) -> bool:
        """Whether it is an API request, whose segments are its record."""
        return all(number_of(key) == OF_REQUEST for key in (*self.segments, *self.rejects)) and not self.is_logged

    @property
    def is_logged(self) -> bool:
        """Whether it has more than one block, so that block records show how far it came."""
        return bool(self.openings or self.blocks)

    @property
    def attempt(self) -> int:
        """The number of the last of its writers that left an object."""
        return max([1, *map(_attempt, (*self.segments, *self.rejects, *self.blocks))])


def restore_orphans(
    restoration: Restoration, finished: set[str], carried: Mapping[str, int], stray: StraySegments
) -> OrphanReport:
    """Restore what counts of the raw of batches without a record; `carried` are those that the replaced index has, each
    with how many of its objects it named.

    Memory: the objects of one batch, and 50,000 numbers and names besides.
    """
    found = OrphanReport()
    orphans = _OrphanPass(restoration, carried, stray, found)
    spans = orphans.spans(_batches(restoration, finished, found))
    ordered = sort_bounded(spans, attrgetter("ingest_time", "batch_id", "first_seq"))
    for _, of_block in groupby(ordered, key=attrgetter("ingest_time", "batch_id")):
        orphans.add(list(of_block))
    found.superseded -= restoration.present
    return found


def _batches(restoration: Restoration, finished: set[str], found: OrphanReport) -> Iterator[_Batch]:
    """Yield the objects of batches without a record, by batch. Segments of others are counted as if none was named."""

    def objects() -> Iterator[tuple[str, int, str]]:
        for number, kind in enumerate((RawKind.SEGMENT, RawKind.REJECTS, RawKind.OPENING, RawKind.BLOCK)):
            for key in keys_of(restoration.store.raw, kind):
                found.superseded += kind is RawKind.SEGMENT
                if key.id not in finished:
                    yield key.id, number, str(key)

    for batch_id, of_batch in groupby(sort_bounded(objects(), itemgetter(0, 1, 2)), key=itemgetter(0)):
        kinds: tuple[list[str], list[str], list[str], list[str]] = ([], [], [], [])
        for _, kind, key in of_batch:
            kinds[kind].append(key)
        yield _Batch(batch_id, *kinds)


@dataclass(slots=True)
class _OrphanPass:
    """One pass over the orphans: their batches are restored, and then their segments in order."""

    restoration: Restoration
    carried: Mapping[str, int]
    stray: StraySegments
    found: OrphanReport
    rivals: set[str] = field(default_factory=set)
    """Batches with keyed deliveries that had no verdict."""

    def spans(self, batches: Iterator[_Batch]) -> Iterator[_Span]:
        """Restore the batches, and yield the segments that are to be recorded anew."""
        for batch in batches:
            if batch.batch_id in self.carried:
                yield from self._unlisted(batch)
            elif batch.is_logged:
                self.found.batches += 1
                stray = self.stray.get(batch.batch_id, ())
                logged = LoggedBatch(
                    self.restoration, batch.batch_id, batch.attempt, batch.openings, batch.blocks, stray
                )
                for time, block in logged.restore():
                    yield _Span(time, batch.batch_id, block.attempt, block.first_seq, block.last_seq, block.key)
            elif batch.batch_id in self.stray or not self._unacknowledged(batch):
                yield from self._orphaned(batch)
            else:
                self.found.unacknowledged += 1
                self.found.superseded -= len(batch.segments)

    def _unacknowledged(self, batch: _Batch) -> bool:
        """Whether it is a request that the replaced index, which could be read, does not name at all."""
        if not batch.is_request or self.restoration.replaced.extent != ReplacedExtent.ALL:
            return False
        if batch.batch_id in self.restoration.unrecorded:
            return True
        rebuild, store = self.restoration.rebuild, self.restoration.store
        for key in batch.segments:
            with suppress(Damaged):
                segment = self._scan(key).arrivals.segment
                if seqs(rebuild.rows(segment, range(len(segment.frames)))):
                    return False
        return not store.index.rejects(batch.batch_id) and not store.audit.knows(batch.batch_id)

    def add(self, of_block: Sequence[_Span]) -> None:
        """Record the segments of a block anew."""
        if of_block[0].key.startswith(RawKind.BLOCK):
            (block,) = of_block
            listed = {segment.key for segment, _ in self.stray.get(block.batch_id, ())}
            for arrivals in restored_block(self.restoration, block.key, block.ingest_time, listed):
                self._note_rivals(arrivals)
            return
        salvaged = [self._scan(span.key) for span in of_block]
        self.restoration.add_block([one.arrivals for one in salvaged], None)
        for one in salvaged:
            segment = one.arrivals.segment
            if one.lost:
                self.restoration.note_lost(segment, [segment.frames[number] for number in one.lost])
            self._note_rivals(one.arrivals)

    def _note_rivals(self, arrivals: Arrivals) -> None:
        if not arrivals.keyed:
            return
        batch_id = arrivals.segment.batch_id
        self.rivals.add(batch_id)
        kinds = self.restoration.rebuild.skipped(arrivals.segment)
        conflicts = {seq for seq, kind in kinds.items() if kind == Verdict.CONFLICT}
        ids = dict(ids_of(arrivals)) if conflicts else {}
        for seq, winner in self.restoration.rebuild.winners(arrivals, conflicts).items():
            event_id = ids[seq].hex()
            if winner.place[0] in self.rivals and event_id not in self.found.undecided:
                self.found.undecided.add(event_id)
                if len(self.found.undecided_examples) < SHOWN:
                    self.found.undecided_examples.append((event_id, winner.place, (batch_id, seq)))

    def _unlisted(self, batch: _Batch) -> Iterator[_Span]:
        """Yield the segments of a batch that the replaced index knows without naming them, though it had recorded their
        records: it has lost them. Others were never recorded, or are copies of what was."""
        if len(batch.segments) + len(batch.rejects) == self.carried[batch.batch_id]:
            return
        index = self.restoration.store.index
        next_seq = batch_of(index, batch.batch_id).next_seq
        listed = self._carried_segments(batch)
        named = {file.key for file in index.rejects(batch.batch_id)}
        there = [span for key in listed if (span := self._span(key, quiet=True)) is not None]
        for key in batch.segments:
            span = None if key in listed else self._span(key)
            if span is not None and span.last_seq < next_seq and not self._is_copy(span, there):
                self.restoration.present += 1
                yield span
        for key in batch.rejects:
            rejects = None if key in named else self._rejects(key)
            if rejects is not None and rejects[1].last_seq < next_seq and batch.is_request:
                self.restoration.rebuild.add_rejects(batch.batch_id, rejects[0])

    def _carried_segments(self, batch: _Batch) -> set[str]:
        """Return the batch's segments that the replaced index lists by day, as all were carried over. By batch it may
        find more: then its list of the day is lost."""
        listed: set[str] = set()
        try:
            for day in {RawKey.of(key).day or 0 for key in batch.segments}:
                of_day = self.restoration.store.index.segments(Window.of_day(day))
                listed |= {segment.key for segment in of_day if segment.batch_id == batch.batch_id}
        except StoreError:  # an index that is damaged elsewhere says at least this
            listed = {segment.key for segment, _ in self.restoration.replaced.segments(batch.batch_id)}
        return listed | (self.restoration.mended & set(batch.segments))

    def _is_copy(self, span: _Span, others: Sequence[_Span]) -> bool:
        """Whether some of the deliveries of a segment are in one of the others too."""
        mine = seqs(self._scan(span.key).arrivals)
        return any(
            other.first_seq <= span.last_seq
            and span.first_seq <= other.last_seq
            and not mine.isdisjoint(seqs(self._scan(other.key).arrivals))
            for other in others
        )

    def _orphaned(self, batch: _Batch) -> Iterator[_Span]:
        """Restore all that is there of a request, or of a batch of one block, which cannot be resumed."""
        listed = {segment.key for segment, _ in self.stray.get(batch.batch_id, ())}
        found = [span for key in batch.segments if (span := self._span(key)) is not None]
        apart = [rejects for key in batch.rejects if (rejects := self._rejects(key)) is not None]
        everything = found + [span for _, span in apart]
        counting = [span for span in found if not _superseded(span, everything)]
        files = [file for file, span in apart if not _superseded(span, everything)]
        self.found.batches += 1
        last_seq = max((span.last_seq for span in everything), default=0)
        if batch.is_request and everything:
            self.found.uncertain += not listed  # the replaced index had recorded what it lists
            raw = self.restoration.store.raw
            self.restoration.rebuild.add_batch(recovered_request(raw, batch.batch_id, last_seq, batch.segments, files))
            for file in files:
                self.restoration.rebuild.add_rejects(batch.batch_id, file)
        else:
            unfinished = interrupted(batch.batch_id, batch.attempt, None, last_seq)
            self.restoration.add_interrupted(unfinished, [span.key for span in counting], files)
        for segment, verdicts in self.stray.get(batch.batch_id, ()):
            self.restoration.add(segment, verdicts)
        for span in counting:
            if span.key not in listed:
                self.restoration.present += 1
                yield span

    def _scan(self, key: str) -> Salvaged:
        try:
            return Salvaged(scan_segment(self.restoration.store.raw, key), ())
        except Damaged:
            return salvage_unknown(self.restoration.store.raw, key)

    def _span(self, key: str, *, quiet: bool = False) -> _Span | None:
        try:
            arrivals = scan_segment(self.restoration.store.raw, key)
        except Damaged as error:
            if not quiet:
                self.restoration.damaged.append(error.message)
            try:
                arrivals = salvage_unknown(self.restoration.store.raw, key).arrivals
            except Damaged:
                self.found.superseded -= not quiet  # not a copy, but damaged as a whole
                return None
        found = seqs(arrivals)
        segment = arrivals.segment
        return _Span(segment.ingest_time, segment.batch_id, _attempt(key), min(found), max(found), key)

    def _rejects(self, key: str) -> tuple[RejectFile, _Span] | None:
        try:
            file, rejects = read_reject_file(self.restoration.store.raw, key)
        except Damaged as error:
            self.restoration.damaged.append(error.message)
            return None
        return file, _Span(0, RawKey.of(key).id, _attempt(key), rejects[0].seq, rejects[-1].seq, key)


def _superseded(span: _Span, spans: Sequence[_Span]) -> bool:
    """Whether a later attempt read the same records again. An attempt begins where the index had recorded the one
    before it, so what that one left after this place was never recorded."""
    return any(other.attempt > span.attempt and other.first_seq <= span.last_seq for other in spans)


def _attempt(key: str) -> int:
    """Which of the batch's writers, counted from 1, made this object."""
    return attempt_of(number_of(key))

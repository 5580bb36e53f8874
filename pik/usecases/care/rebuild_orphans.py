"""Restoring batches without a record from raw: what the replaced index has lost or never recorded, and, where it is
gone, everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter, itemgetter

from msgspec import structs

from pik.errors import Damaged, StoreError
from pik.model.batch import OF_REQUEST, Arrivals, Batch, BatchState, Origin, RejectFile, Verdict
from pik.model.ids import creation_time
from pik.model.instant import Window
from pik.ports.raw import RawKey, RawKind, keys_of, number_of
from pik.ports.store import batch_of
from pik.rawlog.corrections import Place
from pik.rawlog.objects import read_rejects
from pik.rawlog.sealed_records import (
    BlockLine,
    OpeningLine,
    attempt_of,
    read_block,
    read_opening,
    recorded_blocks,
)
from pik.rawlog.segment_reader import Salvage, ids_of, salvage_unknown, scan_segment, seqs
from pik.runtime.storage import sort_bounded
from pik.usecases.care.rebuild_segments import (
    ReplacedExtent,
    Restoration,
    SegmentVerdicts,
    read_reject_file,
)
from pik.usecases.ingest.api_request import recovered_request

_KEYED_BYTES = 1 << 20
"""Of rows with idempotency keys that are looked up together."""

SHOWN = 100
"""Events that a list of a result has; it counts them all."""

StraySegments = Mapping[str, Sequence[SegmentVerdicts]]
"""Segments that the replaced index has of batches that it has lost, by batch."""


@dataclass(frozen=True, slots=True)
class UndecidedWinner:
    """An event with an idempotency key and deliveries of different contents, for which `counted` counts only because of
    the order of arrival."""

    event_id: str
    counted: Place
    other: Place


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
    """The keys of a batch's objects."""

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

    def interrupted(self, opening: OpeningLine | None, last_seq: int) -> Batch:
        """Return it as a batch that ended before it had a record, of whose input this seq was the last to be
        recorded."""
        unknown = Origin(name="(interrupted; its origin was in the lost index)", content=f"lost:{self.batch_id}")
        return Batch(
            batch_id=self.batch_id,
            origin=opening.origin if opening else unknown,
            state=BatchState.INTERRUPTED,
            attempt=max([1, *map(_attempt, (*self.segments, *self.rejects, *self.blocks))]),
            started_at=opening.started_at if opening else creation_time(self.batch_id),
            actor=opening.actor if opening else "",
            next_seq=last_seq + 1,
        )


def _batches(restoration: Restoration, finished: set[str]) -> Iterator[_Batch]:
    def objects() -> Iterator[tuple[str, int, str]]:
        for number, kind in enumerate((RawKind.SEGMENT, RawKind.REJECTS, RawKind.OPENING, RawKind.BLOCK)):
            for key in keys_of(restoration.store.raw, kind):
                restoration.counts["superseded"] += kind is RawKind.SEGMENT
                if key.id not in finished:
                    yield key.id, number, str(key)

    for batch_id, of_batch in groupby(sort_bounded(objects(), itemgetter(0, 1, 2)), key=itemgetter(0)):
        kinds: tuple[list[str], list[str], list[str], list[str]] = ([], [], [], [])
        for _, kind, key in of_batch:
            kinds[kind].append(key)
        yield _Batch(batch_id, *kinds)


@dataclass(slots=True)
class OrphanPass:
    """One pass over the batches without a record: they are restored, and then their segments in order. `carried` are
    those that the replaced index has, each with how many of its objects it named.

    Memory: the objects of one batch, and 50,000 numbers and names besides.
    """

    restoration: Restoration
    carried: Mapping[str, int]
    stray: StraySegments
    rivals: set[str] = field(default_factory=set)
    """Batches with keyed deliveries that had no verdict."""
    undecided: set[str] = field(default_factory=set)
    """Events with a key of whose contents only the order of arrival decides."""
    undecided_examples: list[UndecidedWinner] = field(default_factory=list)
    _keyed: list[Arrivals] = field(default_factory=list)
    """Segments with keyed deliveries that are to be asked about."""

    def restore(self, finished: set[str]) -> None:
        """Restore what counts of the raw of batches that are not `finished`."""
        spans = self._spans(_batches(self.restoration, finished))
        ordered = sort_bounded(spans, attrgetter("ingest_time", "batch_id", "first_seq"))
        for _, of_block in groupby(ordered, key=attrgetter("ingest_time", "batch_id")):
            self._add(list(of_block))
        self._note_rivals()

    def _spans(self, batches: Iterator[_Batch]) -> Iterator[_Span]:
        """Restore the batches, and yield the segments that are to be recorded anew."""
        counts = self.restoration.counts
        for batch in batches:
            if batch.batch_id in self.carried:
                yield from self._unlisted(batch)
            elif batch.is_logged:
                counts["batches"] += 1
                yield from self._logged(batch)
            elif batch.batch_id in self.stray or not self._unacknowledged(batch):
                counts["batches"] += 1
                yield from self._orphaned(batch)
            else:
                counts["unacknowledged"] += 1
                counts["superseded"] -= len(batch.segments)

    def _unacknowledged(self, batch: _Batch) -> bool:
        """Return whether it is a request that the replaced index, which could be read, does not name at all."""
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

    def _add(self, of_block: Sequence[_Span]) -> None:
        if of_block[0].key.startswith(RawKind.BLOCK):
            (block,) = of_block
            self._add_recorded_block(block)
            return
        salvaged = [self._scan(span.key) for span in of_block]
        self.restoration.add_block([one.arrivals for one in salvaged], None)
        for one in salvaged:
            segment = one.arrivals.segment
            if one.lost:
                self.restoration.note_lost(segment, [segment.frames[number] for number in one.lost])
            self._keep_keyed(one.arrivals)

    def _add_recorded_block(self, block: _Span) -> None:
        """Record the segments that a block record names anew, as of its time."""
        raw, listed = self.restoration.store.raw, self._stray_keys(block.batch_id)
        segments = [line.segment for line in read_block(raw, block.key)[1] if line.segment.key not in listed]
        arrivals = [
            self.restoration.read(structs.replace(one, recorded_at=block.ingest_time, guessed=True)) for one in segments
        ]
        if arrivals:
            self.restoration.add_block(arrivals, None)
        self.restoration.counts["superseded"] -= sum(raw.size(segment.key) is not None for segment in segments)
        for one in arrivals:
            self._keep_keyed(one)

    def _stray_keys(self, batch_id: str) -> set[str]:
        return {segment.key for segment, _ in self.stray.get(batch_id, ())}

    def _keep_keyed(self, arrivals: Arrivals) -> None:
        if arrivals.keyed:
            self._keyed.append(arrivals)
        if sum(len(one.keyed) for one in self._keyed) >= _KEYED_BYTES:
            self._note_rivals()

    def _note_rivals(self) -> None:
        keyed, self._keyed = self._keyed, []
        verdicts = self.restoration.rebuild.skipped([one.segment for one in keyed])
        for arrivals, kinds in zip(keyed, verdicts, strict=True):
            batch_id = arrivals.segment.batch_id
            self.rivals.add(batch_id)
            conflicts = {seq for seq, kind in kinds.items() if kind == Verdict.CONFLICT}
            ids = dict(ids_of(arrivals)) if conflicts else {}
            for seq, winner in self.restoration.rebuild.winners(arrivals, conflicts).items():
                event_id = ids[seq].hex()
                if winner.place[0] in self.rivals and event_id not in self.undecided:
                    self.undecided.add(event_id)
                    if len(self.undecided_examples) < SHOWN:
                        self.undecided_examples.append(UndecidedWinner(event_id, winner.place, (batch_id, seq)))

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
                self.restoration.counts["superseded"] -= 1
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
        """Return whether some of the deliveries of a segment are in one of the others too."""
        mine = seqs(self._scan(span.key).arrivals)
        return any(
            other.first_seq <= span.last_seq
            and span.first_seq <= other.last_seq
            and not mine.isdisjoint(seqs(self._scan(other.key).arrivals))
            for other in others
        )

    def _logged(self, batch: _Batch) -> Iterator[_Span]:
        """Restore a batch with an opening record or block records as it was when the last of its blocks was recorded,
        and what the replaced index has of it. Yield each block with deliveries."""
        raw, noting_damage = self.restoration.store.raw, self.restoration.noting_damage
        blocks = self._recorded_blocks(batch)
        times: list[tuple[int, BlockLine]] = []
        keys: dict[str, None] = {}  # of the segments that were recorded, in order
        files: list[RejectFile] = []
        time = 0
        for block in blocks:
            _, segments, rejects = read_block(raw, block.key)
            keys.update(dict.fromkeys(line.segment.key for line in segments))
            files += [line.rejects for line in rejects]
            if segments:
                time = max(time + 1, segments[0].segment.ingest_time)
                times.append((time, block))
        for file in files:
            with noting_damage():
                read_rejects(raw, file.key)
        opening: OpeningLine | None = None
        for key in batch.openings:
            with noting_damage():
                opening = read_opening(raw, key)
        unfinished = batch.interrupted(opening, blocks[-1].last_seq if blocks else 0)
        if blocks:
            unfinished = replace(unfinished, offset=blocks[-1].offset, prefix_digest=blocks[-1].prefix_digest)
        self.restoration.add_interrupted(unfinished, keys, files)
        for segment, verdicts in self.stray.get(batch.batch_id, ()):
            if segment.key in keys:
                self.restoration.add(segment, verdicts)
        for time, block in times:
            yield _Span(time, batch.batch_id, block.attempt, block.first_seq, block.last_seq, block.key)

    def _recorded_blocks(self, batch: _Batch) -> list[BlockLine]:
        found: list[BlockLine] = []
        for key in batch.blocks:
            with self.restoration.noting_damage():
                found.append(read_block(self.restoration.store.raw, key)[0])
        blocks = recorded_blocks(found)
        last_seq = blocks[-1].last_seq if blocks else 0
        # An earlier attempt's block that ends later than the one in its place was never recorded: nothing is missing.
        if any(block.first_seq > last_seq + 1 for block in found):
            self.restoration.damaged.append(
                f"a block record of the interrupted batch {batch.batch_id} is missing: what follows record {last_seq}"
                " does not count until its input is ingested again"
            )
        return blocks

    def _orphaned(self, batch: _Batch) -> Iterator[_Span]:
        """Restore all that is there of a request, or of a batch of one block, which cannot be resumed."""
        listed = self._stray_keys(batch.batch_id)
        found = [span for key in batch.segments if (span := self._span(key)) is not None]
        apart = [rejects for key in batch.rejects if (rejects := self._rejects(key)) is not None]
        everything = found + [span for _, span in apart]
        counting = [span for span in found if not _superseded(span, everything)]
        files = [file for file, span in apart if not _superseded(span, everything)]
        last_seq = max((span.last_seq for span in everything), default=0)
        if batch.is_request and everything:
            self.restoration.counts["uncertain"] += not listed  # the replaced index had recorded what it lists
            raw = self.restoration.store.raw
            self.restoration.rebuild.add_batch(recovered_request(raw, batch.batch_id, last_seq, batch.segments, files))
            for file in files:
                self.restoration.rebuild.add_rejects(batch.batch_id, file)
        else:
            unfinished = batch.interrupted(None, last_seq)
            self.restoration.add_interrupted(unfinished, [span.key for span in counting], files)
        for segment, verdicts in self.stray.get(batch.batch_id, ()):
            self.restoration.add(segment, verdicts)
        for span in counting:
            if span.key not in listed:
                self.restoration.counts["superseded"] -= 1
                yield span

    def _scan(self, key: str) -> Salvage:
        try:
            return Salvage(scan_segment(self.restoration.store.raw, key), ())
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
                self.restoration.counts["superseded"] -= not quiet  # not a copy, but damaged as a whole
                return None
        found, segment = seqs(arrivals), arrivals.segment
        return _Span(segment.ingest_time, segment.batch_id, _attempt(key), min(found), max(found), key)

    def _rejects(self, key: str) -> tuple[RejectFile, _Span] | None:
        try:
            file, rejects = read_reject_file(self.restoration.store.raw, key)
        except Damaged as error:
            self.restoration.damaged.append(error.message)
            return None
        return file, _Span(0, RawKey.of(key).id, _attempt(key), rejects[0].seq, rejects[-1].seq, key)


def _superseded(span: _Span, spans: Sequence[_Span]) -> bool:
    """Return whether a later attempt read the same records again. An attempt begins where the index had recorded the
    one before it, so what that one left after this place was never recorded."""
    return any(other.attempt > span.attempt and other.first_seq <= span.last_seq for other in spans)


def _attempt(key: str) -> int:
    return attempt_of(number_of(key))

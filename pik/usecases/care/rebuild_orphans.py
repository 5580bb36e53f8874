"""Restoring batches without a record from raw: what the replaced index has lost or never recorded, and, where it is
gone, everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter, itemgetter

from msgspec import structs

from pik.errors import Damaged
from pik.model.batch import Arrivals, RejectFile, Verdict
from pik.ports.raw import RawKey, RawKind, number_of
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
from pik.rawlog.segment_reader import Salvage, ids_of, salvage_unknown, seqs
from pik.runtime.storage import Sorter
from pik.usecases.care.rebuild_batches import BatchObjects
from pik.usecases.care.rebuild_carried import CarriedBatch
from pik.usecases.care.rebuild_segments import (
    ReplacedExtent,
    Restoration,
    Scan,
    SegmentVerdicts,
    read_reject_file,
    scan,
)
from pik.usecases.ingest.api_request import recovered_request

_KEYED_BYTES = 1 << 20
"""Of rows with idempotency keys that are looked up together."""

SHOWN = 100
"""Events that a list of a result has; it counts them all."""

_SMALL, _IN_MEMORY = 4096, 5_000
"""Bytes of rows of a segment that are kept until it is recorded, so that it is read once, and how many such segments
are in memory."""


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
    read: Arrivals | None = None
    """What reading it gave, if that is whole and small."""
    listed: frozenset[str] = frozenset()
    """Of a block record the segments of the batch that are restored already."""


@dataclass(slots=True)
class OrphanPass:
    """One pass over the batches without a record: what the replaced index lacks of each is added, and then restored in
    order.

    Memory: the objects of one batch, and a number of small segments; the rest is sorted on disk.
    """

    restoration: Restoration
    _spans: Sorter[_Span] = field(
        default_factory=lambda: Sorter(attrgetter("ingest_time", "batch_id", "first_seq"), in_memory=_IN_MEMORY)
    )
    _rivals: Sorter[tuple[str, int, UndecidedWinner | None]] = field(default_factory=lambda: Sorter(itemgetter(0, 1)))
    """By batch: first that it has keyed deliveries that had no verdict, then events that it won with one of them, if it
    has any."""
    _keyed: list[Arrivals] = field(default_factory=list)
    """Segments with keyed deliveries that are to be asked about."""

    def add(self, batch: BatchObjects, carried: CarriedBatch, found: Mapping[str, Scan]) -> None:
        """Restore a batch, unless it was carried over, and note what of its raw is to be recorded anew. `found` are
        segments that were read already."""
        counts = self.restoration.counts
        if carried.row is not None:
            spans = self._unlisted(batch, carried, found)
        elif batch.is_logged:
            counts["batches"] += 1
            spans = self._logged(batch, carried.strays)
        elif carried.strays or not self._unacknowledged(batch, carried, found):
            counts["batches"] += 1
            spans = self._orphaned(batch, carried.strays, found)
        else:
            counts["unacknowledged"] += 1
            counts["superseded"] -= len(batch.segments)
            return
        for span in spans:
            self._spans.add(span)

    def restore(self) -> None:
        """Restore what was noted."""
        for _, of_block in groupby(self._spans, key=attrgetter("ingest_time", "batch_id")):
            self._add(list(of_block))
        self._note_rivals()

    def undecided(self) -> tuple[int, list[UndecidedWinner]]:
        """Return how many events have a key and several contents of which only the order of arrival decides, and the
        first of them."""
        events = Sorter[UndecidedWinner](attrgetter("event_id"))
        for _, of_batch in groupby(self._rivals, key=itemgetter(0)):
            is_rival = False
            for _, _, event in of_batch:
                is_rival |= event is None
                if is_rival and event is not None:
                    events.add(event)
        number, examples = 0, []
        for _, of_event in groupby(events, key=attrgetter("event_id")):
            number += 1
            if number <= SHOWN:
                examples.append(next(of_event))
        return number, examples

    def _unacknowledged(self, batch: BatchObjects, carried: CarriedBatch, found: Mapping[str, Scan]) -> bool:
        """Return whether it is a request that the replaced index, which could be read, does not name at all."""
        if not batch.is_request or self.restoration.replaced.extent != ReplacedExtent.ALL:
            return False
        if carried.is_unrecorded:
            return True
        rebuild, store = self.restoration.rebuild, self.restoration.store
        for key in batch.segments:
            with suppress(Damaged):
                segment = self._scan(key, found).arrivals.segment
                if seqs(rebuild.rows(segment, range(len(segment.frames)))):
                    return False
        return not store.index.rejects(batch.batch_id) and not store.audit.knows(batch.batch_id)

    def _add(self, of_block: Sequence[_Span]) -> None:
        if of_block[0].key.startswith(RawKind.BLOCK):
            (block,) = of_block
            self._add_recorded_block(block)
            return
        salvaged = [Salvage(span.read, ()) if span.read else self._scan(span.key) for span in of_block]
        self.restoration.add_block([one.arrivals for one in salvaged], None)
        for one in salvaged:
            segment = one.arrivals.segment
            if one.lost:
                self.restoration.note_lost(segment, [segment.frames[number] for number in one.lost])
            self._keep_keyed(one.arrivals)

    def _add_recorded_block(self, block: _Span) -> None:
        """Record the segments that a block record names anew, as of its time."""
        raw = self.restoration.store.raw
        segments = [line.segment for line in read_block(raw, block.key)[1] if line.segment.key not in block.listed]
        arrivals = [
            self.restoration.read(structs.replace(one, recorded_at=block.ingest_time, guessed=True)) for one in segments
        ]
        if arrivals:
            self.restoration.add_block(arrivals, None)
        self.restoration.counts["superseded"] -= sum(raw.size(segment.key) is not None for segment in segments)
        for one in arrivals:
            self._keep_keyed(one)

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
            self._rivals.add((batch_id, 0, None))
            conflicts = {seq for seq, kind in kinds.items() if kind == Verdict.CONFLICT}
            ids = dict(ids_of(arrivals)) if conflicts else {}
            for seq, winner in self.restoration.rebuild.winners(arrivals, conflicts).items():
                event = UndecidedWinner(ids[seq].hex(), winner.place, (batch_id, seq))
                self._rivals.add((winner.place[0], 1, event))

    def _unlisted(self, batch: BatchObjects, carried: CarriedBatch, found: Mapping[str, Scan]) -> Iterator[_Span]:
        """Yield the segments of a batch that the replaced index knows without naming them, though it had recorded their
        records: it has lost them. Others were never recorded, or are copies of what was."""
        segments = [key for key in batch.segments if key not in carried.listed]
        rejects = [key for key in batch.rejects if key not in carried.rejects]
        if carried.row is None or (not segments and not rejects):
            return
        next_seq = carried.row.next_seq
        there = [span for key in sorted(carried.listed) if (span := self._span(key, found, quiet=True)) is not None]
        for key in segments:
            span = self._span(key, found)
            if span is not None and span.last_seq < next_seq and not self._is_copy(span, there):
                self.restoration.counts["superseded"] -= 1
                yield span
        for key in rejects:
            file = self._rejects(key)
            if file is not None and file[1].last_seq < next_seq and batch.is_request:
                self.restoration.rebuild.add_rejects(batch.batch_id, file[0])

    def _is_copy(self, span: _Span, others: Sequence[_Span]) -> bool:
        """Return whether some of the deliveries of a segment are in one of the others too."""
        mine = seqs(self._scan(span.key).arrivals)
        return any(
            other.first_seq <= span.last_seq
            and span.first_seq <= other.last_seq
            and not mine.isdisjoint(seqs(self._scan(other.key).arrivals))
            for other in others
        )

    def _logged(self, batch: BatchObjects, strays: Sequence[SegmentVerdicts]) -> Iterator[_Span]:
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
        for segment, verdicts in strays:
            if segment.key in keys:
                self.restoration.add(segment, verdicts)
        listed = frozenset(segment.key for segment, _ in strays)
        for time, block in times:
            seqs_of_block = block.first_seq, block.last_seq
            yield _Span(time, batch.batch_id, block.attempt, *seqs_of_block, block.key, listed=listed)

    def _recorded_blocks(self, batch: BatchObjects) -> list[BlockLine]:
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

    def _orphaned(
        self, batch: BatchObjects, strays: Sequence[SegmentVerdicts], scans: Mapping[str, Scan]
    ) -> Iterator[_Span]:
        """Restore all that is there of a request, or of a batch of one block, which cannot be resumed."""
        listed = {segment.key for segment, _ in strays}
        found = [span for key in batch.segments if (span := self._span(key, scans)) is not None]
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
        for segment, verdicts in strays:
            self.restoration.add(segment, verdicts)
        for span in counting:
            if span.key not in listed:
                self.restoration.counts["superseded"] -= 1
                yield span

    def _scan(self, key: str, found: Mapping[str, Scan] | None = None) -> Salvage:
        one = (found or {}).get(key) or scan(self.restoration.store.raw, key)
        return Salvage(one.arrivals, ()) if one.arrivals else salvage_unknown(self.restoration.store.raw, key)

    def _span(self, key: str, found: Mapping[str, Scan], *, quiet: bool = False) -> _Span | None:
        one = found.get(key) or scan(self.restoration.store.raw, key)
        arrivals, read = one.arrivals, one.arrivals
        if arrivals is None:
            if one.damage and not quiet:
                self.restoration.damaged.append(one.damage.message)
            try:
                arrivals = salvage_unknown(self.restoration.store.raw, key).arrivals
            except Damaged:
                self.restoration.counts["superseded"] -= not quiet  # not a copy, but damaged as a whole
                return None
        of_segment, segment = seqs(arrivals), arrivals.segment
        if read and len(read.plain) + len(read.keyed) + len(read.entities) > _SMALL:
            read = None
        extent = min(of_segment), max(of_segment)
        return _Span(segment.ingest_time, segment.batch_id, _attempt(key), *extent, key, read)

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

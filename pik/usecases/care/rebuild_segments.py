"""Restoring segments and interrupted batches into an index that is being rebuilt, beside the one that it replaces."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha256

from msgspec import structs

from pik.errors import Damaged
from pik.model.batch import Arrivals, Batch, BatchState, Counts, Frame, Origin, Reject, RejectFile, Segment, Verdict
from pik.model.instant import ALL_TIME, MIN_INSTANT
from pik.ports.raw import Raw
from pik.ports.store import Index, Rebuild, Store
from pik.rawlog.objects import damaged, read_rejects
from pik.rawlog.sealed_records import BlockLine, OpeningLine, read_block, read_opening, recorded_blocks
from pik.rawlog.segment_reader import salvage_known, scan_segment, seqs, together
from pik.runtime import Progress
from pik.usecases.availability import has_expired
from pik.usecases.ingest.api_request import batch_statistics, creation_time


class ReplacedExtent(StrEnum):
    """How much of the replaced index could be read. One without any batch counts as none: raw was moved into a new
    store."""

    ALL = "all"
    PART = "part"
    NONE = "none"


class ReplacedIndex:
    """Reads the replaced index. A damaged one may fail in any way, and then yields less; it never stops a rebuild."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._known = False
        self._failed = False

    @property
    def extent(self) -> ReplacedExtent:
        """How much could be read, which is final once `batches` and `segments` were read."""
        return ReplacedExtent.NONE if not self._known else ReplacedExtent.PART if self._failed else ReplacedExtent.ALL

    def batches(self) -> Iterator[tuple[Batch, list[RejectFile]]]:
        """Yield the batches, and their files of rejects."""
        try:
            for batch in self._index.batches():
                self._known = True
                yield batch, self._index.rejects(batch.batch_id)
        except Exception:  # noqa: BLE001 - flipped bits in a database show as anything
            self._failed = True

    def segments(self, batch_id: str | None = None) -> Iterator[tuple[Segment, dict[int, Verdict]]]:
        """Yield the segments, of one batch or of all, with their duplicates: seq → exact or conflict."""
        day, seen = MIN_INSTANT, set[str]()  # the current day, and what was seen of it
        try:
            for segment in self._index.segments(ALL_TIME, batch_id=batch_id):
                yield segment, self._index.skipped(segment)
                if segment.day != day:
                    day, seen = segment.day, set()
                seen.add(segment.key)
        except Exception:  # noqa: BLE001 - as above
            self._failed = True
            if batch_id is None:  # one bad row is no reason to lose those of other batches
                for batch, _ in self.batches():
                    of_batch = self.segments(batch.batch_id)
                    yield from (one for one in of_batch if one[0].day >= day and one[0].key not in seen)


@dataclass(slots=True)
class Restoration:
    """A rebuild under way: adds segments, and counts what it meets. `present` segments have their object."""

    store: Store
    rebuild: Rebuild
    replaced: ReplacedIndex
    progress: Progress
    segments: int = 0
    deliveries: int = 0
    present: int = 0
    expired: int = 0
    unfinished: int = 0
    guessed: int = 0
    unrecorded: set[str] = field(default_factory=set)
    """Requests that the replaced index knows, without having recorded anything of them."""
    lost: int = 0
    lost_in: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    """Batches that have nothing but their row in the replaced index."""
    mended: set[str] = field(default_factory=set)
    """Segments that the replaced index listed under another day or batch than their own."""

    def add(self, segment: Segment, verdicts: Mapping[int, Verdict]) -> bool:
        """Restore a segment of which everything is known but its deliveries. Return whether its object is there."""
        self.add_block([self.read(segment)], verdicts)
        there = self.store.raw.size(segment.key) is not None
        self.present += there
        return there

    def add_block(self, arrivals: Sequence[Arrivals], verdicts: Mapping[int, Verdict] | None) -> None:
        """Restore segments whose deliveries were read. One without `recorded_at` was recorded, as far as is known, when
        it was ingested."""
        stamped = [
            arrived
            if arrived.segment.recorded_at
            else replace(
                arrived,
                segment=structs.replace(arrived.segment, recorded_at=arrived.segment.ingest_time, guessed=True),
            )
            for arrived in arrivals
        ]
        self.rebuild.add_segments(stamped, verdicts)
        for arrived in stamped:
            held = len(seqs(arrived))
            self.segments += bool(held)
            self.deliveries += held
            self.guessed += arrived.segment.guessed
            self.progress.advance(1)

    def add_interrupted(self, batch: Batch, segments: Iterable[str], files: Sequence[RejectFile]) -> None:
        """Restore an interrupted batch with these segments, given by their keys, and files of rejects."""
        reasons, lags, sources = batch_statistics(self.store.raw, segments, files)
        counts = Counts(rejected=sum(file.records for file in files))
        self.unfinished += 1
        self.rebuild.add_batch(replace(batch, counts=counts, reasons=reasons, lags=lags, sources=sources))
        for file in files:
            self.rebuild.add_rejects(batch.batch_id, file)

    def note_lost(self, segment: Segment, frames: Sequence[Frame]) -> None:
        """Note that these frames of a segment cannot be read."""
        self.lost += sum(frame.lines for frame in frames)
        ranges = [frame.first if frame.first == frame.last else f"{frame.first} … {frame.last}" for frame in frames]
        shown = ", ".join(ranges[:_RANGES]) + (", …" if len(ranges) > _RANGES else "")
        self.lost_in.append(f"{segment.key}: {shown}")

    def read(self, segment: Segment) -> Arrivals:
        """Return the deliveries of a segment of which everything else is known; of a damaged one, what is left."""
        try:
            arrivals = scan_segment(self.store.raw, segment.key)
            if arrivals.segment.frames != segment.frames:
                raise damaged(segment.key, "it is not the object that was recorded")
        except Damaged as error:
            return self._rest(segment, error)
        if arrivals.segment.digest != segment.digest:
            self.damaged.append(damaged(segment.key, "its SHA-256 is not the recorded one").message)
        return replace(arrivals, segment=segment)

    def _rest(self, segment: Segment, error: Damaged) -> Arrivals:
        """Return what is left of a segment that cannot be read: the deliveries in its whole frames, and of the others
        what the replaced index has. It stays known with all of its frames, so that what needs a lost one fails."""
        if has_expired(self.store, segment.ingest_time) and self.store.raw.size(segment.key) is None:
            self.expired += 1
            return Arrivals(segment, b"", b"", "")
        self.damaged.append(error.message)
        salvaged = salvage_known(self.store.raw, segment)
        self.note_lost(segment, [segment.frames[number] for number in salvaged.lost])
        return together(salvaged.arrivals, self.rebuild.rows(segment, salvaged.lost))


_RANGES = 5
"""Ranges of entities that are named for each damaged segment."""


Segments = Sequence[tuple[Segment, Mapping[int, Verdict]]]
"""Segments with their duplicates."""


@dataclass(slots=True)
class LoggedBatch:
    """A batch with an opening record or block records, given by their keys; `attempt` is its last one, `stray` are the
    segments that the replaced index has of it, though it has lost the batch."""

    restoration: Restoration
    batch_id: str
    attempt: int
    openings: Sequence[str]
    records: Sequence[str]
    stray: Segments
    _keys: dict[str, None] = field(default_factory=dict)
    """The segments that were recorded, in order."""

    def restore(self) -> Iterator[tuple[int, BlockLine]]:
        """Restore the batch as it was when the last of its blocks was recorded, and what the replaced index has of it.
        Yield each block with deliveries, and a time for it: that of its ingest, but later than that of the block
        before."""
        raw, blocks = self.restoration.store.raw, self._blocks()
        files: list[RejectFile] = []
        for block in blocks:
            _, segments, rejects = read_block(raw, block.key)
            self._keys.update(dict.fromkeys(line.segment.key for line in segments))
            files += [line.rejects for line in rejects]
        self._add_batch(blocks, files)
        for segment, verdicts in self.stray:
            if segment.key in self._keys:
                self.restoration.add(segment, verdicts)
        time = 0
        for block in blocks:
            _, segments, _ = read_block(raw, block.key)
            for line in segments[:1]:
                time = max(time + 1, line.segment.ingest_time)
                yield time, block

    def _blocks(self) -> list[BlockLine]:
        found: list[BlockLine] = []
        for key in self.records:
            try:
                found.append(read_block(self.restoration.store.raw, key)[0])
            except Damaged as error:
                self.restoration.damaged.append(error.message)
        blocks = recorded_blocks(found)
        last_seq = blocks[-1].last_seq if blocks else 0
        # An earlier attempt's block that ends later than the one in its place was never recorded: nothing is missing.
        if any(block.first_seq > last_seq + 1 for block in found):
            self.restoration.damaged.append(
                f"a block record of the interrupted batch {self.batch_id} is missing: what follows record {last_seq}"
                " does not count until its input is ingested again"
            )
        return blocks

    def _add_batch(self, blocks: Sequence[BlockLine], files: Sequence[RejectFile]) -> None:
        for file in files:
            try:
                read_rejects(self.restoration.store.raw, file.key)
            except Damaged as error:
                self.restoration.damaged.append(error.message)
        batch = interrupted(self.batch_id, self.attempt, self._opening(), blocks[-1].last_seq if blocks else 0)
        if blocks:
            batch = replace(batch, offset=blocks[-1].offset, prefix_digest=blocks[-1].prefix_digest)
        self.restoration.add_interrupted(batch, self._keys, files)

    def _opening(self) -> OpeningLine | None:
        for key in self.openings:
            try:
                return read_opening(self.restoration.store.raw, key)
            except Damaged as error:
                self.restoration.damaged.append(error.message)
        return None


def read_reject_file(raw: Raw, key: str) -> tuple[RejectFile, list[Reject]]:
    """Return what the index has of a file of rejects, and its records. Raises Damaged."""
    rejects, data = read_rejects(raw, key), raw.read(key)
    return RejectFile(key=key, size=len(data), digest=sha256(data).hexdigest(), records=len(rejects)), rejects


def restored_block(restoration: Restoration, key: str, time: int, listed: Collection[str]) -> list[Arrivals]:
    """Record the segments anew that a block record names, without those that are `listed`, as of this time. Return what
    was read of them."""
    _, lines, _ = read_block(restoration.store.raw, key)
    segments = [line.segment for line in lines if line.segment.key not in listed]
    arrivals = [restoration.read(structs.replace(one, recorded_at=time, guessed=True)) for one in segments]
    if arrivals:
        restoration.add_block(arrivals, None)
    restoration.present += sum(restoration.store.raw.size(segment.key) is not None for segment in segments)
    return arrivals


def interrupted(batch_id: str, attempt: int, opening: OpeningLine | None, last_seq: int) -> Batch:
    """Return a batch that ended before it had a record, of whose input this seq was the last to be recorded."""
    unknown = Origin(name="(interrupted; its origin was in the lost index)", content=f"lost:{batch_id}")
    return Batch(
        batch_id=batch_id,
        origin=opening.origin if opening else unknown,
        state=BatchState.INTERRUPTED,
        attempt=attempt,
        started_at=opening.started_at if opening else creation_time(batch_id),
        next_seq=last_seq + 1,
    )

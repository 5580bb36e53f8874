"""Restoring segments into an index that is being rebuilt, beside the one that it replaces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha256
from itertools import tee

from msgspec import structs

from pik.errors import Damaged
from pik.model.batch import Arrivals, Batch, Counts, Frame, Reject, RejectFile, Segment, Verdict
from pik.model.window import ALL_TIME
from pik.ports.index import Index, Rebuild
from pik.ports.raw import Raw, RawKind
from pik.ports.store import Store
from pik.rawlog.objects import HeldObject, damaged, read_rejects
from pik.rawlog.segment_reader import merged, places_of, salvage_known, scan_segment, seqs
from pik.runtime import Progress
from pik.runtime.parallel import map_in_threads
from pik.usecases.availability import has_expired
from pik.usecases.ingest.api_request import batch_statistics


class ReplacedExtent(StrEnum):
    """How much of the replaced index could be read. One without any batch counts as none: raw was moved into a new
    store."""

    ALL = "all"
    PART = "part"
    NONE = "none"


READERS, AHEAD = 16, 64
"""Threads that read segments, and segments that are read ahead."""

_RANGES = 5
"""Ranges of entities that are named for each damaged segment."""

SegmentVerdicts = tuple[Segment, dict[int, Verdict]]
"""A segment and its duplicates: seq → exact or conflict."""


class ReplacedIndex:
    """Reads the replaced index. A damaged one may fail in any way, and then yields less; it never stops a rebuild."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self.is_known = False
        """Whether it has a batch that is not recorded beside the rebuild."""
        self._failed = False

    @property
    def extent(self) -> ReplacedExtent:
        """How much could be read, which is final once `batches` and `segments` were read."""
        return ReplacedExtent.NONE if not self.is_known else ReplacedExtent.PART if self._failed else ReplacedExtent.ALL

    def batches(self) -> Iterator[Batch]:
        """Yield the batches."""
        try:
            yield from self._index.batches()
        except Exception:  # noqa: BLE001 - flipped bits in a database show as anything
            self._failed = True

    def rejects(self, batch_id: str) -> list[RejectFile]:
        """Return the files of rejects of a batch."""
        try:
            return self._index.rejects(batch_id)
        except Exception:  # noqa: BLE001 - as above
            self._failed = True
            return []

    def segments(self, batch_id: str | None = None) -> Iterator[SegmentVerdicts]:
        """Yield the segments, of one batch or of all; where some cannot be read, others come twice."""
        try:
            for segment in self._index.segments(ALL_TIME, batch_id=batch_id):
                yield segment, self._index.skipped(segment)
        except Exception:  # noqa: BLE001 - as above
            self._failed = True
            if batch_id is None:  # one bad row is no reason to lose those of other batches
                for batch in self.batches():
                    yield from self.segments(batch.batch_id)


@dataclass(frozen=True, slots=True)
class Scan:
    """What reading a whole segment gave: its deliveries and who sent the first of them, or why it cannot be read."""

    arrivals: Arrivals | None
    actor: str = ""
    damage: Damaged | None = None


def scan(raw: Raw, key: str) -> Scan:
    """Read a segment."""
    actors: dict[str, None] = {}
    try:
        arrivals = scan_segment(raw, key, lambda delivery: actors.setdefault(delivery.actor))
    except Damaged as error:
        return Scan(None, damage=error)
    return Scan(arrivals, next(iter(actors)))


def scan_each(raw: Raw, listed: Iterable[SegmentVerdicts]) -> Iterator[tuple[SegmentVerdicts, Scan]]:
    """Yield segments in their order, each with what reading it gave: several are read at a time."""
    both, kept = tee(listed)
    yield from zip(kept, map_in_threads(lambda one: scan(raw, one[0].key), both, READERS, AHEAD), strict=True)


@dataclass(slots=True)
class Restoration:
    """A rebuild under way: adds segments, and counts what it meets."""

    store: Store
    rebuild: Rebuild
    replaced: ReplacedIndex
    progress: Progress
    counts: Counter[str] = field(default_factory=Counter)
    """By the names of the report's fields. Every segment in raw is counted as superseded until it is restored."""
    lost_in: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    """Batches that have nothing but their row in the replaced index."""
    uncounted: list[str] = field(default_factory=list)
    """Batches of which it cannot be told how their times were read, and why."""

    @contextmanager
    def noting_damage(self) -> Iterator[None]:
        """Suppress Damaged, and note what is damaged."""
        try:
            yield
        except Damaged as error:
            self.damaged.append(error.message)

    def add(self, segment: Segment, verdicts: Mapping[int, Verdict], found: Scan | None = None) -> None:
        """Restore a segment of which everything is known but, unless it was read, its deliveries."""
        self.add_block([self.known(segment, found or scan(self.store.raw, segment.key))], verdicts)

    def known(self, segment: Segment, found: Scan) -> Arrivals:
        """Return the deliveries of a segment of which everything else is known, given what reading it gave; its object
        is in its place."""
        arrivals = self._known(segment, found)
        self.counts["superseded"] -= found.arrivals is not None or self.store.raw.size(segment.key) is not None
        return arrivals

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
            self.counts["segments"] += held > 0
            self.counts["deliveries"] += held
            self.counts["guessed"] += arrived.segment.guessed
            self.progress.advance(1)

    def add_interrupted(self, batch: Batch, segments: Iterable[str], files: Sequence[RejectFile]) -> None:
        """Restore an interrupted batch with these segments, given by their keys, and files of rejects."""
        told = batch_statistics(self.store.raw, segments, files, dict(batch.origin.options))
        counts = Counts(rejected=sum(file.records for file in files))
        self.count_unfinished(batch)
        if told.times_problem:
            self.uncounted.append(f"{batch.batch_id} ({batch.origin.name}): {told.times_problem}")
        self.rebuild.add_batch(replace(told.added_to(batch), counts=counts))
        for file in files:
            self.rebuild.add_rejects(batch.batch_id, file)

    def count_unfinished(self, batch: Batch) -> None:
        """Count a batch that is not finished, unless a later one has replaced it, as after each attempt to record
        buffered requests that did not succeed."""
        self.counts["unfinished"] += self.store.raw.size(RawKind.CLOSING.key(batch.batch_id)) is None

    def note_lost(self, segment: Segment, frames: Sequence[Frame]) -> None:
        """Note that these frames of a segment cannot be read."""
        unknown = segment.deliveries - sum(frame.lines for frame in segment.frames)  # of an earlier rebuild
        self.counts["lost"] += sum(frame.lines for frame in frames) + unknown
        ranges = [frame.first if frame.first == frame.last else f"{frame.first} … {frame.last}" for frame in frames]
        shown = ", ".join(ranges[:_RANGES]) + (", …" if len(ranges) > _RANGES else "")
        self.lost_in.append(f"{segment.key}: {shown}")

    def read(self, segment: Segment) -> Arrivals:
        """Return the deliveries of a segment of which everything else is known; of a damaged one, what is left."""
        return self._known(segment, scan(self.store.raw, segment.key))

    def _known(self, segment: Segment, found: Scan) -> Arrivals:
        arrivals = found.arrivals
        if arrivals is None:
            return self._rest(segment, found.damage or damaged(segment.key, "it cannot be read"))
        is_same = arrivals.segment.digest == segment.digest
        if arrivals.segment.frames != segment.frames and not is_same:
            return self._rest(segment, damaged(segment.key, "it is not the object that was recorded"))
        if not is_same:
            self.damaged.append(damaged(segment.key, "its SHA-256 is not the recorded one").message)
        return replace(arrivals, segment=structs.replace(segment, frames=arrivals.segment.frames))

    def _rest(self, segment: Segment, error: Damaged) -> Arrivals:
        """Return what is left of a segment that cannot be read: the deliveries in its whole frames, and of the others
        what the replaced index has. It stays known with all of its frames, so that what needs a lost one fails."""
        if has_expired(self.store, segment.ingest_time) and self.store.raw.size(segment.key) is None:
            self.counts["expired"] += 1
            return Arrivals(segment, b"", b"", "")
        self.damaged.append(error.message)
        salvaged = salvage_known(self.store.raw, segment)
        self.note_lost(segment, [segment.frames[number] for number in salvaged.lost])
        return _without_unknown(merged(salvaged.arrivals, self.rebuild.rows(segment, salvaged.lost)))


def _without_unknown(arrivals: Arrivals) -> Arrivals:
    """Return the deliveries, and their segment without lines in the frames of which a delivery is not known. Another
    one may count in its place by now, so such a frame must not be read when its object comes back."""
    known = Counter(number for _, _, number in places_of(arrivals))
    frames = tuple(
        frame if known[number] == frame.lines else structs.replace(frame, lines=0)
        for number, frame in enumerate(arrivals.segment.frames)
    )
    return replace(arrivals, segment=structs.replace(arrivals.segment, frames=frames))


def read_reject_file(raw: Raw, key: str) -> tuple[RejectFile, list[Reject]]:
    """Return what the index has of a file of rejects, and its records. Raises Damaged."""
    data = raw.read(key)
    rejects = read_rejects(HeldObject(data), key)
    return RejectFile(key=key, size=len(data), digest=sha256(data).hexdigest(), records=len(rejects)), rejects

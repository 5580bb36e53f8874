"""Restoring segments into an index that is being rebuilt: whole ones, and what is left of damaged ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from msgspec import structs

from pik.errors import Damaged
from pik.model.batch import Arrivals, Frame, Segment
from pik.ports.index import Rebuild
from pik.ports.store import Store
from pik.rawlog.frames import damaged
from pik.rawlog.segment_reader import salvage_known, scan_segment, seqs, together
from pik.runtime.progress import Progress
from pik.usecases.availability import has_expired
from pik.usecases.rebuild.replaced_index import Replaced


@dataclass(slots=True)
class Restoring:
    """Adds segments, and counts what it meets. `present` segments have their object."""

    store: Store
    rebuild: Rebuild
    replaced: Replaced
    progress: Progress
    segments: int = 0
    deliveries: int = 0
    present: int = 0
    expired: int = 0
    unfinished: int = 0
    guessed: int = 0
    unrecorded: set[str] = field(default_factory=set)
    """Requests that the replaced index knows, and nothing of which it recorded."""
    lost: int = 0
    lost_in: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    """Batches of which nothing tells but their row in the replaced index."""
    mended: set[str] = field(default_factory=set)
    """Segments that the replaced index listed under another day or batch than their own."""

    def add(self, segment: Segment, verdicts: Mapping[int, str]) -> bool:
        """Restore a segment of which everything is known but its deliveries; whether its object is there."""
        self.add_block([self.read(segment)], verdicts)
        there = self.store.raw.size(segment.key) is not None
        self.present += there
        return there

    def add_block(self, arrivals: Sequence[Arrivals], verdicts: Mapping[int, str] | None) -> None:
        """Restore segments whose deliveries were read. One that does not say when it was recorded was so, as far as
        anything tells, when it was ingested."""
        stamped = [replace(arrived, segment=self._stamped(arrived.segment)) for arrived in arrivals]
        self.rebuild.add_segments(stamped, verdicts)
        for arrived in stamped:
            held = len(seqs(arrived))
            self.segments += bool(held)
            self.deliveries += held
            self.guessed += arrived.segment.guessed
            self.progress.advance(1)

    def note_lost(self, segment: Segment, frames: Sequence[Frame]) -> None:
        """Remember that these frames of a segment cannot be read."""
        self.lost += sum(frame.lines for frame in frames)
        ranges = [frame.first if frame.first == frame.last else f"{frame.first} … {frame.last}" for frame in frames]
        shown = ", ".join(ranges[:_RANGES]) + (", …" if len(ranges) > _RANGES else "")
        self.lost_in.append(f"{segment.key}: {shown}")

    def _stamped(self, segment: Segment) -> Segment:
        if segment.recorded_at:
            return segment
        return structs.replace(segment, recorded_at=segment.ingest_time, guessed=True)

    def read(self, segment: Segment) -> Arrivals:
        """The deliveries of a segment of which everything else is known; of a damaged one, what is left of them."""
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
        """Of a segment that cannot be read: the deliveries in its whole frames, and of the others what the replaced
        index has. It stays known with all of its frames, so whatever needs a lost one says so."""
        if has_expired(self.store, segment.ingest_time) and self.store.raw.size(segment.key) is None:
            self.expired += 1
            return Arrivals(segment, b"", b"", "")
        self.damaged.append(error.message)
        salvaged = salvage_known(self.store.raw, segment)
        self.note_lost(segment, [segment.frames[number] for number in salvaged.lost])
        return together(salvaged.arrivals, self.rebuild.rows(segment, salvaged.lost))


_RANGES = 5
"""Ranges of entities that are named for each damaged segment."""

"""The index of a copy: always made from its raw, by the records of the pulls.

A delivery has the verdict that it has in the source. An event whose accepted delivery was not pulled keeps its
duplicates, as duplicates: no other delivery is accepted in its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pik.errors import Damaged
from pik.model.batch import Arrivals, Batch, BatchState, Counts, count_lags, with_lags, with_names
from pik.model.delivery import Delivery
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.batch_records import SegmentLine
from pik.rawlog.segment_reader import scan_segment
from pik.rawlog.store_records import PulledBatch, pulls, read_pull
from pik.runtime.interaction import Progress


@dataclass(slots=True)
class Named:
    """What the records of all pulls name: segments by key, batches by id, each as the newest record has it."""

    segments: dict[str, SegmentLine] = field(default_factory=dict)
    batches: dict[str, PulledBatch] = field(default_factory=dict)

    def add(self, lines: Iterable[object]) -> None:
        """Take in what a newer record says."""
        for line in lines:
            if isinstance(line, SegmentLine):
                self.segments[line.segment.key] = line
            elif isinstance(line, PulledBatch):
                self.batches[line.batch_id] = line


def named(raw: Raw) -> Named:
    """What is named by the records that are there. Raises Damaged."""
    found = Named()
    for key in pulls(raw):
        found.add(read_pull(raw, key))
    return found


@dataclass(slots=True)
class Restored:
    """How much the index holds now; `damaged` segments could not be read: they stay known, without their deliveries."""

    segments: int = 0
    deliveries: int = 0
    damaged: list[str] = field(default_factory=list)


def restore_index(copy: Store, found: Named, progress: Progress) -> Restored:
    """Make the index anew from these segments, and replace the old one when it is whole. Raises Busy, StoreError."""
    restored = Restored()
    tallies: dict[str, _Tally] = {}
    progress.start("building the index", len(found.segments), "segments")
    try:
        with copy.batches.rebuild() as rebuild:
            for line in sorted(found.segments.values(), key=lambda line: (line.segment.recorded_at, line.segment.key)):
                tally = tallies.setdefault(line.segment.batch_id, _Tally())
                arrivals = _arrivals(copy.raw, line, tally, restored)
                rebuild.add_segments([arrivals], line.verdicts)
                progress.advance(1)
            for batch in found.batches.values():
                rebuild.add_batch(_batch(batch, tallies.get(batch.batch_id) or _Tally()))
                for rejects in batch.rejects:
                    rebuild.add_rejects(batch.batch_id, rejects)
    finally:
        progress.stop()
    return restored


class _Tally:
    """What is counted over a batch's deliveries."""

    def __init__(self) -> None:
        self.lags: dict[int, int] = {}
        self.sources: dict[str, int] = {}


def _arrivals(raw: Raw, line: SegmentLine, tally: _Tally, restored: Restored) -> Arrivals:
    lags: list[int] = []
    sources: list[str] = []

    def note(delivery: Delivery) -> None:
        lags.append(delivery.lag)
        sources.append(delivery.source)

    try:
        arrivals = scan_segment(raw, line.segment.key, note)
        if arrivals.segment.digest != line.segment.digest:
            raise Damaged(f"raw object {line.segment.key} is not what was pulled")
    except Damaged as error:
        restored.damaged.append(error.message)
        return Arrivals(line.segment, b"", b"", "")
    restored.segments += 1
    restored.deliveries += len(lags)
    tally.lags = with_lags(tally.lags, count_lags(lags))
    tally.sources = with_names(tally.sources, Counter(sources))
    return replace(arrivals, segment=line.segment)


def _batch(line: PulledBatch, tally: _Tally) -> Batch:
    """The part of the batch that is here; its verdicts are counted from its segments."""
    return Batch(
        batch_id=line.batch_id,
        origin=line.origin,
        state=BatchState.PULLED,
        attempt=line.attempt,
        counts=Counts(rejected=sum(file.records for file in line.rejects)),
        started_at=line.started_at,
        finished_at=line.finished_at,
        lags=tally.lags,
        sources=tally.sources,
    )

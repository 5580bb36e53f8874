"""The index of a copy: always made from its raw and the records of the pulls.

A delivery has the verdict that it has in the source. An event whose accepted delivery was not pulled keeps its
duplicates, as duplicates: no other delivery is accepted in its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain

from pik.errors import Damaged
from pik.model.batch import Arrivals, Batch, BatchState, Counts, Segment, count_lags, with_lags, with_names
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.batch_records import SegmentLine
from pik.rawlog.segment_reader import scan_segment
from pik.rawlog.store_records import PulledBatch, pulls, read_pull
from pik.runtime.interaction import Progress


@dataclass(frozen=True, slots=True)
class Contents:
    """What the records of all pulls name: segments by key, batches by id, each as the newest record has it."""

    segments: dict[str, SegmentLine]
    batches: dict[str, PulledBatch]


def recorded_contents(raw: Raw) -> Contents:
    """Return what the records in raw name. Raises Damaged."""
    found = Contents({}, {})
    for line in chain.from_iterable(read_pull(raw, key) for key in pulls(raw)):
        if isinstance(line, SegmentLine):
            found.segments[line.segment.key] = line
        elif isinstance(line, PulledBatch):
            found.batches[line.batch_id] = line
    return found


@dataclass(frozen=True, slots=True)
class RestoredIndex:
    """How much the index holds; `damaged` segments could not be read: they stay known, without their deliveries."""

    segments: int
    deliveries: int
    damaged: tuple[str, ...]


def restore_index(copy: Store, contents: Contents, progress: Progress) -> RestoredIndex:
    """Make a new index of these segments, and replace the old one when it is whole. Raises Busy, StoreError."""
    lags: dict[str, Mapping[int, int]] = {}
    sources: dict[str, Mapping[str, int]] = {}
    segments = deliveries = 0
    damaged: list[str] = []
    progress.start("building the index", len(contents.segments), "segments")
    try:
        with copy.batches.rebuild() as rebuild:
            lines = sorted(contents.segments.values(), key=lambda line: (line.segment.recorded_at, line.segment.key))
            for line in lines:
                batch_id = line.segment.batch_id
                try:
                    arrivals, found = _read(copy.raw, line.segment)
                except Damaged as error:
                    damaged.append(error.message)
                    arrivals = Arrivals(line.segment, b"", b"", "")
                else:
                    segments, deliveries = segments + 1, deliveries + len(found)
                    lags[batch_id] = with_lags(lags.get(batch_id, {}), count_lags(lag for lag, _ in found))
                    names = Counter(source for _, source in found)
                    sources[batch_id] = with_names(sources.get(batch_id, {}), names)
                rebuild.add_segments([arrivals], line.verdicts)
                progress.advance(1)
            for batch_id, batch in contents.batches.items():
                rebuild.add_batch(_batch(batch, lags.get(batch_id, {}), sources.get(batch_id, {})))
                for rejects in batch.rejects:
                    rebuild.add_rejects(batch_id, rejects)
    finally:
        progress.stop()
    return RestoredIndex(segments, deliveries, tuple(damaged))


def _read(raw: Raw, segment: Segment) -> tuple[Arrivals, list[tuple[int, str]]]:
    """Return the arrivals of a segment, and lag and source of each delivery. Raises Damaged."""
    found: list[tuple[int, str]] = []
    arrivals = scan_segment(raw, segment.key, lambda delivery: found.append((delivery.lag, delivery.source)))
    if arrivals.segment.digest != segment.digest:
        raise Damaged(f"raw object {segment.key} is not what was pulled")
    return replace(arrivals, segment=segment), found


def _batch(line: PulledBatch, lags: Mapping[int, int], sources: Mapping[str, int]) -> Batch:
    """Return the part of the batch that is in the copy; its verdicts are counted from its segments."""
    return Batch(
        batch_id=line.batch_id,
        origin=line.origin,
        state=BatchState.PULLED,
        attempt=line.attempt,
        counts=Counts(rejected=sum(file.records for file in line.rejects)),
        started_at=line.started_at,
        finished_at=line.finished_at,
        lags=lags,
        sources=sources,
    )

"""The index of a copy, which is always made from its raw and the records of its pulls.

A delivery has the verdict that it has in the source. An event whose accepted delivery was not pulled keeps its
duplicates, as duplicates: no other delivery is accepted in its place.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain

from pik.errors import Damaged
from pik.model.batch import Arrivals, Batch, BatchState, Counts, Segment, count_lags, with_lags, with_names
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.corrections import known_corrections
from pik.rawlog.sealed_records import PulledBatch, SegmentLine, pulls, read_pull
from pik.rawlog.segment_reader import scan_segment
from pik.runtime import Progress, showing


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


def restore_index(copy: Store, contents: Contents, progress: Progress) -> tuple[int, list[str]]:
    """Make a new index of these segments, and replace the old one when it is whole; return how many deliveries it
    holds, and why segments could not be read: these stay known, without their deliveries. Raises Busy, StoreError."""
    lags: defaultdict[str, Mapping[int, int]] = defaultdict(dict)
    sources: defaultdict[str, Mapping[str, int]] = defaultdict(dict)
    deliveries = 0
    damaged: list[str] = []
    with showing(progress, "building the index", len(contents.segments), "segments"), copy.batches.rebuild() as rebuild:
        lines = sorted(contents.segments.values(), key=lambda line: (line.segment.recorded_at, line.segment.key))
        for line in lines:
            batch_id = line.segment.batch_id
            try:
                arrivals, found = _read(copy.raw, line.segment)
            except Damaged as error:
                damaged.append(error.message)
                arrivals = Arrivals(line.segment, b"", b"", "")
            else:
                deliveries += len(found)
                lags[batch_id] = with_lags(lags[batch_id], count_lags(lag for lag, _ in found))
                sources[batch_id] = with_names(sources[batch_id], Counter(source for _, source in found))
            rebuild.add_segments([arrivals], line.verdicts)
            progress.advance(1)
        for batch_id, batch in contents.batches.items():
            rebuild.add_batch(
                Batch(
                    batch_id=batch_id,
                    origin=batch.origin,
                    state=BatchState.PULLED,
                    attempt=batch.attempt,
                    # Those with a verdict are counted from the segments.
                    counts=Counts(rejected=sum(file.records for file in batch.rejects)),
                    started_at=batch.started_at,
                    actor=batch.actor,
                    finished_at=batch.finished_at,
                    lags=lags[batch_id],
                    sources=sources[batch_id],
                )
            )
            for rejects in batch.rejects:
                rebuild.add_rejects(batch_id, rejects)
        corrections, problems = known_corrections(copy)
        damaged += problems
        rebuild.corrections.follow(corrections)
    return deliveries, damaged


def _read(raw: Raw, segment: Segment) -> tuple[Arrivals, list[tuple[int, str]]]:
    """Return the arrivals of a segment, and lag and source of each delivery. Raises Damaged."""
    found: list[tuple[int, str]] = []
    arrivals = scan_segment(raw, segment.key, lambda delivery: found.append((delivery.lag, delivery.source)))
    if arrivals.segment.digest != segment.digest:
        raise Damaged(f"raw object {segment.key} is not what was pulled")
    return replace(arrivals, segment=segment), found

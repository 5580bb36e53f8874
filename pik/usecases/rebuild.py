"""Rebuilding the index from raw (promise 3).

Finished batches tell by their records which segments are theirs and which deliveries are duplicates. Of a batch without
a record, its own raw is all there is: each of its deliveries is recorded anew, the smallest (ingest_time, batch_id,
seq) first, behind what the records say. A copy's index is made from the records of its pulls.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import groupby

import msgspec
import zstandard
from msgspec import structs

from pik.errors import Damaged, entered
from pik.model.batch import (
    INTERRUPTED,
    OF_REQUEST,
    Arrivals,
    Batch,
    Counts,
    Location,
    Origin,
    Reject,
    RejectFile,
)
from pik.ports.copy import Copy
from pik.ports.index import Rebuild
from pik.ports.store import Store
from pik.usecases.batch_record import PREFIX as RECORDS
from pik.usecases.batch_record import BatchLine, SegmentLine, read_record, restored
from pik.usecases.copy_index import named, restore_index
from pik.usecases.held import has_expired
from pik.usecases.ingest import ATTEMPT
from pik.usecases.progress import Progress
from pik.usecases.reading import damaged
from pik.usecases.request import made_at, restored_request
from pik.usecases.scan import scan_segment, seqs

REJECTS = "raw/rejects/"

SHOWN = 100
"""Revised verdicts that a result lists; it counts them all."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What the rebuilt index holds. `revised` events got another accepted delivery than was recorded (`examples`);
    `damaged` objects could not be read and are left out; `expired` segments are gone as they should be, their
    deliveries no more indexed; `superseded` ones are copies that a crash left."""

    batches: int
    segments: int
    deliveries: int
    unfinished: int
    superseded: int
    expired: int
    revised: int
    examples: tuple[Location, ...]
    damaged: tuple[str, ...]


class _Count:
    def __init__(self) -> None:
        self.segments = self.deliveries = self.superseded = self.expired = 0
        self.damaged: list[str] = []


def rebuild_index(store: Store, progress: Progress) -> Rebuilt:
    """Make the index anew from raw alone, and replace the old one when it is whole. Raises Busy, StoreError."""
    if store.copy is not None:
        return _rebuild_copy(store, store.copy, progress)
    count = _Count()
    examples: list[Location] = []
    try:
        with entered(store.batches.rebuild(), "another pik process is writing to this store") as rebuild:
            records = [found.key for found in store.raw.objects(RECORDS)]
            keys = [found.key for found in store.raw.objects("raw/event_date=")]
            progress.start("rebuilding the index", len(keys), "segments")
            lines, named, finished = _restore_batches(store, rebuild, records, count)
            for line in sorted(lines, key=lambda line: (line.segment.recorded_at, line.segment.key)):
                _restore_segment(store, rebuild, line, count)
                progress.advance(1)
            unnamed = _by_batch(key for key in keys if key not in named)
            lost = {batch_id: found for batch_id, found in unnamed.items() if batch_id not in finished}
            rejects = _unfinished_rejects(store, finished, count)
            count.superseded = sum(len(found) for batch_id, found in unnamed.items() if batch_id in finished)
            _restore_unfinished(store, rebuild, lost, rejects, count)
            revised = 0
            for revised, location in enumerate(rebuild.settle(), 1):
                if revised <= SHOWN:
                    examples.append(location)
    finally:
        progress.stop()
    return Rebuilt(
        batches=len(finished) + len(lost.keys() | rejects.keys()),
        segments=count.segments,
        deliveries=count.deliveries,
        unfinished=len(lost.keys() | rejects.keys()),
        superseded=count.superseded,
        expired=count.expired,
        revised=revised,
        examples=tuple(examples),
        damaged=tuple(count.damaged),
    )


def _rebuild_copy(store: Store, copy: Copy, progress: Progress) -> Rebuilt:
    with copy.pulling():
        found = named(store.raw)
        restored = restore_index(store, found, progress)
    return Rebuilt(
        batches=len(found.batches),
        segments=restored.segments,
        deliveries=restored.deliveries,
        unfinished=0,
        superseded=sum(each.key not in found.segments for each in store.raw.objects("raw/event_date=")),
        expired=0,
        revised=0,
        examples=(),
        damaged=tuple(restored.damaged),
    )


def _restore_batches(
    store: Store, rebuild: Rebuild, records: list[str], count: _Count
) -> tuple[list[SegmentLine], set[str], set[str]]:
    """The segments that the records name, the keys of these and of the files of rejects, and the batches. One whose
    record is damaged is as if it had none."""
    lines: list[SegmentLine] = []
    named: set[str] = set()
    finished: set[str] = set()
    for key in records:
        batch_id = _batch_of(key)
        try:
            for line in list(read_record(store.raw, key)):
                if isinstance(line, BatchLine):
                    rebuild.add_batch(restored(line))
                elif isinstance(line, SegmentLine):
                    lines.append(line)
                    named.add(line.segment.key)
                else:
                    rebuild.add_rejects(batch_id, line.rejects)
                    named.add(line.rejects.key)
        except Damaged as error:
            count.damaged.append(error.message)
        else:
            finished.add(batch_id)
    return lines, named, finished


def _restore_segment(store: Store, rebuild: Rebuild, line: SegmentLine, count: _Count) -> None:
    try:
        arrivals = scan_segment(store.raw, line.segment.key)
    except Damaged as error:
        # It stays known, without its deliveries: whatever needs them says so, and verify finds it until it is restored.
        if has_expired(store, line.segment.ingest_time) and store.raw.size(line.segment.key) is None:
            count.expired += 1
        else:
            count.damaged.append(error.message)
        rebuild.add_segments([Arrivals(line.segment, b"", b"", "")], {})
        return
    # When the index took it tells which aggregates knew of it, and only the record remembers.
    segment = structs.replace(arrivals.segment, recorded_at=line.segment.recorded_at)
    _add(rebuild, [replace(arrivals, segment=segment)], line.verdicts, count)


def _add(rebuild: Rebuild, arrivals: list[Arrivals], verdicts: dict[int, str] | None, count: _Count) -> None:
    rebuild.add_segments(arrivals, verdicts)
    count.segments += len(arrivals)
    count.deliveries += sum(arrived.segment.deliveries for arrived in arrivals)


def _by_batch(keys: Iterator[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        groups[_batch_of(key)].append(key)
    return groups


@dataclass(frozen=True, slots=True)
class _Extent:
    """What order and supersession need to know of a segment of a batch without a record."""

    ingest_time: int
    batch_id: str
    attempt: int
    first_seq: int
    last_seq: int
    key: str


def _restore_unfinished(
    store: Store, rebuild: Rebuild, segments: dict[str, list[str]], rejects: dict[str, list[_Rejects]], count: _Count
) -> None:
    kept: list[_Extent] = []
    for batch_id in sorted(segments.keys() | rejects.keys()):
        found = [extent for key in segments.get(batch_id, ()) if (extent := _extent(store, batch_id, key, count))]
        apart = rejects.get(batch_id, [])
        everything = found + [file.extent for file in apart]
        counting = [extent for extent in found if not _superseded(extent, everything)]
        files = [one.file for one in apart if not _superseded(one.extent, everything)]
        count.superseded += len(found) - len(counting)
        kept += counting
        if all(_number(extent.key) == OF_REQUEST for extent in everything):
            last_seq = max(extent.last_seq for extent in everything)
            rebuild.add_batch(restored_request(store.raw, batch_id, last_seq, segments.get(batch_id, ()), files))
        else:
            rebuild.add_batch(_stand_in(batch_id, everything, files))
        for file in files:
            rebuild.add_rejects(batch_id, file)
    kept.sort(key=lambda extent: (extent.ingest_time, extent.batch_id, extent.first_seq))
    for _, of_block in groupby(kept, key=lambda extent: (extent.ingest_time, extent.batch_id)):
        _add(rebuild, [scan_segment(store.raw, extent.key) for extent in of_block], None, count)


def _extent(store: Store, batch_id: str, key: str, count: _Count) -> _Extent | None:
    try:
        arrivals = scan_segment(store.raw, key)
    except Damaged as error:
        count.damaged.append(error.message)
        return None
    found = seqs(arrivals)
    return _Extent(arrivals.segment.ingest_time, batch_id, _attempt(key), min(found), max(found), key)


def _attempt(key: str) -> int:
    """Which of the batch's writers, counted from 0, made this object."""
    return (_number(key) - 1) // ATTEMPT


def _number(key: str) -> int:
    return int(key.rpartition("-")[2].partition(".")[0])


def _superseded(extent: _Extent, extents: list[_Extent]) -> bool:
    """Whether a later attempt read the same records again. Each attempt begins where the index had recorded the one
    before it, so what that one left behind this place was never recorded."""
    return any(other.attempt > extent.attempt and other.first_seq <= extent.last_seq for other in extents)


def _stand_in(batch_id: str, extents: list[_Extent], rejects: list[RejectFile]) -> Batch:
    """A batch that ended before it had a record; what it was read from is not known any more."""
    return Batch(
        batch_id=batch_id,
        origin=Origin(name="(interrupted; its origin was in the lost index)", content=f"lost:{batch_id}"),
        state=INTERRUPTED,
        attempt=1 + max(0, *(extent.attempt for extent in extents)),
        counts=Counts(rejected=sum(file.records for file in rejects)),
        started_at=made_at(batch_id),
        next_seq=1 + max((extent.last_seq for extent in extents), default=0),
    )


@dataclass(frozen=True, slots=True)
class _Rejects:
    """A file of rejects, and which records it is about."""

    file: RejectFile
    extent: _Extent


def _unfinished_rejects(store: Store, finished: set[str], count: _Count) -> dict[str, list[_Rejects]]:
    """The files of rejects of batches without a record, by batch."""
    groups: dict[str, list[_Rejects]] = defaultdict(list)
    decode = msgspec.json.Decoder(Reject).decode_lines
    for found in store.raw.objects(REJECTS):
        batch_id = _batch_of(found.key)
        if batch_id in finished:
            continue
        data = store.raw.read(found.key)
        try:
            rejects = decode(zstandard.ZstdDecompressor().decompress(data))
        except (zstandard.ZstdError, msgspec.MsgspecError) as error:
            count.damaged.append(damaged(found.key, str(error)).message)
            continue
        file = RejectFile(key=found.key, size=found.size, digest=sha256(data).hexdigest(), records=len(rejects))
        extent = _Extent(0, batch_id, _attempt(found.key), rejects[0].seq, rejects[-1].seq, found.key)
        groups[batch_id].append(_Rejects(file, extent))
    return groups


def _batch_of(key: str) -> str:
    return key.rpartition("/")[2].partition("-")[0].partition(".")[0]

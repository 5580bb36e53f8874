"""Which rows of the replaced index a rebuild trusts.

An index with a flipped bit still answers: with a batch that never existed, or with another size for a segment that is
whole. What raw knows is taken from raw, and what neither raw nor another row of the index knows is dropped.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from msgspec import structs

from pik.errors import Damaged
from pik.model.batch import OF_REQUEST, Arrivals, Batch, BatchState, RejectFile, Segment, request_origin
from pik.rawlog.batch_records import read_block, read_opening
from pik.rawlog.keys import RawKey, RawKind, keys_of
from pik.rawlog.segment_reader import ids_of, scan_segment
from pik.usecases.availability import has_expired
from pik.usecases.ingest.api_request import creation_time
from pik.usecases.rebuild.segments import Restoration, read_reject_file


@dataclass(slots=True)
class RawContents:
    """What raw has of batches without a record: whether they are requests, and the opening and block records."""

    requests: dict[str, bool] = field(default_factory=dict)
    openings: dict[str, list[str]] = field(default_factory=dict)
    blocks: dict[str, list[str]] = field(default_factory=dict)


def raw_contents(restoration: Restoration, finished: Container[str]) -> RawContents:
    """Return what raw has of the batches that are not `finished`."""
    raw, found = restoration.store.raw, RawContents()
    for kind in (RawKind.SEGMENT, RawKind.REJECTS):
        for key in keys_of(raw, kind):
            if key.id not in finished:
                found.requests[key.id] = found.requests.get(key.id, True) and key.number == OF_REQUEST
    for kind, of_batch in ((RawKind.OPENING, found.openings), (RawKind.BLOCK, found.blocks)):
        for key in keys_of(raw, kind):
            if key.id not in finished:
                found.requests[key.id] = False
                of_batch.setdefault(key.id, []).append(str(key))
    return found


def is_dropped(restoration: Restoration, batch: Batch, rejects: Sequence[RejectFile], there: RawContents) -> bool:
    """Whether a batch has nothing but its row: raw has no object of it, and the index names none."""
    if batch.batch_id in there.requests or batch.next_seq == 1:
        return False
    if has_expired(restoration.store, batch.finished_at or batch.started_at):
        return False
    named = [file.key for file in rejects]
    named += [segment.key for segment, _ in restoration.replaced.segments(batch.batch_id)]
    return not any(_is_of(key, batch.batch_id) for key in named)


def is_consistent(restoration: Restoration, batch: Batch, rejects: Sequence[RejectFile], there: RawContents) -> bool:
    """Whether the row of a batch agrees with raw, as far as raw knows. One that does not is made from raw."""
    is_request = there.requests.get(batch.batch_id)
    if is_request is None:
        return True  # all of its objects are lost, or have expired: there is nothing else to go by
    counts = batch.counts
    if is_request:
        return (
            batch.origin == request_origin(batch.batch_id)
            and batch.state == BatchState.COMPLETE
            and (batch.attempt, batch.offset, batch.prefix_digest) == (1, 0, "")
            and batch.started_at == creation_time(batch.batch_id)
            and batch.finished_at in (None, batch.started_at)
            and counts.read == sum(counts.astuple()[1:]) == batch.next_seq - 1
            and counts.rejected == sum(file.records for file in rejects)
        )
    rejected = sum(file.records for file in rejects)
    return not batch.is_request and counts.rejected == rejected and _follows_its_records(restoration, batch, there)


def _follows_its_records(restoration: Restoration, batch: Batch, there: RawContents) -> bool:
    """Whether a batch begins as in its opening record, and goes on after one of its blocks."""
    raw = restoration.store.raw
    for key in there.openings.get(batch.batch_id, ()):
        with suppress(Damaged):
            opening = read_opening(raw, key)
            if (opening.origin, opening.started_at) != (batch.origin, batch.started_at):
                return False
    ends = []
    for key in there.blocks.get(batch.batch_id, ()):
        with suppress(Damaged):
            block = read_block(raw, key)[0]
            ends.append((block.last_seq + 1, block.offset, block.prefix_digest))
    return batch.next_seq == 1 or not ends or (batch.next_seq, batch.offset, batch.prefix_digest) in ends


def trusted_segment(restoration: Restoration, row: Segment) -> tuple[Segment, Arrivals | None] | None:
    """Return a segment as in its row, with its deliveries where raw was taken instead; None for a row that is not of a
    segment."""
    key = RawKey.parse(row.key)
    if key is None or key.day is None:
        return None
    place = (key.id, key.day)
    try:
        arrivals = scan_segment(restoration.store.raw, row.key)
    except Damaged:
        is_lost = restoration.store.raw.size(row.key) is None
        return None if is_lost and (row.batch_id, row.day) != place else (row, None)
    found = structs.replace(arrivals.segment, recorded_at=row.recorded_at, guessed=row.guessed)
    if found != row and not _is_object_of(restoration, found, row, arrivals):
        return row, None
    if (row.batch_id, row.day) != place:
        restoration.mended.add(row.key)
    return found, replace(arrivals, segment=found)


def _is_object_of(restoration: Restoration, found: Segment, row: Segment, arrivals: Arrivals) -> bool:
    """Whether a row that differs from an object is of this very object all the same: by its digest, or, where only the
    digest differs, by the index's rows of each of its deliveries."""
    if found.digest == row.digest:
        return True
    known = restoration.rebuild.rows(found, range(len(found.frames)))
    return structs.replace(found, digest=row.digest) == row and set(ids_of(known)) == set(ids_of(arrivals))


def trusted_rejects(restoration: Restoration, batch: Batch, files: Sequence[RejectFile]) -> list[RejectFile]:
    """Return the files of rejects of a batch, as raw has them where the row is of that object."""
    found: list[RejectFile] = []
    for file in files:
        if _is_of(file.key, batch.batch_id):
            with suppress(Damaged):
                now, _ = read_reject_file(restoration.store.raw, file.key)
                if now.digest == file.digest or (now.size, now.records) == (file.size, file.records):
                    file = now
            found.append(file)
    return found


def _is_of(key: str, batch_id: str) -> bool:
    parsed = RawKey.parse(key)
    return parsed is not None and parsed.id == batch_id

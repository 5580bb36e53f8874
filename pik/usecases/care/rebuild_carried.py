"""Restoring a batch without a record as the replaced index has it, as far as raw does not know better."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256

from msgspec import structs

from pik.errors import Damaged
from pik.model.batch import Arrivals, Batch, BatchState, RejectFile, Segment, Verdict, request_origin
from pik.model.ids import creation_time
from pik.ports.raw import Raw, RawKey, RawKind, keys_of
from pik.rawlog.objects import copied
from pik.rawlog.sealed_records import read_block, read_opening
from pik.rawlog.segment_reader import ids_of
from pik.usecases.availability import has_expired
from pik.usecases.care.rebuild_batches import BatchObjects, ListedSegment, Piece
from pik.usecases.care.rebuild_segments import Restoration, Scan, SegmentVerdicts, read_reject_file
from pik.usecases.ingest.api_request import request_actor


@dataclass(slots=True)
class CarriedBatch:
    """What the replaced index had of a batch. `row` is None if it has lost the batch, or has it otherwise than raw;
    then `strays` are the segments that it lists all the same. Of others `listed` are the segments and `rejects` the
    files of rejects that were restored. `is_unrecorded`: it knows the request, but recorded nothing of it."""

    row: Batch | None = None
    rejects: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    strays: list[SegmentVerdicts] = field(default_factory=list)
    is_unrecorded: bool = False
    block: list[Arrivals] = field(default_factory=list)
    """The segments of a request, which are restored together, as they were recorded."""
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    """The duplicates among them."""


def restore_batch(
    restoration: Restoration, batch_id: str, pieces: Iterable[Piece]
) -> tuple[BatchObjects, CarriedBatch, dict[str, Scan]]:
    """Restore what the replaced index has of a batch. Return its objects, what was restored, and what reading those of
    its segments gave that the index does not list."""
    objects, carried, unlisted = BatchObjects(batch_id), CarriedBatch(), dict[str, Scan]()
    for piece in pieces:
        if isinstance(piece, BatchObjects):
            objects = piece
        elif isinstance(piece, Batch):
            _restore_row(restoration, objects, piece, carried)
        elif isinstance(piece, ListedSegment):
            _restore_segment(restoration, objects, piece, carried)
        else:
            unlisted = piece.found
    if carried.block:
        restoration.add_block(carried.block, carried.verdicts)
    return objects, carried, unlisted


def _restore_row(restoration: Restoration, objects: BatchObjects, batch: Batch, carried: CarriedBatch) -> None:
    files = restoration.replaced.rejects(batch.batch_id) if objects.rejects or batch.counts.rejected else []
    if not objects and _is_dropped(restoration, batch, files):
        restoration.dropped.append(f"{batch.batch_id} ({batch.origin.name}, {batch.counts.read} records)")
        return
    if batch.is_request and batch.finished_at is None:
        if batch.next_seq == 1:  # it died before anything of it was recorded
            carried.is_unrecorded = True
            return
        batch = replace(batch, state=BatchState.COMPLETE, finished_at=batch.started_at)  # as far as it was recorded
    files = _trusted_rejects(restoration, batch, files)
    # Without objects they are lost, or have expired: only the row is left.
    if objects and not _is_consistent(restoration.store.raw, batch, files, objects):
        return
    restoration.rebuild.add_batch(batch)
    restoration.counts["batches"] += 1
    if batch.finished_at is None:
        restoration.count_unfinished(batch)
    carried.row, carried.rejects = batch, {file.key for file in files}
    for file in files:
        restoration.rebuild.add_rejects(batch.batch_id, file)


def _restore_segment(
    restoration: Restoration, objects: BatchObjects, listed: ListedSegment, carried: CarriedBatch
) -> None:
    segment, found, row = _trusted_segment(restoration, listed.row, listed.found), listed.found, carried.row
    if segment is None:
        return
    if row is None:
        carried.strays.append((segment, listed.verdicts))
        return
    if objects.is_request and found.arrivals is not None and row.actor != found.actor:
        carried.row = replace(row, actor=found.actor)
        restoration.rebuild.add_batch(carried.row)
    carried.listed.add(segment.key)
    if row.is_request:
        carried.block.append(restoration.known(segment, found))
        carried.verdicts |= listed.verdicts
    else:
        restoration.add(segment, listed.verdicts, found)


def _is_dropped(restoration: Restoration, batch: Batch, rejects: Sequence[RejectFile]) -> bool:
    """Return whether a batch without an object in raw has nothing but its row: the index names none either."""
    if batch.next_seq == 1 or has_expired(restoration.store, batch.finished_at or batch.started_at):
        return False
    named = [file.key for file in rejects]
    named += [segment.key for segment, _ in restoration.replaced.segments(batch.batch_id)]
    return not any(_is_of(key, batch.batch_id) for key in named)


def _is_consistent(raw: Raw, batch: Batch, rejects: Sequence[RejectFile], objects: BatchObjects) -> bool:
    """Return whether the row of a batch agrees with raw, as far as raw knows. One that does not is made from raw."""
    counts = batch.counts
    if counts.rejected != sum(file.records for file in rejects):
        return False
    if objects.is_request:
        return (
            batch.origin == request_origin(batch.batch_id)
            and batch.state == BatchState.COMPLETE
            and (batch.attempt, batch.offset, batch.prefix_digest) == (1, 0, "")
            and batch.started_at == creation_time(batch.batch_id)
            and batch.finished_at in (None, batch.started_at)
            and _is_of_actor(raw, objects, batch.actor)
            and counts.read == sum(structs.astuple(counts)[1:]) == batch.next_seq - 1
        )
    return not batch.is_request and _follows_its_records(raw, batch)


def _is_of_actor(raw: Raw, objects: BatchObjects, actor: str) -> bool:
    """Return whether the sender of a request without segments is this one; of others, segments tell when they are
    read."""
    return bool(objects.segments) or request_actor(raw, objects.rejects[0]) in (None, actor)


def _follows_its_records(raw: Raw, batch: Batch) -> bool:
    """Return whether a batch begins as in its opening record, if it has one, and goes on after one of its blocks."""
    with suppress(Damaged):
        opening = read_opening(raw, RawKind.OPENING.key(batch.batch_id))
        if (opening.origin, opening.started_at, opening.actor) != (batch.origin, batch.started_at, batch.actor):
            return False
    ends = []
    for key in keys_of(raw, RawKind.BLOCK, batch.batch_id):
        with suppress(Damaged):
            block = read_block(raw, str(key))[0]
            ends.append((block.last_seq + 1, block.offset, block.prefix_digest))
    return batch.next_seq == 1 or not ends or (batch.next_seq, batch.offset, batch.prefix_digest) in ends


def _trusted_segment(restoration: Restoration, row: Segment, scanned: Scan) -> Segment | None:
    """Return a segment as in its row, or as it was read where that is the same object; None for a row that is not of a
    segment."""
    key = RawKey.parse(row.key)
    if key is None or key.day is None:
        return None
    is_in_place, arrivals = (row.batch_id, row.day) == (key.id, key.day), scanned.arrivals
    if row.packed is not None:  # the new index has no packs
        small = copied(restoration.store.raw, row) if row.deliveries == 1 else b""
        row = structs.replace(row, inline=small, packed=None)
    if not is_in_place and arrivals is None and restoration.store.raw.size(row.key) is None:
        return None
    row = structs.replace(row, batch_id=key.id, day=key.day)
    if arrivals is None:
        return row
    copy = row.inline if sha256(row.inline).hexdigest() == arrivals.segment.digest else b""
    found = structs.replace(arrivals.segment, recorded_at=row.recorded_at, guessed=row.guessed, inline=copy)
    return found if found == row or _is_object_of(restoration, found, row, arrivals) else row


def _is_object_of(restoration: Restoration, found: Segment, row: Segment, arrivals: Arrivals) -> bool:
    """Return whether a row that differs from an object is of this very object all the same: by its digest, or, where
    only the digest differs, by the index's rows of each of its deliveries."""
    if found.digest == row.digest:
        return True
    known = restoration.rebuild.rows(found, range(len(found.frames)))
    return structs.replace(found, digest=row.digest) == row and set(ids_of(known)) == set(ids_of(arrivals))


def _trusted_rejects(restoration: Restoration, batch: Batch, files: Sequence[RejectFile]) -> list[RejectFile]:
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

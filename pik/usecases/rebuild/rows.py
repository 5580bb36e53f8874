"""Which rows of the replaced index a rebuild believes.

An index with a flipped bit still answers: with a batch that never existed, or with another size for a segment that is
whole. What raw tells itself is taken from raw, and what neither raw nor another row of the index knows is dropped.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256

from msgspec import structs

from pik.errors import Damaged
from pik.model.batch import OF_REQUEST, Arrivals, Batch, BatchState, RejectFile, Segment, Verdict, request_origin
from pik.rawlog.batch_records import read_block, read_opening
from pik.rawlog.keys import RawKey, RawKind, keys_of
from pik.rawlog.records import read_rejects
from pik.rawlog.segment_reader import ids_of, scan_segment
from pik.usecases.availability import has_expired
from pik.usecases.ingest.api_request import creation_time
from pik.usecases.rebuild.segments import Restoring


@dataclass(slots=True)
class Held:
    """What raw has of batches without a record: whether they are requests, and the opening and block records."""

    requests: dict[str, bool] = field(default_factory=dict)
    openings: dict[str, list[str]] = field(default_factory=dict)
    blocks: dict[str, list[str]] = field(default_factory=dict)


def held(restoring: Restoring, finished: Container[str]) -> Held:
    """List raw of the batches that are not `finished`."""
    raw, found = restoring.store.raw, Held()
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


def is_dropped(restoring: Restoring, batch: Batch, rejects: Sequence[RejectFile], there: Held) -> bool:
    """Whether the row of a batch is all that tells of it: raw has no object of it, and the index names none."""
    if batch.batch_id in there.requests or batch.next_seq == 1:
        return False
    if has_expired(restoring.store, batch.finished_at or batch.started_at):
        return False
    named = [file.key for file in rejects]
    named += [segment.key for segment, _ in restoring.replaced.segments(batch.batch_id)]
    return not any(_is_of(key, batch.batch_id) for key in named)


def is_believed(restoring: Restoring, batch: Batch, rejects: Sequence[RejectFile], there: Held) -> bool:
    """Whether the row of a batch says what raw says of it, as far as both tell. One that does not is made from raw."""
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
    return not batch.is_request and counts.rejected == rejected and _follows_its_records(restoring, batch, there)


def _follows_its_records(restoring: Restoring, batch: Batch, there: Held) -> bool:
    """Whether a batch begins as its opening record says, and goes on behind one of its blocks."""
    raw = restoring.store.raw
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


def add_replaced(
    restoring: Restoring, segment: Segment, arrivals: Arrivals | None, verdicts: dict[int, Verdict]
) -> bool:
    """Restore a segment that the replaced index lists; `arrivals` are its deliveries where raw was read already. Return
    whether its object is there."""
    if arrivals is None:
        return restoring.add(segment, verdicts)
    restoring.add_block([arrivals], verdicts)
    restoring.present += 1
    return True


def believed(restoring: Restoring, row: Segment) -> tuple[Segment, Arrivals | None] | None:
    """A segment as its row says, with its deliveries where raw was taken instead; None for a row that is of no
    segment."""
    key = RawKey.parse(row.key)
    if key is None or key.day is None:
        return None
    place = (key.id, key.day)
    try:
        arrivals = scan_segment(restoring.store.raw, row.key)
    except Damaged:
        is_lost = restoring.store.raw.size(row.key) is None
        return None if is_lost and (row.batch_id, row.day) != place else (row, None)
    found = structs.replace(arrivals.segment, recorded_at=row.recorded_at, guessed=row.guessed)
    if found != row and not _is_object_of(restoring, found, row, arrivals):
        return row, None
    if (row.batch_id, row.day) != place:
        restoring.mended.add(row.key)
    return found, replace(arrivals, segment=found)


def _is_object_of(restoring: Restoring, found: Segment, row: Segment, arrivals: Arrivals) -> bool:
    """Whether a row that differs from an object is of this very object all the same: by its digest, or, where only the
    digest differs, by the index's rows of each of its deliveries."""
    if found.digest == row.digest:
        return True
    known = restoring.rebuild.rows(found, range(len(found.frames)))
    return structs.replace(found, digest=row.digest) == row and set(ids_of(known)) == set(ids_of(arrivals))


def believed_rejects(restoring: Restoring, batch: Batch, files: Sequence[RejectFile]) -> list[RejectFile]:
    """The files of rejects of a batch, as raw says where the row is of that object."""
    raw, found = restoring.store.raw, []
    for file in files:
        if not _is_of(file.key, batch.batch_id):
            continue
        try:
            records = len(read_rejects(raw, file.key))
        except Damaged:
            found.append(file)
            continue
        data = raw.read(file.key)
        now = RejectFile(key=file.key, size=len(data), digest=sha256(data).hexdigest(), records=records)
        same = now.digest == file.digest or (now.size, now.records) == (file.size, file.records)
        found.append(now if same else file)
    return found


def _is_of(key: str, batch_id: str) -> bool:
    parsed = RawKey.parse(key)
    return parsed is not None and parsed.id == batch_id

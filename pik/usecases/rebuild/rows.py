"""Which rows of the replaced index a rebuild believes.

An index with a flipped bit still answers: with a batch that never existed, or with another size for a segment that is
whole. What raw tells itself is taken from raw, and what neither raw nor another row of the index knows is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256

from msgspec import structs

from pik.errors import Damaged
from pik.model.batch import OF_REQUEST, Arrivals, Batch, BatchState, RejectFile, Segment, Verdict, request_origin
from pik.model.instant import day_of, parse_instant
from pik.rawlog.batch_records import block_keys, opening_keys, read_block, read_opening
from pik.rawlog.records import read_rejects
from pik.rawlog.segment_reader import ids_of, scan_segment
from pik.usecases.availability import has_expired
from pik.usecases.ingest.api_request import made_at
from pik.usecases.rebuild.segments import Restoring

_OBJECT = re.compile(r"raw/(?:event_date=(\d{4}-\d\d-\d\d)|rejects)/([0-9A-Z]{26})-(\d+)\.ndjson\.zst")


@dataclass(slots=True)
class Held:
    """What raw has of batches without a record: whether they are requests, and the opening and block records."""

    requests: dict[str, bool] = field(default_factory=dict)
    openings: dict[str, list[str]] = field(default_factory=dict)
    blocks: dict[str, list[str]] = field(default_factory=dict)


def held(restoring: Restoring, finished: Container[str]) -> Held:
    """List raw of the batches that are not `finished`."""
    raw, found = restoring.store.raw, Held()
    for prefix in ("raw/event_date=", "raw/rejects/"):
        for each in raw.objects(prefix):
            match = _OBJECT.fullmatch(each.key)
            if match is not None and match[2] not in finished:
                found.requests[match[2]] = found.requests.get(match[2], True) and int(match[3]) == OF_REQUEST
    for keys, of_batch in ((opening_keys(raw), found.openings), (block_keys(raw), found.blocks)):
        for key, batch_id in keys:
            if batch_id not in finished:
                found.requests[batch_id] = False
                of_batch.setdefault(batch_id, []).append(key)
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
            and batch.started_at == made_at(batch.batch_id)
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
    match = _OBJECT.fullmatch(row.key)
    if match is None or match[1] is None:
        return None
    place = (match[2], day_of(parse_instant(match[1], date_only=True)))
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
    match = _OBJECT.fullmatch(key)
    return match is not None and match[2] == batch_id

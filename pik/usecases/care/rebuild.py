"""Rebuilding the index from raw (promise 3).

A finished batch is restored from its record. Others are restored from the index that is replaced, as far as it can be
read: what it recorded keeps its verdict and its time, what it never recorded stays out. Where it is gone, their raw is
all there is: each of their deliveries is recorded anew, the smallest (ingest_time, batch_id, seq) first, after those of
the records, and the result lists what only that order decided. Winners that change are recorded as
corrections, which later rebuilds follow. A copy's index is made from the records of its pulls.

A replaced index with a flipped bit still answers: with a batch that never existed, or with another size for a segment
that is whole. What raw knows is taken from raw, and what neither raw nor another row of the index knows is dropped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from sys import intern
from time import time_ns

from msgspec import structs

from pik.errors import Damaged, busy_as
from pik.model.batch import OF_REQUEST, Arrivals, Batch, BatchState, RejectFile, Segment, Verdict, request_origin
from pik.model.correction import Correction, CorrectionKind
from pik.model.ids import creation_time
from pik.ports.raw import Raw, RawKey, RawKind, keys_of
from pik.ports.store import Copy, Store, batch_of
from pik.rawlog.corrections import (
    WinnerLine,
    known_corrections,
    read_winners,
    write_winners,
)
from pik.rawlog.objects import copied
from pik.rawlog.required import RequiredRaw
from pik.rawlog.sealed_records import (
    BatchLine,
    SegmentLine,
    read_block,
    read_opening,
    read_record,
    restored,
)
from pik.rawlog.segment_reader import ids_of, scan_segment
from pik.runtime import Progress, showing
from pik.usecases.availability import has_expired
from pik.usecases.care.rebuild_orphans import SHOWN, OrphanPass, StraySegments, UndecidedWinner
from pik.usecases.care.rebuild_segments import (
    ReplacedExtent,
    ReplacedIndex,
    Restoration,
    Scan,
    SegmentVerdicts,
    read_reject_file,
    scan_each,
)
from pik.usecases.ingest.api_request import request_actor
from pik.usecases.pull import recorded_contents, restore_index

_AT_ONCE = 100
"""Segments whose verdicts are looked up together."""


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What the rebuilt index holds.

    `replaced` is how much of the index before could be read. `revised` events have another winner now, of `undecided`
    ones only the order of arrival decides (both with examples). `guessed` segments have their ingest time as
    `recorded_at`. `lost` deliveries cannot be read any more: `lost_in` lists where, and `damaged` why. `unacknowledged`
    requests were never recorded and stay out; whether `uncertain` ones were is not known. `expired` segments are gone
    as they should be; `superseded` ones are copies that a crash left. `dropped` batches were known to the replaced
    index alone. Of `uncounted` batches it is not known how their times were read: this tzdata lacks their zone.
    """

    replaced: ReplacedExtent
    batches: int = 0
    segments: int = 0
    deliveries: int = 0
    unfinished: int = 0
    superseded: int = 0
    expired: int = 0
    revised: int = 0
    undecided: int = 0
    guessed: int = 0
    lost: int = 0
    unacknowledged: int = 0
    uncertain: int = 0
    examples: tuple[WinnerLine, ...] = ()
    undecided_examples: tuple[UndecidedWinner, ...] = ()
    lost_in: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


def rebuild_index(store: Store, progress: Progress, actor: str = "") -> RebuildReport:
    """Rebuild the index from raw, and replace the old one when it is whole. Raises Busy, StoreError.

    What is there and cannot be read ends it, as its deliveries would be given up. Each rebuild leaves a correction, in
    a copy excepted: before the new index takes its place if winners changed, else after that.
    """
    store = replace(store, raw=RequiredRaw(store.raw))
    if store.copy is not None:
        return _rebuild_copy(store, store.copy, progress)
    with (
        showing(progress, "rebuilding the index", None, "segments"),
        busy_as(store.batches.rebuild(), "another pik process is writing to this store") as rebuild,
    ):
        restoration = Restoration(store, rebuild, ReplacedIndex(store.index), progress)
        finished = _restore_finished(restoration)
        orphans = OrphanPass(restoration, *_restore_replaced(restoration, finished))
        orphans.restore(finished)
        followed, problems = known_corrections(store)
        restoration.damaged += problems
        revised = _choose_winners(restoration, followed)
        recorded_at = max([time_ns(), *(one.recorded_at + 1 for one in followed)])
        if revised:
            followed.append(write_winners(store, revised, recorded_at, actor))
        rebuild.corrections.follow(followed)
    if not revised:
        store.corrections.follow([write_winners(store, (), recorded_at, actor)])
    restoration.counts.update(batches=len(finished) + len(orphans.carried))
    restoration.counts.update(revised=len(revised), undecided=len(orphans.undecided))
    return RebuildReport(
        replaced=restoration.replaced.extent,
        examples=tuple(revised[:SHOWN]),
        undecided_examples=tuple(orphans.undecided_examples),
        lost_in=tuple(restoration.lost_in),
        dropped=tuple(restoration.dropped),
        uncounted=tuple(restoration.uncounted),
        damaged=tuple(restoration.damaged),
        **restoration.counts,
    )


def _rebuild_copy(store: Store, copy: Copy, progress: Progress) -> RebuildReport:
    with copy.pulling():
        found = recorded_contents(store.raw)
        deliveries, damaged = restore_index(store, found, progress)
    return RebuildReport(
        replaced=ReplacedExtent.ALL,
        batches=len(found.batches),
        segments=len(found.segments) - len(damaged),
        deliveries=deliveries,
        superseded=sum(each.key not in found.segments for each in store.raw.objects(RawKind.SEGMENT)),
        damaged=tuple(damaged),
    )


def _restore_finished(restoration: Restoration) -> set[str]:
    """Restore the batches that have a record, and return their ids. One whose record is damaged is treated as if it had
    none."""
    finished: set[str] = set()
    for (segment, verdicts), found in scan_each(restoration.store.raw, _recorded(restoration, finished)):
        restoration.add(segment, verdicts, found)
    return finished


def _recorded(restoration: Restoration, finished: set[str]) -> Iterator[SegmentVerdicts]:
    """Restore what records have besides segments, add the ids of their batches, and yield the segments."""
    store, rebuild = restoration.store, restoration.rebuild
    for key in keys_of(store.raw, RawKind.BATCH):
        with restoration.noting_damage():
            for line in read_record(store.raw, str(key)):
                if isinstance(line, BatchLine):
                    rebuild.add_batch(restored(line))
                    finished.add(key.id)
                elif isinstance(line, SegmentLine):
                    yield line.segment, dict(line.verdicts)
                else:
                    rebuild.add_rejects(key.id, line.rejects)


def _restore_replaced(restoration: Restoration, finished: set[str]) -> tuple[dict[str, int], StraySegments]:
    """Restore the other batches as the replaced index has them. Return how many objects it names of each, and the
    segments of batches that it has lost."""
    carried: dict[str, int] = {}
    actors: dict[str, str] = {}  # of requests, as the replaced index has them
    stray: dict[str, list[SegmentVerdicts]] = defaultdict(list)
    in_raw = _batches_in_raw(restoration.store.raw, finished)
    has_rejects = next(keys_of(restoration.store.raw, RawKind.REJECTS), None) is not None
    for batch, rejects in restoration.replaced.batches(rejects=has_rejects):
        if batch.batch_id in finished:
            continue
        if batch.batch_id not in in_raw and _is_dropped(restoration, batch, rejects):
            restoration.dropped.append(f"{batch.batch_id} ({batch.origin.name}, {batch.counts.read} records)")
            continue
        if batch.is_request and batch.finished_at is None:
            if batch.next_seq == 1:  # it died before anything of it was recorded
                restoration.unrecorded.add(batch.batch_id)
                continue
            batch = _as_complete(batch)
        rejects = _trusted_rejects(restoration, batch, rejects)
        of_request = in_raw.get(batch.batch_id)  # None: its objects are lost, or have expired; only its row is left
        if of_request is not None and not _is_consistent(restoration.store.raw, batch, rejects, of_request):
            continue
        restoration.rebuild.add_batch(batch)
        restoration.counts["unfinished"] += batch.finished_at is None
        carried[batch.batch_id] = len(rejects)
        if of_request:
            actors[batch.batch_id] = intern(batch.actor)
        for file in rejects:
            restoration.rebuild.add_rejects(batch.batch_id, file)
    unfinished = (
        (row, verdicts)
        for row, verdicts in restoration.replaced.segments()
        if (key := RawKey.parse(row.key)) is None or key.id not in finished
    )
    for (row, verdicts), found in scan_each(restoration.store.raw, unfinished):
        segment = _trusted_segment(restoration, row, found)
        if segment is None:
            continue
        if segment.batch_id in carried:
            if found.arrivals is not None and actors.get(segment.batch_id, found.actor) != found.actor:
                of_row = _as_complete(batch_of(restoration.store.index, segment.batch_id))
                restoration.rebuild.add_batch(replace(of_row, actor=found.actor))
                actors[segment.batch_id] = found.actor
            carried[segment.batch_id] += restoration.add(segment, verdicts, found)
        elif segment.batch_id not in finished:
            stray[segment.batch_id].append((segment, verdicts))
    return carried, stray


def _as_complete(batch: Batch) -> Batch:
    """Return a request as it is once it has ended: one that died counts as far as it was recorded."""
    if batch.finished_at is not None:
        return batch
    return replace(batch, state=BatchState.COMPLETE, finished_at=batch.started_at)


def _choose_winners(restoration: Restoration, corrections: Sequence[Correction]) -> list[WinnerLine]:
    """Follow the corrections of earlier rebuilds, give each event a winner, and return which winners changed."""
    for one in corrections:
        if one.kind is CorrectionKind.VERDICT:
            with suppress(Damaged):  # which is noted already
                for line in read_winners(restoration.store.raw, RawKind.CORRECTION.key(one.correction_id)):
                    _follow(restoration, line)
    return list(_changed(restoration))


def _follow(restoration: Restoration, line: WinnerLine) -> None:
    """Let the delivery count that an earlier rebuild chose, unless it is lost."""
    try:
        arrivals = scan_segment(restoration.store.raw, line.key)
    except Damaged:
        return
    if (line.new[1], bytes.fromhex(line.event_id)) in set(ids_of(arrivals)):
        restoration.rebuild.prefer(arrivals, line.new[1])


def _changed(restoration: Restoration) -> Iterator[WinnerLine]:
    """Yield the events that have lost their winner, or have another one than in the replaced index."""
    seen: set[str] = set()
    for place in restoration.rebuild.settle():
        seen.add(place.event_id)
        new = place.batch_id, place.seq
        yield WinnerLine(event_id=place.event_id, key=place.segment_key, new=new, was=place.kind)
    listed = restoration.replaced.segments()
    while some := list(islice(listed, _AT_ONCE)):
        now = restoration.rebuild.skipped([segment for segment, _ in some])
        for (segment, before), verdicts in zip(some, now, strict=True):
            yield from _changed_in(restoration, segment, before, verdicts, seen)


def _changed_in(
    restoration: Restoration,
    segment: Segment,
    before: Mapping[int, Verdict],
    now: Mapping[int, Verdict],
    seen: set[str],
) -> Iterator[WinnerLine]:
    """Yield those events which a segment counted before, and another delivery counts now."""
    differing = [seq for seq in now if seq not in before]
    if not differing:
        return
    rows = restoration.rebuild.rows(segment, range(len(segment.frames)))
    ids = dict(ids_of(rows))  # what it had no row of it had not accepted either
    for seq, winner in restoration.rebuild.winners(rows, differing).items():
        event_id, old = ids[seq].hex(), (segment.batch_id, seq)
        if winner.place != old and event_id not in seen:
            seen.add(event_id)
            # Whether two deliveries conflict is the same from either side.
            yield WinnerLine(
                event_id=event_id, key=winner.key, new=winner.place, was=now[seq], old=old, old_key=segment.key
            )


def _batches_in_raw(raw: Raw, finished: Container[str]) -> dict[str, str]:
    """Return the batches that are not `finished`, and of each that is a request, as far as raw knows, the key of one of
    its objects; of others an empty text."""
    found: dict[str, str] = {}
    for kind in (RawKind.SEGMENT, RawKind.REJECTS, RawKind.OPENING, RawKind.BLOCK):
        for key in keys_of(raw, kind):
            if key.id not in finished:
                found[key.id] = found.get(key.id, str(key)) if key.number == OF_REQUEST else ""
    return found


def _is_dropped(restoration: Restoration, batch: Batch, rejects: Sequence[RejectFile]) -> bool:
    """Return whether a batch without an object in raw has nothing but its row: the index names none either."""
    if batch.next_seq == 1 or has_expired(restoration.store, batch.finished_at or batch.started_at):
        return False
    named = [file.key for file in rejects]
    named += [segment.key for segment, _ in restoration.replaced.segments(batch.batch_id)]
    return not any(_is_of(key, batch.batch_id) for key in named)


def _is_consistent(raw: Raw, batch: Batch, rejects: Sequence[RejectFile], of_request: str) -> bool:
    """Return whether the row of a batch agrees with raw, as far as raw knows. One that does not is made from raw.
    `of_request` is an object of a request."""
    counts = batch.counts
    if counts.rejected != sum(file.records for file in rejects):
        return False
    if of_request:
        return (
            batch.origin == request_origin(batch.batch_id)
            and batch.state == BatchState.COMPLETE
            and (batch.attempt, batch.offset, batch.prefix_digest) == (1, 0, "")
            and batch.started_at == creation_time(batch.batch_id)
            and batch.finished_at in (None, batch.started_at)
            and _is_of_actor(raw, of_request, batch.actor)
            and counts.read == sum(structs.astuple(counts)[1:]) == batch.next_seq - 1
        )
    return not batch.is_request and _follows_its_records(raw, batch)


def _is_of_actor(raw: Raw, key: str, actor: str) -> bool:
    """Return whether the sender of a request without segments is this one; of others, segments tell when they are
    read."""
    return RawKey.of(key).kind is not RawKind.REJECTS or request_actor(raw, key) in (None, actor)


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
    place, arrivals = (key.id, key.day), scanned.arrivals
    if row.packed is not None:  # the new index has no packs
        small = copied(restoration.store.raw, row) if row.deliveries == 1 else b""
        row = structs.replace(row, inline=small, packed=None)
    if arrivals is None:
        is_lost = restoration.store.raw.size(row.key) is None
        return None if is_lost and (row.batch_id, row.day) != place else row
    copy = row.inline if sha256(row.inline).hexdigest() == arrivals.segment.digest else b""
    found = structs.replace(arrivals.segment, recorded_at=row.recorded_at, guessed=row.guessed, inline=copy)
    if found != row and not _is_object_of(restoration, found, row, arrivals):
        return row
    if (row.batch_id, row.day) != place:
        restoration.mended.add(row.key)
    return found


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

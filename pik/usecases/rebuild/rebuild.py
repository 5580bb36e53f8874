"""Rebuilding the index from raw (promise 3).

What a finished batch's record says of its deliveries stands. Of other batches the index that is replaced tells, as far
as it can be read: what it recorded keeps its verdict and its time, what it never recorded stays out. Where it is gone,
their raw is all there is: each of their deliveries is recorded anew, the smallest (ingest_time, batch_id, seq) first,
after what the records say, and the result lists what only that order decided. Winners that change are recorded as
corrections, which later rebuilds follow. A copy's index is made from the records of its pulls.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import time_ns

from pik.errors import Damaged, busy_as
from pik.model.batch import BatchState, Segment, Verdict
from pik.ports.store import Copy, Store
from pik.rawlog.batch_records import BatchLine, SegmentLine, read_record, restored
from pik.rawlog.keys import RawKey, RawKind, keys_of
from pik.rawlog.segment_reader import ids_of, scan_segment
from pik.rawlog.store_records import Place, WinnerLine, correction_keys, read_winners, write_winners
from pik.runtime.interaction import Progress
from pik.usecases.pull.copy_index import recorded_contents, restore_index
from pik.usecases.rebuild.orphans import Adrift, restore_orphans
from pik.usecases.rebuild.rows import add_replaced, believed, believed_rejects, held, is_believed, is_dropped
from pik.usecases.rebuild.segments import Replaced, Restoring

SHOWN = 100
"""Events that a list of a result has; it counts them all."""


@dataclass(frozen=True, slots=True)
class Revised:
    """An event that another delivery counts for than before; `old` is None where nothing tells which it was."""

    event_id: str
    old: Place | None
    new: Place


@dataclass(frozen=True, slots=True)
class Undecided:
    """An event with an idempotency key of whose deliveries, with different contents, only the order of arrival says
    that `counted` is the one."""

    event_id: str
    counted: Place
    other: Place


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What the rebuilt index holds.

    `replaced` tells how much of the index before could be read: all, a part, or none of it. `revised` events have
    another winner now, of `undecided` ones only the order of arrival decides (both with examples). `guessed` segments
    say their ingest time as `recorded_at`. `lost` deliveries cannot be read any more; `lost_in` says where, and
    `damaged` why. `unacknowledged` requests were never recorded and stay out; of `uncertain` ones nothing tells whether
    they were. `expired` segments are gone as they should be; `superseded` ones are copies that a crash left. `dropped`
    batches were known to the replaced index alone.
    """

    batches: int
    segments: int
    deliveries: int
    unfinished: int
    superseded: int
    expired: int
    revised: int
    examples: tuple[Revised, ...]
    damaged: tuple[str, ...]
    replaced: str = "all"
    undecided: int = 0
    undecided_examples: tuple[Undecided, ...] = ()
    guessed: int = 0
    lost: int = 0
    lost_in: tuple[str, ...] = ()
    unacknowledged: int = 0
    uncertain: int = 0
    dropped: tuple[str, ...] = ()


def rebuild_index(store: Store, progress: Progress) -> Rebuilt:
    """Make the index anew, and replace the old one when it is whole. Raises Busy, StoreError."""
    if store.copy is not None:
        return _rebuild_copy(store, store.copy, progress)
    try:
        with busy_as(store.batches.rebuild(), "another pik process is writing to this store") as rebuild:
            progress.start("rebuilding the index", None, "segments")
            replaced = Replaced(store.index)
            restoring = Restoring(store, rebuild, replaced, progress)
            finished = _restore_finished(restoring)
            carried, adrift = _restore_replaced(restoring, finished)
            orphans = restore_orphans(restoring, finished, carried, adrift)
            revised, examples = _settle(restoring)
        if followed := correction_keys(store.raw):
            store.audit.follow(followed)
    finally:
        progress.stop()
    return Rebuilt(
        batches=len(finished) + len(carried) + orphans.batches,
        segments=restoring.segments,
        deliveries=restoring.deliveries,
        unfinished=restoring.unfinished,
        superseded=orphans.superseded,
        expired=restoring.expired,
        revised=revised,
        examples=tuple(examples),
        damaged=tuple(restoring.damaged),
        replaced=replaced.extent,
        undecided=len(orphans.undecided),
        undecided_examples=tuple(Undecided(*one) for one in orphans.undecided_examples),
        guessed=restoring.guessed,
        lost=restoring.lost,
        lost_in=tuple(restoring.lost_in),
        unacknowledged=orphans.unacknowledged,
        uncertain=orphans.uncertain,
        dropped=tuple(restoring.dropped),
    )


def _rebuild_copy(store: Store, copy: Copy, progress: Progress) -> Rebuilt:
    with copy.pulling():
        found = recorded_contents(store.raw)
        made = restore_index(store, found, progress)
    return Rebuilt(
        batches=len(found.batches),
        segments=made.segments,
        deliveries=made.deliveries,
        unfinished=0,
        superseded=sum(each.key not in found.segments for each in store.raw.objects(RawKind.SEGMENT)),
        expired=0,
        revised=0,
        examples=(),
        damaged=tuple(made.damaged),
    )


def _restore_finished(restoring: Restoring) -> set[str]:
    """Restore the batches that have a record, and return their ids. One whose record is damaged is as if it had
    none."""
    store, rebuild = restoring.store, restoring.rebuild
    finished: set[str] = set()
    for key in keys_of(store.raw, RawKind.BATCH):
        batch_id = key.id
        try:
            for line in read_record(store.raw, str(key)):
                if isinstance(line, BatchLine):
                    rebuild.add_batch(restored(line))
                    finished.add(batch_id)
                elif isinstance(line, SegmentLine):
                    restoring.add(line.segment, line.verdicts)
                else:
                    rebuild.add_rejects(batch_id, line.rejects)
        except Damaged as error:
            restoring.damaged.append(error.message)
    return finished


def _restore_replaced(restoring: Restoring, finished: set[str]) -> tuple[dict[str, int], Adrift]:
    """Restore the other batches as the replaced index has them. Return how many objects it names of each, and the
    segments of batches that it has lost."""
    carried: dict[str, int] = {}
    adrift: dict[str, list[tuple[Segment, dict[int, Verdict]]]] = defaultdict(list)
    there = held(restoring, finished)
    for batch, rejects in restoring.replaced.batches():
        if batch.batch_id in finished:
            continue
        if is_dropped(restoring, batch, rejects, there):
            restoring.dropped.append(f"{batch.batch_id} ({batch.origin.name}, {batch.counts.read} records)")
            continue
        if batch.is_request and batch.finished_at is None:
            if batch.next_seq == 1:  # it died before anything of it was recorded
                restoring.unrecorded.add(batch.batch_id)
                continue
            batch = replace(batch, state=BatchState.COMPLETE, finished_at=batch.started_at)
        rejects = believed_rejects(restoring, batch, rejects)
        if not is_believed(restoring, batch, rejects, there):
            continue
        restoring.rebuild.add_batch(batch)
        restoring.unfinished += batch.finished_at is None
        carried[batch.batch_id] = len(rejects)
        for file in rejects:
            restoring.rebuild.add_rejects(batch.batch_id, file)
    for row, verdicts in restoring.replaced.segments():
        key = RawKey.parse(row.key)
        if key is not None and key.id in finished:
            continue
        restored = believed(restoring, row)
        if restored is None:
            continue
        segment, arrivals = restored
        if segment.batch_id in carried:
            carried[segment.batch_id] += add_replaced(restoring, segment, arrivals, verdicts)
        elif segment.batch_id not in finished:
            adrift[segment.batch_id].append((segment, verdicts))
    return carried, adrift


def _settle(restoring: Restoring) -> tuple[int, list[Revised]]:
    """Follow the corrections of earlier rebuilds, give each event a winner, and record which winners changed."""
    store = restoring.store
    for key in correction_keys(store.raw):
        try:
            for line in read_winners(store.raw, key):
                _follow(restoring, line)
        except Damaged as error:
            restoring.damaged.append(error.message)
    changed = list(_changed(restoring))
    if changed:
        write_winners(store, changed, time_ns())
    return len(changed), [Revised(line.event_id, line.old, line.new) for line in changed[:SHOWN]]


def _follow(restoring: Restoring, line: WinnerLine) -> None:
    """Let the delivery count that an earlier rebuild has chosen, unless it is lost."""
    try:
        arrivals = scan_segment(restoring.store.raw, line.key)
    except Damaged:
        return
    if (line.new[1], bytes.fromhex(line.event_id)) in set(ids_of(arrivals)):
        restoring.rebuild.prefer(arrivals, line.new[1])


def _changed(restoring: Restoring) -> Iterator[WinnerLine]:
    """The events that have lost their winner, or have another one than in the replaced index."""
    seen: set[str] = set()
    for place in restoring.rebuild.settle():
        seen.add(place.event_id)
        yield WinnerLine(event_id=place.event_id, key=place.segment_key, new=(place.batch_id, place.seq))
    for segment, before in restoring.replaced.segments():
        now = restoring.rebuild.skipped(segment)
        differing = [seq for seq in now if seq not in before]
        if not differing:
            continue
        rows = restoring.rebuild.rows(segment, range(len(segment.frames)))
        ids = dict(ids_of(rows))  # what it had no row of it had not accepted either
        for seq, winner in restoring.rebuild.winners(rows, differing).items():
            event_id, old = ids[seq].hex(), (segment.batch_id, seq)
            if winner.place != old and event_id not in seen:
                seen.add(event_id)
                yield WinnerLine(event_id=event_id, key=winner.key, old=old, new=winner.place)

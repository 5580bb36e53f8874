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

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby, islice
from operator import attrgetter
from time import time_ns

from pik.errors import Damaged, busy_as
from pik.model.batch import Segment, Verdict
from pik.model.correction import Correction, CorrectionKind
from pik.ports.raw import RawKind, keys_of
from pik.ports.store import Copy, Store
from pik.rawlog.corrections import (
    WinnerLine,
    known_corrections,
    read_winners,
    write_winners,
)
from pik.rawlog.required import RequiredRaw
from pik.rawlog.sealed_records import (
    BatchLine,
    SegmentLine,
    read_record,
    restored,
)
from pik.rawlog.segment_reader import ids_of, scan_segment
from pik.runtime import Progress, showing
from pik.runtime.storage import Sorter, Spool
from pik.usecases.care.rebuild_batches import ByBatch
from pik.usecases.care.rebuild_carried import restore_batch
from pik.usecases.care.rebuild_orphans import SHOWN, OrphanPass, UndecidedWinner
from pik.usecases.care.rebuild_segments import (
    ReplacedExtent,
    ReplacedIndex,
    Restoration,
    SegmentVerdicts,
    scan_each,
)
from pik.usecases.pull.index import recorded_contents, restore_index

_AT_ONCE = 100
"""Segments whose verdicts are looked up together."""


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What the rebuilt index holds.

    `replaced` is how much of the index before could be read. The other numbers are without what is recorded beside the
    rebuild, which is in the new index as well. `unfinished` batches are those without a record that no later one
    replaced. `revised` events have another winner now, of `undecided`
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
        busy_as(store.batches.rebuild(progress.wait), "another pik process is writing to this store") as rebuild,
    ):
        restoration = Restoration(store, rebuild, ReplacedIndex(store.index), progress)
        by_batch = ByBatch()
        _restore_finished(restoration, by_batch)
        orphans = _restore_unfinished(restoration, by_batch)
        followed, problems = known_corrections(store)
        restoration.damaged += problems
        revised = _choose_winners(restoration, by_batch, followed)
        recorded_at = max([time_ns(), *(one.recorded_at + 1 for one in followed)])
        if revised:
            followed.append(write_winners(store, revised, recorded_at, actor))
        rebuild.corrections.follow(followed)
    if not revised:
        store.corrections.follow([write_winners(store, (), recorded_at, actor)])
    undecided, undecided_examples = orphans.undecided()
    restoration.counts.update(revised=len(revised), undecided=undecided)
    return RebuildReport(
        replaced=restoration.replaced.extent,
        examples=tuple(islice(revised, SHOWN)),
        undecided_examples=tuple(undecided_examples),
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


def _restore_finished(restoration: Restoration, by_batch: ByBatch) -> None:
    """Restore the batches that have a record. One whose record is damaged is treated as if it had none."""
    for (segment, verdicts), found in scan_each(restoration.store.raw, _recorded(restoration, by_batch)):
        restoration.add(segment, verdicts, found)


def _recorded(restoration: Restoration, by_batch: ByBatch) -> Iterator[SegmentVerdicts]:
    """Restore what records have besides segments, note their batches as finished, and yield the segments."""
    store, rebuild = restoration.store, restoration.rebuild
    for key in keys_of(store.raw, RawKind.BATCH):
        with restoration.noting_damage():
            for line in read_record(store.raw, str(key)):
                if isinstance(line, BatchLine):
                    rebuild.add_batch(restored(line))
                    by_batch.note_finished(key.id)
                    restoration.counts["batches"] += 1
                elif isinstance(line, SegmentLine):
                    yield line.segment, dict(line.verdicts)
                else:
                    rebuild.add_rejects(key.id, line.rejects)


def _restore_unfinished(restoration: Restoration, by_batch: ByBatch) -> OrphanPass:
    """Restore the other batches: as the replaced index has them, then what it lacks."""
    raw, orphans = restoration.store.raw, OrphanPass(restoration)
    restoration.counts["superseded"] += by_batch.gather(raw, restoration.replaced, restoration.rebuild.beside)
    for batch_id, pieces in by_batch.unfinished(raw):
        objects, carried, unlisted = restore_batch(restoration, batch_id, pieces)
        if objects:
            orphans.add(objects, carried, unlisted)
    restoration.counts["superseded"] -= by_batch.beside
    orphans.restore()
    return orphans


def _choose_winners(
    restoration: Restoration, by_batch: ByBatch, corrections: Sequence[Correction]
) -> Spool[WinnerLine]:
    """Follow the corrections of earlier rebuilds, give each event a winner, and return which winners changed."""
    for one in corrections:
        if one.kind is CorrectionKind.VERDICT:
            with suppress(Damaged):  # which is noted already
                for line in read_winners(restoration.store.raw, RawKind.CORRECTION.key(one.correction_id)):
                    _follow(restoration, line)
    changed = Sorter[WinnerLine](attrgetter("event_id"))
    for line in _changed(restoration, by_batch):
        changed.add(line)
    return Spool(WinnerLine, (next(of_event) for _, of_event in groupby(changed, key=attrgetter("event_id"))))


def _follow(restoration: Restoration, line: WinnerLine) -> None:
    """Let the delivery count that an earlier rebuild chose, unless it is lost."""
    try:
        arrivals = scan_segment(restoration.store.raw, line.key)
    except Damaged:
        return
    if (line.new[1], bytes.fromhex(line.event_id)) in set(ids_of(arrivals)):
        restoration.rebuild.prefer(arrivals, line.new[1])


def _changed(restoration: Restoration, by_batch: ByBatch) -> Iterator[WinnerLine]:
    """Yield the events that have lost their winner, and those that have another one than in the replaced index; some
    of them twice."""
    for place in restoration.rebuild.settle():
        new = place.batch_id, place.seq
        yield WinnerLine(event_id=place.event_id, key=place.segment_key, new=new, was=place.kind)
    listed = by_batch.listed()
    while some := list(islice(listed, _AT_ONCE)):
        now = restoration.rebuild.skipped([segment for segment, _ in some])
        for (segment, before), verdicts in zip(some, now, strict=True):
            yield from _changed_in(restoration, segment, before, verdicts)


def _changed_in(
    restoration: Restoration, segment: Segment, before: Mapping[int, Verdict], now: Mapping[int, Verdict]
) -> Iterator[WinnerLine]:
    """Yield those events which a segment counted before, and another delivery counts now."""
    differing = [seq for seq in now if seq not in before]
    if not differing:
        return
    rows = restoration.rebuild.rows(segment, range(len(segment.frames)))
    ids = dict(ids_of(rows))  # what it had no row of it had not accepted either
    for seq, winner in restoration.rebuild.winners(rows, differing).items():
        old = segment.batch_id, seq
        if winner.place != old:
            # Whether two deliveries conflict is the same from either side.
            yield WinnerLine(
                event_id=ids[seq].hex(), key=winner.key, new=winner.place, was=now[seq], old=old, old_key=segment.key
            )

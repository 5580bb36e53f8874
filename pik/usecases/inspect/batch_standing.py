"""What corrections make of the deliveries of a batch, whatever their verdicts say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pik.model.batch import Batch, Verdict
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.rawlog.corrected import corrected_until
from pik.rawlog.corrected_reader import CorrectedReader
from pik.rawlog.objects import frame_lines
from pik.rawlog.selection import Overrides, Selection


@dataclass(frozen=True, slots=True)
class BatchStanding:
    """Of a batch's deliveries: those accepted that are `taken_out`, that do not count any more; the duplicates that
    count instead of another delivery; those that count and were `moved`; and the duplicates of events that are out.
    `withdrawn_by` is the id of the correction that withdraws the batch."""

    withdrawn_by: str | None = None
    taken_out: int = 0
    counted_duplicates: int = 0
    moved: int = 0
    of_events_out: int = 0


def batch_standing(store: Store, batch: Batch, *, is_new: bool = False) -> BatchStanding | None:
    """Return what the corrections that hold make of a batch; None: none does anything. Reads the batch's raw, where any
    may; of one that `is_new` only what has duplicates: nothing else of it can be corrected yet. Raises Damaged."""
    corrected = corrected_until(store)
    if not corrected:
        return None
    if (withdrawn_by := corrected.withdrawn.get(batch.batch_id)) is not None:
        return BatchStanding(withdrawn_by, taken_out=batch.counts.accepted)
    removing = {one.correction_id for one in corrected.removing}
    taken_out = counted = moved = of_out = 0
    reader: CorrectedReader | None = None
    day: int | None = None
    for segment in store.index.segments(ALL_TIME, batch_id=batch.batch_id):
        verdicts = store.index.skipped(segment)
        if is_new and not verdicts:
            continue
        if reader is None or segment.day != day:
            overrides, day = Overrides(corrected=corrected), segment.day
            reader = CorrectedReader(Selection(store, Window.of_day(day), (), overrides))
        for frame in segment.frames:
            for line in frame_lines(store.raw, segment, frame):
                found = reader.corrected(segment, line, verdicts)
                if found is None or found.kind == Verdict.UNRECORDED:
                    continue
                is_accepted = found.kind == Verdict.ACCEPTED
                taken_out += is_accepted and not found.counts
                counted += found.counts and not is_accepted
                moved += found.counts and found.received_event_time is not None
                of_out += not is_accepted and not removing.isdisjoint(found.corrections)
    standing = BatchStanding(None, taken_out, counted, moved, of_out)
    return None if standing == BatchStanding() else standing


@dataclass(frozen=True, slots=True)
class StandingBatch:
    """A batch, and what corrections make of it (None: nothing)."""

    batch: Batch
    standing: BatchStanding | None


def standing_batches(store: Store, batches: Iterable[Batch], *, in_full: bool) -> Iterator[StandingBatch]:
    """Yield the batches with what corrections make of them: all of that `in_full`, which reads their raw, otherwise
    only which are withdrawn."""
    withdrawn = corrected_until(store).withdrawn
    for batch in batches:
        by, standing = withdrawn.get(batch.batch_id), None
        if in_full:
            standing = batch_standing(store, batch)
        elif by is not None:
            standing = BatchStanding(by, taken_out=batch.counts.accepted)
        yield StandingBatch(batch, standing)

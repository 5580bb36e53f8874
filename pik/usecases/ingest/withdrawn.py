"""What corrections mean for the duplicates of an ingest: those of a withdrawn batch count."""

from __future__ import annotations

from dataclasses import dataclass

from pik.model.batch import Batch
from pik.model.window import Window
from pik.ports.store import Store
from pik.rawlog.corrected import Days, corrected_until
from pik.usecases.inspect.batch_standing import BatchStanding, batch_standing


@dataclass(frozen=True, slots=True)
class CorrectedDuplicates:
    """Of a new batch's duplicates: how many are `counting`, since the batches before with their event are withdrawn,
    and how many are of events that corrections took out (`out`), which are recorded and do not count."""

    counting: int = 0
    out: int = 0


NOT_CORRECTED = CorrectedDuplicates()


def corrected_duplicates(store: Store, batch: Batch) -> CorrectedDuplicates:
    """Return what corrections make of the duplicates of a batch that has just been ingested. Reads their raw where one
    of them takes events out. Raises Damaged."""
    counts, corrected = batch.counts, corrected_until(store)
    if not counts.exact + counts.conflict or batch.first_event is None or batch.last_event is None:
        return NOT_CORRECTED
    if corrected.removing or (corrected.choosing and corrected.withdrawn):
        standing = batch_standing(store, batch, is_new=True) or BatchStanding()
        return CorrectedDuplicates(standing.counted_duplicates, standing.of_events_out)
    days = Days(Window(batch.first_event, batch.last_event + 1))
    heirs = corrected.heirs(days, corrected.withdrawn).values()
    return CorrectedDuplicates(sum(len(of_batches.get(batch.batch_id, ())) for of_batches in heirs))

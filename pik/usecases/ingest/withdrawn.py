"""What corrections that withdraw batches mean for an ingest: such a batch's input may be ingested again, and counts."""

from __future__ import annotations

from pik.model.batch import Batch, Origin
from pik.model.instant import Window
from pik.ports.store import Store
from pik.rawlog.corrected import Days, corrected_until
from pik.usecases.inspect.batch_standing import batch_standing


def find_ingested(store: Store, origin: Origin) -> Batch | None:
    """Return the newest batch of this origin, if any that is not withdrawn."""
    found = store.batches.find(origin)
    return None if found is None or found.batch_id in corrected_until(store).withdrawn else found


def counting_duplicates(store: Store, batch: Batch) -> int:
    """Return how many of the batch's duplicates count, since the batches before with their event are withdrawn."""
    counts = batch.counts
    if not counts.exact + counts.conflict or batch.first_event is None or batch.last_event is None:
        return 0
    corrected = corrected_until(store)
    if not corrected.withdrawn:
        return 0
    days = Days(Window(batch.first_event, batch.last_event + 1))
    heirs = corrected.heirs(days, corrected.withdrawn).values()
    return sum(len(of_batches.get(batch.batch_id, ())) for of_batches in heirs)


def duplicates_out(store: Store, batch: Batch) -> int:
    """Return how many of the batch's duplicates are of events that corrections took out: they do not count."""
    if not batch.counts.exact + batch.counts.conflict:
        return 0
    standing = batch_standing(store, batch, is_new=True)
    return 0 if standing is None else standing.of_events_out

"""What is asked of deliveries beyond their window, entity, source and type: verdict, batch, recording, lag, a condition
in SQL."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pik.model.batch import Batch, Segment, Verdict
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.rawlog.corrected import corrected_until
from pik.rawlog.selection import RecordedDelivery

if TYPE_CHECKING:
    from pik.usecases.inspect.not_counted import CurrentValues
    from pik.usecases.inspect.where import Places


@dataclass(frozen=True, slots=True)
class Conditions:
    """Which deliveries are asked for: those with this verdict (for `accepted`: those that count), of this batch,
    recorded in this window, with at least this lag (nanoseconds), in `places`, and not counted by the `values`. None:
    no restriction. With `as_received` no correction holds: those accepted count, at the times with which they came."""

    kind: Verdict = Verdict.ACCEPTED
    batch_id: str | None = None
    recorded: Window = ALL_TIME
    min_lag: int | None = None
    places: Places | None = None
    values: CurrentValues | None = None
    as_received: bool = False

    @property
    def only(self) -> Literal["duplicate"] | None:
        """What `deliveries` needs to yield: a duplicate needs no accepted one, but those are counted by duplicates."""
        return None if self.kind == Verdict.ACCEPTED else "duplicate"

    @property
    def chooses_segments(self) -> bool:
        """Whether `holds` is false for some segments."""
        return self.batch_id is not None or self.recorded != ALL_TIME or self.places is not None

    def holds(self, segment: Segment) -> bool:
        """Return whether deliveries of the segment may meet the conditions."""
        return (
            (self.batch_id is None or segment.batch_id == self.batch_id)
            and segment.recorded_at in self.recorded
            and (self.places is None or self.places.has_batch(segment.batch_id))
        )

    def meets(self, found: RecordedDelivery) -> bool:
        """Return whether the delivery meets the conditions."""
        return self._meets(found) and (self.values is None or self.values.omission(found) is not None)

    def _meets(self, found: RecordedDelivery) -> bool:
        return (
            (found.counts if self.kind == Verdict.ACCEPTED else found.kind == self.kind)
            and self.holds(found.segment)
            and (self.min_lag is None or found.delivery.lag >= self.min_lag)
            and (self.places is None or (found.delivery.batch_id, found.delivery.seq) in self.places)
        )


ACCEPTED = Conditions()
"""The deliveries that count, one for each event."""


def within_batch(store: Store, wanted: Filter, batch: Batch, *, as_received: bool = False) -> Filter:
    """Return the filter with its window cut to the events of the batch, and to where corrections move any, where they
    overlap."""
    if batch.first_event is None or batch.last_event is None:
        return wanted
    extent = Window(batch.first_event, batch.last_event + 1)
    if not as_received:
        extent = corrected_until(store).widened(extent)
    start, end = max(wanted.window.start, extent.start), min(wanted.window.end, extent.end)
    return replace(wanted, window=Window(start, end)) if start < end else wanted

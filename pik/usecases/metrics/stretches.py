"""Long windows cut into stretches of whole buckets, each with a bounded amount of raw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from pik.model.batch import Segment
from pik.model.instant import DAY
from pik.model.window import Window
from pik.ports.store import Store
from pik.rawlog.frames import frames_of

BYTES_AT_ONCE = 64 << 20
"""Raw that is read together, about: of a deployed store it lies on the local disk meanwhile."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a stretch may hold before the next one begins: days, deliveries, bytes of raw; 0: no bound. A stretch
    has at least one day, or one bucket, whatever that holds."""

    days: int = 0
    deliveries: int = 0
    bytes: int = 0


def stretches(store: Store, window: Window, size: int, entities: Sequence[str], budget: Budget) -> list[Window]:
    """Cut the window, of whole buckets of `size`, into stretches of whole buckets between days that have deliveries (of
    these entities; none: of any). They leave nothing out: where events are lost there may still be aggregates."""
    cuts: list[int] = []
    begun, held = None, Budget()
    listed = store.index.segments(window, entities=entities)
    found = (segment for segment in listed if frames_of(segment, entities))  # which a store may have left out
    for day, segments in groupby(found, key=lambda segment: segment.day):
        if begun is not None and _full(held, budget, day - begun):
            cut = day * DAY - day * DAY % size
            if window.start < cut < window.end and cut > (cuts[-1] if cuts else window.start):
                cuts.append(cut)
                begun, held = None, Budget()
        begun = day if begun is None else begun
        held = _with(held, segments, entities)
    bounds = [window.start, *cuts, window.end]
    return [Window(left, right) for left, right in pairwise(bounds)]


def _full(held: Budget, budget: Budget, days: int) -> bool:
    return 0 < budget.days <= days or 0 < budget.deliveries <= held.deliveries or 0 < budget.bytes <= held.bytes


def _with(held: Budget, segments: Iterable[Segment], entities: Sequence[str]) -> Budget:
    deliveries, read = held.deliveries, held.bytes
    for segment in segments:
        deliveries += segment.deliveries
        read += sum(frame.length for frame in frames_of(segment, entities)) if entities else segment.size
    return Budget(0, deliveries, read)

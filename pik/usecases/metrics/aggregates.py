"""Listing aggregates: what is current, or every version and who made it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from pik.model.metric import Aggregate
from pik.model.window import Window
from pik.ports.store import Store
from pik.usecases.availability import expect_pulled
from pik.usecases.metrics.computation import sound, widest
from pik.usecases.metrics.definitions import Scales, chosen


@dataclass(frozen=True, slots=True)
class Listing:
    """Aggregates of the buckets that the window touches; `effective` is what these cover. Ordered by metric, bucket,
    entity, and run where there are several versions."""

    window: Window
    effective: Window
    rows: Iterator[Aggregate]


def list_aggregates(
    store: Store,
    window: Window,
    *,
    metrics: Sequence[str] = (),
    entities: Sequence[str] = (),
    history: bool = False,
) -> Listing:
    """Current versions, or with `history` all of them; iterating raises Damaged at one that is not as it was written.
    Raises NotFound for a metric that there is not, NotHeld where the store is a copy of which that is no part."""
    wanted = chosen(store.metrics, metrics)
    effective = widest(window, wanted)
    expect_pulled(store, effective, entities)
    rows = chain.from_iterable(
        sound(store.aggregates.current(name, within, entities, history=history, checked=True))
        for name, within in ((metric.name, window.widened(metric.bucket_size)) for metric in wanted)
    )
    return Listing(window, effective, map(Scales(store.metrics).shown, rows))

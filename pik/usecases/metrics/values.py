"""Values of some metrics, buckets and entities as they are under a scenario."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing

from pik.errors import Damaged
from pik.model.aggregate import NO_INPUTS, Computed, Failure
from pik.model.metric import Metric
from pik.model.scenario import Scenario
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.exact_copies import readable_part
from pik.rawlog.gathering import unreadable_frames
from pik.rawlog.selection import Selection
from pik.usecases.metrics.computation import recompute
from pik.usecases.metrics.scenario import applied
from pik.usecases.metrics.winners import Winners

Key = tuple[int, str]
"""A bucket's start and an entity."""

_FEW = 50
"""Entities up to which only their own events are read."""


def values_under(
    store: Store,
    engine: Engine,
    wanted: Mapping[Metric, set[Key]],
    scenario: Scenario,
    winners: Winners | None = None,
    *,
    reads_rest: bool = False,
    moments: Collection[int] | None = None,
) -> dict[str, dict[Key, Computed]]:
    """Return by name what is computed of these buckets and entities of some metrics under a scenario, failures
    included. The metrics share their buckets and what they are per. Where raw of a bucket cannot be read that is a
    failure, too, or with `reads_rest` the values are computed from what can be read, `moments` as in
    `readable_part`."""
    metrics = list(wanted)
    keys = {metric.name: of_metric for metric, of_metric in wanted.items()}
    found: dict[str, dict[Key, Computed]] = {name: {} for name in keys}
    buckets = {bucket for of_metric in keys.values() for bucket, _ in of_metric}
    window = metrics[0].buckets.widened(Window(min(buckets), max(buckets) + 1))
    named = {entity for of_metric in keys.values() for _, entity in of_metric}
    entities = [] if metrics[0].is_over_all else sorted(named)
    few = entities if len(entities) <= _FEW else ()
    with applied(store, engine, scenario, window, few, winners) as overrides:
        selection = Selection(store, window, few, overrides)
        with closing(recompute(selection, engine, metrics, entities)) as parts:
            for part in parts:
                rows: Iterable[Computed]
                if not isinstance(part.computed, Damaged):
                    rows = part.computed.rows()
                elif reads_rest:
                    rows = _readable(selection.within(part.window), engine, metrics, entities, moments=moments)
                else:
                    failure = Failure(part.computed.message)
                    rows = [
                        Computed(name, *key, None, 0, NO_INPUTS, NO_INPUTS, failure)
                        for name, of_metric in keys.items()
                        for key in of_metric
                        if key[0] in part.window
                    ]
                for row in rows:
                    if (row.bucket, row.entity_id) in keys[row.metric]:
                        found[row.metric][row.bucket, row.entity_id] = row
    return found


def _readable(
    selection: Selection,
    engine: Engine,
    metrics: Sequence[Metric],
    entities: Sequence[str],
    *,
    moments: Collection[int] | None,
) -> Iterator[Computed]:
    """Yield what is computed of the entities from the raw that can be read."""
    rest = readable_part(selection, unreadable_frames([selection]), moments=moments)
    with closing(recompute(rest, engine, metrics, entities)) as parts:
        for part in parts:
            if not isinstance(part.computed, Damaged):
                yield from part.computed.rows()

"""Other entities whose value is what an expected number lacks: an entity may have been sent under two names."""

from __future__ import annotations

from decimal import Decimal
from itertools import islice

from pik.model.metric import Metric
from pik.model.scenario import Scenario
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.gathering import gather
from pik.rawlog.selection import Selection
from pik.usecases.availability import expect_held
from pik.usecases.metrics.impact import adds_up
from pik.usecases.metrics.scenario import applied

MOST_DELIVERIES = 1_000_000
"""In how many deliveries of the bucket's days other entities are looked for."""

MOST_ENTITIES = 3
"""If more entities have the value, that is chance: a count of 2 says nothing."""


def entities_with(
    store: Store,
    engine: Engine,
    metric: Metric,
    window: Window,
    scenario: Scenario,
    lacking: Decimal,
    not_tried: list[str],
) -> list[str]:
    """Return the entities whose value in the bucket `window` is what is lacking, in their order; none for a metric
    whose values do not add up. Raises Damaged, EngineError, NotHeld and UsageError."""
    if metric.is_over_all or not adds_up(engine, metric):
        return []
    expect_held(store, window, ())
    deliveries = sum(segment.deliveries for segment in Selection(store, window).segments())
    if deliveries > MOST_DELIVERIES:
        not_tried.append(f"other entities, since the days of the bucket have {deliveries:,} deliveries")
        return []
    with (
        applied(store, engine, scenario, window) as overrides,
        gather(Selection(store, window, (), overrides)) as raw,
        engine.computation(raw.inputs, [metric.definition], window) as computation,
    ):
        those = (row.entity_id for row in computation.rows() if row.value == lacking)
        found = list(islice(those, MOST_ENTITIES + 1))
    if len(found) > MOST_ENTITIES:
        not_tried.append(f"each entity that has {lacking:,f}, which more than {MOST_ENTITIES} have")
        return []
    return found

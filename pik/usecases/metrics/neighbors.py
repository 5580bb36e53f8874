"""Other entities whose value is what an expected number lacks: an entity may have been sent under two names."""

from __future__ import annotations

from decimal import Decimal
from itertools import islice

from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.gathering import gather
from pik.rawlog.selection import Selection
from pik.usecases.availability import expect_held
from pik.usecases.metrics.candidates import Question
from pik.usecases.metrics.chain import EXACT
from pik.usecases.metrics.impact import adds_up
from pik.usecases.metrics.scenario import applied

MOST_DELIVERIES = 1_000_000
"""In how many deliveries of the bucket's days other entities are looked for."""

MOST_ENTITIES = 3
"""If more entities have the value, that is chance: a count of 2 says nothing."""


def entities_with(store: Store, engine: Engine, asked: Question, not_tried: list[str]) -> list[tuple[str, Decimal]]:
    """Return the other entities, in their order, each with its value in the bucket, with which what was recomputed
    meets the number; none for a metric whose values do not add up. Raises Damaged, EngineError, NotHeld and
    UsageError."""
    metric, window = asked.metric, asked.window
    if metric.is_over_all or not adds_up(engine, metric):
        return []
    expect_held(store, window, ())
    deliveries = sum(segment.deliveries for segment in Selection(store, window).segments())
    if deliveries > MOST_DELIVERIES:
        not_tried.append(f"other entities, since the days of the bucket have {deliveries:,} deliveries")
        return []
    with (
        applied(store, engine, asked.scenario, window) as overrides,
        gather(Selection(store, window, (), overrides)) as raw,
        engine.computation(raw.inputs, [metric.definition], window) as computation,
    ):
        those = (
            (row.entity_id, row.value)
            for row in computation.rows()
            if row.value and row.entity_id != asked.entity and asked.meets(EXACT.add(asked.recomputed, row.value))
        )
        found = list(islice(those, MOST_ENTITIES + 1))
    if len(found) > MOST_ENTITIES:
        not_tried.append(f"other entities one by one: more than {MOST_ENTITIES} have what lacks")
        return []
    return found

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
from pik.usecases.metrics.scenario import applied

MOST_DELIVERIES = 1_000_000
"""In how many deliveries of the bucket's days other entities are looked for."""

MOST_ENTITIES = 3
"""Of more entities it is chance that one has the value."""


def entities_with(store: Store, engine: Engine, asked: Question) -> list[tuple[str, Decimal]] | None:
    """Return the other entities, in their order, each with its value in the bucket, with which what was recomputed
    meets the number: at most MOST_ENTITIES, and one more. None: there is too much to look at. Raises Damaged,
    EngineError, NotHeld and UsageError."""
    metric, window = asked.metric, asked.window
    expect_held(store, window, ())
    if sum(segment.deliveries for segment in Selection(store, window).segments()) > MOST_DELIVERIES:
        return None
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
        return list(islice(those, MOST_ENTITIES + 1))

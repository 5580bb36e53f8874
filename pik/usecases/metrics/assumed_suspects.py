"""The suspects that an assumption selects: events that may be retries with a new time or key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pik.errors import EngineError, UsageError
from pik.model.delivery import Filter
from pik.model.path import EventPath
from pik.model.scenario import WithoutSuspects
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.selection import Overrides
from pik.usecases.inspect.suspects import SuspectRow, SuspectRule, list_suspects
from pik.usecases.inspect.where import selected
from pik.usecases.metrics.selections import check_where, criteria_sql


def assumed_suspects(
    store: Store,
    engine: Engine,
    assumed: WithoutSuspects,
    overrides: Overrides,
    window: Window = ALL_TIME,
    entities: Sequence[str] = (),
) -> Iterator[SuspectRow]:
    """Yield the suspects in the window (of the entities) that a resolved assumption selects, as `pik duplicates --class
    suspect` lists them where these overrides hold. Raises NotHeld, Damaged, and UsageError for a condition that cannot
    be evaluated."""
    criteria = assumed.criteria
    start, end = max(window.start, criteria.window.start), min(window.end, criteria.window.end)
    if start >= end or (criteria.entity is not None and entities and criteria.entity not in entities):
        return
    chosen = tuple(entities) if criteria.entity is None else (criteria.entity,)
    wanted = Filter(Window(start, end), chosen, criteria.source, criteria.event_type)
    rule = SuspectRule(assumed.within, tuple(EventPath(path, "same") for path in assumed.same))
    places = None
    if criteria.condition is not None:
        check_where(engine, criteria.condition)
        try:
            places = selected(store, engine, wanted, criteria_sql(criteria), overrides)
        except EngineError as error:
            what = f"where={criteria.where}: {error.message.partition(': ')[2]}"
            raise UsageError(what, hint="TRY_CAST in place of a cast") from None
    for row in list_suspects(store, engine, wanted, rule, overrides=overrides):
        is_of_batch = criteria.batch in (None, row.batch_id)
        if is_of_batch and (places is None or (row.batch_id, row.seq) in places):
            yield row

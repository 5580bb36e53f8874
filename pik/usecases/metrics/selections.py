"""What a condition of a scenario selects, and the errors where it selects nothing."""

from __future__ import annotations

from pik.errors import Damaged, EngineError, Invalid, NothingSelected, UsageError, command
from pik.model.criteria import Criteria
from pik.model.metric import Definition
from pik.model.scenario import CountedConflict, LocalTime, Scenario, Shift, WithoutSelected, WithoutSuspects
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Engine
from pik.rawlog.gathering import gather
from pik.rawlog.selection import Overrides, Selection

Selecting = WithoutSelected | WithoutSuspects | CountedConflict | Shift | LocalTime
"""Assumptions about what a condition selects."""


def criteria_sql(criteria: Criteria) -> str:
    """Return the criteria as a condition, as a metric could have it. The window is the reader's."""
    pairs = {
        "source": criteria.source,
        "event_type": criteria.event_type,
        "entity_id": criteria.entity,
        "batch_id": criteria.batch,
    }
    texts = [(name, text.replace("'", "''")) for name, text in pairs.items() if text is not None]
    conditions = " AND ".join(f"{name} = '{text}'" for name, text in texts) or "true"
    condition = criteria.condition
    return conditions if condition is None else f"CASE WHEN {conditions} THEN ({condition}\n) END"


def check_where(engine: Engine, where: str) -> None:
    """Raise UsageError for a condition that a metric could not have."""
    try:
        engine.check(Definition(name="selection", value="count(*)", where=where))
    except Invalid as error:
        raise UsageError(f"where={where}: {error.message.partition(': ')[2]}", hint=error.hint) from None


def refuse_empty_selections(engine: Engine, scenario: Scenario, selection: Selection) -> None:
    """Raise NothingSelected for an assumption that selects no delivery of the selection, so that a mistyped one is not
    taken for one that changes nothing."""
    for one in scenario.assumptions:
        if not isinstance(one, Selecting):
            continue
        start = max(selection.sources.start, one.criteria.window.start)
        window = Window(start, min(selection.sources.end, one.criteria.window.end))
        within = selection.window.within
        corrected = Overrides(duplicates=True, corrected=selection.corrected)
        if isinstance(one, WithoutSuspects):
            _expect_suspect(engine, one, selection)
            continue
        if start < window.end and _is_met(engine, one.criteria, window, selection, corrected):
            continue
        as_received = Overrides(duplicates=True, corrected_until=0)
        if start < window.end and _is_met(engine, one.criteria, window, selection, as_received):
            raise NothingSelected(
                f"{one} selects no delivery that counts {within}: corrections took out or moved all that it would hit",
                hint="pik corrections list",
            )
        raise NothingSelected(f"{one} selects no delivery {within}", hint="pik events")


def _expect_suspect(engine: Engine, assumed: WithoutSuspects, selection: Selection) -> None:
    from pik.usecases.metrics.assumed_suspects import assumed_suspects

    shown = Overrides(until=selection.overrides.until, corrected=selection.corrected)
    try:
        found = assumed_suspects(selection.store, engine, assumed, shown, selection.sources, selection.entities)
        if next(found, None) is None:
            raise no_suspects(assumed, selection.window)
    except Damaged:
        pass  # what computes says so


def no_suspects(assumed: WithoutSuspects, window: Window = ALL_TIME) -> NothingSelected:
    """Return the error for an assumption that selects none of the suspects in the window."""
    within = "" if window == ALL_TIME else f" {window.within}"
    hint = command("duplicates", "--class", "suspect", "--within", "1m")
    return NothingSelected(f"{assumed} selects no suspect{within}", hint=f"further apart: {hint}")


def _is_met(engine: Engine, criteria: Criteria, window: Window, selection: Selection, overrides: Overrides) -> bool:
    """Return whether a delivery meets the criteria, or that cannot be known."""
    definition = Definition(name="selection", value="count(*)", where=criteria_sql(criteria))
    entities = selection.entities
    try:
        with gather(Selection(selection.store, window, entities, overrides)) as raw:
            return next(iter(engine.counted(raw.inputs, definition, window, entities)), None) is not None
    except (Damaged, EngineError, Invalid):
        return True  # what computes says so

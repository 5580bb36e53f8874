"""What is disputed about a recomputed value: conflicts and suspects that would change it, if they counted otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from pik.errors import Damaged, EngineError, NotHeld, UsageError
from pik.model.criteria import Criteria
from pik.model.scenario import Assumption, CountedConflict, Which, WithoutSuspects
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.usecases.metrics.chain import EXACT
from pik.usecases.metrics.explanation import Explanation
from pik.usecases.metrics.states import computed_states
from pik.usecases.metrics.winners import Winners

CONFLICTS, SUSPECTS = "conflicts", "suspects"

_OTHERWISE: dict[str, Assumption] = {
    CONFLICTS: CountedConflict(Which.LAST, Criteria()),
    SUSPECTS: WithoutSuspects(Criteria()),
}


@dataclass(frozen=True, slots=True)
class Dispute:
    """So many events that count otherwise under an `assumption`, as it is typed, and what the value and its change are
    then. A `failure` is why that could not be looked at."""

    kind: str
    assumption: str
    events: int | None = None
    value: Decimal | None = None
    delta: Decimal | None = None
    failure: str | None = None


def disputes(store: Store, engine: Engine, found: Explanation) -> tuple[Dispute, ...]:
    """Return what would change a recomputed value: the last of conflicting deliveries in the place of the one that
    counts, and without suspects, each alone. Nothing is looked for where the right side is recorded, or under
    assumptions, which are someone's answer already."""
    if found.right is not None or found.scenario.assumptions:
        return ()
    try:
        return tuple(_disputes(store, engine, found, _OTHERWISE))
    except _FAILURES:
        return tuple(one for kind in _OTHERWISE for one in _alone(store, engine, found, kind))


_FAILURES = Damaged, NotHeld, EngineError, UsageError


def _alone(store: Store, engine: Engine, found: Explanation, kind: str) -> list[Dispute]:
    """Return what one assumption would change, or why that cannot be told."""
    assumption = _OTHERWISE[kind]
    try:
        return list(_disputes(store, engine, found, {kind: assumption}))
    except _FAILURES as error:
        return [Dispute(kind, str(assumption), failure=error.message)]


def _disputes(
    store: Store, engine: Engine, found: Explanation, otherwise: Mapping[str, Assumption]
) -> Iterator[Dispute]:
    plain = found.metric, found.scenario
    others = [(found.metric, replace(found.scenario, assumptions=(one,))) for one in otherwise.values()]
    place = found.bucket, found.entity_id, Winners(store)
    with computed_states(store, engine, [plain, *others], *place) as states:
        before = states.at(*plain)
        for (kind, assumption), other in zip(otherwise.items(), others, strict=True):
            after = states.at(*other)
            if delta := EXACT.subtract(after.value, before.value):
                value = None if after.computed is None else after.computed.value
                yield Dispute(kind, str(assumption), states.changed_events(before, after), value, delta)

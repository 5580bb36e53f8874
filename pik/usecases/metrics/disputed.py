"""What is disputed about a recomputed value: conflicts and suspects that would change it, if they counted otherwise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from pik.errors import Damaged, EngineError, NotHeld, UsageError
from pik.model.scenario import Assumption, CountedConflict, Criteria, Which, WithoutSuspects
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.usecases.metrics.chain import EXACT
from pik.usecases.metrics.explain import Explanation
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
    each = (_dispute(store, engine, found, kind, assumption) for kind, assumption in _OTHERWISE.items())
    return tuple(one for one in each if one is not None)


def _dispute(store: Store, engine: Engine, found: Explanation, kind: str, assumption: Assumption) -> Dispute | None:
    plain = found.metric, found.scenario
    other = found.metric, replace(found.scenario, assumptions=(assumption,))
    place = found.bucket, found.entity_id, Winners(store)
    try:
        with computed_states(store, engine, [plain, other], *place) as states:
            before, after = (states.at(*one) for one in (plain, other))
            delta = EXACT.subtract(after.value, before.value)
            if not delta:
                return None
            value = None if after.computed is None else after.computed.value
            return Dispute(kind, str(assumption), states.changed_events(before, after), value, delta)
    except (Damaged, NotHeld, EngineError, UsageError) as error:
        return Dispute(kind, str(assumption), failure=error.message)

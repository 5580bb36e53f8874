"""A run whose value is nearer to the recomputed one than the current, and which was rolled back or promoted in part."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from pik.model.run import PromotionKind
from pik.model.window import Window
from pik.ports.state import Promotion
from pik.ports.store import Store
from pik.usecases.metrics.chain import EXACT, value_of
from pik.usecases.metrics.explanation import Explanation


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A value that a run has, and the last promotion or rollback of that run, after which another value is current."""

    run_id: str
    value: Decimal | None
    last: Promotion
    is_right: bool

    @property
    def what(self) -> str:
        """What was done to the run."""
        return "rolled back" if self.last.kind == PromotionKind.ROLLBACK else "promoted in part"


def passed_over(store: Store, found: Explanation) -> PassedOver | None:
    """Return the value nearest to the recomputed one that a rollback, or a promotion in conflict with another one, has
    left behind since the current one was promoted, if it is nearer than the current one."""
    if found.right is not None or found.scenario or found.left.name != "current" or not found.delta:
        return None
    last: dict[str, Promotion] = {}
    promoted: dict[str, int] = {}
    for one in store.promotions.newest_first():
        last.setdefault(one.run_id, one)
        if one.kind == PromotionKind.PROMOTE:
            promoted.setdefault(one.run_id, one.at)
    since, right = promoted.get(found.left.run_id, -1), value_of(found.recomputed)
    start = Window(found.bucket, found.bucket + 1)
    versions = [
        one
        for one in store.aggregates.versions(found.metric.name, start, (found.entity_id,))
        if not one.current
        and (move := last.get(one.run_id)) is not None
        and (move.kind == PromotionKind.ROLLBACK or move.conflicts)
        and move.at > since
    ]
    distances = {one.run_id: EXACT.subtract(value_of(one.computed), right).copy_abs() for one in versions}
    nearest = min(versions, key=lambda one: (distances[one.run_id], -last[one.run_id].at), default=None)
    if nearest is None or distances[nearest.run_id] >= found.delta.copy_abs():
        return None
    run_id = nearest.run_id
    return PassedOver(run_id, nearest.computed.value, last[run_id], not distances[run_id])

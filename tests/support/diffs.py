"""Comparing a run, as `pik diff aggregates --run` does."""

from __future__ import annotations

from collections.abc import Sequence

from pik.ports.store import Store
from pik.usecases.metrics.diff import Diff
from pik.usecases.metrics.diff_recorded import diff_recorded
from pik.usecases.metrics.sides import LEFT, RecordedSide, Side, SideKind


def diff_run(store: Store, run_id: str, *, metrics: Sequence[str] = (), entities: Sequence[str] = ()) -> Diff:
    """Compare what a run wrote with what is current now."""
    left, right = RecordedSide(store, LEFT), RecordedSide(store, Side(SideKind.RUN, run_id))
    return diff_recorded(store, left, right, metrics=metrics, entities=entities)

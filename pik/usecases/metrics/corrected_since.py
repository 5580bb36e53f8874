"""The corrections recorded since values were computed, if nothing else was: they alone explain why the values differ
from what raw says now."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from pik.errors import NotFound
from pik.model.run import Run, RunKind
from pik.model.window import Window
from pik.ports.store import Store
from pik.rawlog.corrected import concerning
from pik.rawlog.selection import Selection
from pik.usecases.metrics.comparison import Difference


@dataclass(slots=True)
class DifferingValues:
    """What was compared where values differ: runs, each with the NAME@VERSIONs that computed their values, and the
    metrics and buckets that have no value."""

    runs: dict[str, set[str]] = field(default_factory=dict)
    without_value: set[tuple[str, int]] = field(default_factory=set)

    def add(self, row: Difference) -> None:
        """Add a difference."""
        if row.version is None:
            self.without_value.add((row.metric, row.bucket))
        else:
            versions = self.runs.setdefault(row.version.run_id, set())
            versions.add(f"{row.metric}@{row.version.metric_version}")


def corrected_since(
    store: Store, window: Window, entities: Sequence[str], compared: DifferingValues, versions: Collection[str]
) -> list[str]:
    """Return the ids of the corrections that were recorded since these values were computed, if nothing else was that
    concerns the window: no delivery, and no other than these versions of the metrics. Empty if something was, or if
    that is not known. Lost raw is not looked for."""
    log = store.corrections.recorded()
    if not log or store.copy is not None:
        return []
    runs = [_run(store, run_id) for run_id in compared.runs]
    known = [run for run in runs if run is not None and run.kind is RunKind.REPLAY]
    if not known or len(known) < len(runs) or not set().union(*compared.runs.values()) <= set(versions):
        return []
    needed = Selection(store, window, entities).needed()
    last = max((one.segment.recorded_at for one in needed), default=0)
    first = min(run.corrections_until for run in known)
    if any(run.created_at < last for run in known):
        return []
    applied = {metric.name: metric.applied_at for metric in store.metrics.latest()}
    for metric, bucket in compared.without_value:
        if not any(_had_none(run, bucket) and applied[metric] <= run.created_at for run in known):
            return []
    return [one.correction_id for one in concerning(store, log, window) if one.recorded_at > first]


def _run(store: Store, run_id: str) -> Run | None:
    try:
        return store.runs.get(run_id)
    except NotFound:  # lost, as `pik verify` says
        return None


def _had_none(run: Run, bucket: int) -> bool:
    """Return whether a value of the bucket would be current, had it had any event when the run computed all of them."""
    request = run.request
    is_whole = not (request.entities or request.metrics or request.chooses_buckets)
    return is_whole and not run.failed and not run.failed_aggregates and bucket in run.effective

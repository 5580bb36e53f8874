"""The programs that compute values, with the rules of timezones, and whether those have changed since."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from hashlib import sha256

from pik import __version__
from pik.errors import NotFound
from pik.model.metric import Metric
from pik.model.zone import zone_data, zones_version
from pik.ports.store import Store


def programs(metrics: Iterable[Metric], *others: str) -> list[str]:
    """Return the programs that compute values of these metrics, with their versions: pik, the others, and for each
    timezone what its rules come from, with the first digits of the rules' SHA-256."""
    zones = sorted({metric.definition.timezone for metric in metrics if metric.definition.timezone})
    return [f"pik {__version__}", *others, *(f"{zones_version()} ({zone} {_digest(zone)})" for zone in zones)]


class MovedZones:
    """Finds out which values were computed by other rules of their metric's timezone than those of now."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[str, ...]] = {}

    def of(self, run_id: str, metric: Metric, bucket: int) -> str | None:
        """Return by which rules a version of this metric was computed, if not by those of now, as a clause. What a
        bucket begins with is known for certain, where it ends is not. None: they are the same, or there are none."""
        zone = metric.definition.timezone
        if zone is None:
            return None
        then = None
        if run_id not in self._known:
            self._known[run_id] = _programs(self._store, run_id)
        for text in self._known[run_id]:
            if match := re.fullmatch(rf"(tzdata \S+) \({re.escape(zone)} (\w+)\)", text):
                then = match[1] if match[2] != _digest(zone) else then
        if then is None:
            return None
        begins = metric.buckets.start_of(bucket) == bucket
        what = f"the rules of {zone} changed" if begins else f"{zone} has no such bucket any more"
        return f"computed with {then}; {what} in {zones_version()}"


def _programs(store: Store, run_id: str) -> tuple[str, ...]:
    try:
        return store.runs.get(run_id).computed_by
    except NotFound:  # a copy has no runs
        return ()


@cache
def _digest(zone: str) -> str:
    return sha256(zone_data(zone)).hexdigest()[:8]

"""Retire a metric, and reinstate it: each is a version of the metric, with the definition of the one before."""

from __future__ import annotations

from msgspec import structs

from pik.errors import UsageError, command
from pik.model.metric import Metric
from pik.ports.state import Metrics
from pik.usecases.metrics.definitions import retirement, versions


def retirable(metrics: Metrics, name: str) -> Metric:
    """Return the latest version of a metric that can be retired. Raises NotFound, UsageError."""
    latest = _latest(metrics, name, "retire")
    if latest.retired:
        raise UsageError(f"{name} {retirement(latest)} already", hint=command("metrics", "show", name))
    return latest


def retired(metrics: Metrics, name: str) -> Metric:
    """Return the latest version of a metric that is retired. Raises NotFound, UsageError."""
    latest = _latest(metrics, name, "reinstate")
    if not latest.retired:
        raise UsageError(f"{name} is not retired", hint=command("metrics", "show", name))
    return latest


def _latest(metrics: Metrics, name: str, what: str) -> Metric:
    if "@" in name:
        hint = command("metrics", what, name.partition("@")[0])
        raise UsageError(f"{name}: {what} takes a metric, not one of its versions", hint=hint)
    return versions(metrics, name)[-1]


def retire(metrics: Metrics, name: str, at: int, *, actor: str, reason: str) -> Metric:
    """Add the version with which a metric is retired, and return it. Raises NotFound, and UsageError where it is
    already, or another command just retired it."""
    return _added(metrics, retirable(metrics, name), at, actor, reason, retired_now=True)


def reinstate(metrics: Metrics, name: str, at: int, *, actor: str, reason: str) -> Metric:
    """Add the version with which a metric is reinstated, and return it. Raises NotFound, and UsageError where it is not
    retired, or another command just reinstated it."""
    return _added(metrics, retired(metrics, name), at, actor, reason, retired_now=False)


def _added(metrics: Metrics, latest: Metric, at: int, actor: str, reason: str, *, retired_now: bool) -> Metric:
    check = retirable if retired_now else retired
    while True:
        added = structs.replace(
            latest, version=latest.version + 1, applied_at=at, actor=actor, reason=reason, retired=retired_now
        )
        if metrics.append(added):
            return added
        newest = versions(metrics, latest.name)[-1]
        if newest == added:  # this process did it, and the answer was lost
            return added
        latest = check(metrics, latest.name)  # another writer made this version meanwhile

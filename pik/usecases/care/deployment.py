"""Health, permission and configuration checks of a deployed stack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from pik import __version__
from pik.errors import StoreError
from pik.model.batch import Batch
from pik.model.metric import Metric
from pik.ports.remote import Alarm, Deployment, Depth, Permission, Setting, StackHealth, StackPart
from pik.ports.store import Store

BATCHES = 5
"""How many of the last batches a status shows."""

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class StackStatus:
    """What was found; None is what could not be seen. `unhealthy` and `unknown` are sentences about it."""

    deployment: Deployment
    parts: Sequence[StackPart]
    depth: Depth | None
    alarms: Sequence[Alarm] | None
    batches: Sequence[Batch] | None
    metrics: Sequence[Metric] | None
    unhealthy: Sequence[str]
    unknown: Sequence[str]


def status(health: StackHealth, open_store: Callable[[], Store]) -> StackStatus:
    """Look at everything, even where something cannot be seen. Raises NotFound, StoreError if nothing can."""
    hidden: dict[str, list[str]] = {}  # why → what

    def look(name: str, at: Callable[[], _Part]) -> _Part | None:
        try:
            return at()
        except StoreError as error:
            hidden.setdefault(error.message, []).append(name)
            return None

    deployment = health.deployment()
    parts = [*health.parts(), _version(deployment)]
    depth = look("queues", health.depth)
    alarms = look("alarms", health.alarms)
    batches = look("last batches", lambda: list(islice(open_store().index.batches(), BATCHES)))
    metrics = look("metrics", lambda: open_store().metrics.latest())
    rebuild = look("rebuild of the index", lambda: _rebuild(open_store()))
    parts += [rebuild] if rebuild is not None else []
    if depth is not None and depth.hidden:
        hidden.setdefault(depth.hidden, []).append("age of the oldest task")
    for part in parts:
        if part.healthy is None:
            hidden.setdefault(part.detail, []).append(part.name)
    unknown = [f"{', '.join(names)}: {why}" for why, names in hidden.items()]
    unhealthy = [
        *(_sentence(part.name, part.state, part.detail) for part in parts if part.healthy is False),
        *([f"{depth.dead:,} dead letter{'s' * (depth.dead > 1)}"] if depth is not None and depth.dead else []),
        *(
            _sentence(f"alarm {alarm.name}", alarm.state, alarm.reason)
            for alarm in alarms or ()
            if alarm.state == "ALARM"
        ),
    ]
    return StackStatus(deployment, parts, depth, alarms, batches, metrics, unhealthy, unknown)


def _version(deployment: Deployment) -> StackPart:
    if not deployment.version:
        return StackPart("version", None, None, "the stack has no output Version")
    is_same = deployment.version == __version__
    detail = "" if is_same else f"this pik is {__version__}: deploy it, or use that"
    return StackPart("version", deployment.version, is_same, detail)


def _rebuild(store: Store) -> StackPart:
    found = store.overview.rebuilding()
    return StackPart("rebuild of the index", found.text if found else "none", True)


def _sentence(name: str, state: str | None, detail: str) -> str:
    if state is not None and " " in state:  # a description, and no name of a state
        return f"{name}: {state}" + (f"; {detail}" if detail else "")
    return f"{name} is {state}" + (f": {detail}" if detail else "")


@dataclass(frozen=True, slots=True)
class LevelReport:
    """How much of what a level needs the caller may do; `missing` and `untold` as `ACTION on RESOURCE`."""

    name: str
    missing: Sequence[str]
    untold: Sequence[str]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found. `missing` is what the levels that are needed lack, and `policy` allows it, as far as no other
    policy forbids it; None if it has nothing to allow."""

    deployment: Deployment
    needed: Sequence[str]
    levels: Sequence[LevelReport]
    permissions: Sequence[Permission]
    settings: Sequence[Setting]
    missing: Sequence[Permission]
    policy: dict[str, Any] | None


def diagnose(health: StackHealth, needed: Sequence[str]) -> Diagnosis:
    """Check every permission and setting. Raises NotFound, StoreError if nothing can be."""
    deployment = health.deployment()
    permissions = list(health.permissions())

    def of_level(name: str, allowed: bool | None) -> list[str]:
        those = (one for one in permissions if one.level == name and one.allowed is allowed)
        return [f"{one.action} on {one.resource}" for one in those]

    names = dict.fromkeys(permission.level for permission in permissions)
    levels = [LevelReport(name, of_level(name, False), of_level(name, None)) for name in names]
    missing = [one for one in permissions if one.allowed is False and one.level in needed]
    policy = policy_of(one for one in missing if not one.forbidden)
    settings = [_same_version(deployment), *health.settings()]
    return Diagnosis(deployment, needed, levels, permissions, settings, missing, policy)


def _same_version(deployment: Deployment) -> Setting:
    """A stack and a command of different versions may compute different values of one metric."""
    found = deployment.version
    right = found == __version__ if found else None
    fix = "sam build && sam deploy, from the sources of this pik; or install the pik that the stack runs"
    return Setting("version of pik", right, found or "the stack has no output Version", __version__, fix)


def policy_of(missing: Iterable[Permission]) -> dict[str, Any] | None:
    """Return an IAM policy that allows these, with as few statements as there are sets of resources."""
    resources: dict[str, list[str]] = {}
    for one in missing:
        resources.setdefault(one.action, [])
        if one.resource not in resources[one.action]:
            resources[one.action].append(one.resource)
    actions: dict[tuple[str, ...], list[str]] = {}
    for action, of in resources.items():
        actions.setdefault(tuple(of), []).append(action)
    statements = [
        {"Effect": "Allow", "Action": sorted(each), "Resource": list(of)} for of, each in sorted(actions.items())
    ]
    return {"Version": "2012-10-17", "Statement": statements} if statements else None

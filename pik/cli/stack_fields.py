"""What `pik stack` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pik import __version__
from pik.cli.render import Column, Count, Document, Instant, Json, Shown, Table
from pik.model.instant import SECOND, format_duration

if TYPE_CHECKING:
    from pik.ports.stack import Depth, Permission, Setting
    from pik.usecases.stack import Diagnosis, Level, StackStatus


def status(found: StackStatus) -> Document:
    """The stack, its parts, and what is wrong or not known."""
    here = found.deployment
    alarms = [Column("alarm", get=lambda one: one.name), Column("state"), Column("since", Instant)]
    return Document(
        head={
            "stack": here.name,
            "region": here.region,
            "account": here.account,
            "stack_version": here.version or None,
            "pik_version": __version__,
            "outputs": Shown(here.outputs, "\n".join(f"{name} {value}" for name, value in here.outputs.items())),
            "queue": _depth(found.depth),
        },
        tables=[
            Table("parts", _PARTS, found.parts),
            Table("alarms", [*alarms, Column("reason", wrap=True)], found.alarms or (), empty="no alarms"),
            Table("batches", _BATCHES, found.batches or (), empty="no batches"),
            Table("metrics", _METRICS, found.metrics or ()),
        ],
        tail={
            "unhealthy": _lines(found.unhealthy, "nothing"),
            "unknown": _lines(found.unknown, "nothing"),
            "next": _after_status(found),
        },
    )


def _depth(depth: Depth | None) -> object:
    if depth is None:
        return None
    value = {
        "visible": depth.visible,
        "in_flight": depth.in_flight,
        "delayed": depth.delayed,
        "dead": depth.dead,
        "oldest_seconds": depth.oldest,
    }
    if depth.hidden:
        age = ", the oldest of unknown age"
    else:
        age = "" if depth.oldest is None else f", the oldest for {format_duration(depth.oldest * SECOND)}"
    text = f"{depth.visible:,} waiting, {depth.in_flight:,} in flight, {depth.delayed:,} delayed{age}"
    return Shown(value, f"{text}\n{depth.dead:,} dead letters")


def _lines(sentences: object, otherwise: str) -> Shown:
    lines = list(sentences)  # type: ignore[call-overload]
    return Shown(lines, "\n".join(lines) or otherwise)


def _after_status(found: StackStatus) -> str | None:
    if found.depth is not None and found.depth.dead:
        return "pik dlq list"
    return "pik stack doctor" if found.unhealthy or found.unknown else None


_PARTS = [
    Column("part", get=lambda part: part.name),
    Column("state"),
    Column("healthy"),
    Column("detail", wrap=True),
]

_BATCHES = [
    Column("batch_id"),
    Column("source", get=lambda batch: batch.origin.name),
    Column("state"),
    Column("started_at", Instant),
    Column("accepted", Count, get=lambda batch: batch.counts.accepted),
]

_METRICS = [Column("name"), Column("version"), Column("applied_at", Instant)]


def diagnosis(found: Diagnosis, need: str, *, everything: bool) -> Document:
    """The levels, what is not as it should be (or everything), and what mends it."""
    permissions = [one for one in found.permissions if everything or one.allowed is not True]
    settings = [one for one in found.settings if everything or one.right is not True]
    policy = found.policy and msgspec.json.encode(found.policy)
    return Document(
        head={"stack": found.deployment.name, "region": found.deployment.region, "need": need},
        tables=[
            Table("levels", _LEVELS, found.levels),
            Table("permissions", _PERMISSIONS, permissions, empty="nothing is missing"),
            Table("settings", _SETTINGS, settings, empty="everything is set as it should be"),
        ],
        tail={
            "settings_checked": Count(len(found.settings)),
            "settings_wrong": Count(sum(one.right is False for one in found.settings)),
            "policy": policy and Shown(Json(policy), msgspec.json.format(policy).decode()),
        },
    )


def _state(level: Level) -> Shown:
    missing = [one.partition(" on ")[0] for one in level.missing]
    text = f"missing {', '.join(dict.fromkeys(missing))}" if missing else "all there"
    if level.untold:
        text += f"; not known: {', '.join(dict.fromkeys(one.partition(' on ')[0] for one in level.untold))}"
    return Shown("missing" if missing else "unknown" if level.untold else "all there", text)


_LEVELS = [
    Column("level", get=lambda level: level.name),
    Column("state", get=_state),
    Column("missing", get=lambda level: list(level.missing), detail=True),
    Column("untold", get=lambda level: list(level.untold), detail=True),
]


def _allowed(one: Permission) -> Shown:
    return Shown(one.allowed, {True: "yes", False: "no", None: "unknown"}[one.allowed])


def _right(one: Setting) -> Shown:
    return Shown(one.right, {True: "yes", False: "no", None: "unknown"}[one.right])


_PERMISSIONS = [
    Column("level"),
    Column("action"),
    Column("resource"),
    Column("allowed", get=_allowed),
    Column("how"),
    Column("detail", wrap=True),
]

_SETTINGS = [
    Column("setting", get=lambda one: one.name),
    Column("right", get=_right),
    Column("found", wrap=True),
    Column("needed", wrap=True),
    Column("command", get=lambda one: None if one.right else one.command, wrap=True),
]

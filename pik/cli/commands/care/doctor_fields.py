"""What `pik stack doctor` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from pik.cli.render import Column, Count, Document, Json, Shown, Table
from pik.errors import command

if TYPE_CHECKING:
    from pik.ports.stack import Permission, Setting
    from pik.usecases.deployment import Diagnosis, Level


def diagnosis(found: Diagnosis, need: str, *, everything: bool) -> Document:
    """The levels, what is not as it should be where it is needed (or everything), and what mends it."""
    wanting = [*found.missing, *(one for one in found.permissions if one.level in found.needed and one.allowed is None)]
    permissions = found.permissions if everything else wanting
    settings = [one for one in found.settings if everything or one.right is not True]
    unseen = sum(one.right is None for one in found.settings)
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
            "settings_unknown": Count(unseen),
            "policy": policy and Shown(Json(policy), msgspec.json.format(policy).decode()),
            **_after_diagnosis(found, unseen),
        },
    )


def _after_diagnosis(found: Diagnosis, unseen: int) -> dict[str, str | None]:
    """What to type next, and what else to do."""
    note, line = None, None
    if found.policy:
        note = "have the policy attached to your role or user; docs/iam.md has those of whole levels"
    elif found.missing:
        note = "another policy forbids it explicitly: that one has to go first"
    elif unseen and "inspecting" not in found.needed:
        note = "the settings that are unknown need the permissions of another level, whose policy this prints"
        line = command("stack", "doctor", "--need", "inspecting")
    return {"note": note, "next": line}


def _state(level: Level) -> Shown:
    if not level.missing and not level.untold:
        return Shown("all there", "all there")
    state = "missing" if level.missing else "unknown"
    said = [
        f"{word} {_grouped(those)}" for word, those in (("missing", level.missing), ("unknown", level.untold)) if those
    ]
    return Shown(state, "; ".join(said))


def _grouped(permissions: Sequence[str]) -> str:
    """`dynamodb:GetItem, dynamodb:Query on table/NAME` of what comes as `ACTION on ARN`."""
    actions: dict[str, list[str]] = {}
    for one in permissions:
        action, _, resource = one.partition(" on ")
        actions.setdefault(resource.split(":", 5)[-1], []).append(action)
    return "; ".join(f"{', '.join(each)} on {resource}" for resource, each in actions.items())


_LEVELS = [
    Column("level", get=lambda level: level.name),
    Column("state", get=_state, wrap=True),
    Column("lacking", get=lambda level: level.missing, detail=True),
    Column("unknown", get=lambda level: level.untold, detail=True),
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
    Column("command", get=lambda one: one.command if one.right is False else None, wrap=True),
]

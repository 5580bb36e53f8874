"""`pik stack`: the deployed stack itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from pik import __version__
from pik.cli.command import FOUND, CommandGroup
from pik.cli.context import Context
from pik.cli.render import Column, Count, Document, Instant, Json, Shown, Table
from pik.errors import command
from pik.model.instant import SECOND, format_duration
from pik.ports.remote import Level

if TYPE_CHECKING:
    from pik.ports.remote import Depth, Permission, Setting
    from pik.usecases.deployment import Diagnosis, LevelReport, StackStatus

stack = CommandGroup("Look at a deployed stack itself: status, doctor.")


@stack.add(
    "status",
    examples="""
    pik stack status --store aws://pik

    # in a script: what is wrong, one a line
    pik stack status --store aws://pik --format json | jq -r '.unhealthy[]'
    """,
)
def status(cli: Context) -> int | None:
    """Show whether a deployed stack is well: its parts, queues, dead letters, alarms, last batches and versions.

    Exit code 1 if something is unhealthy. What the caller may not see is called unknown, and is no reason for it.
    """
    from pik.usecases.deployment import status as look

    found = look(cli.stack_health(), cli.open_store)
    cli.show(_status(found))
    return FOUND if found.unhealthy else None


@stack.add(
    "doctor",
    examples="""
    # may I look, and is everything set as it should be?
    pik stack doctor --store aws://pik

    # what is missing for replays and promotions, as a policy to hand to whoever grants it
    pik stack doctor --store aws://pik --need replaying --format json | jq .policy
    """,
)
def doctor(
    cli: Context,
    need: Annotated[
        Literal["reading", "replaying", "administering", "inspecting", "producing"],
        typer.Option(
            "--need",
            metavar="LEVEL",
            help="What you want to do: reading, replaying, administering, inspecting, producing.",
        ),
    ] = "reading",
    everything: Annotated[bool, typer.Option("--all", help="Also list what is as it should be.")] = False,
) -> int | None:
    """Check every permission and setting that the kit relies on, and print what adds or corrects them.

    It writes nothing: IAM simulates the caller's permissions; docs/iam.md lists what each level needs. Exit code 1 if a
    setting is wrong, or if something that the level of --need needs is denied.
    """
    from pik.usecases.deployment import diagnose

    found = diagnose(cli.stack_health(), Level(need).needed)
    cli.show(_diagnosis(found, need, everything=everything))
    return FOUND if found.missing or any(one.right is False for one in found.settings) else None


def _status(found: StackStatus) -> Document:
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
            _table("alarms", [*alarms, Column("reason", wrap=True)], found.alarms),
            _table("batches", _BATCHES, found.batches),
            _table("metrics", _METRICS, found.metrics),
        ],
        tail={
            "unhealthy": _lines(found.unhealthy, "nothing"),
            "unknown": _lines(found.unknown, "nothing"),
            "next": _after_status(found),
        },
    )


_UNSEEN = "not known; see below"


def _table(name: str, columns: list[Column], rows: Sequence[object] | None) -> Table:
    return Table(name, columns, rows or (), empty=_UNSEEN if rows is None else f"no {name}")


def _depth(depth: Depth | None) -> object:
    if depth is None:
        return Shown(None, _UNSEEN)
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


def _lines(sentences: Sequence[str], otherwise: str) -> Shown:
    return Shown(sentences, "\n".join(sentences) or otherwise)


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

_METRICS = [
    Column("name"),
    Column("version"),
    Column("applied_at", Instant, get=lambda metric: metric.applied_at or None),  # the built-in one never was
]


def _diagnosis(found: Diagnosis, need: str, *, everything: bool) -> Document:
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


def _state(level: LevelReport) -> Shown:
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
    Column("detail", wrap=True),
]

_SETTINGS = [
    Column("setting", get=lambda one: one.name),
    Column("right", get=_right),
    Column("found", wrap=True),
    Column("expected", wrap=True),
    Column("fix", get=lambda one: one.fix if one.right is False else None, wrap=True),
]

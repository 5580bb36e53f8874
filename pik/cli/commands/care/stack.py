"""`pik stack`: the deployed stack itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from pik import __version__
from pik.cli.command import FOUND, PARTLY, CommandGroup
from pik.cli.context import Context
from pik.cli.document import Column, Field, Object, Rows, Schema, or_null
from pik.cli.options import option
from pik.cli.values import Count, Instant, Json, Shown
from pik.errors import command, number_of
from pik.model.duration import format_duration
from pik.model.instant import SECOND
from pik.ports.remote import Level

if TYPE_CHECKING:
    from pik.ports.remote import Permission
    from pik.usecases.care.deployment import Diagnosis, LevelReport, StackStatus


stack = CommandGroup("Inspect a stack itself: status, doctor.")


@stack.add(
    "status",
    examples="""
    pik stack status --store aws://pik

    # in a script: what is wrong, one per line
    pik stack status --store aws://pik --format json | jq -r '.unhealthy[]'
    """,
)
def status(cli: Context) -> int | None:
    """Show whether a stack is healthy: its parts, queues, dead letters, alarms, last batches and versions.

    The exit code is 1 if something is unhealthy. What the caller has no permission to see is unknown, not unhealthy.
    """
    from pik.usecases.care.deployment import status as look

    found = look(cli.stack_health(), cli.open_store)
    cli.show(STATUS, found)
    return FOUND if found.unhealthy else None


@stack.add(
    "doctor",
    examples="""
    # am I allowed to read, and are all settings right?
    pik stack doctor --store aws://pik

    # what is missing for replays and promotions, as a policy to hand to an administrator
    pik stack doctor --store aws://pik --need replaying --format json | jq .policy
    """,
)
def doctor(
    cli: Context,
    need: Annotated[
        Literal["reading", "replaying", "correcting", "administering", "inspecting", "producing"],
        option(
            "--need LEVEL",
            "What you want to do: reading, replaying, correcting, administering, inspecting, producing.",
        ),
    ] = "reading",
    everything: Annotated[bool, option("--all", "Also list what is in order.")] = False,
) -> int | None:
    """Check every permission and setting that pik needs, and print the policy or command that corrects them.

    Nothing is written: IAM simulates the caller's permissions. docs/iam.md lists the permissions of each level. The
    exit code is 1 if a setting is wrong, or if a permission that the level of --need requires is denied; it is 3 if any
    of them could not be checked.
    """
    from pik.usecases.care.deployment import diagnose

    found = diagnose(cli.stack_health(), Level(need).needed)
    permissions = [*found.missing, *_unknown(found)]
    cli.show(
        DIAGNOSIS,
        found,
        need=need,
        permissions=found.permissions if everything else permissions,
        settings=[one for one in found.settings if everything or one.right is not True],
    )
    if _unknown(found) or _unseen(found):
        return PARTLY
    return FOUND if found.missing or any(one.right is False for one in found.settings) else None


def _lines(texts: Sequence[str]) -> str:
    return "\n".join(texts) or "nothing"


def _outputs(outputs: Mapping[str, str]) -> Shown:
    return Shown(outputs, _lines([f"{name} {value}" for name, value in outputs.items()]))


_UNSEEN = "not known; see below"


def _depth(found: StackStatus) -> str:
    depth = found.depth
    if depth is None:
        return _UNSEEN
    if depth.hidden:
        age = ", the oldest of unknown age"
    else:
        age = "" if depth.oldest is None else f", the oldest for {format_duration(depth.oldest * SECOND)}"
    text = f"replay tasks: {depth.visible:,} waiting, {depth.in_flight:,} in flight, {depth.delayed:,} delayed{age}"
    return f"{text}\n{number_of(depth.dead, 'dead letter')}"


def _after_status(found: StackStatus) -> str | None:
    if found.depth is not None and found.depth.dead:
        return "pik dlq list"
    return "pik stack doctor" if found.unhealthy or found.unknown else None


def _seen(name: str, about: str, *columns: Column) -> Rows:
    """Return the table of what the caller may be unable to see."""
    return Rows(
        name,
        about,
        *columns,
        get=lambda found: getattr(found, name) or (),
        empty=lambda found: _UNSEEN if getattr(found, name) is None else f"no {name}",
    )


STATUS = Schema(
    "pik stack status",
    Field("stack", str, "its name", get="deployment.name"),
    Field("region", str, get="deployment.region"),
    Field("account", str, get="deployment.account"),
    Field("url", str, "of the store, with its resources named: it asks CloudFormation nothing", get="deployment.url"),
    Field("stack_version", str | None, "the version of pik that its functions run", get="deployment.version"),
    Field("pik_version", str, "of this command", get=lambda _: __version__),
    Field("outputs", Json, "of CloudFormation: name → text", get=lambda found: _outputs(found.deployment.outputs)),
    Field(
        "queue",
        Object(
            Field("visible", int, "replay tasks that wait"),
            Field("in_flight", int, "tasks that are being executed"),
            Field("delayed", int, "tasks that wait before another attempt"),
            Field("dead", int, "dead letters"),
            Field("oldest_seconds", int | None, "age of the oldest task; null: none, or see `unknown`", get="oldest"),
            null=True,
        ),
        "replay tasks, about, as SQS counts; null: not known. Buffered requests are one of the `parts`",
        get="depth",
        text=_depth,
    ),
    Rows(
        "parts",
        "",
        Column("part", str, get="name"),
        Column("state", str | None, "AWS's name where it has one; null: unknown"),
        Column("healthy", bool | None, "null: unknown"),
        Column("detail", str | None, "what is wrong, or why it is unknown", wrap=True),
    ),
    _seen(
        "alarms",
        "also none where `unknown` has the reason",
        Column("alarm", str, get="name"),
        Column("state", str, "`OK`, `ALARM`, `INSUFFICIENT_DATA`"),
        Column("since", Instant),
        Column("reason", str, wrap=True),
    ),
    _seen(
        "batches",
        "the last five",
        Column("batch_id", str),
        Column("source", str, get="origin.name"),
        Column("state", str),
        Column("started_at", Instant),
        Column("accepted", Count, get="counts.accepted"),
    ),
    _seen(
        "metrics",
        "the latest version of each",
        Column("name", str),
        Column("version", int),
        Column("applied_at", Instant | None, "null: it is built in", get=or_null("applied_at")),
    ),
    Field("unhealthy", list[str], "what is wrong; then the exit code is 1", text=lambda found: _lines(found.unhealthy)),
    Field("unknown", list[str], "what could not be seen, and why", text=lambda found: _lines(found.unknown)),
    Field("next", str | None, get=_after_status),
)


def _unknown(found: Diagnosis) -> list[Permission]:
    """Return the needed permissions of which it is not known whether the caller has them."""
    return [one for one in found.permissions if one.level in found.needed and one.allowed is None]


def _unseen(found: Diagnosis) -> int:
    return sum(one.right is None for one in found.settings)


def _policy(found: Diagnosis) -> Shown | None:
    policy = found.policy and msgspec.json.encode(found.policy)
    return Shown(Json(policy), msgspec.json.format(policy).decode()) if policy else None


def _after_diagnosis(found: Diagnosis) -> tuple[str | None, str | None]:
    """Return what else to do, and what to type next."""
    note, line = None, None
    if found.policy:
        note = "have the policy attached to your role or user; docs/iam.md has those of whole levels"
    elif found.missing:
        note = "another policy forbids it explicitly: that one has to go first"
    elif (_unknown(found) or _unseen(found)) and Level.INSPECTING not in found.needed:
        note = "what is unknown was not checked: that needs the permissions of another level, whose policy this prints"
        line = command("stack", "doctor", "--need", "inspecting")
    return note, line


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


DIAGNOSIS = Schema(
    "pik stack doctor",
    Field("stack", str, get="deployment.name"),
    Field("region", str, get="deployment.region"),
    Field("need", str, "the requested level"),
    Rows(
        "levels",
        "the levels of docs/iam.md",
        Column("level", str, get="name"),
        Column("state", str, "`all there`, `missing`, `unknown`", get=_state, wrap=True),
        Column("lacking", list[str], "ACTION on RESOURCE", get="missing", detail=True),
        Column("unknown", list[str], "of which it is not known", get="untold", detail=True),
    ),
    Rows(
        "permissions",
        "those that are needed and missing or unknown; with `--all` every one",
        Column("level", str),
        Column("action", str, "as IAM calls it"),
        Column("resource", str, "an ARN"),
        Column("allowed", bool | None, "null: unknown", text=lambda one: "unknown" if one.allowed is None else None),
        Column("detail", str | None, "AWS's words, or why it is not known", wrap=True),
        empty="nothing is missing",
    ),
    Rows(
        "settings",
        "those that are wrong or unknown; with `--all` every one",
        Column("setting", str, get="name"),
        Column("right", bool | None, "null: unknown", text=lambda one: "unknown" if one.right is None else None),
        Column("found", str, "the actual value, or why it is unknown", wrap=True),
        Column("expected", str, "the expected value", wrap=True),
        Column(
            "fix",
            str | None,
            "what corrects it, where it is wrong",
            get=lambda one: one.fix if one.right is False else None,
            wrap=True,
        ),
        empty="everything is set as it should be",
    ),
    Field("settings_checked", Count, get=lambda found: len(found.settings)),
    Field("settings_wrong", Count, get=lambda found: sum(one.right is False for one in found.settings)),
    Field("settings_unknown", Count, get=_unseen),
    Field("policy", Json | None, "an IAM policy that allows what is needed and missing", get=_policy),
    Field("note", str | None, get=lambda found: _after_diagnosis(found)[0]),
    Field("next", str | None, get=lambda found: _after_diagnosis(found)[1]),
)

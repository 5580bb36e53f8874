"""`pik stack`: the deployed stack itself."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pik.cli.command import FOUND, Commands
from pik.cli.commands.care import doctor_fields, stack_fields
from pik.cli.context import Context

commands = Commands("Look at a deployed stack itself: status, doctor.")

_UP_TO = {
    "reading": ("reading",),
    "replaying": ("reading", "replaying"),
    "administering": ("reading", "replaying", "administering"),
    "inspecting": ("reading", "inspecting"),
    "producing": ("producing",),
}


@commands.add(
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
    cli.show(stack_fields.status(found))
    return FOUND if found.unhealthy else None


@commands.add(
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
    """Check every permission and setting that the kit relies on, and print what mends what is missing.

    Permissions are tried with calls that change nothing; docs/iam.md lists what each level needs. Exit code 1 if a
    setting is wrong, or if something that the level of --need needs is denied.
    """
    from pik.usecases.deployment import diagnose

    found = diagnose(cli.stack_health(), _UP_TO[need])
    cli.show(doctor_fields.diagnosis(found, need, everything=everything))
    return FOUND if found.missing or any(one.right is False for one in found.settings) else None

"""`pik help`: the help of a command, for those who type it that way."""

from __future__ import annotations

from typing import Annotated

import typer

from pik.cli.command import cli_command
from pik.cli.context import Context
from pik.cli.help import Group
from pik.cli.options import argument
from pik.errors import UsageError, command


@cli_command(
    "help",
    examples="""
    pik help events
    pik help diff aggregates
    """,
)
def help(  # noqa: A001 - the command's name
    _cli: Context,
    words: Annotated[list[str] | None, argument("[COMMAND]", "The command, and its subcommand.")] = None,
) -> None:
    """Explain a command as its --help does, with examples; without one, list the commands."""
    from pik.cli.app import root_command

    found = root_command()
    ctx = typer.Context(found, info_name="pik", **found.context_settings)
    for word in words or ():
        if not isinstance(found, Group):
            raise UsageError(f"{ctx.command_path} has no commands, so no {word}", hint=command(*_words(ctx), "--help"))
        found = found.resolve_command(ctx, [word])[1]
        ctx = typer.Context(found, info_name=word, parent=ctx)
    print(ctx.get_help())


def _words(ctx: typer.Context) -> list[str]:
    return ctx.command_path.split()[1:]

"""Typer's commands and groups with plain help, examples kept as written, and complaints in our words."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from pik.cli.help.option_types import read_plainly
from pik.cli.help.usage_errors import argument_name, translated, unknown

GLOBAL = "Global options"
"""The heading of the options that every command takes."""


def _format_options(command: TyperCommand | TyperGroup, ctx: Any, formatter: Any) -> None:
    """Arguments, the command's options, the global ones, others by their panel."""
    panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], GLOBAL: []}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is None:
            continue
        if param.param_type_name == "argument":
            panels["Arguments"].append((argument_name(param), record[1]))
        else:
            panels.setdefault(getattr(param, "rich_help_panel", None) or "Options", []).append(record)
    # --help belongs with the options that every command has.
    panels[GLOBAL] += [record for record in panels["Options"] if record[0].endswith("--help")]
    panels["Options"] = [record for record in panels["Options"] if not record[0].endswith("--help")]
    for heading, records in panels.items():
        if records:
            with formatter.section(heading):
                formatter.write_dl(records)


def _usage(param: Any) -> str:
    name = argument_name(param) + ("..." if param.nargs == -1 else "")
    return name if param.required else f"[{name}]"


def _format_epilog(command: TyperCommand | TyperGroup, formatter: Any) -> None:
    """Examples, verbatim: wrapped lines could not be pasted."""
    if command.epilog:
        formatter.write(f"\n{command.epilog}\n")


def _parsed(parse: Callable[[Any, list[str]], list[str]], ctx: Any, args: list[str]) -> list[str]:
    read_plainly(ctx.command.get_params(ctx))
    try:
        return parse(ctx, args)
    except typer.TyperException as error:
        raise translated(error, ctx) from None


class Command(TyperCommand):
    """A command with plain help and examples kept as written."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer does it, with complaints in our words."""
        return _parsed(super().parse_args, ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """[OPTIONS], then the arguments."""
        arguments = [param for param in self.get_params(ctx) if param.param_type_name == "argument"]
        return ["[OPTIONS]", *map(_usage, arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, options, global options."""
        _format_options(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - Typer's signature
        """The examples."""
        _format_epilog(self, formatter)


class Group(TyperGroup):
    """A group of commands, with help like theirs."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        read_plainly(self.params)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer does it, with complaints in our words; without a command, the help is one."""
        if not args and not ctx.resilient_parsing:
            print(ctx.get_help(), file=sys.stderr)
            raise typer.Exit(2)
        return _parsed(super().parse_args, ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """As Typer does it, with our complaint where options came without a command."""
        try:
            return super().invoke(ctx)
        except typer.TyperException as error:
            raise translated(error, ctx) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As Typer does it, with our complaint where there is no such command."""
        known = self.list_commands(ctx)
        if args[0] not in known and not ctx.resilient_parsing:
            raise unknown("command", args[0], known, ctx.command_path)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - Typer's signature
        """Each command with the first paragraph of its help, whole."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, (one.help or "").split("\n\n")[0]) for name, one in self.commands.items()])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The commands, then the global options."""
        self.format_commands(ctx, formatter)
        _format_options(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - Typer's signature
        """The examples."""
        _format_epilog(self, formatter)

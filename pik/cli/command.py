"""How a command is declared: `commands = Commands()`, then `@commands.add("name", examples="…")` on a function.

Every command takes the global options, wherever on the line they stand, and gets a Context as its first argument.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

from pik import __version__
from pik.cli.context import Context
from pik.cli.plain import read_plainly
from pik.cli.usage import argument_name, translated, unknown

FOUND = 1
"""Exit code of a command that is done and found something."""

PARTLY = 3
"""Exit code of a command that did some of its work; what it did stands."""

GLOBAL = "Global options"


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"pik {__version__}")
        raise typer.Exit


def _globals(
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="STORE",
            help="A directory, aws://STACK?region=…, or a name from pik.toml. [env PIK_STORE; default ./.pik]",
            rich_help_panel=GLOBAL,
        ),
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["table", "json", "jsonl", "csv", "md"] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="table, json, jsonl, csv or md. [env PIK_FORMAT; default table]",
            rich_help_panel=GLOBAL,
        ),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="No notes and no progress; only results and errors.", rich_help_panel=GLOBAL
        ),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            is_eager=True,
            callback=_show_version,
            rich_help_panel=GLOBAL,
        ),
    ] = False,
) -> None:
    """The options that every command takes."""


_GLOBALS = inspect.signature(_globals, eval_str=True).parameters


def with_globals(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """`function(cli, …)` as Typer wants it: its own options, then the global ones, which end up in `cli`."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

    def call(ctx: typer.Context, **values: Any) -> int | None:
        cli = ctx.find_object(Context)
        assert cli is not None
        chosen = {name: values.pop(name) for name in _GLOBALS}
        cli.choose(store=chosen["store"], format=chosen["format"], quiet=chosen["quiet"])
        return function(cli, **values)

    first = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *_GLOBALS.values())]
    call.__signature__ = inspect.Signature([first, *parameters])  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in (first, *parameters)}
    call.__doc__ = function.__doc__
    return call


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


def examples(text: str) -> str:
    """The examples of a command, for its help: `text` without its common indentation, under a heading."""
    lines = inspect.cleandoc(text).splitlines()
    return "\n".join(["Examples:", *(f"  {line}".rstrip() for line in lines)])


class Commands(typer.Typer):
    """One command, or with `help` a group of them."""

    def __init__(self, help: str = "") -> None:  # noqa: A002 - Typer's word
        super().__init__(cls=Group, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        if help:
            self.callback(help=help)(with_globals(_nothing))

    def add(self, name: str, *, examples: str) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
        """Declare a command. Its docstring is its help; it returns None, or an exit code such as FOUND."""

        def declare(function: Callable[..., int | None]) -> Callable[..., int | None]:
            self.command(name, cls=Command, epilog=_examples(examples))(with_globals(function))
            return function

        return declare


_examples = examples


def _nothing(_cli: Context) -> None:
    """A group by itself does nothing."""

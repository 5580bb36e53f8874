"""Declare commands: with `@cli_command("name", examples="…")`, or in a CommandGroup with its `add`.

Every command takes the global options, wherever on the line they stand, and gets a Context as its first argument. A
parameter whose type is a dataclass is a group of options: each field is one.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Annotated, Any, get_type_hints

import typer

from pik import __version__
from pik.cli.colour import When
from pik.cli.context import Context
from pik.cli.help import GLOBAL, Command, Group, typed_words
from pik.cli.options import at_one_time, now, option
from pik.config import Format
from pik.errors import PikError, UsageError
from pik.model.instant import DAY, MAX_INSTANT, displayed_in

Function = Callable[..., int | None]

FOUND = 1
"""The exit code of a command that did all of its work and found something."""

PARTLY = 3
"""The exit code of a command that did some of its work; what it did stands."""


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"pik {__version__}")
        raise typer.Exit


def _globals(
    store: Annotated[
        str | None,
        option(
            "--store STORE",
            "A directory, aws://STACK?region=…, or a name from pik.toml. [env PIK_STORE; default ./.pik]",
            rich_help_panel=GLOBAL,
        ),
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Format | None,
        option("--format FORMAT", f"{', '.join(Format)}. [env PIK_FORMAT; default table]", rich_help_panel=GLOBAL),
    ] = None,
    display_timezone: Annotated[
        str | None,
        option(
            "--display-timezone ZONE",
            "Show times in this IANA zone, with their offset; JSON, CSV: UTC. [env PIK_DISPLAY_TIMEZONE]",
            rich_help_panel=GLOBAL,
        ),
    ] = None,
    quiet: Annotated[
        bool, option("--quiet -q", "No notes and no progress; only results and errors.", rich_help_panel=GLOBAL)
    ] = False,
    color: Annotated[
        When | None,
        option(
            "--color WHEN",
            "auto (default): colours on a terminal without NO_COLOR; always; never.",
            rich_help_panel=GLOBAL,
        ),
    ] = None,
    no_pager: Annotated[
        bool,
        option(
            "--no-pager",
            "No pager for long results on a terminal. [env PIK_PAGER, PAGER; default less]",
            rich_help_panel=GLOBAL,
        ),
    ] = False,
    actor: Annotated[
        str | None,
        option(
            "--actor WHO",
            "Who is recorded with what changes. [env PIK_ACTOR; default USER@HOST, in AWS the caller's ARN]",
            rich_help_panel=GLOBAL,
        ),
    ] = None,
    version: Annotated[
        bool,
        option(
            "--version", "Show the version and exit.", is_eager=True, callback=_show_version, rich_help_panel=GLOBAL
        ),
    ] = False,
) -> None:
    """The options that every command takes."""


_GLOBALS = inspect.signature(_globals, eval_str=True).parameters


def with_globals(function: Function) -> Function:
    """`function(cli, …)` as Typer wants it: its own options, then the global ones, which end up in `cli`."""
    declared = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    groups: dict[str, Any] = {one.name: one.annotation for one in declared if is_dataclass(one.annotation)}
    own = [option for one in declared for option in (_options(groups[one.name]) if one.name in groups else [one])]

    def call(ctx: typer.Context, **values: Any) -> int | None:
        cli = ctx.find_object(Context)
        assert cli is not None
        chosen = {name: values.pop(name) for name in _GLOBALS}
        if ctx.invoked_subcommand is None:  # a group by itself only shows help
            _expect_usable_clock()
        del chosen["version"]
        cli.choose(**chosen)
        if ctx.invoked_subcommand is None:
            cli.typed, cli.command_path = typed_words(ctx), ctx.command_path
            cli.parameters = frozenset(one.name or "" for one in ctx.command.params)
            for name, group in groups.items():
                values[name] = group(**{one.name: values.pop(one.name) for one in fields(group)})
            with displayed_in(cli.display_zone), at_one_time(now()):
                if cli.is_job(values.get("on", "")):
                    from pik.cli.jobs import submit

                    return submit(cli, values["on"], partial(function, cli, **values))
                return function(cli, **values)
        _expect_no_options(ctx, values)
        return None

    first = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *_GLOBALS.values())]
    call.__signature__ = inspect.Signature([first, *parameters])  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in (first, *parameters)}
    call.__doc__ = function.__doc__
    return call


def _options(group: type[Any]) -> list[inspect.Parameter]:
    """Return the parameters that the fields of a group are."""
    types = get_type_hints(group, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(one.name, kind, annotation=types[one.name], default=one.default) for one in fields(group)]


def _expect_no_options(ctx: typer.Context, own: Mapping[str, Any]) -> None:
    """Raise UsageError for an option of a group that stands before one of its commands, which would not see it."""
    for name in own:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            path = f"{ctx.command_path} {ctx.invoked_subcommand}"
            raise UsageError(
                f"--{name.strip('_')} is an option of {ctx.command_path}, not of {path}",
                hint=f"options of {ctx.invoked_subcommand} stand after it: `{path} --help`",
            )


def _expect_usable_clock() -> None:
    """Raise PikError where the clock's time is outside of the range of ids and times."""
    now = time.time_ns()
    if not 0 <= now <= MAX_INSTANT:
        year = 1970 + now // (365_2425 * DAY // 10_000)
        raise PikError(
            f"the clock of this machine is set to the year {year}; pik needs one between 1970 and 2262",
            hint="set the clock",
        )


def _declaration(app: typer.Typer, name: str, examples: str) -> Callable[[Function], Function]:
    return lambda function: app.command(name, cls=Command, epilog=_epilog(examples))(with_globals(function))


def _epilog(examples: str) -> str:
    lines = inspect.cleandoc(examples).splitlines()
    return "\n".join(["Examples:", *(f"  {line}".rstrip() for line in lines)])


class CommandGroup(typer.Typer):
    """A command that has subcommands, such as `pik runs list`."""

    def __init__(self, help: str) -> None:  # noqa: A002 - Typer's word
        super().__init__(cls=Group, **PLAIN)
        self.callback(help=help)(with_globals(nothing))

    def alone(self, *, examples: str) -> Callable[[Function], CommandGroup]:
        """Declare what the group does without a command, as `add` does; it has options and no arguments."""

        def declare(function: Function) -> CommandGroup:
            self.callback(
                help=inspect.getdoc(function),
                epilog=_epilog(examples),
                invoke_without_command=True,
                subcommand_metavar="[COMMAND]",
            )(with_globals(function))
            return self

        return declare

    def add(self, name: str, *, examples: str) -> Callable[[Function], Function]:
        """Declare a command of the group. Its docstring is its help; it returns None, or an exit code such as FOUND."""
        return _declaration(self, name, examples)


def cli_command(name: str, *, examples: str) -> Callable[[Function], typer.Typer]:
    """Declare a command that is not in a group, as `CommandGroup.add` does."""

    def declare(function: Function) -> typer.Typer:
        app = typer.Typer(**PLAIN)
        _declaration(app, name, examples)(function)
        return app

    return declare


PLAIN: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}
"""Settings of Typer, without its decoration."""


def nothing(_cli: Context) -> None:
    """Do nothing: what a group does by itself."""

"""The commands and options of pik, read from the program: what docs/commands.md and the man pages are made from."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pik.cli.app import root_command
from pik.cli.help import GLOBAL, argument_name


class Parameter(NamedTuple):
    """An option or argument: its names with its value as typed, and what it means."""

    usage: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its words (`pik runs list`), its help, how it is called ("" where it only groups others), its own
    parameters, examples as typed, and the commands in it."""

    path: str
    help: str
    usage: str
    parameters: tuple[Parameter, ...]
    examples: str
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Chapter:
    """Commands under one heading of `pik --help`, by name."""

    heading: str
    commands: dict[str, Command]


def chapters() -> list[Chapter]:
    """Return every command, under the headings and in the order of `pik --help`."""
    root, ctx = _root()
    found: dict[str, Chapter] = {}
    for name, entry in root.entries.items():
        chapter = found.setdefault(entry.heading, Chapter(entry.heading, {}))
        chapter.commands[name] = _command(root.get_command(ctx, name), ctx, name)
    return list(found.values())


def global_options() -> tuple[Parameter, ...]:
    """Return the options that every command takes."""
    root, ctx = _root()
    return _parameters(param for param in root.get_params(ctx) if _is_global(param))


def summary_of(name: str) -> str:
    """Return the line of `pik --help` about a command."""
    root, _ = _root()
    return str(root.entries[name].help)


def _root() -> tuple[Any, Any]:
    root = root_command()
    return root, root.make_context("pik", [], resilient_parsing=True)


def _command(command: Any, parent: Any, name: str) -> Command:
    ctx = command.make_context(name, [], parent=parent, resilient_parsing=True)
    inner = getattr(command, "commands", {})
    called = not inner or command.invoke_without_command
    return Command(
        path=ctx.command_path,
        help=inspect.cleandoc(command.help or ""),
        usage=" ".join([ctx.command_path, *command.collect_usage_pieces(ctx)]) if called else "",
        parameters=_parameters(param for param in command.params if not _is_global(param)),
        examples=inspect.cleandoc((command.epilog or "").removeprefix("Examples:\n")),
        commands=tuple(_command(one, ctx, one.name) for one in inner.values()),
    )


def _is_global(param: Any) -> bool:
    return getattr(param, "rich_help_panel", None) == GLOBAL


def _parameters(params: Iterable[Any]) -> tuple[Parameter, ...]:
    return tuple(map(_parameter, params))


def _parameter(param: Any) -> Parameter:
    if param.param_type_name == "argument":
        return Parameter(argument_name(param), param.help or "")
    names = ", ".join([*param.opts, *param.secondary_opts])
    value = "" if param.is_flag else f" {param.metavar}"
    return Parameter(names + value, "".join(_meaning(param)))


def _meaning(param: Any) -> Iterator[str]:
    yield param.help or ""
    if param.multiple and "repeatable" not in (param.help or ""):
        yield " Repeatable."
    if param.default not in (None, False, [], "") and param.show_default:
        yield f" Default: {param.default}."

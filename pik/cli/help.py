"""Typer's commands and groups with plain help, examples kept as written, and complaints in our words."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from pik.cli.failure import wants_json
from pik.cli.words import COUNT, expect_values, with_counts
from pik.errors import UsageError, command

GLOBAL = "Global options"
"""The heading of the options that every command takes."""


def _format_options(command: Any, ctx: Any, formatter: Any) -> None:
    """A group's commands, then arguments, the command's options, the global ones, others by their panel."""
    if isinstance(command, Group):
        command.format_commands(ctx, formatter)
    panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], GLOBAL: []}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is None:
            continue
        if param.param_type_name == "argument":
            panels["Arguments"].append((argument_name(param), record[1]))
        else:
            panel = GLOBAL if "--help" in param.opts else getattr(param, "rich_help_panel", None) or "Options"
            panels.setdefault(panel, []).append(record)
    for heading, records in panels.items():
        if records:
            with formatter.section(heading):
                formatter.write_dl(records)


def _format_epilog(command: Any, ctx: Any, formatter: Any) -> None:  # noqa: ARG001 - Typer's signature
    """Examples, verbatim: wrapped lines could not be pasted."""
    if command.epilog:
        formatter.write(f"\n{command.epilog}\n")


def _parsed(parse: Callable[[Any, list[str]], list[str]], ctx: Any, args: list[str]) -> list[str]:
    params = ctx.command.get_params(ctx)
    _read_plainly(params)
    if not ctx.resilient_parsing:
        own = [one for one in params if getattr(one, "rich_help_panel", None) != GLOBAL]
        expect_values(args, params, own, to_first_argument=not ctx.allow_interspersed_args)
    try:
        return parse(ctx, args)
    except typer.TyperException as error:
        raise _translated(error, ctx) from None


class Command(TyperCommand):
    """A command with plain help, examples kept as written, and Typer's errors as ours."""

    format_options = _format_options
    format_epilog = _format_epilog

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)  # which parsing takes words from
        ctx.allow_extra_args = True  # which are refused here
        try:
            left = _parsed(super().parse_args, ctx, with_counts(args, self.params))
            if left and not ctx.resilient_parsing:
                raise _unexpected(left[0].removeprefix(COUNT), given, self.params, ctx.command_path)
            return left
        except UsageError as error:
            if not error.message.startswith(f"{ctx.command_path} has no option "):
                raise
            error = _naming_entities(error, given, self.params, ctx.command_path)
            raise _naming_files(error, given, self.params, ctx.command_path) from None

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """[OPTIONS], then the arguments."""
        pieces = ["[OPTIONS]"]
        for param in self.get_params(ctx):
            if param.param_type_name == "argument":
                name = argument_name(param) + ("..." if param.nargs == -1 and " " not in argument_name(param) else "")
                pieces.append(name if param.required else f"[{name}]")
        return pieces


class Group(TyperGroup):
    """A group of commands, with help and errors like theirs."""

    format_options = _format_options
    format_epilog = _format_epilog

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Do as Typer does; without a command that it needs the help is the error."""
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            if wants_json(sys.argv[1:]):
                raise UsageError(f"{ctx.command_path} needs a command", hint=f"`{ctx.command_path} --help` lists them")
            print(ctx.get_help(), file=sys.stderr)
            raise typer.Exit(2)
        return _parsed(super().parse_args, ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Do as Typer does, with our error for options without a command."""
        try:
            return super().invoke(ctx)
        except typer.TyperException as error:
            raise _translated(error, ctx) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Do as Typer does, with our error for an unknown command."""
        known = self.list_commands(ctx)
        if args[0] not in known and not ctx.resilient_parsing:
            raise _unknown("command", args[0], known, ctx.command_path)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - Typer's signature
        """Each command with the first paragraph of its help, whole."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, (one.help or "").split("\n\n")[0]) for name, one in self.commands.items()])


Parameter = TyperArgument | TyperOption


def _read_plainly(params: Sequence[Any]) -> None:
    """Give each parameter of a type we know (str, int, Decimal, Path, Literal, StrEnum, lists of them) a light reader.

    pydantic, which Typer's own readers load, takes as long as everything else that a short command does.
    """
    for param in params:
        if isinstance(param, Parameter) and not isinstance(param.get_runtime_param, _Reader):
            param.get_runtime_param = _Reader(param)  # type: ignore[method-assign, assignment]


class _Reader:
    """A reader that a parameter has in the place of Typer's."""

    def __init__(self, param: Parameter) -> None:
        self._typers_own = param.get_runtime_param
        annotation: Any = param.type_descriptor.annotation
        self._kind: Any = get_args(annotation)[0] if get_origin(annotation) is list else annotation

    def __call__(self) -> _Reader:
        return self

    def coerce(self, value: Any, param: Parameter, ctx: typer.Context) -> Any:
        many = param.multiple or param.nargs == -1
        if value is None:
            return () if many else None
        if param.param_type_name == "argument":
            value = [_counted(one) for one in value] if many else _counted(value)
        if ("" in value if many else value == "") and param.name not in _MAY_BE_EMPTY and _was_typed(param, ctx):
            hint = "give it a value or leave it out (is a variable of the shell unset?)"
            raise UsageError(f"{_called(param)} is empty", hint=hint)
        if self._kind is str and param.name not in _PLACES:
            for text in value if many else [value]:
                _expect_utf8(param, text)
        convert = _converter(self._kind)
        if convert is None:
            return self._typers_own().coerce(value, param=param, ctx=ctx)
        try:
            return [convert(item) for item in value] if many else _in_range(convert(value), param)
        except ValueError as error:
            raise typer.BadParameter(str(error), ctx=ctx, param=param) from None


def _counted(value: Any) -> Any:
    return value.removeprefix(COUNT) if isinstance(value, str) else value


def _was_typed(param: Parameter, ctx: typer.Context) -> bool:
    """Return whether the value comes from the command line and is not the default."""
    source = ctx.get_parameter_source(param.name or "")
    return source is not None and source.name == "COMMANDLINE"


def typed_words(ctx: typer.Context) -> dict[str, list[str]]:
    """Return what the command line has of each parameter of the command: its words, by the parameter's name. Arguments
    come after the options."""
    words = {}
    for param in sorted(ctx.command.params, key=lambda one: one.param_type_name == "argument"):
        value = ctx.params.get(param.name or "")
        if not _was_typed(param, ctx):  # type: ignore[arg-type]
            continue
        values = [str(one) for one in value] if isinstance(value, (list, tuple)) else [str(value)]
        if param.param_type_name == "argument":
            words[param.name or ""] = values
        elif isinstance(value, bool):
            words[param.name or ""] = [_called(param)]
        else:
            words[param.name or ""] = [word for one in values for word in (_called(param), one)]
    return words


def _called(param: Any) -> str:
    if param.param_type_name != "option":
        return argument_name(param)
    return str(next((name for name in param.opts if name.startswith("--")), param.opts[0]))


def _converter(kind: Any) -> Callable[[Any], Any] | None:
    if get_origin(kind) is Literal:
        return lambda value: _choice(value, get_args(kind))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return lambda value: kind(_choice(value, list(kind)))
    known: dict[Any, Callable[[Any], Any]] = {
        str: str,
        int: _integer,
        float: lambda value: float(_decimal(value)),
        Decimal: _decimal,
        Path: Path,
    }
    return known.get(kind)


def _choice(value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise ValueError(f"invalid choice {value!r} (choose from {', '.join(choices)})")
    return value


def _integer(value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a whole number") from None


def _decimal(value: Any) -> Decimal:
    try:
        number = Decimal(value)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise ValueError(f"{value!r} is not a number")
    return number


def _in_range(value: Any, param: Parameter) -> Any:
    if param.min is not None and value < param.min:
        raise ValueError(f"{value} is less than {param.min}")
    if param.max is not None and value > param.max:
        raise ValueError(f"{value} is more than {param.max}")
    return value


def _naming_entities(error: UsageError, args: Sequence[str], params: Sequence[Any], path: str) -> UsageError:
    """Return the error with the line to type if the word is an entity, where the command takes one as an argument."""
    if "--" in args or not any("ENTITY" in argument_name(one) for one in params if one.param_type_name == "argument"):
        return error
    kinds = {name: getattr(one, "is_flag", False) for one in params for name in one.opts}
    options: list[str] = []
    arguments: list[str] = []
    words = iter(args)
    for word in words:
        is_flag = kinds.get(word.partition("=")[0])
        if is_flag is None:
            arguments.append(word)
        else:
            options += [word] if is_flag or "=" in word else [word, *islice(words, 1)]
    line = command(*path.split(" ")[1:], *options, "--", *arguments)
    return UsageError(error.message, hint=f"{error.hint}; an entity with such a name stands after --: {line}")


def _naming_files(error: UsageError, args: Sequence[str], params: Sequence[Any], path: str) -> UsageError:
    """Return the error with the line to type if a word is a file, where the command takes one as an argument."""
    names = [argument_name(one) for one in params if one.param_type_name == "argument"]
    known = {"-", *(name for one in params for name in one.opts)}
    files = [word for word in args if word.startswith("-") and word not in known and Path(word).exists()]
    if not files or "--" in args or not any(kind in name for name in names for kind in ("FILE", "BUNDLE")):
        return error
    line = command(*path.split(" ")[1:], *(f"./{word}" if word in files else word for word in args))
    return UsageError(error.message, hint=f"the file {files[0]}: {line}")


OPTIONS_FIRST = "options stand before --: whatever comes after it is an argument"
"""The hint for an option where an argument is expected, which only `--` makes of it."""


def _unexpected(word: str, args: Sequence[str], params: Sequence[Any], path: str) -> UsageError:
    """Return the error for an argument too many. Where it follows the value of an option, the shell split that."""
    names = [argument_name(one) for one in params if one.param_type_name == "argument"]
    hint = f"`{path} --help` shows how it is used"
    with_value = {name for one in params for name in one.opts if name.startswith("-") and not one.is_flag}
    meant = "--store" if path == "pik init" else "--entity" if "--entity" in with_value else ""
    at = args.index(word)
    if meant and not names and len(args) == 1:
        hint = command(*path.split(" ")[1:], meant, word)
    if at > 1 and args[at - 2] in with_value:
        hint = f"a value with a space has quotes: {args[at - 2]} {shlex.quote(f'{args[at - 1]} {word}')}"
    if word.startswith("-") and "--" in args:
        hint = OPTIONS_FIRST
    return UsageError(f"{path}: unexpected argument {word!r}; it takes {' '.join(names) or 'none'}", hint=hint)


def _unknown(what: str, name: str, known: Sequence[str], path: str) -> UsageError:
    """Return the error for an unknown command or option; the hint names the closest, and the help that lists all."""
    if what == "command" and name in ("help", "version"):
        return UsageError(f"{path} has no command {name}", hint=f"`{path} --{name}`")
    close = get_close_matches(name, known, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return UsageError(f"{path} has no {what} {name}", hint=f"{meant}`{path} --help` lists them")


_ELSEWHERE = {
    (
        "ingest",
        "--mode",
    ): "`--via api` waits for the verdicts; docs/http.md, Buffered, has mode=async with curl"
}
"""Hints for options that people look for, by command and option."""


def argument_name(param: Any) -> str:
    """Return the name of an argument in help and errors."""
    name = str(param.metavar or param.name.upper())
    return name if " " in name else name.strip("[]….")


def _translated(error: typer.TyperException, ctx: Any) -> UsageError:
    """Typer's complaint about the command of `ctx`, in our words."""
    path = ctx.command_path
    if hasattr(error, "possibilities") and hasattr(error, "option_name"):
        known = [name for param in ctx.command.get_params(ctx) for name in param.opts]
        unknown = _unknown("option", error.option_name, known, path)
        commands = getattr(ctx.command, "commands", {})
        if having := [
            name for name, one in commands.items() if any(error.option_name in each.opts for each in one.params)
        ]:
            return UsageError(unknown.message, hint=f"after a command that has it, such as `{path} {having[0]}`")
        if error.option_name == "--on":
            from pik.cli.clusters import without_cluster

            return without_cluster(path)
        if elsewhere := _ELSEWHERE.get((path.partition(" ")[2], error.option_name)):
            return UsageError(unknown.message, hint=elsewhere)
        return unknown
    param = getattr(error, "param", None)
    message = error.message.rstrip(".").replace(COUNT, "")
    if param is None:
        message = message[:1].lower() + message[1:]
    else:
        message = f"{_called(param)}: {message}" if message else f"{_called(param)} is missing"
    return UsageError(message, hint=f"`{path} --help` shows how it is used")


_MAY_BE_EMPTY = ("null",)
"""Options of which the empty text is a value."""

_PLACES = frozenset({"files", "store", "out", "into"})
"""Parameters that name files, which may have any bytes."""


def _expect_utf8(param: Parameter, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise UsageError(f"{_called(param)} is not UTF-8: {shown}", hint="what is kept with the data is text") from None

"""Reads the plain option types without Typer's own coercion.

That loads pydantic, which takes as long as everything else that a short command does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from typer.core import TyperArgument, TyperOption

from pik.cli.help.usage_errors import argument_name
from pik.errors import UsageError

Parameter = TyperArgument | TyperOption


def read_plainly(params: Sequence[Any]) -> None:
    """Give each parameter of a type we know (str, int, Decimal, Path, Literal, lists of them) a light reader.

    Typer keeps a parameter's reader in `_runtime_param` and makes one only where that is None. Should that change,
    Typer's own reader works as well, only later.
    """
    for param in params:
        if isinstance(param, Parameter):
            vars(param)["_runtime_param"] = _Reader(param)


class _Reader:
    def __init__(self, param: Parameter) -> None:
        annotation: Any = param.type_descriptor.annotation
        self._kind: Any = get_args(annotation)[0] if get_origin(annotation) is list else annotation

    def coerce(self, value: Any, param: Parameter, ctx: typer.Context) -> Any:
        many = param.multiple or param.nargs == -1
        if value is None:
            return () if many else None
        if ("" in value if many else value == "") and _was_typed(param, ctx):
            raise UsageError(f"{_called(param)} is empty", hint=_EMPTY)
        convert = _converter(self._kind)
        if convert is None:
            vars(param)["_runtime_param"] = None  # Typer's own turn
            return param.get_runtime_param().coerce(value, param=param, ctx=ctx)
        try:
            return [convert(item) for item in value] if many else _in_range(convert(value), param)
        except ValueError as error:
            raise typer.BadParameter(str(error), ctx=ctx, param=param) from None


_EMPTY = "give it a value or leave it out (is a variable of the shell unset?)"


def _was_typed(param: Parameter, ctx: typer.Context) -> bool:
    """Whether the value comes from the command line and is not the default."""
    source = ctx.get_parameter_source(param.name or "")
    return source is not None and source.name == "COMMANDLINE"


def _called(param: Parameter) -> str:
    return max(param.opts, key=len) if param.param_type_name == "option" else argument_name(param)


def _converter(kind: Any) -> Callable[[Any], Any] | None:
    if get_origin(kind) is Literal:
        return lambda value: _choice(value, get_args(kind))
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

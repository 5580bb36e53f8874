"""Turns what Typer says of a wrong command line into our errors: one sentence and a hint."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import typer

from pik.errors import UsageError


def unknown(what: str, name: str, known: Iterable[str], path: str) -> UsageError:
    """There is no such command or option; the hint names the closest, and the help that lists all."""
    if what == "command" and name in ("help", "version"):
        return UsageError(f"{path} has no command {name}", hint=f"`{path} --{name}`")
    close = get_close_matches(name, list(known), n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return UsageError(f"{path} has no {what} {name}", hint=f"{meant}`{path} --help` lists them")


def argument_name(param: Any) -> str:
    """How help and complaints call an argument."""
    return str(param.metavar or param.name.upper()).strip("[]….")


def translated(error: typer.TyperException, ctx: Any) -> UsageError:
    """Typer's complaint about the command of `ctx`, in our words."""
    path = ctx.command_path
    if hasattr(error, "possibilities") and hasattr(error, "option_name"):
        known = [name for param in ctx.command.get_params(ctx) for name in param.opts]
        return unknown("option", error.option_name, known, path)
    param = getattr(error, "param", None)
    message = error.message.rstrip(".")
    if param is not None:
        name = max(param.opts, key=len) if param.param_type_name == "option" else argument_name(param)
        message = f"{name}: {message}" if message else f"{name} is missing"
    else:
        message = message[:1].lower() + message[1:]
    return UsageError(message, hint=f"`{path} --help` shows how it is used")


_PLACES = frozenset({"files", "store", "out", "into"})
"""Parameters that name files, which may have any bytes."""


def expect_utf8(ctx: Any) -> None:
    """Raises UsageError for the value of an option or argument that is not UTF-8, files aside."""
    for param in ctx.command.params:
        value = ctx.params.get(param.name)
        for text in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(text, str) and param.name not in _PLACES and not _is_utf8(text):
                shown = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
                name = param.opts[0] if param.param_type_name == "option" else argument_name(param)
                raise UsageError(f"{name} is not UTF-8: {shown}", hint="what is kept with the data is text")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

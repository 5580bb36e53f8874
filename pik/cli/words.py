"""The words of a command line, looked at before Typer parses them, where Typer would guess in silence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pik.errors import UsageError

COUNT = "\ue001"
"""Before an argument such as -1, so that it is not read as an option: a character for private use."""


_RIGHTMOST = ("limit",)
"""Options of which the rightmost counts, as of the global ones: an alias has one, and leaves no data out unsaid."""


def with_counts(args: Sequence[str], params: Sequence[Any]) -> list[str]:
    """Return the words of a command line with a mark before each argument that is a minus and a number."""
    with_value = _with_value(params)
    marked: list[str] = []
    for number, word in enumerate(args):
        if word == "--":
            return marked + list(args[number:])
        is_value = number > 0 and args[number - 1] in with_value
        marked.append(COUNT + word if re.fullmatch(r"-\d+", word, re.ASCII) and not is_value else word)
    return marked


def expect_values(args: Sequence[str], params: Sequence[Any], own: Sequence[Any], *, to_first_argument: bool) -> None:
    """Raise UsageError for an option whose value is missing, so that Typer would take the next option for it, and for
    one of the command's own options that has two values of which Typer would drop one.

    A script's `--entity $ID --newest` with an unset variable would ask about an entity named --newest. The words of a
    group end at its first argument, the name of the command.
    """
    known = {name for param in params for name in getattr(param, "opts", ())}
    first: dict[str, str] = {}
    for name, value, follows, param in _option_values(args, params, to_first_argument=to_first_argument):
        if follows and (value == "--" or value.partition("=")[0] in known):
            raise UsageError(
                f"{name} has no value: {value.partition('=')[0]}, which follows, is an option",
                hint=f"give it one (is a variable of the shell unset?); if that is the value: {name}={value}",
            )
        if not (param in own and not param.multiple and param.name not in _RIGHTMOST):
            continue
        if first.setdefault(param.name, value) != value:
            raise UsageError(
                f"{name} is given twice, as {first[param.name]!r} and {value!r}; it takes one",
                hint="run the command once for each; `--help` says which options are repeatable",
            )


def _option_values(
    args: Sequence[str], params: Sequence[Any], *, to_first_argument: bool
) -> Iterator[tuple[str, str, bool, Any]]:
    """Yield the options that have a value: the name as typed, the value, whether it is a word by itself, the option."""
    with_value = _with_value(params)
    words = iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--" or (to_first_argument and not word.startswith("-")):
            return
        if name in with_value:
            given = value if equals else next(words, None)
            if given is not None:  # without one, Typer complains
                yield name, given, not equals, with_value[name]


def _with_value(params: Sequence[Any]) -> dict[str, Any]:
    return {name: param for param in params for name in param.opts if not getattr(param, "is_flag", True)}

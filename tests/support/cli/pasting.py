"""Whether what pik suggests can be pasted into a shell as it stands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from pik.cli.app import root_command
from pik.cli.context import Context
from pik.errors import PikError


def command_of(words: list[str]) -> list[str]:
    """The words of the longest beginning that pik's own parser takes as a whole command line; none if there is none."""
    for end in range(len(words), 1, -1):
        if parses(words[:end]):
            return words[:end]
    return []


def parses(words: list[str]) -> bool:
    """Whether pik's own parser takes the words, `pik` and what follows, as a whole command line."""
    root = root_command()
    try:
        ctx = root.make_context("pik", words[1:], obj=Context())
        name, *rest = words[3:] if words[1] == "--store" else words[1:]
        one = root.get_command(ctx, name)
        while hasattr(one, "commands") and not (one.invoke_without_command and (not rest or rest[0].startswith("-"))):
            one = one.commands[rest.pop(0)]
        one.make_context(one.name, rest, parent=ctx)
    except (PikError, LookupError):
        return False
    return True


def expect_line(line: str) -> None:
    """The line is commands and nothing else: of pik, as its parser takes them, or of a shell, with one argument."""
    for part in line.split(" && "):
        words = shlex.split(part)
        if words[0] == "pik":
            assert parses(words), line
        elif words[:2] == ["mkdir", "-p"]:
            assert len(words) == 3, line
        else:
            assert len(words) == 2, line
            assert words[0] in ("cd", "export"), line


def suggested_lines(value: Any) -> Iterator[str]:
    """Each line of every `next` in a JSON value."""
    if isinstance(value, list):
        for one in value:
            yield from suggested_lines(one)
    elif isinstance(value, dict):
        if isinstance(value.get("next"), str):
            yield from value["next"].splitlines()
        for one in value.values():
            yield from suggested_lines(one)

"""TOML that people write: what cannot be read is named by its line, with how it is written."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from typing import Any

from pik.errors import InputError

_CURLY = str.maketrans(dict.fromkeys("“”„‟«»‘’‚‛", '"'))
_ENDS = "", '"""', "'''", "]", "]]", "]]]"
"""What ends a value that goes over several lines."""


def read_toml(text: str, name: str) -> dict[str, Any]:
    """Return the document. Raises InputError naming the file and the line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        pass
    lines = text.splitlines()
    number = bisect_left(range(1, len(lines) + 1), 1, key=lambda count: not _begins_well(lines[:count])) + 1
    if number > len(lines):
        raise InputError(f"{name} is not TOML: it ends inside of a text or a list", hint='what begins with """ ends so')
    line = lines[number - 1].strip()
    raise InputError(f"{name} is not TOML: line {number}: {line[:80]}", hint=_rewritten(line, text))


def _begins_well(lines: list[str]) -> bool:
    """Return whether TOML can begin so: it is whole, or with the end of a value that goes over several lines."""
    text = "\n".join(lines)
    return any(_is_toml(f"{text}\n{end}") for end in _ENDS)


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _rewritten(line: str, text: str) -> str:
    """Return how a line is written in TOML."""
    if text.lstrip().startswith(("{", "[{", "[\n")):
        return 'it looks like JSON; in TOML each field is on a line: name = "TEXT"'
    if (pair := re.fullmatch(r"(?:- )?([\w-]+):\s*(.*)", line)) is not None:
        return (
            f"""it looks like YAML; in TOML: {pair[1]} = {_quoted(pair[2].strip("'" + '"')) if pair[2] else "VALUE"}"""
        )
    if line.startswith("["):
        return "the name of a table stands in brackets, of one of several in two: [[metric]]"
    if _is_toml(line):
        return "its name was given before"
    pair = re.fullmatch(r"([\w-]+)\s*=\s*(.*)", line.translate(_CURLY))
    if pair is None:
        return 'each line is NAME = VALUE, a text in quotes: bucket = "1d"'
    if line != line.translate(_CURLY) and _is_toml(pair[0]):
        return f"with straight quotes: {pair[0]}"
    value = re.sub(r"^(['\"])(.*)\1$", r"\2", pair[2])
    return f"a text in quotes that are not in it: {pair[1]} = {_quoted(value or 'TEXT')}"


def _quoted(text: str) -> str:
    """Return the literal of a text that says it as it is."""
    mark = next((mark for mark in ('"', "'", "'''") if mark not in text), "'''")
    return f"{mark}{text}{mark}" if "\\" not in text or mark != '"' else f"'{text}'"

"""Errors as JSON on standard error, for programs that read results as JSON."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pik.config import Format, find, read
from pik.errors import PikError
from pik.model.visible import visible_json


class Failure(msgspec.Struct):
    """An error as programs read it. `kind` is the name of its class in words: `usage_error`, `not_found`, `busy`."""

    error: str
    hint: str | None
    kind: str
    exit_code: int


def wants_json(arguments: Sequence[str]) -> bool:
    """Return whether results are JSON or JSON lines: by the command line, else the environment, else pik.toml. A
    command line that is wrong is read as far as it can be."""
    chosen = _on_the_line(arguments) or os.environ.get("PIK_FORMAT") or _in_the_file()
    return chosen in (Format.JSON, Format.JSONL)


def json_text(error: PikError) -> str:
    """Return the error as one line of JSON."""
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
    message, hint = (text.encode(errors="backslashreplace").decode() for text in (error.message, error.hint))
    return visible_json(msgspec.json.encode(Failure(message, hint or None, kind, error.exit_code)).decode())


def _on_the_line(arguments: Sequence[str]) -> str | None:
    """Return the value of the last --format."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    chosen = None
    for number, word in enumerate(arguments[:end]):
        name, equals, value = word.partition("=")
        if name == "--format":
            chosen = value if equals else next(iter(arguments[number + 1 : number + 2]), None)
    return chosen


def _in_the_file() -> str | None:
    try:
        path = find(Path.cwd())
        return None if path is None else read(path).format
    except (PikError, OSError):
        return None

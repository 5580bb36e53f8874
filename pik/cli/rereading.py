"""The command that was given, as hints of the readers of its input name it."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from pik.cli.reading import ReadingOptions

if TYPE_CHECKING:
    from pik.cli.context import Context
    from pik.inputs.advice import CommandLine

_INPUTS = "files", "file", "against"
"""What the parameter is called that names the input."""

_READING = tuple(one.name for one in fields(ReadingOptions))

_GLOBAL = "store", "format", "quiet", "color", "no_pager", "display_timezone", "actor"
_NOT_AGAIN = {*_GLOBAL, "one_batch", *_INPUTS, *_READING}


def reading_command(cli: Context) -> CommandLine:
    """Return the command that was given, without its input and the global options."""
    from pik.inputs.advice import CommandLine

    typed = cli.typed
    others = [word for name, words in typed.items() if name not in _NOT_AGAIN for word in words]
    reading = [pair for name in _READING for pair in _pairs(typed.get(name, []))]
    path = tuple(cli.command_path.split()[1:])
    return CommandLine(
        (*path, *others),
        ("--against",) if "against" in typed else (),
        tuple(reading),
        frozenset(name.replace("_", "-") for name in cli.parameters & {*_READING, "on_invalid"}),
        named="records" not in cli.parameters or "name" in typed or "mapping" in typed,
        records=path == ("ingest",),
    )


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    return [(name.removeprefix("--"), value) for name, value in zip(words[::2], words[1::2], strict=True)]

"""Text for a terminal: how wide it is, where it is broken, and notes on standard error."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pik.errors import StoreError
from pik.model.visible import visible_lines


def cells(text: str) -> int:
    """Return how many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Return the text filled with spaces to that many columns."""
    gap = " " * (width - cells(text))
    return gap + text if right else text + gap


def broken(text: str, width: int) -> list[str]:
    """Return the text in lines of at most `width` columns, broken at spaces; inside of a word only if it fits no line,
    after a comma if there is one. What stands between backticks is a word: it is a command to paste."""
    lines = []
    text = _QUOTED.sub(lambda quoted: quoted[0].replace(" ", _JOINT), text)
    while cells(text) > width:
        cut = _fitting(text, width)
        space = text.rfind(" ", 0, cut + 1)
        word = text[space + 1 :].partition(" ")[0]
        fits = space > 0 and (space >= cut // 2 or cells(word) <= width)
        end = space if fits else text.rfind(",", cut // 2, cut) + 1 or cut
        lines.append(text[:end].rstrip())
        text = text[end:].lstrip()
    return [line.replace(_JOINT, " ") for line in (*lines, text)]


_QUOTED = re.compile("`[^`]*`")
_JOINT = "\ue000"
"""A space at which no line is broken: a character for private use, one column wide."""


def shortened(text: str, width: int) -> str:
    """Return the beginning of the text, with … where it has more than `width` columns."""
    return text if cells(text) <= width else text[: _fitting(text, width - 1)] + "…"


def _fitting(text: str, width: int) -> int:
    """Return how many characters fit into that many columns; at least one."""
    if text.isascii():
        return max(min(width, len(text)), 1)
    from rich.cells import chop_cells

    return max(len(chop_cells(text, max(width, 1))[0]), 1)


_held: list[str] | None = None
"""Notes that wait, while they do."""


def hold_notes() -> None:
    """Let notes wait: a pager has the terminal."""
    global _held
    _held = []


def release_notes() -> None:
    """Write the notes that have waited, and others at once again."""
    global _held
    waited, _held = _held or [], None
    for text in waited:
        note(text)


def note(text: str) -> None:
    """Write a line to standard error. That it cannot be written is not an error."""
    if _held is not None:
        _held.append(text)
        return
    try:
        print(visible_lines(text), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return


def write_out(text: str) -> None:
    """Write the text to standard output. Raises BrokenPipeError if the reader left, StoreError for other failures."""
    with writing_output():
        sys.stdout.write(text)


@contextmanager
def writing_output() -> Iterator[None]:
    """Turn errors of writing to standard output into StoreError, but for BrokenPipeError: the reader left."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        from pik.runtime.storage import room_hint

        raise StoreError(f"standard output: {error.strerror}", hint=room_hint(error)) from error


def terminal_width() -> int | None:
    """Return the columns of the terminal; None where standard output is none, so that nothing has to fit."""
    if not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns

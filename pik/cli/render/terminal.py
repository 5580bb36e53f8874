"""What is asked of the terminal, and the lines on standard error."""

from __future__ import annotations

import os
import sys

from pik.cli.render.text import visible_lines


def note(text: str) -> None:
    """One line on standard error. Nobody reading it is no error."""
    try:
        print(visible_lines(text), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return


def colours() -> bool:
    """Whether standard output is a terminal whose user did not object to colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def terminal_width() -> int | None:
    """The columns of the terminal; None where standard output is none, so that nothing has to fit."""
    if not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns

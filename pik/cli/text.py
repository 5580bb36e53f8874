"""Text for a terminal; of what strangers wrote nothing is obeyed and everything is seen."""

from __future__ import annotations

import os
import re
import sys
from functools import cache

# Controls (an escape sequence starts with one), line and paragraph separators, what reorders or hides, lone surrogates.
_HIDDEN = "\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
_CONTROLS = "\x00-\x1f"
_CONTROLS_IN_LINES = "\x00-\x08\x0b\x0c\x0e-\x1f"


@cache
def _unseen(controls: str) -> re.Pattern[str]:
    return re.compile(f"[{controls}{_HIDDEN}]")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name that is not UTF-8
        code -= 0xDC00
    known = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
    return known or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def visible(text: str) -> str:
    """The text on one line, with every character that would move, colour, reorder or hide shown as an escape."""
    return text if text.isascii() and text.isprintable() else _unseen(_CONTROLS).sub(_escape, text)


def visible_lines(text: str) -> str:
    """Return the text as `visible` does, but with its line breaks and tabs."""
    return _unseen(_CONTROLS_IN_LINES).sub(_escape, text)


def visible_json(text: str) -> str:
    """The same JSON, with those characters as JSON's own escapes."""
    return _unseen("").sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def cells(text: str) -> int:
    """Return how many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, width: int, *, right: bool = False) -> str:
    """The text filled with spaces to that many columns."""
    gap = " " * (width - cells(text))
    return gap + text if right else text + gap


def broken(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` columns, broken at spaces; inside of a word only if it fits no line, after
    a comma if there is one. What stands between backticks is a word: it is a command to paste."""
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
    """The beginning of the text, with … where it has more than `width` columns."""
    return text if cells(text) <= width else text[: _fitting(text, width - 1)] + "…"


def _fitting(text: str, width: int) -> int:
    """Return how many characters fit into that many columns; at least one."""
    if text.isascii():
        return max(min(width, len(text)), 1)
    from rich.cells import chop_cells

    return max(len(chop_cells(text, max(width, 1))[0]), 1)


def note(text: str) -> None:
    """Write a line to standard error. That it cannot be written is not an error."""
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

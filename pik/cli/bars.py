"""Numbers as bars, where they are a shape: in blocks of an eighth, or in ASCII where a terminal may lack those."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

WIDEST = 40
"""Columns of the longest bar on a terminal."""

PLAIN = 30
"""Columns of the longest bar where the width is not that of a terminal."""

NARROWEST = 10
"""Columns below which bars say nothing."""

_EIGHTHS = "▏▎▍▌▋▊▉"
_STEPS = "·▁▂▃▄▅▆▇█"
_DIGITS = ".123456789"


def blocks(stream: TextIO) -> bool:
    """Return whether bars may be made of block characters: through a pipe, which gets UTF-8, and on a terminal whose
    locale says UTF-8 and whose font has them."""
    if not stream.isatty():
        return True
    locale = next((value for name in ("LC_ALL", "LC_CTYPE", "LANG") if (value := os.environ.get(name))), "")
    return "utf8" in locale.lower().replace("-", "") and os.environ.get("TERM") != "linux"


def bar(value: int, most: int, width: int, stream: TextIO | None = None) -> str:
    """Return a bar for the value, `width` columns long for `most`, on the stream (None: standard output). Only 0 has
    none: a little is always seen."""
    if not blocks(stream or sys.stdout):
        return "#" * -(-value * width // most) if value else ""
    eighths = -(-value * width * 8 // most) if value else 0
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8 - 1] if eighths % 8 else "")


def spark(values: Sequence[int], stream: TextIO | None = None) -> str:
    """Return one character for each value, the highest for the largest one, on the stream (None: standard output). Only
    0 is a dot."""
    most = max(values, default=0)
    steps = _STEPS if blocks(stream or sys.stdout) else _DIGITS
    return "".join(steps[-(-value * (len(steps) - 1) // most) if value else 0] for value in values)


def axis(most: str, width: int) -> str:
    """Return the heading of bars: 0 at their beginning, and `most` where the longest one ends."""
    return f"0{most.rjust(width - 1)}" if len(most) < width - 1 else f"0 to {most}"

"""Whether the first row of a table names its columns: by how the names are written, and by the rows below."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

_NAME = re.compile(r"(?:[@$]?[^\W\d]|\ufffd)[\w .:/()%#$@&+*?'\[\]€£¥°²³\ufffd-]*")
"""What names a column, whatever is below; U+FFFD stands for a letter of another encoding than UTF-8."""

_KINDS = {
    "nothing": re.compile(r"|-+|n/?a|null|none|nil|nan|\\N", re.IGNORECASE),
    "number": re.compile(r"[^\w\s]{0,3}\s?\d[\d.,' ]*(?:[eE][+-]?\d+)?\s?[^\w\s]{0,2}"),
    "time": re.compile(
        r"\d{1,4}([-/.])(?:\d{1,2}|[a-z]{3,9})\1\d{1,4}\b.*|\d{1,2}:\d\d\b.*|(?:[a-z]{3,9},? )?\d{1,2} [a-z]{3,9} \d.*",
        re.IGNORECASE,
    ),
    "digit": re.compile(r"\d.*", re.DOTALL),
    "letter": re.compile(r"\w.*", re.DOTALL),
    "sign": re.compile(r".*", re.DOTALL),
}
"""What a cell can be, the first that fits: nothing, a number, a time, or a text that begins with a digit, a letter or
a sign."""

_IN_A_ROW = 3  # numbers that follow each other, at least, are names: of hours, days, weeks


def is_header(cells: Sequence[str], below: Sequence[Sequence[str]] = ()) -> bool:
    """Return whether a row looks like the names of columns, or differs from the rows below as names do.

    The first columns may have no name, as pandas and R write the numbers of rows, and the last, where each row ends in
    delimiters.
    """
    named = [cell.strip() for cell in cells]
    while len(named) > 1 and not (named[0] and named[-1]):
        named.pop(0 if named[-1] else -1)
    return all(map(_NAME.fullmatch, named)) or _differs(cells, below)


def _differs(cells: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Return whether the cells, which are all different, are of another kind than those below, and none is a number, a
    time or an odd text as they are. A year above what is none, and numbers that follow each other, are names too."""
    rows = [[cell.strip() for cell in row] for row in below if len(row) == len(cells)]
    named = [cell.strip() for cell in cells]
    if not rows or len(set(named)) < len(named):
        return False
    counted = set(_following(named)) if not all(map(_following, rows)) else set()
    found = bool(counted)
    for place, cell in enumerate(named):
        under = [row[place] for row in rows]
        kind, kinds = _kind(cell), {*map(_kind, under)} - {"nothing"}
        if kind == "nothing":
            if place not in (0, len(named) - 1):
                return False
        elif kind not in kinds:
            found = found or len(kinds) == 1
        elif _is_year(cell):
            found = found or not any(map(_is_year, under))
        elif kind != "letter" and cell not in counted:
            return False
    return found


def _is_year(cell: str) -> bool:
    return re.fullmatch("(?:19|20)[0-9]{2}", cell) is not None


def _kind(cell: str) -> str:
    return next(kind for kind, pattern in _KINDS.items() if pattern.fullmatch(cell))


def _following(cells: Sequence[str]) -> list[str]:
    """Return the numbers of a row where there are some, and each is one more than the one before."""
    numbers = [cell for cell in cells if re.fullmatch(r"\d{1,4}", cell, re.ASCII)]
    is_one_more = all(int(after) == int(before) + 1 for before, after in pairwise(numbers))
    return numbers if len(numbers) >= _IN_A_ROW and is_one_more else []

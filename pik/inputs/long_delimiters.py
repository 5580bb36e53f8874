"""Tables whose cells are divided by several characters, such as `~|~`, or by those that ASCII has for it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from pik.inputs.advice import Advice, Read

_MARKS = re.compile(r"[|~^;,:#!@$%&*§¦]{2,5}")
_LOOKED_AT = 20


def long_delimiter(filled: Sequence[str]) -> tuple[str, Advice] | None:
    """Recognize rows with the same characters, several of them, as often in each: in a sentence, and with what makes
    tabs of them."""
    lines = [line.rstrip("\r") for line in filled[:_LOOKED_AT]]
    if len(lines) < 2 or any("\t" in line for line in lines):
        return None
    first, *others = [Counter(_MARKS.findall(line)) for line in lines]
    for marks, count in first.items():
        if not _are_empty_cells(marks, lines) and all(one[marks] == count for one in others):
            divided = "".join("\\^" if mark == "^" else f"[{mark}]" for mark in marks)
            convert = f"awk -F '{divided}' -v OFS='\\t' '{{$1=$1}} 1' {{file}}"
            return f"a table with {marks} between its cells", Advice(("with tabs instead: ", _tabs(convert)))
    return None


def unit_separated(text: str) -> tuple[str, Advice] | None:
    """Recognize rows that end in the record separator of ASCII, and cells in its unit separator."""
    if "\x1f" not in text or "\x1e" not in text or "\t" in text:
        return None
    convert = "tr '\\036\\037' '\\n\\t' < {file}"
    return "a table with ASCII's separators of records and units", Advice(("as lines with tabs: ", _tabs(convert)))


def _are_empty_cells(marks: str, lines: Sequence[str]) -> bool:
    """Return whether the characters are delimiters of single characters, with nothing between them."""
    is_repeated = len(set(marks)) == 1
    return set(marks) <= set(",;") or (
        is_repeated and (len(marks) > 2 or any(marks[0] in line.replace(marks, "") for line in lines))
    )


def _tabs(convert: str) -> Read:
    return Read((), convert, guess=True)

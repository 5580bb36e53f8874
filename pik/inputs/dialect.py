"""How a table uses quotes and backslashes, as far as its first rows show it: what is proposed, never taken unasked."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from itertools import islice

from pik.errors import InputError, UsageError
from pik.inputs import csv_rows
from pik.inputs.advice import Advice, Option, Options
from pik.inputs.divided_rows import ESCAPE, NULL
from pik.model.layout import NONE, InputFormat, Layout

_RUN = re.compile(r"\\(.?)", re.DOTALL)
_WRITTEN = frozenset("\\bfnrtv0N")
"""What stands after a backslash where quotes are not used."""


def with_dialect(layout: Layout, head: bytes, whole: bool) -> Layout:
    """Return the layout of a table with the quotes and the escape that its head shows, where these are not given."""
    lines = (head if whole else head[: head.rfind(b"\n") + 1]).removeprefix(b"\xef\xbb\xbf")
    text = lines.decode(errors="replace")
    if b"\\" not in lines and b'"' not in lines:
        return layout
    delimiter = layout.delimiter or ("\t" if layout.format == InputFormat.TSV else ",")
    plain = [line.rstrip("\r").split(delimiter) for line in text.split("\n") if line.strip()]
    if layout.escape is None and _escapes(layout, text, lines, delimiter, plain):
        layout = replace(layout, escape=ESCAPE)
    if layout.quote is None and (layout.escape == ESCAPE or delimiter == "\t"):
        quoted, unquoted = _problems(layout, lines), _problems(replace(layout, quote=NONE), lines)
        undecided = quoted == unquoted and layout.escape == ESCAPE and not _encloses(plain)
        if unquoted < quoted or undecided:
            layout = replace(layout, quote=NONE)
    return layout


def expect_dialect(layout: Layout, head: bytes, whole: bool, name: str) -> None:
    """Raise UsageError where a table's head shows quotes or an escape that the layout does not have."""
    shown = with_dialect(layout, head, whole)
    if shown == layout:
        return
    found = Layout(quote=None if layout.quote else shown.quote, escape=None if layout.escape else shown.escape)
    options = Options(tuple(Option(name, text) for name, text in found.given.items()))
    if shown.escape == layout.escape:
        hint = Advice((options, " reads them so, ", Option("quote", '"'), " as what encloses cells"))
        raise UsageError(f"the first rows of {name} have quotes that are characters like all others", hint=hint)
    hint = Advice((options, " reads them as databases write them, ", Option("escape", NONE), " as characters"))
    raise UsageError(f"the first rows of {name} have backslashes that escape", hint=hint)


def _escapes(layout: Layout, text: str, lines: bytes, delimiter: str, plain: list[list[str]]) -> bool:
    """Return whether backslashes escape: before a line end or a delimiter, as a cell without a value, doubled."""
    if csv_rows.escaped_border(delimiter).search(lines):
        return True
    if '\\"' in text and _problems(replace(layout, escape=ESCAPE), lines) < _problems(layout, lines):
        return True
    if _encloses(plain) if delimiter == "\t" else '"' in text:
        return False  # where cells are in quotes, it is mostly these that matter
    if layout.null != NULL and NULL in {cell for row in plain for cell in row}:
        return True
    return delimiter == "\t" and "\\\\" in text and _WRITTEN.issuperset(_RUN.findall(text))


def _problems(layout: Layout, lines: bytes) -> int:
    """Return how many rows at a table's beginning are problems if it is read so."""
    try:
        found = csv_rows.blocks(io.BytesIO(lines), "", layout, max_line=len(lines) + 1)
        return sum(len(block.problems) for block in islice(found, 1))
    except InputError:
        return len(lines)


def _encloses(plain: list[list[str]]) -> bool:
    """Return whether there is a column, under its header, in which each cell with a value is in quotes."""
    rows = [row for row in plain[1:] if len(row) == len(plain[0])]
    for column in zip(*rows, strict=True):
        filled = [cell for cell in column if cell not in ("", NULL)]
        if filled and all(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in filled):
            return True
    return False

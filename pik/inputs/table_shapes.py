"""Tables, recognized by their first rows, with the options that read them."""

from __future__ import annotations

import re
from dataclasses import replace

from pik.errors import is_pipe, number_of
from pik.inputs.advice import STANDARD_INPUT, Advice, Option, Read, Shape, piped
from pik.inputs.csv_rows import DELIMITERS, WITH_LINE_FEEDS, delimiter_of, head_rows, table
from pik.inputs.dialect import with_dialect
from pik.inputs.divided_rows import ESCAPE
from pik.inputs.header import is_header
from pik.inputs.long_delimiters import long_delimiter
from pik.model.layout import AUTO, NONE, Layout

_PREAMBLE = 30
"""Lines before a table that are looked past, at most."""

_FEWEST = 2
"""Names, and rows, of a table whose header does not fit, at least."""

_SEP = "sep="
"""How Excel's line about the delimiter begins."""

_BEFORE = _SEP, "#", '"'
"""How such lines begin, whatever the file's name."""


def recognize_table(text: str, name: str, whole: bool) -> Layout | Shape | None:
    """Recognize rows of as many cells: a header and a row, or three rows; and any text that is named .csv or .tsv."""
    delimiter, rows = (None, []) if text.startswith(_SEP) else _rows(text, whole)
    if delimiter is not None and any(any(row[1:]) for row in rows):  # others are statements, of SQL or of C
        first, *others = rows
        if "\n" not in text and "\r" in text.rstrip():
            what = f"{_format(delimiter)} whose lines end in a carriage return alone"
            return Shape(what, piped(WITH_LINE_FEEDS, guess=True))
        if is_header(first, others):
            return table(delimiter)
        if text.startswith("#") and (later := _after_lines(text, whole)) is not None:
            return later
        if len(others) > 1:
            apart = long_delimiter(text.split("\n")[:-1])
            return Shape(*apart) if apart else table_without_header(delimiter, len(first), text, whole)
    named = re.search(r"\.(csv|tsv)(\.\w+)?$", name.lower())
    looked_past = named or name == STANDARD_INPUT or is_pipe(name) or text.startswith(_BEFORE)
    if delimiter is None and looked_past and (later := _after_lines(text, whole)) is not None:
        return later
    if delimiter is None and (odd := _odd_header(text, whole)) is not None:
        return odd
    usual = "\t" if named and named[1] == "tsv" else ","
    divided = (head_rows(text, mark, whole=whole) for mark in DELIMITERS if mark != usual)
    if delimiter is None and any(len(rows) > 1 and min(map(len, rows)) > _FEWEST for rows in divided):
        return None  # of several cells, by another delimiter, and never as many: a pattern reads them
    return table(usual) if named else None


def _after_lines(text: str, whole: bool) -> Shape | None:
    """Recognize a table after some lines of another kind: what Excel's `sep=;` or a report's title are."""
    for number in range(1, _PREAMBLE + 1):
        text = text.partition("\n")[2]
        delimiter = delimiter_of(text, whole=whole)
        first, *others = head_rows(text, delimiter, whole=whole) if delimiter is not None else [[]]
        if delimiter is not None and is_header(first, others):
            what = f"{_format(delimiter)} after {number_of(number, 'other line')}"
            rest = Read(_options(table(delimiter)), f"tail -n +{number + 1} {{file}}", guess=True)
            return Shape(what, Advice(("cut off what is not of the table: ", rest)))
    return None


def _odd_header(text: str, whole: bool) -> Shape | None:
    """Recognize a table whose header has one name less, or more, than each row has cells: of rows that end in a
    delimiter, or a header that does, or rows whose numbers have no name, as R writes them."""
    for delimiter in DELIMITERS:
        first, *others = head_rows(text, delimiter, whole=whole) or [[]]
        cells = {*map(len, others)}
        if len(others) < _FEWEST or len(first) < _FEWEST or len(cells) > 1 or not is_header(first):
            continue
        more = min(cells) - len(first)
        mark = delimiter.replace("\t", r"\t")
        if more == 1:
            edit = f"^/{mark}" if any(row[-1] for row in others) else rf"(\r?)$/{mark}\1"
        elif more == -1 and not first[-1].strip():
            edit = rf"[{mark}](\r?)$/\1"
        else:
            continue
        what = f"{_format(delimiter)} whose header has {len(first)} names, and whose rows have {min(cells)} cells"
        rest = Read(convert=f"sed -E '1s/{edit}/' {{file}}", guess=True)
        return Shape(what, Advice(("with a header of as many: ", rest)))
    return None


def _format(delimiter: str) -> str:
    return str(table(delimiter).format).upper()


def _rows(text: str, whole: bool) -> tuple[str | None, list[list[str]]]:
    """Return the delimiter of a table and its first rows, which may have escapes; None where it is not one."""
    for layout in (AUTO, _UNQUOTED, _ENCLOSED):
        delimiter = delimiter_of(text, layout, whole=whole)
        if delimiter is None or (layout == _UNQUOTED and delimiter != "\t"):
            continue
        rows = head_rows(text, delimiter, layout, whole=whole)
        if layout != _ENCLOSED or ('\\"' in text and is_header(rows[0], rows[1:])):
            return delimiter, rows
    return None, []


_UNQUOTED, _ENCLOSED = Layout(quote=NONE, escape=ESCAPE), Layout(escape=ESCAPE)


def table_without_header(delimiter: str, cells: int, text: str, whole: bool) -> Shape:
    layout = replace(table(delimiter), columns=tuple(f"c{number}" for number in range(1, cells + 1)))
    named = Read(_options(with_dialect(layout, text.encode(), whole)), guess=True)
    names = "if its first row has the names, add ", Option("input", str(layout.format))
    return Shape(f"{_format(delimiter)} without a header", Advice(names, ("else name its columns: ", named)))


def _options(layout: Layout) -> tuple[Option, ...]:
    return tuple(Option(name, text) for name, text in layout.given.items())

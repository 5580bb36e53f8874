"""Tables and Markdown: the same values for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice, zip_longest
from typing import Any

from pik.cli.render.document import Column, Document, Table
from pik.cli.render.terminal import colours, terminal_width
from pik.cli.render.text import broken, cells, padded, shortened, visible
from pik.cli.render.values import Shown, is_number, words

Write = Callable[[str], object]

SAMPLE = 500
"""Rows that are looked at for the widths of the columns; those after them are written as they come."""

_GAP = "  "
_NARROWEST = 24
"""Columns of a terminal below which free text is not worth breaking."""


def write(document: Document, out: Write, *, markdown: bool) -> None:
    """Head, tables, tail, with an empty line between them."""
    fields, table = (_markdown_fields, _markdown_table) if markdown else (_fields, _table)
    before = ""
    if document.head:
        fields(document.head, out)
        before = "\n"
    for one in document.tables:
        out(before)
        if len(document.tables) > 1:
            title = _label(one.name)
            out(f"## {title}\n\n" if markdown else f"{_bold(title.upper())}\n")
        table(one, out)
        before = "\n"
    tail = document.end()
    if any(value is not None for value in tail.values()):
        out(before)
        fields(tail, out)


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if colours() else text


def _label(name: str) -> str:
    return visible(name.replace("_", " "))


def _shown(fields: Mapping[str, object]) -> dict[str, str]:
    return {_label(name): words(value) for name, value in fields.items() if value is not None}


def _fields(fields: Mapping[str, object], out: Write) -> None:
    shown = _shown(fields)
    width = max(map(cells, shown), default=0)
    limit = terminal_width()
    for (name, text), value in zip(shown.items(), filter(_is_there, fields.values()), strict=True):
        # A text stays in one piece, however long: it may be a command to paste.
        breakable = (
            limit is not None and limit - width > _NARROWEST and isinstance(value, (Mapping, list, tuple, Shown))
        )
        lines = text.split("\n")
        if limit is not None and breakable:
            lines = [part for line in lines for part in broken(line, limit - width - len(_GAP))]
        _field(name, lines, width, out)


def _field(name: str, lines: Sequence[str], width: int, out: Write) -> None:
    for number, line in enumerate(lines):
        label = padded("" if number else name, width)
        out(f"{label if number else _bold(label)}{_GAP}{line}\n")


def _is_there(value: object) -> bool:
    return value is not None


def _markdown_fields(fields: Mapping[str, object], out: Write) -> None:
    for name, value in _shown(fields).items():
        out(f"- **{_markdown(name)}**: {_markdown(value)}\n")


def _markdown(text: str) -> str:
    """The text without meaning in Markdown: it stays what it is in a table's cell, and is no link and no HTML."""
    return re.sub(r"([\\|<*`]|(?<=\])\()", r"\\\1", text).replace("\n", "<br>")


class _Rows:
    """A table's rows as texts, the first of them looked at in advance."""

    def __init__(self, table: Table) -> None:
        self.columns = [column for column in table.columns if not column.detail]
        rows = iter(table.rows)
        self._sample = [self._values(row) for row in islice(rows, SAMPLE)]
        self.empty = not self._sample
        self._rest = rows
        self.right = [self._is_right(number) for number in range(len(self.columns))]
        self.widths = [
            max(chain([cells(_label(column.name))], (_widest(words(values[number])) for values in self._sample)))
            for number, column in enumerate(self.columns)
        ]

    def _values(self, row: Any) -> list[object]:
        return [column.value(row) for column in self.columns]

    def _is_right(self, number: int) -> bool:
        known = [values[number] for values in self._sample if values[number] is not None]
        return bool(known) and all(map(is_number, known))

    @property
    def labels(self) -> list[str]:
        return [_label(column.name) for column in self.columns]

    def __iter__(self) -> Iterator[list[str]]:
        for values in chain(self._sample, map(self._values, self._rest)):
            yield [words(value) for value in values]


def _widest(text: str) -> int:
    return max(map(cells, text.split("\n")))


def _markdown_table(table: Table, out: Write) -> None:
    rows = _Rows(table)
    if rows.empty and table.empty:
        out(f"{_markdown(table.empty)}\n")
        return
    out(f"| {' | '.join(rows.labels)} |\n")
    out(f"| {' | '.join('--:' if right else '---' for right in rows.right)} |\n")
    for texts in rows:
        out(f"| {' | '.join(map(_markdown, texts))} |\n")


def _table(table: Table, out: Write) -> None:
    rows = _Rows(table)
    if rows.empty:
        out(f"{table.empty or 'none'}\n")
        return
    widths = _fitted(rows.columns, rows.widths, terminal_width())
    if widths is None:
        _records(rows, out)
        return
    out(_bold(_line(rows.labels, widths, rows.right)) + "\n")
    narrowed = [width < whole for width, whole in zip(widths, rows.widths, strict=True)]
    for texts in rows:
        cells_of_row = [
            _lines(column, text, width if less else None)
            for column, text, width, less in zip(rows.columns, texts, widths, narrowed, strict=True)
        ]
        for line in zip_longest(*cells_of_row, fillvalue=""):
            out(_line(line, widths, rows.right) + "\n")


def _fitted(columns: Sequence[Column], widths: Sequence[int], limit: int | None) -> list[int] | None:
    """Widths with which a row fits the terminal, text cut or broken if need be; None where nothing helps."""
    fitting = list(widths)
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - (limit or 0)
    if limit is None or excess <= 0:
        return fitting
    for number in reversed(range(len(columns))):
        if columns[number].cut and excess > 0:
            given = min(excess, max(0, fitting[number] - columns[number].cut))
            fitting[number] -= given
            excess -= given
    return fitting if excess <= 0 else _with_free_text_broken(columns, fitting, excess)


def _with_free_text_broken(columns: Sequence[Column], widths: list[int], excess: int) -> list[int] | None:
    free = [number for number, column in enumerate(columns) if column.wrap and widths[number] > _NARROWEST]
    left = sum(widths[number] for number in free) - excess
    if not free or left < _NARROWEST * len(free):
        return None
    share = left // len(free)
    return [min(width, share) if number in free else width for number, width in enumerate(widths)]


def _lines(column: Column, text: str, width: int | None) -> list[str]:
    """The text in lines that fit; None where the terminal is wide enough for it, or none at all."""
    if width is None:
        return text.split("\n")
    if column.cut:
        return [shortened(line, width) for line in text.split("\n")]
    return [part for line in text.split("\n") for part in broken(line, width)]


def _line(texts: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    columns = zip(texts, widths, right, strict=True)
    return _GAP.join(padded(text, width, right=to_right) for text, width, to_right in columns).rstrip()


def _records(rows: _Rows, out: Write) -> None:
    """A field a line: for rows that are wider than the terminal, so that nothing is cut but what may be."""
    width = max(map(len, rows.labels))
    room = (terminal_width() or 0) - width - len(_GAP)
    before = ""
    for texts in rows:
        out(before)
        for column, label, text in zip(rows.columns, rows.labels, texts, strict=True):
            _field(label, _lines(column, text, max(room, _NARROWEST) if column.cut else None), width, out)
        before = "\n"

"""Tables and Markdown: the same values for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from pik.cli.render.document import Column, Document, Table
from pik.cli.render.output import colours, terminal_width
from pik.cli.render.text import broken, cells, padded, visible
from pik.cli.render.values import is_number, words

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
            out(f"## {one.name}\n\n" if markdown else f"{_bold(one.name.upper())}\n")
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
    for name, value in shown.items():
        out(f"{_bold(padded(name, width))}{_GAP}{value}\n")


def _markdown_fields(fields: Mapping[str, object], out: Write) -> None:
    for name, value in _shown(fields).items():
        out(f"- **{_markdown(name)}**: {_markdown(value)}\n")


def _markdown(text: str) -> str:
    """The text without meaning in Markdown: it stays what it is in a table's cell, and is no link and no HTML."""
    return re.sub(r"([\\|<*`]|(?<=\])\()", r"\\\1", text)


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
            max(chain([cells(_label(column.name))], (cells(words(values[number])) for values in self._sample)))
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
        _records(rows.labels, rows, out)
        return
    out(_bold(_line(rows.labels, widths, rows.right)) + "\n")
    wrapped = [
        number for number, column in enumerate(rows.columns) if column.wrap and widths[number] < rows.widths[number]
    ]
    for texts in rows:
        for line in _broken(texts, widths, wrapped):
            out(_line(line, widths, rows.right) + "\n")


def _fitted(columns: Sequence[Column], widths: Sequence[int], limit: int | None) -> list[int] | None:
    """Widths with which a row fits the terminal, free text broken if need be; None where nothing helps."""
    total = sum(widths) + len(_GAP) * (len(widths) - 1)
    if limit is None or total <= limit:
        return list(widths)
    free = [number for number, column in enumerate(columns) if column.wrap and widths[number] > _NARROWEST]
    left = limit - (total - sum(widths[number] for number in free))
    if not free or left < _NARROWEST * len(free):
        return None
    share = left // len(free)
    return [min(width, share) if number in free else width for number, width in enumerate(widths)]


def _broken(texts: list[str], widths: Sequence[int], wrapped: Sequence[int]) -> Iterable[list[str]]:
    if not wrapped:
        return [texts]
    parts = {number: broken(texts[number], widths[number]) for number in wrapped}
    return [
        [
            (parts[number][line] if line < len(parts[number]) else "")
            if number in parts
            else (text if line == 0 else "")
            for number, text in enumerate(texts)
        ]
        for line in range(max(map(len, parts.values())))
    ]


def _line(texts: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    columns = zip(texts, widths, right, strict=True)
    return _GAP.join(padded(text, width, right=to_right) for text, width, to_right in columns).rstrip()


def _records(labels: Sequence[str], rows: Iterable[list[str]], out: Write) -> None:
    """A field a line: for rows that are wider than the terminal, so that nothing is cut."""
    width = max(map(len, labels))
    before = ""
    for texts in rows:
        out(before)
        for label, text in zip(labels, texts, strict=True):
            out(f"{_bold(label.ljust(width))}{_GAP}{text}\n")
        before = "\n"

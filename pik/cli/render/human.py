"""Tables and Markdown: the same values for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice, zip_longest
from typing import Any

from pik.cli.render.document import Column, Document, Table
from pik.cli.render.layout import GAP, Layout, laid_out, lines_of, terse
from pik.cli.render.terminal import colours, terminal_width
from pik.cli.render.text import broken, cells, padded, visible
from pik.cli.render.values import Bucket, Lines, Shown, words
from pik.model.instant import DAY

Write = Callable[[str], object]

SAMPLE = 500
"""Rows that are looked at for the widths of the columns; those after them are written as they come."""

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
        breakable = isinstance(value, (Mapping, list, tuple, Shown)) and not isinstance(value, Lines)
        breakable = breakable and limit is not None and limit - width > _NARROWEST
        lines = text.split("\n")
        if limit is not None and breakable:
            lines = [part for line in lines for part in broken(line, limit - width - len(GAP))]
        _field(name, lines, width, out)


def _field(name: str, lines: Sequence[str], width: int, out: Write) -> None:
    for number, line in enumerate(lines):
        label = padded("" if number else name, width)
        out(f"{label if number else _bold(label)}{GAP}{line}\n")


def _is_there(value: object) -> bool:
    return value is not None


def _markdown_fields(fields: Mapping[str, object], out: Write) -> None:
    for name, value in _shown(fields).items():
        out(f"- **{_markdown(name)}**: {_markdown(value)}\n")


def _markdown(text: str) -> str:
    """The text without meaning in Markdown: it stays what it is in a table's cell, and is no link and no HTML."""
    return re.sub(r"([\\|<*`]|(?<=\])\()", r"\\\1", text).replace("\n", "<br>")


class _Rows:
    """A table's rows, the first of them looked at in advance."""

    def __init__(self, table: Table) -> None:
        self._rest = iter(table.rows)
        first = list(islice(self._rest, SAMPLE))
        self.columns = [
            column
            for column in table.columns
            if not column.detail and (not column.rare or any(column.value(row) is not None for row in first))
        ]
        self.labels = [_label(column.name) for column in self.columns]
        self.sample = [self._values(row) for row in first]
        self.empty = not self.sample
        self.whole = len(self.sample) < SAMPLE

    def _values(self, row: Any) -> list[object]:
        return [column.value(row) for column in self.columns]

    def __iter__(self) -> Iterator[list[object]]:
        return chain(self.sample, map(self._values, self._rest))

    def layout(self, texts: Sequence[Sequence[str]], limit: int | None) -> Layout:
        """How they fit a terminal of `limit` columns, or with None how wide they are."""
        return laid_out(
            self.columns,
            self.labels,
            self.sample,
            texts,
            whole=self.whole and limit is not None,
            limit=_ENDLESS if limit is None else limit,
        )


_ENDLESS = 1 << 30


def _markdown_table(table: Table, out: Write) -> None:
    rows = _Rows(table)
    if rows.empty and table.empty:
        out(f"{_markdown(table.empty_text)}\n")
        return
    right = rows.layout([], None).right
    out(f"| {' | '.join(rows.labels)} |\n")
    out(f"| {' | '.join('--:' if to_right else '---' for to_right in right)} |\n")
    for values in rows:
        out(f"| {' | '.join(_markdown(words(value)) for value in values)} |\n")


def _table(table: Table, out: Write) -> None:
    rows = _Rows(table)
    if rows.empty:
        out(f"{table.empty_text or 'none'}\n")
        return
    limit = terminal_width()
    days = [all(_is_day(values[number]) for values in rows.sample) for number in range(len(rows.columns))]

    def texts_of(values: Sequence[object]) -> list[str]:
        if limit is None:
            return [words(value) for value in values]
        return [terse(value, days=of_days) for value, of_days in zip(values, days, strict=True)]

    sample = [texts_of(values) for values in rows.sample]
    layout = rows.layout(sample, limit)
    if layout.shared:
        shared = ", ".join(f"{rows.labels[number]} {sample[0][number]}" for number in layout.shared)
        _sentence(f"same in all rows: {shared}", limit, out)
    out(_bold(_line([rows.labels[number] for number in layout.shown], layout)) + "\n")
    for values in rows:
        texts = texts_of(values)
        _row([texts[number] for number in layout.shown], rows.columns, layout, out)
    cut = [
        number for number, less in zip(layout.shown, layout.narrowed, strict=True) if less and rows.columns[number].cut
    ]
    lacking = {"no room for": layout.left_out, "cut": cut}
    parts = [
        f"{what}: {', '.join(rows.labels[one] for one in numbers)}" for what, numbers in lacking.items() if numbers
    ]
    if parts:
        _sentence(f"{'; '.join(parts)} (a wider terminal, a pipe or --format json shows all)", limit, out)


def _is_day(value: object) -> bool:
    return not isinstance(value, Bucket) or value.nanos % DAY == 0


def _sentence(text: str, limit: int | None, out: Write) -> None:
    for line in [text] if limit is None else broken(text, max(limit, 1)):
        out(f"{line}\n")


def _row(texts: Sequence[str], columns: Sequence[Column], layout: Layout, out: Write) -> None:
    parts = zip(layout.shown, texts, layout.widths, layout.narrowed, strict=True)
    cells_of_row = [lines_of(columns[number], text, width if less else None) for number, text, width, less in parts]
    for line in zip_longest(*cells_of_row, fillvalue=""):
        out(_line(line, layout) + "\n")


def _line(texts: Sequence[str], layout: Layout) -> str:
    columns = zip(texts, layout.widths, layout.right, strict=True)
    return GAP.join(padded(text, width, right=to_right) for text, width, to_right in columns).rstrip()

"""Tables and Markdown: the same values for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice, zip_longest
from typing import Any

import msgspec

from pik.cli.document import Column, Document, Table
from pik.cli.text import broken, cells, colours, padded, shortened, terminal_width, visible
from pik.cli.values import Bucket, EventId, Lines, Moment, Shown, is_number, words
from pik.model.instant import DAY, SECOND, Window, format_instant

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
    """The text without meaning in Markdown: it stays what it is in a table's cell, and is neither a link nor HTML."""
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


GAP = "  "

_NARROWEST = 20
"""Columns of a terminal below which free text is not worth breaking."""

_SHORT_ID = 16


def terse(value: object, *, days: bool) -> str:
    """The value for people on a terminal; `days`: all buckets of its column begin at midnight."""
    if isinstance(value, EventId):
        return words(value.text[:_SHORT_ID])
    if isinstance(value, Bucket):
        text = format_instant(value.nanos)
        if days and value.nanos % DAY == 0:
            return text[:10]
        return text.removesuffix(":00Z") + "Z" if text.endswith(":00Z") else text
    if isinstance(value, Moment):
        return format_instant(value.nanos - value.nanos % SECOND)
    if isinstance(value, Window) and value.start % DAY == value.end % DAY == 0:
        return str(value).replace("T00:00:00Z", "")
    return words(value)


class Layout(msgspec.Struct, frozen=True):
    """The columns that are shown, by number, with their widths; what all rows share, and what there is no room for.

    `narrowed` is whether in each shown column texts must be broken or cut to fit.
    """

    shown: Sequence[int]
    widths: Sequence[int]
    narrowed: Sequence[bool]
    right: Sequence[bool]
    shared: Sequence[int]
    left_out: Sequence[int]


def laid_out(
    columns: Sequence[Column],
    labels: Sequence[str],
    values: Sequence[Sequence[object]],
    texts: Sequence[Sequence[str]],
    *,
    whole: bool,
    limit: int,
) -> Layout:
    """The layout for a terminal of `limit` columns, by a sample of the rows, which are all of them if `whole`."""
    natural = [
        max(chain([cells(labels[number])], (_widest(row[number]) for row in texts))) for number in range(len(columns))
    ]
    shared = _shared([list(map(words, row)) for row in values]) if whole else []
    shown = [number for number in range(len(columns)) if number not in shared]
    left_out: list[int] = []
    while (widths := _fitted(shown, columns, natural, limit)) is None and len(shown) > 1:
        worst = max(shown[1:], key=lambda number: (columns[number].drop, number))
        shown.remove(worst)
        left_out.append(worst)
    widths = widths or [min(natural[shown[0]], limit)]
    return Layout(
        shown=shown,
        widths=widths,
        narrowed=[width < natural[number] for number, width in zip(shown, widths, strict=True)],
        right=[_is_right(values, number) for number in shown],
        shared=shared,
        left_out=sorted(left_out),
    )


def _widest(text: str) -> int:
    return max(map(cells, text.split("\n")))


def _shared(texts: Sequence[Sequence[str]]) -> list[int]:
    """The columns that have one value in all of several rows; not all columns."""
    if len(texts) < 2:
        return []
    first = texts[0]
    found = [number for number in range(len(first)) if all(row[number] == first[number] for row in texts)]
    return found if len(found) < len(first) else found[1:]


def _is_right(values: Sequence[Sequence[Any]], number: int) -> bool:
    known = [row[number] for row in values if row[number] is not None]
    return bool(known) and all(map(is_number, known))


def _fitted(shown: Sequence[int], columns: Sequence[Column], natural: Sequence[int], limit: int) -> list[int] | None:
    """Widths with which a row fits the terminal, texts cut or broken if need be; None if it cannot."""
    widths = [natural[number] for number in shown]
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - limit
    for place in reversed(range(len(shown))):
        if excess > 0 and columns[shown[place]].cut:
            given = min(excess, max(0, widths[place] - columns[shown[place]].cut))
            widths[place] -= given
            excess -= given
    if excess <= 0:
        return widths
    free = [place for place, number in enumerate(shown) if columns[number].wrap and widths[place] > _NARROWEST]
    left = sum(widths[place] for place in free) - excess
    if not free or left < _NARROWEST * len(free):
        return None
    return _shared_out(widths, free, left)


def _shared_out(widths: list[int], free: Sequence[int], room: int) -> list[int]:
    """The widths with `room` shared by those that are free: none gets more than it needs."""
    fitting = list(widths)
    for done, place in enumerate(sorted(free, key=lambda place: widths[place])):
        fitting[place] = min(widths[place], room // (len(free) - done))
        room -= fitting[place]
    return fitting


def lines_of(column: Column, text: str, width: int | None) -> list[str]:
    """The text of a cell in lines that fit; None where there is room for it as it is."""
    lines = text.split("\n")
    if width is None:
        return lines
    if column.wrap:
        return [part for line in lines for part in broken(line, width)]
    return [shortened(line, width) for line in lines]

"""Tables and Markdown: the same values for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice, zip_longest
from typing import Any

import msgspec

from pik.cli.bars import NARROWEST, PLAIN, WIDEST, axis, bar
from pik.cli.colour import Role, colours, painted, role_of
from pik.cli.document import Column, Document, Fold, Table
from pik.cli.text import broken, cells, padded, shortened, terminal_width
from pik.cli.values import Bucket, Count, EventId, Lines, Moment, Shown, is_number, words
from pik.model.instant import DAY, SECOND, display_instant
from pik.model.visible import visible
from pik.model.window import Window
from pik.ports.report import Grid, Heading

Write = Callable[[str], object]

SAMPLE = 500
"""Rows that are looked at for the widths of the columns; those after them are written as they come."""


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
            out(f"## {title}\n\n" if markdown else f"{_heading(title.upper())}\n")
        table(one, out)
        before = "\n"
    tail = document.end()
    if any(value is not None for value in tail.values()):
        out(before)
        fields(tail, out)


def _heading(text: str) -> str:
    return painted(text, Role.HEADING)


def _label(name: str) -> str:
    return visible(name.replace("_", " "))


def _fields(fields: Mapping[str, object], out: Write) -> None:
    shown = {name: value for name, value in fields.items() if value is not None}
    width = max((cells(_label(name)) for name in shown), default=0)
    limit = terminal_width()
    for name, value in shown.items():
        lines = words(value).split("\n")
        if limit is not None and limit - width > _NARROWEST and not isinstance(value, Lines):
            lines = [part for line in lines for part in _broken_field(value, line, limit - width - len(GAP))]
        before = _heading(padded(_label(name), width))
        for line in lines:
            out(f"{before}{GAP}{_painted_field(name, value, line)}\n")
            before = " " * width


def _broken_field(value: object, line: str, width: int) -> list[str]:
    """Return the line in lines that fit. A path or another long word stays in one piece: it may be something to
    paste."""
    is_text = not isinstance(value, (Mapping, list, tuple, Shown))
    return [line] if is_text and max(map(cells, line.split(" "))) > width else broken(line, width)


def _painted_field(name: str, value: object, line: str) -> str:
    """Return a line of the value's text in its colour, or in those of its parts."""
    if not isinstance(value, Mapping):
        return painted(line, role_of(name, value))
    for key, one in value.items():
        if (role := role_of(str(key), one)) is not None:
            text = words({key: one})
            line = line.replace(text, painted(text, role))
    return line


def _markdown_fields(fields: Mapping[str, object], out: Write) -> None:
    for name, value in fields.items():
        if value is not None:
            out(f"- **{markdown_text(_label(name))}**: {markdown_text(words(value))}\n")


def markdown_text(text: str) -> str:
    """Return the text without meaning in Markdown: it stays what it is in a table's cell, and is neither a link nor
    HTML."""
    return re.sub(r"([\\|<*`]|(?<=\])\(|:(?=//)|(?<=\bwww)\.)", r"\\\1", text).replace("\n", "<br>")


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
        self.labels = [_label(column.label or column.name) for column in self.columns]
        self.sample = [self._values(row) for row in first]

    def _values(self, row: Any) -> list[object]:
        return [column.value(row) for column in self.columns]

    def __iter__(self) -> Iterator[list[object]]:
        return chain(self.sample, map(self._values, self._rest))

    def is_right(self, number: int) -> bool:
        """Return whether people read the column from its last digit."""
        known = [values[number] for values in self.sample if values[number] is not None]
        return bool(known) and all(map(is_number, known))


def _markdown_table(table: Table, out: Write) -> None:
    rows = _Rows(table)
    if not rows.sample and table.empty:
        out(f"{markdown_text(table.empty_text)}\n")
        return
    right = map(rows.is_right, range(len(rows.columns)))
    bars = _bars(rows, PLAIN)
    scale, after = ([f"0 to {bars.most:,}"], ["---"]) if bars else ([], [])
    out(f"| {' | '.join(rows.labels + scale)} |\n")
    out(f"| {' | '.join(['--:' if to_right else '---' for to_right in right] + after)} |\n")
    for values in rows:
        drawn = [bars.of(values)] if bars else []
        out(f"| {' | '.join([markdown_text(words(value)) for value in values] + drawn)} |\n")


def grid(table: Table) -> Grid:
    """Return the table as a report shows it, with the texts and columns that people see through a pipe."""
    rows = _Rows(table)
    return Grid(
        [Heading(label, rows.is_right(number)) for number, label in enumerate(rows.labels)],
        [[words(value) for value in values] for values in rows],
        empty=(table.empty_text or "none") if not rows.sample else "",
    )


def facts(fields: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return the fields that have a value as a report shows them."""
    return [(_label(name), words(value)) for name, value in fields.items() if value is not None]


class _Bars(msgspec.Struct, frozen=True):
    """The bars of a table: the column whose counts they show, the greatest of these, and the width of its bar."""

    number: int
    most: int
    width: int

    def of(self, values: Sequence[object]) -> str:
        """Return the bar of a row."""
        return bar(_count(values[self.number]), self.most, self.width)

    @property
    def heading(self) -> str:
        """The scale."""
        return axis(f"{self.most:,}", self.width)


def _count(value: object) -> int:
    return value.number if isinstance(value, Count) else 0


def _bars(rows: _Rows, width: int) -> _Bars | None:
    """Return the bars of several rows; None without a column of them, and where there are more rows than were looked
    at, so that the scale is not known."""
    number = next((number for number, column in enumerate(rows.columns) if column.bar), None)
    if number is None or width < NARROWEST or not 1 < len(rows.sample) < SAMPLE:
        return None
    most = max(_count(values[number]) for values in rows.sample)
    return _Bars(number, most, width) if most else None


def _table(table: Table, out: Write) -> None:
    limit, coloured, folded = terminal_width(), colours(), list[str]()
    if limit is not None and table.fold is not None:
        table = _folded(table, table.fold, folded)
    rows = _Rows(table)
    if not rows.sample and not folded:
        out(f"{table.empty_text or 'none'}\n")
    if rows.sample:
        _write_rows(rows, limit, out, coloured=coloured)
    if folded and table.fold is not None:
        _sentence(f"{table.fold.text}: {', '.join(folded)} (a pipe or --format json shows all)", limit, out)


def _folded(table: Table, fold: Fold, names: list[str]) -> Table:
    """Return the table without the rows that are folded, whose names are appended as it is read."""

    def kept() -> Iterator[Any]:
        for row in table.rows:
            name = fold.name(row)
            if name is None:
                yield row
            else:
                names.append(name)

    return msgspec.structs.replace(table, rows=kept())


def _write_rows(rows: _Rows, limit: int | None, out: Write, *, coloured: bool) -> None:
    """Write the rows under their headings, and what the headings lack."""
    days = [all(_is_midnight(values[number]) for values in rows.sample) for number in range(len(rows.columns))]

    def texts_of(values: Sequence[object]) -> list[str]:
        if limit is None:
            return [words(value) for value in values]
        return [_terse(value, days=of_days) for value, of_days in zip(values, days, strict=True)]

    sample = [texts_of(values) for values in rows.sample]
    layout = _laid_out(rows, sample, limit)
    if layout.shared:
        shared = ", ".join(f"{rows.labels[number]} {sample[0][number]}" for number in layout.shared)
        _sentence(f"same in all rows: {shared}", limit, out)
    used = sum(layout.widths) + len(GAP) * len(layout.widths)
    bars = _bars(rows, PLAIN if limit is None else min(limit - used, WIDEST))
    if bars:
        layout = layout.with_last(bars.width)
    headings = [rows.labels[number] for number in layout.shown] + ([bars.heading] if bars else [])
    out(_heading(_line(headings, layout)) + "\n")
    for values in rows:
        texts = texts_of(values)
        roles = [role_of(rows.columns[number].name, values[number]) for number in layout.shown] if coloured else ()
        cells_of_row = _cells([texts[number] for number in layout.shown], rows.columns, layout)
        for line in zip_longest(*cells_of_row, *([[bars.of(values)]] if bars else []), fillvalue=""):
            out(_line(line, layout, roles) + "\n")
    narrowed = [number for number, less in zip(layout.shown, layout.narrowed, strict=True) if less]
    lacking = {"no room for": layout.left_out, "cut": [number for number in narrowed if rows.columns[number].cut]}
    parts = [
        f"{what}: {', '.join(rows.labels[one] for one in numbers)}" for what, numbers in lacking.items() if numbers
    ]
    if parts:
        _sentence(f"{'; '.join(parts)} (a wider terminal, a pipe or --format json shows all)", limit, out)


def _is_midnight(value: object) -> bool:
    """Return whether a bucket begins at midnight UTC, and is shown in UTC: then its date is enough, and can be
    pasted."""
    if not isinstance(value, Bucket) or value.local is not None:
        return True
    return display_instant(value.nanos).endswith("T00:00:00Z")


def _sentence(text: str, limit: int | None, out: Write) -> None:
    for line in [text] if limit is None else broken(text, max(limit, 1)):
        out(f"{line}\n")


def _cells(texts: Sequence[str], columns: Sequence[Column], layout: _Layout) -> list[list[str]]:
    """Return the lines of each cell of a row."""
    parts = zip(layout.shown, texts, layout.widths, layout.narrowed, strict=False)
    return [_lines_of(columns[number], text, width if less else None) for number, text, width, less in parts]


def _line(texts: Sequence[str], layout: _Layout, roles: Sequence[Role | None] = ()) -> str:
    """Return the texts of the shown columns beside each other, each in the colour of its role."""
    columns = zip(texts, layout.widths, layout.right, strict=True)
    line = [padded(text, width, right=to_right) for text, width, to_right in columns]
    line[-1] = line[-1].rstrip()
    for place, role in enumerate(roles):
        if role is not None and texts[place]:
            line[place] = line[place].replace(texts[place], painted(texts[place], role))
    return GAP.join(line).rstrip()


GAP = "  "

_NARROWEST = 20
"""Columns of a terminal below which free text is not worth breaking."""

_SHORT_ID = 16


def _terse(value: object, *, days: bool) -> str:
    """Return the value for people on a terminal; `days`: all buckets of its column begin at midnight."""
    if isinstance(value, EventId):
        return words(value.text[:_SHORT_ID])
    if isinstance(value, Bucket) and value.local is None:
        text = display_instant(value.nanos)
        if days and _is_midnight(value):
            return text[:10]
        return text[:16] + text[19:] if text[16:19] == ":00" and text[19] != "." else text
    if isinstance(value, Moment):
        return display_instant(value.nanos - value.nanos % SECOND)
    if isinstance(value, Window) and value.start % DAY == value.end % DAY == 0:
        return str(value).replace("T00:00:00Z", "")
    return words(value)


class _Layout(msgspec.Struct, frozen=True):
    """The columns that are shown, by number, with their widths; what all rows share, and what there is no room for.

    `narrowed` is whether in each shown column texts must be broken or cut to fit.
    """

    shown: Sequence[int]
    widths: Sequence[int]
    narrowed: Sequence[bool]
    right: Sequence[bool]
    shared: Sequence[int]
    left_out: Sequence[int]

    def with_last(self, width: int) -> _Layout:
        """Return the layout with a further column at the end, which is none of the table's."""
        return msgspec.structs.replace(self, widths=[*self.widths, width], right=[*self.right, False])


def _laid_out(rows: _Rows, texts: Sequence[Sequence[str]], limit: int | None) -> _Layout:
    """Return the layout for a terminal of `limit` columns, None without one, by a sample of the rows: `texts` are
    theirs."""
    natural = [
        max(chain([cells(label)], (cells(line) for row in texts for line in row[number].split("\n"))))
        for number, label in enumerate(rows.labels)
    ]
    shared = _shared(rows.sample) if limit is not None and len(texts) < SAMPLE else []
    shown = [number for number in range(len(natural)) if number not in shared]
    left_out: list[int] = []
    if limit is None:
        widths: list[int] | None = [natural[number] for number in shown]
    else:
        while (widths := _fitted(shown, rows.columns, natural, limit)) is None and len(shown) > 1:
            worst = max(shown[1:], key=lambda number: (rows.columns[number].drop, number))
            shown.remove(worst)
            left_out.append(worst)
    widths = widths or [min(natural[shown[0]], limit or 0)]
    return _Layout(
        shown=shown,
        widths=widths,
        narrowed=[width < natural[number] for number, width in zip(shown, widths, strict=True)],
        right=[rows.is_right(number) for number in shown],
        shared=shared,
        left_out=sorted(left_out),
    )


def _shared(sample: Sequence[Sequence[object]]) -> list[int]:
    """Return the columns that have one value in all of several rows; not all columns."""
    texts = [list(map(words, values)) for values in sample]
    if len(texts) < 2:
        return []
    found = [number for number, column in enumerate(zip(*texts, strict=True)) if len(set(column)) == 1]
    return found if len(found) < len(texts[0]) else found[1:]


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
    """Return the widths with `room` shared by those that are free: none gets more than it needs."""
    fitting = list(widths)
    for done, place in enumerate(sorted(free, key=lambda place: widths[place])):
        fitting[place] = min(widths[place], room // (len(free) - done))
        room -= fitting[place]
    return fitting


def _lines_of(column: Column, text: str, width: int | None) -> list[str]:
    """Return the text of a cell in lines that fit; None where there is room for it as it is."""
    lines = text.split("\n")
    if width is None:
        return lines
    if column.wrap:
        return [part for line in lines for part in broken(line, width)]
    return [shortened(line, width) for line in lines]

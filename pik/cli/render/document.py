"""What a command has to show: fields, tables of rows, fields that are known at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import msgspec

from pik.cli.context import Advice
from pik.cli.render.values import Lines, key_of


class Column(msgspec.Struct, frozen=True):
    """A column: `name` in JSON and CSV, and the row's key or attribute unless `get` says how to find the value.

    `kind` gives a bare value its meaning (Instant, Bucket, EventId, Lag, Count, Json). Where a terminal is narrow,
    `wrap` marks free text, which may be broken over lines, and `cut` text of which that many columns are enough; of
    the other columns those with the greatest `drop` are left out first. `detail` leaves the column out of tables: it
    is for programs. `rare` leaves it out of a table none of whose first rows has a value. `advice` marks text that may
    suggest commands.
    """

    name: str
    kind: Callable[[Any], object] | None = None
    get: Callable[[Any], object] | None = None
    wrap: bool = False
    cut: int = 0
    drop: int = 0
    detail: bool = False
    rare: bool = False
    advice: bool = False

    def value(self, row: Any) -> object:
        """The row's value in this column; an empty text is nothing, and so None."""
        if self.get is not None:
            found = self.get(row)
        else:
            found = row[self.name] if isinstance(row, Mapping) else getattr(row, self.name)
        if found is None or found == "":
            return None
        return found if self.kind is None else self.kind(found)

    @property
    def key(self) -> str:
        """The column's name for programs."""
        return key_of(self.name, self.kind)

    def advising(self, advice: Advice) -> Column:
        """The same column, its texts made ready by `advice` if it has such."""
        if not self.advice:
            return self

        def advised(row: Any) -> object:
            found = self.value(row)
            return advice(found) if isinstance(found, str) else found

        return msgspec.structs.replace(self, get=advised, advice=False)


class Table(msgspec.Struct, frozen=True):
    """Rows under a name. They are read once, as they come; `empty` is the sentence for people where there are none, or
    what says it once all rows have been read."""

    name: str
    columns: Sequence[Column]
    rows: Iterable[Any]
    empty: str | Callable[[], str] = ""

    @property
    def empty_text(self) -> str:
        """The sentence, where there was no row."""
        return self.empty() if callable(self.empty) else self.empty

    def advising(self, advice: Advice) -> Table:
        """The same table, what it suggests made ready by `advice`."""
        columns = [column.advising(advice) for column in self.columns]
        empty = (lambda: advice(self.empty_text)) if self.empty else ""
        return msgspec.structs.replace(self, columns=columns, empty=empty)


class Document(msgspec.Struct, frozen=True):
    """A result. JSON is one object: the fields of `head`, each table's rows under its name, the fields of `tail`.

    JSON lines and CSV hold the first table's rows, or without any table the fields as one row. A callable `tail` is
    asked when all rows have been read.

    The field `next` holds commands and nothing else, one on a line, so that it can be pasted into a shell; what else
    there is to say is the field `note`.
    """

    head: Mapping[str, object] = {}
    tables: Sequence[Table] = ()
    tail: Mapping[str, object] | Callable[[], Mapping[str, object]] = {}

    def advising(self, advice: Advice) -> Document:
        """The same, what it suggests (`next`, `note`, columns, sentences about empty tables) made ready."""
        tables = [table.advising(advice) for table in self.tables]
        return Document(_advised(self.head, advice), tables, lambda: _advised(self.end(), advice))

    def begun(self) -> Document:
        """The same, its tables' first rows read already."""
        return msgspec.structs.replace(
            self, tables=[msgspec.structs.replace(table, rows=_begun(table.rows)) for table in self.tables]
        )

    def end(self) -> Mapping[str, object]:
        """The fields of the tail."""
        return self.tail() if callable(self.tail) else self.tail


def _advised(fields: Mapping[str, object], advice: Advice) -> Mapping[str, object]:
    line, note = (advice(text) if isinstance(text := fields.get(name), str) else None for name in ("next", "note"))
    lines = {"next": Lines(line, line)} if line else {}
    return {**fields, **lines, **({"note": Lines(note, note)} if note else {})}


def _begun(rows: Iterable[Any]) -> Iterable[Any]:
    if isinstance(rows, Sequence):
        return rows
    remaining = iter(rows)
    return chain(list(islice(remaining, 1)), remaining)

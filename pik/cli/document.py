"""What a command shows: its declaration as a Schema, once for all formats, and its result as a Document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain, islice, takewhile
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, NamedTuple

import msgspec

from pik.cli.values import MEANINGS, Entity, Lines, Shown, key_of

_WITH_MEANING = (Shown, *MEANINGS)

Advice = Callable[[str], str]
"""Makes a text that may suggest commands ready to be read and pasted."""


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return kind.__args__ if isinstance(kind, UnionType) else (kind,)


class Field(msgspec.Struct, frozen=True, dict=True):
    """A field of a result: `name` in JSON, and the result's key or attribute unless `get` finds the value.

    A text as `get` is the path of an attribute. `kind` is the field's type: str, int, bool, Decimal, Window, list[str],
    dict[str, int], an Object, or a class that gives a bare value its meaning for people (Instant, Moment, Bucket,
    EventId, Entity, Lag, Count, Json); `X | None` where it may be null. `text` makes the words for people, where those
    of the kind will not do. For docs/json.md, `about` is its meaning, and `only` when it is there, if not always.
    """

    name: str
    kind: Any = None
    about: str = ""
    get: str | Callable[[Any], object] | None = None
    text: Callable[[Any], str | None] | None = None
    only: str = ""

    @cached_property
    def optional(self) -> bool:
        """Whether the value may be null."""
        return self.kind.null if isinstance(self.kind, Object) else NoneType in _alternatives(self.kind)

    @cached_property
    def meaning(self) -> Callable[[Any], object] | None:
        """What is made of a bare value, if anything."""
        if isinstance(self.kind, Object):
            return self.kind.values
        return next((kind for kind in _alternatives(self.kind) if kind in MEANINGS), None)

    @cached_property
    def key(self) -> str:
        """The field's name for programs."""
        return key_of(self.name, self.meaning)

    def value(self, source: Any) -> object:
        """Return the value of this field in the result; an empty text or list is nothing where the field may be
        null."""
        return self.of(self._find(source), source)

    @cached_property
    def _find(self) -> Callable[[Any], object]:
        if callable(self.get):
            return self.get
        path = self.get or self.name
        attribute = attrgetter(path)
        return lambda source: source[path] if isinstance(source, dict) else attribute(source)

    def of(self, found: object, source: Any) -> object:
        """`found` as the value of this field, with what the field's kind and text make of it."""
        is_empty = isinstance(found, (str, list, tuple)) and not found and self.meaning is not Entity
        if found is None or (is_empty and self.optional):
            value: object = None
        else:
            value = found if self.meaning is None or isinstance(found, _WITH_MEANING) else self.meaning(found)
        if self.text is None:
            return value
        text = self.text(source)
        return value if text is None else Shown(value, text)


def or_null(path: str) -> Callable[[Any], object]:
    """Return what finds the value at that path of attributes, null where it is 0 or empty."""
    attribute = attrgetter(path)
    return lambda source: attribute(source) or None


class Object:
    """The kind of a field that is an object with fields, or with `many` an array of such objects."""

    def __init__(self, *fields: Field, many: bool = False, null: bool = False) -> None:
        self.fields, self.many, self.null = fields, many, null

    def values(self, found: Any) -> object:
        """Return the values of the fields, by name, in one object or in each of many."""
        if self.many:
            return [{field.name: field.value(one) for field in self.fields} for one in found]
        return {field.name: field.value(found) for field in self.fields}


class Column(Field, frozen=True, dict=True):
    """A column of a table: a field of each row.

    Where a terminal is narrow, `wrap` marks free text, which may be broken over lines, and `cut` text of which that
    many columns are enough; of the other columns those with the greatest `drop` are left out first. `detail` leaves the
    column out of tables: it is for programs. `rare` leaves it out of a table none of whose first rows has a value.
    `advice` marks text that may suggest commands. `bar` shows counts as bars as well, in tables. `label` is the heading
    for people, if not the name.
    """

    wrap: bool = False
    cut: int = 0
    drop: int = 0
    detail: bool = False
    rare: bool = False
    advice: bool = False
    bar: bool = False
    label: str = ""

    def advising(self, advice: Advice) -> Column:
        """Return the same column, its texts made ready by `advice` if it has such."""
        if not self.advice:
            return self

        def advised(row: Any) -> object:
            found = self.value(row)
            return advice(found) if isinstance(found, str) else found

        return msgspec.structs.replace(self, get=advised, advice=False)


class Fold(NamedTuple):
    """Which rows a terminal has no room for: those that `name` has a name of, which stand after `text`."""

    text: str
    name: Callable[[Any], str | None]


class Rows:
    """A table as a Schema declares it: its rows are the result's attribute of that name, unless `get` finds them.

    `empty` is the sentence for people where there are none, or makes it of the result once all rows were read. On a
    terminal, rows of which `folded` returns a name are only named, after the table, under the label `fold`. Rows
    that are not known are None: null in JSON, and the text `absent` for people. `only` is as in Field.
    """

    def __init__(
        self,
        name: str,
        about: str,
        *columns: Column,
        get: Callable[[Any], Iterable[Any] | None] | None = None,
        empty: str | Callable[[Any], str] = "",
        absent: str | None = None,
        only: str = "",
        fold: Fold | None = None,
    ) -> None:
        self.name, self.about, self.columns, self.get = name, about, columns, get
        self.empty, self.absent, self.only, self.fold = empty, absent, only, fold

    def _with(self, columns: Iterable[Column]) -> Rows:
        """Return the same with other columns."""
        kept = {name: getattr(self, name) for name in ("get", "empty", "absent", "only", "fold")}
        return Rows(self.name, self.about, *columns, **kept)

    def rows(self, source: Any) -> Iterable[Any] | None:
        """Return the rows in the result; None where they are not known."""
        found: Iterable[Any] | None = getattr(source, self.name) if self.get is None else self.get(source)
        return found

    def without(self, *names: str) -> Rows:
        """Return the same without the columns that are named as `table.column`."""
        columns = [column for column in self.columns if f"{self.name}.{column.name}" not in names]
        return self._with(columns)

    def replaced(self, name: str, *columns: Column) -> Rows:
        """Return the same with these columns in the place of one."""
        at = next(number for number, column in enumerate(self.columns) if column.name == name)
        kept = (*self.columns[:at], *columns, *self.columns[at + 1 :])
        return self._with(kept)

    def labelled(self, labels: Mapping[str, str]) -> Rows:
        """Return the same with these headings of columns, by name."""
        columns = [msgspec.structs.replace(one, label=labels.get(one.name, one.label)) for one in self.columns]
        return self._with(columns)

    def table(self, source: Any, rows: Iterable[Any]) -> Table:
        """Return the table with the rows of the result."""
        empty = partial(self.empty, source) if callable(self.empty) else self.empty
        return Table(self.name, self.columns, rows, empty, self.fold)


class Schema:
    """The JSON of a command, declared once for all formats: its fields and tables, in this order.

    `title` is the command, or several with a comma between them: the heading in docs/json.md.
    """

    def __init__(self, title: str, *parts: Field | Rows) -> None:
        self.title, self.parts = title, parts

    def without(self, *names: str) -> Schema:
        """Return the same without the parts of these names, and without the columns that are named as
        `table.column`."""
        parts = [
            part.without(*names) if isinstance(part, Rows) else part for part in self.parts if part.name not in names
        ]
        return Schema(self.title, *parts)

    def replaced(self, name: str, *columns: Column) -> Schema:
        """Return the same with these columns in the place of the one that is named as `table.column`."""
        table, _, column = name.partition(".")
        parts = [
            part.replaced(column, *columns) if isinstance(part, Rows) and part.name == table else part
            for part in self.parts
        ]
        return Schema(self.title, *parts)

    def labelled(self, table: str, labels: Mapping[str, str]) -> Schema:
        """Return the same with these headings of columns of the table, by name."""
        parts = [
            part.labelled(labels) if isinstance(part, Rows) and part.name == table else part for part in self.parts
        ]
        return Schema(self.title, *parts)

    def document(self, source: Any = None, /, **given: Any) -> Document:
        """Return the result `source` as a document; `given` has the values of parts that are not in it.

        Fields after a table are asked for when all rows have been read, and a function given for one is called then.
        """

        def values(fields: Iterable[Field | Rows]) -> dict[str, object]:
            return {part.name: value(part) for part in fields if isinstance(part, Field)}

        def value(field: Field) -> object:
            if field.name not in given:
                return field.value(source)
            found = given[field.name]
            return field.of(found() if callable(found) else found, source)

        tables, unknown = [], dict[str, Shown | None]()
        for part in self.parts:
            if isinstance(part, Rows):
                rows = given[part.name] if part.name in given else part.rows(source)
                if rows is None:
                    unknown[part.name] = Shown(None, part.absent) if part.absent else None
                else:
                    tables.append(part.table(source, rows))
        head = list(takewhile(lambda part: isinstance(part, Field), self.parts))
        return Document(values(head), tables, lambda: {**unknown, **values(self.parts[len(head) :])})


NEXT = Field("next", str | None)
"""Commands to type next, and nothing else: one per line, so that they can be pasted into a shell."""

NOTE = Field("note", str | None)
"""What else to know."""

TRUNCATED = Field("truncated", bool, "whether a limit left rows out")


class Table(msgspec.Struct, frozen=True):
    """Rows under a name. They are read once, as they come; `empty` is the sentence for people where there are none, or
    what makes it once all rows have been read."""

    name: str
    columns: Sequence[Column]
    rows: Iterable[Any]
    empty: str | Callable[[], str] = ""
    fold: Fold | None = None

    @property
    def empty_text(self) -> str:
        """The sentence, where there was no row."""
        return self.empty() if callable(self.empty) else self.empty

    def ready(self, advice: Advice) -> Table:
        """Return the same table, its first row read already, and what it suggests made ready by `advice`."""
        rows = self.rows
        if not isinstance(rows, Sequence):
            remaining = iter(rows)
            rows = chain(list(islice(remaining, 1)), remaining)
        empty = (lambda: advice(self.empty_text)) if self.empty else ""
        return Table(self.name, [column.advising(advice) for column in self.columns], rows, empty, self.fold)


class Document(msgspec.Struct, frozen=True):
    """A result. JSON is one object: the fields of `head`, each table's rows under its name, the fields of `tail`.

    JSON lines and CSV hold the first table's rows, or without any table the fields as one row. A callable `tail` is
    asked when all rows have been read.

    The field `next` holds commands and nothing else, one per line, so that it can be pasted into a shell; what else
    to know is the field `note`.
    """

    head: Mapping[str, object] = {}
    tables: Sequence[Table] = ()
    tail: Mapping[str, object] | Callable[[], Mapping[str, object]] = {}

    def ready(self, advice: Advice) -> Document:
        """Return the same, its tables' first rows read already, and what it suggests (`next`, `note`, columns,
        sentences about empty tables) made ready by `advice`."""
        tables = [table.ready(advice) for table in self.tables]
        return Document(_advised(self.head, advice), tables, lambda: _advised(self.end(), advice))

    def end(self) -> Mapping[str, object]:
        """Return the fields of the tail."""
        return self.tail() if callable(self.tail) else self.tail


def _advised(fields: Mapping[str, object], advice: Advice) -> Mapping[str, object]:
    texts = {name: advice(text) for name in ("next", "note") if isinstance(text := fields.get(name), str)}
    kinds = {"next": Lines, "note": Shown}
    return {**fields, **{name: kinds[name](text, text) for name, text in texts.items()}}

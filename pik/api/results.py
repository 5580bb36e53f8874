"""Results: rows to iterate over, as frames, and as a table in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from decimal import Decimal
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_type_hints

from pik.api.html import table
from pik.api.times import Instant
from pik.ports.frame import FrameColumn, Frames, Kind

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

Row = TypeVar("Row")

KEPT = 10_000
"""Rows that a result keeps once they were read, at most: a larger one is read from the store again each time."""

SHOWN = 20
"""Rows that a notebook shows."""

_KINDS = {
    str: Kind.TEXT,
    int: Kind.INTEGER,
    bool: Kind.BOOLEAN,
    Decimal: Kind.DECIMAL,
    Instant: Kind.INSTANT,
    tuple[str, ...]: Kind.TEXTS,
}


class Result(Generic[Row]):
    """Rows that answer a question, and how to get them: `for row in result`, `list(result)`, `.to_arrow()`,
    `.to_pandas()`, `.to_polars()`; a notebook shows the first ones as a table.

    Nothing is read before the first use, and iterating holds no more than a few rows in memory. A result may be used
    any number of times. One of up to 10,000 rows is kept when it was read to its end; a larger one is read from the
    store again, and has what was recorded meanwhile, too.
    """

    def __init__(
        self,
        ask: Callable[[int | None], Iterable[Row]],
        columns: Sequence[FrameColumn],
        frames: Callable[[], Frames],
        *,
        limit: int | None = None,
        cells: Callable[[Row], Sequence[object]] | None = None,
        notes: Callable[[], Iterable[str]] = tuple,
        title: str = "rows",
    ) -> None:
        self._ask, self._columns, self._frames = ask, tuple(columns), frames
        self._limit, self._notes, self._title = limit, notes, title
        self._cells = cells or attributes(columns)
        self._kept: list[Row] | None = None
        self._truncated = False

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self._columns]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._kept) if self._kept is not None else self._read()

    def _read(self) -> Iterator[Row]:
        """Yield the rows from the store, and keep them unless they are too many."""
        limit, kept = self._limit, list[Row]()
        rows = iter(self._ask(None if limit is None else limit + 1))
        for row in islice(rows, limit):
            if len(kept) <= KEPT:
                kept.append(row)
            yield row
        self._truncated = limit is not None and next(rows, None) is not None
        if len(kept) <= KEPT:
            self._kept = kept

    def keep(self, rows: list[Row], *, truncated: bool = False) -> None:
        """Take these as the rows, which were read already."""
        self._kept, self._truncated = rows, truncated

    @property
    def truncated(self) -> bool:
        """Whether `limit` left rows out. Reads the rows if that was not done yet."""
        if self._kept is None:
            for _ in self:
                pass
        return self._truncated

    @property
    def notes(self) -> tuple[str, ...]:
        """What else to know, such as what was left out."""
        return tuple(self._notes())

    def to_arrow(self) -> pyarrow.Table:
        """Return all rows as an Arrow table: values as `decimal128(38, s)` or, where that is too small,
        `decimal256(76, s)`, counts as `int64`, times as `timestamp[ns, tz=UTC]`."""
        return self._frames().arrow(self._columns, self._values())

    def to_pandas(self) -> pandas.DataFrame:
        """Return all rows as a pandas frame with Arrow's types, so that numbers stay exact (`.astype(float)` makes
        floating point of a column). Raises UsageError where pandas is not installed."""
        return self._frames().pandas(self._columns, self._values())

    def to_polars(self) -> polars.DataFrame:
        """Return all rows as a polars frame. Raises UsageError where polars is not installed, and for numbers of more
        than 38 digits."""
        frame: polars.DataFrame = self._frames().polars(self._columns, self._values())
        return frame

    def _values(self) -> Iterator[Sequence[object]]:
        instants = [column.kind == Kind.INSTANT for column in self._columns]
        for row in self:
            yield [
                value.nanos if is_instant and isinstance(value, Instant) else value
                for value, is_instant in zip(self._cells(row), instants, strict=True)
            ]

    def _first(self, count: int) -> tuple[list[Row], bool]:
        """Return the first rows, and whether there are more."""
        if self._kept is not None:
            return self._kept[:count], len(self._kept) > count
        if self._limit is not None and self._limit <= count:
            return list(self), False
        rows = list(islice(self._ask(count + 1), count + 1))
        if len(rows) <= count:
            self._kept = rows
        return rows[:count], len(rows) > count

    def __repr__(self) -> str:
        names = ", ".join(self.columns)
        return f"<{self._title}: {names}; iterate, or .to_arrow(), .to_pandas(), .to_polars()>"

    def _repr_html_(self) -> str:
        rows, more = self._first(SHOWN)
        notes = [f"the first {len(rows)} {self._title}; more are there"] if more else []
        if not more and self._truncated:
            notes = [f"limit={self._limit} left {self._title} out"]
        numeric = [column.kind in (Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT) for column in self._columns]
        return table(self.columns, numeric, map(self._cells, rows), [*notes, *self.notes], f"no {self._title}")


def attributes(columns: Sequence[FrameColumn]) -> Callable[[Any], Sequence[object]]:
    """Return what gets the values of the columns from a row that has them as attributes."""
    get = attrgetter(*(column.name for column in columns))
    return get if len(columns) > 1 else lambda row: (get(row),)


def columns_of(row: type) -> tuple[FrameColumn, ...]:
    """Return the columns of a class of rows: its fields, of the kinds that their types say."""
    types = get_type_hints(row)
    return tuple(FrameColumn(one.name, _kind(types[one.name])) for one in fields(row))


def _kind(annotation: Any) -> Kind:
    if annotation in _KINDS:
        return _KINDS[annotation]
    [kind] = (_KINDS[one] for one in get_args(annotation) if one is not type(None))
    return kind

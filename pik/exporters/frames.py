"""Frames: Arrow tables, and pandas and polars frames made of them. Memory is that of the table and a chunk of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from importlib import import_module
from itertools import islice
from typing import Any

import pyarrow as pa

from pik.errors import UsageError
from pik.ports.frame import FrameColumn, Kind

CHUNK = 10_000
"""Rows that are held as Python objects at a time."""

NARROW, WIDE = 38, 76
"""Digits of Arrow's two exact decimals. The narrow one is taken where it holds all values: more programs read it."""

_TYPES = {
    Kind.TEXT: pa.string(),
    Kind.TEXTS: pa.list_(pa.string()),
    Kind.INTEGER: pa.int64(),
    Kind.FLOAT: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.INSTANT: pa.timestamp("ns", tz="UTC"),
}


class ArrowFrames:
    """Makes frames with pyarrow."""

    def arrow(self, columns: Sequence[FrameColumn], rows: Iterable[Sequence[object]]) -> Any:
        """Return a pyarrow.Table."""
        building = [_Building(column) for column in columns]
        for chunk in _chunks(iter(rows)):
            for each, values in zip(building, zip(*chunk, strict=True), strict=True):
                each.add(values)
        return pa.table([each.finished() for each in building], names=[column.name for column in columns])

    def pandas(self, columns: Sequence[FrameColumn], rows: Iterable[Sequence[object]]) -> Any:
        """Return a pandas.DataFrame with Arrow's types."""
        frames = _installed("pandas")
        return self.arrow(columns, rows).to_pandas(types_mapper=frames.ArrowDtype)

    def polars(self, columns: Sequence[FrameColumn], rows: Iterable[Sequence[object]]) -> Any:
        """Return a polars.DataFrame."""
        frames = _installed("polars")
        table = self.arrow(columns, rows)
        for field in table.schema:
            if pa.types.is_decimal256(field.type):
                raise UsageError(
                    f"column {field.name!r} has numbers of more than {NARROW} digits, which a polars frame cannot hold",
                    hint="to_arrow() and to_pandas() hold up to 76 digits; metric= chooses one metric",
                )
        return frames.from_arrow(table)


def _installed(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise UsageError(
            f"{name} is not installed", hint=f"pip install {name}; to_arrow() needs nothing else"
        ) from None


def _chunks(rows: Iterator[Sequence[object]]) -> Iterator[list[Sequence[object]]]:
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


class _Building:
    """A column under way."""

    def __init__(self, column: FrameColumn) -> None:
        self._column = column
        self._chunks: list[Any] = []
        self._whole, self._scale = 0, column.scale

    def add(self, values: Sequence[Any]) -> None:
        """Add the values of a chunk."""
        if self._column.kind != Kind.DECIMAL:
            self._chunks.append(pa.array(values, _TYPES[self._column.kind]))
            return
        numbers = [None if value is None else _plain(Decimal(value)) for value in values]
        for number in numbers:
            if number is not None:
                _, digits, exponent = number.as_tuple()
                assert isinstance(exponent, int)
                self._whole = max(self._whole, len(digits) + exponent)
                self._scale = max(self._scale, -exponent)
        self._chunks.append(pa.array(numbers, self._type()))

    def _type(self) -> Any:
        """Return the type that holds all numbers up to now."""
        if self._whole + self._scale <= NARROW:
            return pa.decimal128(NARROW, self._scale)
        if self._whole + self._scale <= WIDE:
            return pa.decimal256(WIDE, self._scale)
        raise UsageError(
            f"column {self._column.name!r} has numbers of {self._whole} digits before and {self._scale} after a point,"
            f" and Arrow's decimals have {WIDE} digits",
            hint="iterate over the rows: their numbers have any number of digits",
        )

    def finished(self) -> Any:
        """Return the whole column."""
        if self._column.kind != Kind.DECIMAL:
            return pa.chunked_array(self._chunks, _TYPES[self._column.kind])
        kind = self._type()
        return pa.chunked_array([chunk.cast(kind) for chunk in self._chunks], kind)


def _plain(number: Decimal) -> Decimal:
    """Return the number without a positive exponent: 1E+3 as 1000."""
    return Decimal(int(number)) if number.as_tuple().exponent > 0 else number  # type: ignore[operator]

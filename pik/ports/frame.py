"""The port of frames: rows as an Arrow table, a pandas or a polars frame, with every number as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol


class Kind(StrEnum):
    """What the values of a column are. Each may be None."""

    TEXT = "text"
    TEXTS = "texts"
    INTEGER = "integer"
    DECIMAL = "decimal"
    FLOAT = "float"
    BOOLEAN = "boolean"
    INSTANT = "instant"
    """Nanoseconds since 1970-01-01T00:00:00Z."""


@dataclass(frozen=True, slots=True)
class FrameColumn:
    """A column of a frame. A DECIMAL one has at least `scale` digits after the point."""

    name: str
    kind: Kind
    scale: int = 0


class Frames(Protocol):
    """Makes frames of rows, which are sequences with a value for each of the columns."""

    def arrow(self, columns: Sequence[FrameColumn], rows: Iterable[Sequence[object]]) -> Any:
        """Return a pyarrow.Table. Instants are timestamps in UTC with nanoseconds, decimals as exact as they are.
        Raises UsageError for a column whose numbers take more digits than Arrow's decimals have."""

    def pandas(self, columns: Sequence[FrameColumn], rows: Iterable[Sequence[object]]) -> Any:
        """Return a pandas.DataFrame with Arrow's types, so that nothing goes through floating point. Raises UsageError
        as `arrow` does, and where pandas is not installed."""

    def polars(self, columns: Sequence[FrameColumn], rows: Iterable[Sequence[object]]) -> Any:
        """Return a polars.DataFrame. Raises UsageError as `arrow` does, where polars is not installed, and for numbers
        that take more digits than its decimals have."""

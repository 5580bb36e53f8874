"""What pik does, one package per chapter; and the listings that use cases return: rows that are read once, and what is
only known when the last of them was read."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = TypeVar("Row", covariant=True)
Summary = TypeVar("Summary", covariant=True)


@dataclass(frozen=True, slots=True)
class ListingExtent:
    """How many rows matched: None where a limit left some out, which are not counted."""

    matched: int | None

    @property
    def truncated(self) -> bool:
        """Whether a limit left rows out."""
        return self.matched is None


class Listing(Generic[Row, Summary]):
    """Rows to be iterated over once; `summary` is what the generator of the rows returns after the last one.

    The generator starts when the first row is read. An error ends the rows, and there is no summary then.
    """

    def __init__(self, rows: Generator[Row, None, Summary]) -> None:
        self._summary: list[Summary] = []
        self._rows = self._read(rows)

    def __iter__(self) -> Iterator[Row]:
        return self._rows

    def _read(self, rows: Generator[Row, None, Summary]) -> Generator[Row, None, None]:
        self._summary.append((yield from rows))

    @property
    def summary(self) -> Summary:
        """What the rows came to. Raises RuntimeError while there are rows to read."""
        if not self._summary:
            raise RuntimeError("the rows of this listing have not been read to their end")
        return self._summary[0]

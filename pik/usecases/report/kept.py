"""The first rows of a list: what a report shows of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from pik.usecases import Listing, Row, Summary

Total = TypeVar("Total")

ROWS = 200
"""Rows that a report keeps of each list."""


@dataclass(frozen=True, slots=True)
class Kept(Generic[Row, Summary]):
    """The first rows of a list, and how many are left out (None: there are some, which were not counted); `summary` is
    what all of them come to."""

    rows: tuple[Row, ...]
    left_out: int | None
    summary: Summary

    @property
    def truncated(self) -> bool:
        """Whether rows are left out."""
        return self.left_out != 0

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)


def kept(rows: Iterable[Row], summary: Total) -> Kept[Row, Total]:
    """Keep the first ROWS, and count the others."""
    each = iter(rows)
    first = tuple(islice(each, ROWS))
    return Kept(first, sum(1 for _ in each), summary)


def kept_listing(listing: Listing[Row, Summary]) -> Kept[Row, Summary]:
    """Keep the first ROWS of a listing, and count the others."""
    each = iter(listing)
    first = tuple(islice(each, ROWS))
    left_out = sum(1 for _ in each)
    return Kept(first, left_out, listing.summary)

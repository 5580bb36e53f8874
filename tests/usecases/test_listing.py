"""A listing hands out its rows once, and its summary after the last of them."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pik.usecases import Listing, ListingExtent


def _numbers(count: int) -> Generator[int, None, ListingExtent]:
    yield from range(count)
    return ListingExtent(count)


def test_summary_is_there_after_the_last_row() -> None:
    listing = Listing(_numbers(3))
    rows = iter(listing)
    assert next(rows) == 0
    with pytest.raises(RuntimeError, match="not been read to their end"):
        _ = listing.summary
    assert list(listing) == [1, 2]
    assert (listing.summary.matched, listing.summary.truncated) == (3, False)
    assert list(listing) == []


def test_truncated_listing_does_not_count_its_matches() -> None:
    assert ListingExtent(None).truncated
    assert not ListingExtent(0).truncated


def test_rows_that_fail_have_no_summary() -> None:
    def rows() -> Generator[int, None, int]:
        yield 1
        raise ValueError("no more")

    listing = Listing(rows())
    with pytest.raises(ValueError, match="no more"):
        list(listing)
    with pytest.raises(RuntimeError):
        _ = listing.summary

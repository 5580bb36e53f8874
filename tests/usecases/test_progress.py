"""Long listings tell how far they are, and have said all before their first row comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.runtime import Progress
from pik.usecases import Listing
from pik.usecases.inspect.duplicates import DuplicateFilter, count_duplicates, list_duplicates
from pik.usecases.inspect.events import list_events
from tests.support.stores import event, ingest

EVERYTHING = Filter(ALL_TIME)
HOURS = 24


class Told:
    """What a progress was told."""

    def __init__(self) -> None:
        self.done, self.active = 0, False

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.done, self.active = done, True

    def advance(self, done: int) -> None:
        assert self.active
        self.done += done

    def stop(self) -> None:
        self.active = False


def _events(store: Store, progress: Progress) -> Listing[Any, Any]:
    return list_events(store, EVERYTHING, progress=progress)


def _first_events(store: Store, progress: Progress) -> Listing[Any, Any]:
    return list_events(store, EVERYTHING, 3, progress=progress)


def _duplicates(store: Store, progress: Progress) -> Listing[Any, Any]:
    return list_duplicates(store, DuplicateFilter(EVERYTHING), progress=progress)


def _counted(store: Store, progress: Progress) -> Listing[Any, Any]:
    return count_duplicates(store, DuplicateFilter(EVERYTHING), "hour", progress=progress)


@pytest.mark.parametrize("listing", [_events, _first_events, _duplicates, _counted])
def test_every_delivery_that_is_read_counts(listing: Any, store: Store, tmp_path: Path) -> None:
    hourly = [event(number, "a", f"01T{number:02}:00") for number in range(HOURS)]
    ingest(store, tmp_path, [*hourly, *hourly])
    told = Told()
    rows = iter(listing(store, told))
    next(rows)
    assert (told.done, told.active) == (2 * HOURS, False)
    assert list(rows)

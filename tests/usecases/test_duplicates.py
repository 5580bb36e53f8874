"""Duplicates, many of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.runtime import storage
from pik.runtime.storage import sort_bounded
from pik.usecases.inspect import duplicates, events
from pik.usecases.inspect.duplicates import DuplicateFilter, count_duplicates, list_duplicates
from tests.support.faults import Wrapped
from tests.support.stores import event, ingest

MANY = 1_300
WANTED = DuplicateFilter(Filter(ALL_TIME))


@pytest.fixture
def doubled(store: Store, tmp_path: Path) -> Store:
    """MANY events, each delivered twice, and one of them a third time."""
    events = [event(number, f"e{number % 7}", f"01T{number % 24:02}:00") for number in range(MANY)]
    ingest(store, tmp_path, [*events, *events, events[5]])
    return store


def test_the_index_is_asked_for_many_at_once(doubled: Store) -> None:
    calls: list[str] = []

    def counted(name: str, call: Callable[[], Any]) -> Any:
        calls.append(name)
        return call()

    asked = replace(doubled, index=Wrapped(doubled.index, "index", {"repeats"}, counted))
    rows = list(list_duplicates(asked, WANTED))
    assert len(rows) == MANY + 1
    assert sorted({row.deliveries for row in rows}) == [2, 3]
    assert len(calls) < 10


def test_only_events_that_came_often_enough(doubled: Store) -> None:
    assert len(list(list_duplicates(doubled, replace(WANTED, min_deliveries=3)))) == 2
    assert sum(row.duplicates for row in count_duplicates(doubled, WANTED, "entity")) == MANY + 1


@pytest.mark.parametrize("by", ["source", "type", "entity", "batch", "hour"])
def test_groups_that_do_not_fit_into_memory_are_counted_whole(
    doubled: Store, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(count_duplicates(doubled, WANTED, by))
    monkeypatch.setattr(duplicates, "SORTED_IN_MEMORY", 2)
    assert list(count_duplicates(doubled, WANTED, by)) == whole
    assert sum(row.duplicates for row in whole) == MANY + 1


def test_what_is_sorted_holds_nothing_of_the_segment(doubled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames, written to disk with each duplicate, took longer than all else together."""
    sizes: list[int] = []

    def measured(items: Iterable[Any], key: Callable[[Any], Any]) -> Iterator[Any]:
        for item in sort_bounded(items, key):
            sizes.append(len(pickle.dumps(item)))
            yield item

    monkeypatch.setattr(events, "sort_bounded", measured)
    monkeypatch.setattr(storage, "SORTED_IN_MEMORY", 100)  # so few do not fit into memory
    assert len(list(list_duplicates(doubled, WANTED))) == len(sizes) == MANY + 1
    assert max(sizes) < 1_000

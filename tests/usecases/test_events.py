"""Lists of events and duplicates: in order, cut where a limit says, and no day read that is not needed for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pik.model.batch import Verdict
from pik.model.delivery import Filter
from pik.model.instant import parse_instant
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.runtime import storage
from pik.usecases.inspect.conditions import Conditions
from pik.usecases.inspect.deliveries import show_event
from pik.usecases.inspect.duplicates import DuplicateFilter, count_duplicates, list_duplicates
from pik.usecases.inspect.events import list_events
from tests.support.faults import Wrapped
from tests.support.stores import PlainEngine, event, ingest

EVERYTHING = Filter(ALL_TIME)


def listed(store: Store, what: str, limit: int | None) -> Any:
    if what == "events":
        return list_events(store, EVERYTHING, limit)
    return list_duplicates(store, DuplicateFilter(EVERYTHING, min_deliveries=3 if what == "often" else 2), limit=limit)


@pytest.fixture
def many(store: Store, tmp_path: Path) -> Store:
    """Events of four days, in batches that overlap, some with equal times, some of them two to four times."""
    chance = random.Random(5)
    for _ in range(4):
        some = [
            event(0, f"e{chance.randrange(30)}", f"0{chance.randrange(1, 5)}T0{chance.randrange(6)}:00")
            for _ in range(300)
        ]
        ingest(store, tmp_path, some)
    return store


@pytest.mark.parametrize("what", ["events", "duplicates", "often"])
def test_promise_9_a_limit_shows_the_first_and_shows_whether_there_are_more(many: Store, what: str) -> None:
    whole = listed(many, what, None)
    rows = list(whole)
    assert (whole.summary.matched, whole.summary.truncated, len(rows) > 30) == (len(rows), False, True)
    assert [row.event_time for row in rows] == sorted(row.event_time for row in rows)
    for limit in (1, 2, 5, 20, len(rows) - 1, len(rows), len(rows) + 1):
        cut = listed(many, what, limit)
        assert list(cut) == rows[:limit]
        assert (cut.summary.truncated, cut.summary.matched) == (
            (True, None) if limit < len(rows) else (False, len(rows))
        )


def reads(store: Store) -> tuple[Store, list[str]]:
    """The store, and a list that grows with each read of raw."""
    calls: list[str] = []

    def counted(name: str, call: Callable[[], Any]) -> Any:
        calls.append(name)
        return call()

    return replace(store, raw=Wrapped(store.raw, "raw", {"read"}, counted)), calls


@pytest.mark.parametrize("what", ["events", "duplicates"])
def test_a_limit_stops_reading(store: Store, tmp_path: Path, what: str) -> None:
    ingest(store, tmp_path, [event(1, "a", f"{day:02}T00:00") for day in range(1, 29)] * 2)
    counted, calls = reads(store)
    assert len(list(listed(counted, what, 2))) == 2
    assert len(calls) <= 4  # the third tells that there are more, the fourth that this was all of the third day


def test_rows_come_day_by_day(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [event(1, "a", f"{day:02}T00:00") for day in range(1, 29)])
    counted, calls = reads(store)
    rows = iter(list_events(counted, EVERYTHING))
    assert calls == []
    next(rows)
    assert len(calls) == 28 < 200  # a page of rows, whose repeats are asked for at once


def test_more_repeated_events_than_are_remembered_are_counted_by_the_index(many: Store) -> None:
    expected = list(list_events(many, EVERYTHING))
    assert sum(row.deliveries > 1 for row in expected) > 3
    assert list(list_events(many, EVERYTHING, remembered=2)) == expected


def test_an_event_that_came_very_often_is_counted_once(store: Store, tmp_path: Path) -> None:
    """The index counts an event's deliveries one by one: asked for each of them, it took their square."""
    ingest(store, tmp_path, [event(1, "a", "01T00:00")] * 3_000)
    asked: list[int] = []

    class Repeats:
        def __getattr__(self, name: str) -> Any:
            return getattr(store.repeats, name)

        def counts(self, events: Any) -> list[int]:
            asked.append(len(events))
            return store.repeats.counts(events)

    found = list_duplicates(replace(store, repeats=Repeats()), DuplicateFilter(EVERYTHING))
    assert {row.deliveries for row in found} == {3_000}
    assert asked == [1]


def test_groups_are_counted_with_few_in_memory(many: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(count_duplicates(many, DuplicateFilter(EVERYTHING), "entity"))
    assert len(expected) == 30
    assert [-row.duplicates for row in expected] == sorted(-row.duplicates for row in expected)
    assert sum(row.duplicates for row in expected) == len(list(list_duplicates(many, DuplicateFilter(EVERYTHING))))
    monkeypatch.setattr("pik.usecases.inspect.duplicates.SORTED_IN_MEMORY", 2)
    monkeypatch.setattr(storage, "SORTED_IN_MEMORY", 3)
    cut = count_duplicates(many, DuplicateFilter(EVERYTHING), "entity", limit=7)
    assert list(cut) == expected[:7]
    assert (cut.summary.duplicates, cut.summary.truncated) == (sum(row.duplicates for row in expected), True)


def test_an_event_that_came_very_often_is_shown_in_part_with_a_note(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [event(1, "a", "01T00:00")] * 3_000)
    counted, calls = reads(store)
    (row,) = list_events(store, EVERYTHING)
    found = show_event(counted, PlainEngine(), row.event_id, 100)
    assert [one.seq for one in found.deliveries] == list(range(1, 101))
    assert found.left_out == 2_900
    assert len(calls) <= 3  # a frame is read once, not once for each delivery that lies in it
    whole = show_event(store, PlainEngine(), row.event_id)
    assert (len(whole.deliveries), whole.left_out, whole.deliveries[:100]) == (3_000, 0, found.deliveries)


def test_a_day_with_more_events_than_are_held_is_listed_in_order_too(
    many: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(list_events(many, EVERYTHING))
    monkeypatch.setattr(storage, "SORTED_IN_MEMORY", 3)
    assert list(list_events(many, EVERYTHING)) == expected


@pytest.mark.parametrize("what", ["accepted", "exact"])
def test_the_newest_are_those_of_the_whole_list_read_backwards(many: Store, what: str) -> None:
    conditions = Conditions(Verdict(what))
    whole = list(list_events(many, EVERYTHING, conditions=conditions))
    newest = sorted(whole, key=lambda row: (-row.event_time, -int(row.event_id, 16), row.batch_id, row.seq))
    for limit in (1, 5, len(whole) - 1, len(whole), None):
        cut = list_events(many, EVERYTHING, limit, conditions=conditions, newest=True)
        assert list(cut) == newest[:limit]
        assert cut.summary.truncated == (limit is not None and limit < len(whole))


def test_a_limit_of_the_newest_reads_the_days_needed_only(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [event(1, "a", f"{day:02}T00:00") for day in range(1, 29)] * 2)
    counted, calls = reads(store)
    rows = list(list_events(counted, EVERYTHING, 2, newest=True))
    assert [row.event_time for row in rows] == [parse_instant(f"2026-01-{day}T00:00:00Z") for day in (28, 27)]
    assert len(calls) <= 3  # the third tells that there are more


def test_days_in_the_far_future_and_past_are_found_backwards(store: Store, tmp_path: Path) -> None:
    times = ["1700-03-01T00:00:00Z", "1969-12-31T23:59:59Z", "2026-01-02T00:00:00Z", "2261-01-01T00:00:00Z"]
    ingest(store, tmp_path, [{**event(1, "a", "01T00:00"), "event_time": time} for time in times])
    rows = list(list_events(store, EVERYTHING, newest=True))
    assert [row.event_time for row in rows] == [parse_instant(time) for time in reversed(times)]


def test_only_days_with_deliveries_of_the_batch_are_read(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [event(1, "a", f"{day:02}T00:00") for day in range(1, 29)])
    ingest(store, tmp_path, [event(2, "a", "03T00:00")])
    batch = next(store.index.batches())
    counted, calls = reads(store)
    [row] = list_events(counted, EVERYTHING, conditions=Conditions(batch_id=batch.batch_id))
    assert (row.batch_id, len(calls)) == (batch.batch_id, 1)

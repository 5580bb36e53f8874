"""What a command reads stays within what its answer needs, whatever the store looks like: counted, not timed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.model.delivery import Filter, read_delivery
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog import objects as reading
from pik.runtime import SILENT
from pik.usecases.care.verify import verify
from pik.usecases.inspect.deliveries import show_event
from pik.usecases.inspect.duplicates import DuplicateFilter, count_duplicates, list_duplicates
from pik.usecases.inspect.events import list_events
from pik.usecases.metrics.diff import diff_aggregates
from tests.support.faults import Wrapped
from tests.support.stores import event, ingest, replayed
from tests.support.strange_stores import STRANGE

EVERYTHING = Filter(ALL_TIME)
COUNT = 4_000
LIMIT = 5
FEW = 600
"""Lines that may be decoded for a few of them: those until a bound is known, and what comes before it by chance."""


@dataclass
class Work:
    """What was read: deliveries that were decoded, objects of raw, and events whose deliveries the index counted."""

    decoded: int = 0
    objects: int = 0
    asked: list[int] = field(default_factory=list)


@contextmanager
def working(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, Work]]:
    """The store, and a count of what is read of it."""
    work = Work()

    def counted(line: bytes) -> Any:
        work.decoded += 1
        return read_delivery(line)

    def called(_name: str, call: Any) -> Any:
        work.objects += 1
        return call()

    class Repeats:
        def __getattr__(self, name: str) -> Any:
            return getattr(store.repeats, name)

        def counts(self, events: Any) -> list[int]:
            work.asked.append(len(events))
            return store.repeats.counts(events)

    with monkeypatch.context() as patched:
        patched.setattr(reading, "read_delivery", counted)
        yield replace(store, raw=Wrapped(store.raw, "raw", {"read"}, called), repeats=Repeats()), work


@pytest.mark.parametrize("name", STRANGE)
def test_promise_8_a_limit_bounds_what_is_read_of_a_strange_store(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    ingest(store, tmp_path, (STRANGE[name](number) for number in range(COUNT)))
    whole = list(list_events(store, EVERYTHING))
    with working(store, monkeypatch) as (counted, work):
        assert list(list_events(counted, EVERYTHING, LIMIT)) == whole[:LIMIT]
        # An event that came often is decoded each time: how often is part of the answer.
        assert work.decoded <= (COUNT if len(whole) == 1 else FEW)
        assert sum(work.asked) <= LIMIT
    repeated = list(list_duplicates(store, DuplicateFilter(EVERYTHING)))
    assert len(repeated) == (COUNT - 1 if len(whole) == 1 else 0)
    with working(store, monkeypatch) as (counted, work):
        assert list(list_duplicates(counted, DuplicateFilter(EVERYTHING), limit=LIMIT)) == repeated[:LIMIT]
        assert work.decoded <= COUNT
        assert sum(work.asked) <= LIMIT
    with working(store, monkeypatch) as (counted, work):
        assert len(list(count_duplicates(counted, DuplicateFilter(EVERYTHING), "type", limit=LIMIT))) <= LIMIT
        assert sum(work.asked) <= 1
    with working(store, monkeypatch) as (counted, work):
        show_event(counted, DuckEngine(threads=1), whole[0].event_id)
        assert work.decoded <= COUNT
        assert work.objects <= COUNT / 200


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_store_is_diffed_and_verified(store: Store, tmp_path: Path, name: str) -> None:
    ingest(store, tmp_path, (STRANGE[name](number) for number in range(COUNT)))
    engine, metrics = DuckEngine(threads=1), ("event_count",)
    rows = list(diff_aggregates(store, engine, ALL_TIME, metrics=metrics).rows)
    assert sum(int(row.recomputed or 0) for row in rows) == store.index.totals().events
    replayed(store, engine, metrics=metrics)
    diff = diff_aggregates(store, engine, ALL_TIME, metrics=metrics)
    assert not list(diff.rows)
    assert diff.stats.equal == len(rows)
    verification = verify(store, engine, ALL_TIME, SILENT)
    assert not list(verification)
    assert verification.summary.aggregates == len(rows)


def test_a_limit_does_not_read_what_came_later_on_the_same_day(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for hour in range(20):
        ingest(store, tmp_path, [event(number, "a", f"01T{hour:02}:{number % 60:02}") for number in range(200)])
    whole = list(list_events(store, EVERYTHING))
    with working(store, monkeypatch) as (counted, work):
        assert list(list_events(counted, EVERYTHING, LIMIT)) == whole[:LIMIT]
    assert work.objects == 1


@pytest.mark.parametrize("batches", [60, pytest.param(5_000, marks=pytest.mark.slow)])
def test_promise_8_a_limit_bounds_what_is_read_of_many_batches(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    for number in range(batches):
        ingest(store, tmp_path, [event(number, "a", f"{1 + number % 28:02}T00:00")])
    days = batches // 28 + 1
    with working(store, monkeypatch) as (counted, work):
        assert len(list(list_events(counted, EVERYTHING, LIMIT))) == LIMIT
        assert work.objects <= (LIMIT // days + 2) * days
    with working(store, monkeypatch) as (counted, work):
        assert not list(list_duplicates(counted, DuplicateFilter(EVERYTHING), limit=LIMIT))
        assert work.objects == 0
    assert not list(verify(store, DuckEngine(threads=1), ALL_TIME, SILENT))

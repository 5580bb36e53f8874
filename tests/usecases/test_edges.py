"""The first and the last instant that there are, in buckets of several days, which reach beyond them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pik.engine import DuckEngine
from pik.model.delivery import Filter
from pik.model.instant import DAY, MAX_INSTANT, MIN_INSTANT, full_instant
from pik.model.metric import Definition
from pik.model.run import RunState
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.verify import verify
from pik.usecases.inspect.deliveries import show_event
from pik.usecases.inspect.events import list_events
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.diff import diff_aggregates
from tests.support.stores import current, ingest, replayed

WEEKLY = Definition(name="weekly", value="count(*)", bucket="7d")
TIMES = (MIN_INSTANT, MIN_INSTANT + 6 * DAY, MAX_INSTANT - 6 * DAY, MAX_INSTANT)
WINDOWS = {
    "all time": ALL_TIME,
    "a part of the first bucket": Window(MIN_INSTANT + 1, MIN_INSTANT + DAY),
    "a part of the last bucket": Window(MAX_INSTANT - DAY, MAX_INSTANT),
}


@pytest.fixture
def engine() -> Engine:
    return DuckEngine(threads=1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = open_store(str(tmp_path / "store"), create=True)
    add_version(made.metrics, WEEKLY, 1)
    event = {"source": "s", "event_type": "t", "entity_id": "a", "payload": {"v": 1}}
    ingest(made, tmp_path, [{**event, "event_time": full_instant(time)} for time in TIMES])
    return made


def rows(store: Store, engine: Engine, window: Window, entities: tuple[str, ...] = ()) -> list[tuple[str, int]]:
    return [(row.op, row.bucket) for row in diff_aggregates(store, engine, window, entities=entities).rows]


@pytest.mark.parametrize("window", WINDOWS.values(), ids=list(WINDOWS))
def test_what_is_replayed_at_the_edges_of_time_is_what_is_recomputed(
    store: Store, engine: Engine, window: Window
) -> None:
    added = rows(store, engine, window)
    assert added
    assert {op for op, _ in added} == {"+"}
    assert all(MIN_INSTANT <= bucket <= MAX_INSTANT for _, bucket in added)
    assert rows(store, engine, window, ("a",)) == added
    run = store.runs.get(replayed(store, engine, window))
    assert run.state == RunState.COMPLETED
    assert run.new == len(added) == len(current(store))
    assert rows(store, engine, window) == rows(store, engine, window, ("a",)) == []
    assert list(verify(store, engine, ALL_TIME, SILENT)) == []


def test_an_event_at_an_edge_of_time_is_shown_with_the_aggregates_that_counted_it(store: Store, engine: Engine) -> None:
    replayed(store, engine)
    for found in list_events(store, Filter()):
        counted = show_event(store, engine, found.event_id).aggregates
        assert counted is not None
        assert [one.computed.metric for one in counted] == ["event_count", "weekly"]

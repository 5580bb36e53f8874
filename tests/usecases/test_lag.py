"""How long events took to arrive: equal to plain Python over the same events."""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.errors import UsageError
from pik.model.delivery import Filter
from pik.model.instant import HOUR, format_instant, parse_instant
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.stores import open_store
from pik.usecases.timing import lag
from pik.usecases.timing.grouping import read_grouping
from pik.usecases.timing.lag import EDGES, GROUPS, Limits, State, measure_lag
from tests.support.fleet import RepeatingFleet
from tests.support.stores import ingest

START = parse_instant("2026-01-01T00:00:00Z")
END = START + 30 * HOUR


def some_events(seed: int) -> list[dict[str, Any]]:
    """Return 400 events of 30 hours, a tenth of them delivered twice, with lags from -1 h to some days."""
    chance = random.Random(seed)
    events = []
    for number in range(400):
        at = START + chance.randrange(30 * HOUR)
        late = round(chance.choice([1, 1, 1, -1]) * 10 ** chance.uniform(3, 14.5))
        events.append(
            {
                "source": chance.choice(["web", "app"]),
                "event_type": chance.choice(["paid", "seen"]),
                "entity_id": f"e{chance.randrange(5)}",
                "event_time": format_instant(at),
                "received_time": format_instant(at + late),
                "payload": {"n": number, "app": chance.choice([{"it's": "b"}, {"it's": 7}, {}, {"it's": None}, "x"])},
            }
        )
    return events + chance.sample(events, 40)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


def lag_of(event: dict[str, Any]) -> int:
    return parse_instant(event["received_time"]) - parse_instant(event["event_time"])


def group_of(event: dict[str, Any], by: str) -> str | None:
    if by == "hour":
        at = parse_instant(event["event_time"])
        return str(at - at % HOUR)
    if by.startswith("payload."):
        app = event["payload"]["app"]
        found = app.get("it's") if isinstance(app, dict) else None
        return None if found is None else str(found)
    return str(event[{"source": "source", "type": "event_type"}[by]])


def percentile(lags: list[int], percent: int) -> int:
    return sorted(lags)[math.ceil(percent * len(lags) / 100) - 1]


@pytest.mark.parametrize("by", ["source", "type", "hour", 'payload.app."it\'s"'])
@pytest.mark.parametrize(
    "wanted",
    [
        Filter(),
        Filter(Window(START + 5 * HOUR, START + 20 * HOUR), ("e1", "e2")),
        Filter(ALL_TIME, (), "web", "paid"),
    ],
)
def test_percentiles_counts_and_bars_are_those_of_the_events(
    store: Store, tmp_path: Path, by: str, wanted: Filter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the same on a fleet, of shares of each day."""
    events = some_events(len(by))
    ingest(store, tmp_path, events)
    chosen = [
        json.loads(text)
        for text in {json.dumps(one) for one in events}
        if parse_instant(json.loads(text)["event_time"]) in wanted.window
        and (not wanted.entities or json.loads(text)["entity_id"] in wanted.entities)
        and wanted.source in (None, json.loads(text)["source"])
        and wanted.event_type in (None, json.loads(text)["event_type"])
    ]
    lags = defaultdict[str | None, list[int]](list)
    for one in chosen:
        lags[group_of(one, by)].append(lag_of(one))
    limits = Limits(60 * 10**9, HOUR)
    found = measure_lag(store, DuckEngine(), wanted, read_grouping(by, GROUPS), limits)
    groups = list(found.groups)
    monkeypatch.setattr(lag, "SHARE_BYTES", 1000)
    fleet = RepeatingFleet(store, DuckEngine(threads=1))
    shared = measure_lag(store, DuckEngine(), wanted, read_grouping(by, GROUPS), limits, fleet=fleet)
    assert (shared.total, list(shared.groups), shared.histogram) == (found.total, groups, found.histogram)
    assert {one.group for one in groups} == set(lags)
    assert found.total is not None
    everything = [one for some in lags.values() for one in some]
    for one, expected in [*((one, lags[one.group]) for one in groups), (found.total, everything)]:
        assert (one.events, one.least, one.most) == (len(expected), min(expected), max(expected))
        assert [one.p50, one.p90, one.p95, one.p99] == [percentile(expected, each) for each in (50, 90, 95, 99)]
        assert one.negative == sum(each < 0 for each in expected)
        assert one.error == sum(each > HOUR for each in expected)
        assert one.warn == sum(60 * 10**9 < each <= HOUR for each in expected)
        assert one.state == (State.ERROR if one.error else State.WARN if one.warn else State.PASS)
    for bar in found.histogram:
        low, high = bar.start, bar.end
        expected_in = [each for each in everything if (low is None or each >= low) and (high is None or each < high)]
        assert bar.events == len(expected_in)
    assert sum(bar.events for bar in found.histogram) == len(everything)
    assert found.histogram[0].events
    assert found.histogram[-1].events


def test_hours_come_in_their_order_and_other_groups_with_the_slowest_first(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, some_events(3))
    hours = list(measure_lag(store, DuckEngine(), Filter(), read_grouping("hour", GROUPS)).groups)
    assert [int(one.group or 0) for one in hours] == sorted(int(one.group or 0) for one in hours)
    assert all(one.state is None for one in hours)
    types = list(measure_lag(store, DuckEngine(), Filter(), read_grouping("type", GROUPS), Limits(error=HOUR)).groups)
    assert [one.error for one in types] == sorted((one.error for one in types), reverse=True)


def test_batches_are_told_apart_and_without_a_received_time_lag_lasts_until_the_ingest(
    store: Store, tmp_path: Path
) -> None:
    ingest(store, tmp_path, some_events(4))
    ingest(store, tmp_path, [{**some_events(9)[0], "received_time": None}])
    found = measure_lag(store, DuckEngine(), Filter(), read_grouping("batch", GROUPS))
    assert found.total is not None
    assert (found.total.events, found.total.at_ingest) == (401, 1)
    single, whole = sorted(found.groups, key=lambda one: one.events)
    assert (single.events, whole.events) == (1, 400)
    (last,) = (batch for batch in store.index.batches() if batch.counts.read == 1)
    event_time = parse_instant(some_events(9)[0]["event_time"])
    assert last.started_at - event_time <= single.least == single.most <= last.recorded_at - event_time


def test_no_events_are_no_distribution(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, some_events(5))
    for fleet in (None, RepeatingFleet(store, DuckEngine(threads=1))):
        wanted, by = Filter(source="nobody"), read_grouping("source", GROUPS)
        found = measure_lag(store, DuckEngine(), wanted, by, fleet=fleet)
        assert (found.total, list(found.groups), found.histogram) == (None, [], ())


def test_edges_of_bars_ascend() -> None:
    assert list(EDGES) == sorted(set(EDGES))


@pytest.mark.parametrize("by", ["entity", "payload", "payload.", "payload.a[0]", 'payload."', "nothing", ""])
def test_what_cannot_be_grouped_by_is_refused(by: str) -> None:
    with pytest.raises(UsageError, match=r"--by"):
        read_grouping(by, GROUPS)

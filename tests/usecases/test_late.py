"""Late events: which current values they fell into, and how they move them, against plain Python."""

from __future__ import annotations

import random
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.errors import NothingSelected
from pik.model.calendar import UTC_DAYS
from pik.model.instant import DAY, HOUR, parse_instant
from pik.model.metric import Definition
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.stores import open_store
from pik.usecases.metrics.definitions import apply
from pik.usecases.timing.late import LateBucket, find_late
from tests.support.stores import event, ingest, replayed

METRICS = [
    Definition(name="total", value="sum((payload->>'v')::DECIMAL(18, 2))", bucket="12h", where="event_type = 'paid'"),
    Definition(name="top", value="max((payload->>'v')::DECIMAL(18, 2))", bucket="1d"),
]
Place = tuple[str, int, str]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = open_store(str(tmp_path / "store"), create=True)
    apply(made.metrics, DuckEngine(), METRICS, 1)
    return made


def some_events(chance: random.Random, count: int) -> list[dict[str, Any]]:
    kinds = [("paid", "web"), ("seen", "app")]
    events = []
    for _ in range(count):
        kind, source = chance.choice(kinds)
        moment = f"0{chance.randrange(1, 5)}T{chance.randrange(24):02}:{chance.randrange(60):02}"
        events.append(event(chance.randrange(1000), f"e{chance.randrange(4)}", moment, kind=kind, source=source))
    return events


def places(one: dict[str, Any]) -> list[Place]:
    """Return the values that count the event."""
    at, entity = parse_instant(one["event_time"]), one["entity_id"]
    found = [("event_count", at - at % DAY, entity), ("top", at - at % DAY, entity)]
    return found + ([("total", at - at % (12 * HOUR), entity)] if one["event_type"] == "paid" else [])


def value(metric: str, events: list[dict[str, Any]]) -> Decimal:
    numbers = [Decimal(one["payload"]["v"]) for one in events]
    return {"event_count": Decimal(len(numbers)), "top": max(numbers, default=Decimal(0)), "total": sum(numbers)}[
        metric
    ] + Decimal(0)


def figures(one: LateBucket) -> tuple[Any, ...]:
    return one.late, one.current, one.before, one.after, one.delta


def unique(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({str(one): one for one in events}.values())


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_late_events_and_what_they_move_are_those_of_the_events(store: Store, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    known: dict[Place, list[dict[str, Any]]] = {}
    everything: list[dict[str, Any]] = []
    for count, entities in ((60, ()), (12, ("e1",)), (12, ())):
        everything = unique(everything + some_events(chance, count))
        ingest(store, tmp_path, everything)
        if count == 12 and not entities:
            break
        by_place = defaultdict[Place, list[dict[str, Any]]](list)
        for one in everything:
            for place in places(one):
                by_place[place].append(one)
        known |= {place: some for place, some in by_place.items() if not entities or place[2] in entities}
        replayed(store, DuckEngine(), entities=entities)
    expected = {}
    for place, counted in known.items():
        now = [one for one in everything if place in places(one)]
        if len(now) > len(counted):
            expected[place] = (len(now) - len(counted), value(place[0], now) - value(place[0], counted))
    for window, chosen in (
        (ALL_TIME, ()),
        (Window(*(parse_instant(f"2026-01-0{n}T03:00:00Z") for n in (2, 3))), ("e2",)),
    ):
        report = find_late(store, DuckEngine(), window, chosen)
        found = {(one.metric, one.bucket, one.entity_id): (one.late, one.delta) for one in report.buckets}
        in_reach = {
            place: moved
            for place, moved in expected.items()
            if (not chosen or place[2] in chosen)
            and place[1] < window.end
            and place[1] + (12 * HOUR if place[0] == "total" else DAY) > window.start
        }
        assert found == in_reach
        assert report.late == len(in_reach) > 0


def test_before_is_the_current_value_and_proven(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [event(4, "a", "01T01:00"), event(1, "a", "02T01:00")])
    replayed(store, DuckEngine())
    assert list(find_late(store, DuckEngine(), ALL_TIME).buckets) == []
    ingest(store, tmp_path, [event(3, "a", "01T02:00"), event(9, "new", "01T02:00")])
    found: dict[str, LateBucket] = {one.metric: one for one in find_late(store, DuckEngine(), ALL_TIME).buckets}
    assert {name: figures(one) for name, one in found.items()} == {
        "event_count": (1, 1, 1, 2, 1),
        "top": (1, 4, 4, 4, 0),
        "total": (1, 4, 4, 7, 3),
    }
    assert all(one.proven and one.entity_id == "a" for one in found.values())
    replayed(store, DuckEngine())
    assert list(find_late(store, DuckEngine(), ALL_TIME).buckets) == []


def test_a_changed_definition_is_not_taken_for_late_events(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [event(4, "a", "01T01:00")])
    replayed(store, DuckEngine())
    doubled = Definition(name="top", value="2 * max((payload->>'v')::DECIMAL(18, 2))", bucket="1d")
    apply(store.metrics, DuckEngine(), [doubled], 2)
    assert list(find_late(store, DuckEngine(), ALL_TIME).buckets) == []
    ingest(store, tmp_path, [event(5, "a", "01T02:00")])
    [top] = find_late(store, DuckEngine(), ALL_TIME, (), ["top"]).buckets
    assert figures(top) == (1, 4, 8, 10, 2)


@pytest.mark.parametrize(("was", "now"), [("1d", "6h"), ("12h", "1d")])
def test_a_value_whose_buckets_have_another_size_now_is_moved_under_its_own_definition(
    store: Store, tmp_path: Path, was: str, now: str
) -> None:
    def sized(bucket: str) -> Definition:
        return Definition(name="sized", value="count(*)", bucket=bucket)

    apply(store.metrics, DuckEngine(), [sized(was)], 2)
    ingest(store, tmp_path, [event(4, "a", "01T01:00"), event(5, "a", "01T13:00")])
    replayed(store, DuckEngine())
    apply(store.metrics, DuckEngine(), [sized(now)], 3)
    ingest(store, tmp_path, [event(6, "a", "01T14:00"), event(7, "a", "01T23:00")])
    evening = Window(*(parse_instant(f"2026-01-01T{hour}:00:00Z") for hour in (19, 20)))
    for window in (ALL_TIME, evening):
        report = find_late(store, DuckEngine(), window, (), ["sized"])
        [one] = report.buckets
        counted = 2 if was == "1d" else 1
        assert (figures(one), one.proven) == ((2, counted, counted, counted + 2, 2), True)
    assert report.effective == UTC_DAYS.widened(evening)


def test_without_current_values_nothing_is_late_and_an_unknown_metric_is_refused(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [event(4, "a", "01T01:00")])
    report = find_late(store, DuckEngine(), ALL_TIME)
    assert (report.values, report.late, list(report.buckets)) == (0, 0, [])
    with pytest.raises(NothingSelected, match="profit"):
        find_late(store, DuckEngine(), ALL_TIME, (), ["profit"])

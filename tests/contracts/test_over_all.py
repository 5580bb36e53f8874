"""Metrics over all entities, from their definition to the comparison, against a computation in plain Python."""

from __future__ import annotations

import random
from collections import defaultdict
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.errors import Invalid, UsageError
from pik.model.aggregate import NO_INPUTS
from pik.model.assumption_text import read_scenario
from pik.model.delivery import Filter
from pik.model.instant import DAY, HOUR, parse_instant
from pik.model.metric import ALL_ENTITIES, Definition, Per
from pik.model.scenario import OtherDefinition, Scenario
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.rawlog.selection import Overrides
from pik.usecases.inspect.deliveries import show_event
from pik.usecases.metrics.chain import Cause
from pik.usecases.metrics.definitions import apply, list_aggregates
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.metrics.event_ids import read_event_ids
from pik.usecases.metrics.explain import explain
from pik.usecases.metrics.impact import impact
from pik.usecases.replay.plan import TaskSize, plan_replay, start
from pik.usecases.replay.promote import promote, rollback
from pik.usecases.replay.tasks import execute_task
from pik.usecases.timing.late import find_late
from tests.support.calendar_model import start_of
from tests.support.diffs import diff_run
from tests.support.stores import current, ingest, replay, replayed, request, window

V = "(payload->>'$.v')::DECIMAL(18, 2)"
METRICS = [
    Definition(name="daily_users", value="count(DISTINCT entity_id)", per=Per.ALL),
    Definition(
        name="average",
        value=f"(sum({V}) / count(payload->>'$.v'))::DECIMAL(18, 4)",
        where="event_type = 'paid'",
        bucket="12h",
        per=Per.ALL,
    ),
    Definition(
        name="weekly_users",
        value="count(DISTINCT entity_id)",
        where="source = 'web'",
        bucket="1w",
        timezone="Pacific/Auckland",
        per=Per.ALL,
    ),
    Definition(name="paid", value="count(*)", where="event_type = 'paid'", timezone="America/New_York"),
]
ZERO = Decimal(0)
OVER_ALL = {one.name for one in METRICS if one.per == Per.ALL}


def random_events(seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    return [
        {
            "source": chance.choice(["web", "app"]),
            "event_type": chance.choice(["paid", "seen"]),
            "entity_id": f"user-{chance.randrange(12)}",
            "event_time": f"2026-01-{chance.randrange(1, 11):02}T{chance.randrange(24):02}:30:00Z",
            "payload": {"v": f"{chance.randrange(-500, 9_000) / 100:.2f}", "n": n},
        }
        for n in range(60)
    ]


def truth(events: list[dict[str, Any]]) -> dict[tuple[str, int, str], Decimal]:
    """What the metrics are: each event once, whatever came twice."""
    once = {repr(each): each for each in events}.values()
    users: dict[int, set[str]] = defaultdict(set)
    weekly: dict[int, set[str]] = defaultdict(set)
    paid: dict[int, list[Decimal]] = defaultdict(list)
    counts: dict[tuple[str, int, str], Decimal] = defaultdict(Decimal)
    for each in once:
        at, entity = parse_instant(each["event_time"]), each["entity_id"]
        day = at - at % DAY
        users[day].add(entity)
        counts["event_count", day, entity] += 1
        if each["source"] == "web":
            weekly[start_of("1w", "Pacific/Auckland", at)].add(entity)
        if each["event_type"] == "paid":
            paid[at - at % (12 * HOUR)].append(Decimal(each["payload"]["v"]))
            counts["paid", start_of("1d", "America/New_York", at), entity] += 1
    return {
        **{("daily_users", day, ALL_ENTITIES): Decimal(len(found)) for day, found in users.items()},
        **{("weekly_users", week, ALL_ENTITIES): Decimal(len(found)) for week, found in weekly.items()},
        **{
            ("average", half, ALL_ENTITIES): (sum(found, Decimal(0)) / len(found)).quantize(
                Decimal("1.0000"), ROUND_HALF_UP
            )
            for half, found in paid.items()
        },
        **counts,
    }


ALSO_AWS = pytest.mark.parametrize("kind", ["local", pytest.param("aws", marks=pytest.mark.slow)])
"""For what depends on how values are computed: those above all, and how they are kept, are looked at on every store."""


@pytest.fixture
def engine() -> DuckEngine:
    return DuckEngine(threads=1)


@pytest.fixture
def defined(store: Store, engine: DuckEngine) -> Store:
    apply(store.metrics, engine, METRICS, 1)
    return store


def ingest_in_parts(store: Store, directory: Path, events: list[dict[str, Any]], seed: int) -> None:
    """Several batches in any order, some events in two of them."""
    chance = random.Random(seed)
    shuffled = chance.sample(events, len(events))
    parts = [shuffled[:30], shuffled[20:], shuffled[::3]]
    for part in parts:
        ingest(store, directory, part)


@pytest.mark.parametrize("seed", [1])
def test_values_over_all_entities_are_those_of_each_event_once(
    defined: Store, engine: DuckEngine, tmp_path: Path, seed: int
) -> None:
    events = random_events(seed)
    ingest_in_parts(defined, tmp_path, events, seed)
    replayed(defined, engine)
    assert current(defined) == truth(events)
    assert list(diff_aggregates(defined, engine, ALL_TIME).rows) == []


@ALSO_AWS
def test_tasks_shuffled_repeated_and_small_make_the_same_values(
    defined: Store, engine: DuckEngine, tmp_path: Path
) -> None:
    events, chance = random_events(3), random.Random(3)
    ingest_in_parts(defined, tmp_path, events, 3)
    plan = plan_replay(defined, engine, request(), 1, size=TaskSize(entities=3, days=4, deliveries=20))
    tasks = list(plan.tasks)
    assert all(not task.entities for task in tasks)
    run = start(defined, plan)
    for task in chance.sample(tasks, len(tasks)) + chance.sample(tasks, 2):
        execute_task(defined, engine, task)
    defined.promotions.promote(run.run_id, 2, "")
    assert current(defined) == truth(events)


@ALSO_AWS
def test_a_filter_chooses_buckets_and_never_their_inputs(defined: Store, engine: DuckEngine, tmp_path: Path) -> None:
    events = random_events(4)
    ingest(defined, tmp_path, events)
    within = window("03", "09")
    plan = plan_replay(defined, engine, request(within, source="app"), 1, size=TaskSize(entities=2, days=3))
    of_all = [task for task in plan.tasks if not {name.partition("@")[0] for name in task.metrics} - OVER_ALL]
    assert of_all
    assert all(not task.entities for task in of_all)
    replayed(defined, engine, within, source="app")
    chosen = [each for each in events if each["source"] == "app" and parse_instant(each["event_time"]) in within]
    sizes = {"daily_users": DAY, "average": 12 * HOUR, "weekly_users": 7 * DAY}
    expected = {
        key: value
        for key, value in truth(events).items()
        if key[0] in OVER_ALL
        and any(key[1] <= parse_instant(each["event_time"]) < key[1] + sizes[key[0]] for each in chosen)
    }
    assert {key: value for key, value in current(defined).items() if key[0] in OVER_ALL} == expected


def test_late_events_are_a_difference_that_a_replay_repairs_and_a_rollback_brings_back(
    defined: Store, engine: DuckEngine, tmp_path: Path
) -> None:
    events = random_events(5)
    ingest(defined, tmp_path, events[:50])
    replayed(defined, engine)
    before = current(defined)
    ingest(defined, tmp_path, events[50:])
    names = sorted(OVER_ALL)
    found = {
        (row.metric, row.bucket, row.entity_id): (row.current, row.recomputed)
        for row in diff_aggregates(defined, engine, ALL_TIME, metrics=names).rows
    }
    now = truth(events)
    keys = {key for key in before.keys() | now.keys() if key[0] in OVER_ALL and before.get(key) != now.get(key)}
    assert found == {key: (before.get(key), now.get(key)) for key in keys}
    assert keys
    run_id = replay(defined, engine, metrics=tuple(names)).run_id
    of_run = {(row.metric, row.bucket, row.entity_id) for row in diff_run(defined, run_id).rows}
    assert of_run == keys
    promote(defined, run_id, 3, "")
    assert {key: value for key, value in current(defined).items() if key[0] in OVER_ALL} == {
        key: value for key, value in now.items() if key[0] in OVER_ALL
    }
    rollback(defined, run_id, 4, "")
    assert current(defined) == before


@ALSO_AWS
def test_a_bucket_whose_events_are_gone_becomes_null(defined: Store, engine: DuckEngine, tmp_path: Path) -> None:
    ingest(defined, tmp_path, random_events(6))
    replayed(defined, engine)
    narrower = Definition(name="daily_users", value="count(DISTINCT entity_id)", where="source = 'none'", per=Per.ALL)
    apply(defined.metrics, engine, [narrower], 2)
    run_id = replayed(defined, engine, metrics=("daily_users",))
    values = {key: value for key, value in current(defined).items() if key[0] == "daily_users"}
    assert values
    assert set(values.values()) == {None}
    [version] = {row.computed.counted for row in defined.aggregates.current("daily_users", ALL_TIME)}
    assert version == (0, NO_INPUTS, NO_INPUTS)
    assert defined.runs.get(run_id).removed == len(values)


@ALSO_AWS
def test_with_entities_metrics_over_all_are_left_out_and_named(
    defined: Store, engine: DuckEngine, tmp_path: Path
) -> None:
    ingest(defined, tmp_path, random_events(7))
    replayed(defined, engine)
    some = ("user-1", "user-2")
    listed = list_aggregates(defined, ALL_TIME, entities=some)
    assert {row.computed.metric for row in listed.rows} == {"event_count", "paid"}
    assert listed.left_out == tuple(sorted(OVER_ALL))
    diff = diff_aggregates(defined, engine, ALL_TIME, entities=some)
    assert list(diff.rows) == []
    assert diff.left_out == tuple(sorted(OVER_ALL))
    run_id = replay(defined, engine, entities=some).run_id
    assert {change.written.computed.metric for change in defined.aggregates.changes(run_id)} == {"event_count", "paid"}
    for ask in (
        lambda: list_aggregates(defined, ALL_TIME, metrics=["daily_users"], entities=some),
        lambda: diff_aggregates(defined, engine, ALL_TIME, metrics=["daily_users"], entities=some),
        lambda: replay(defined, engine, entities=some, metrics=("daily_users",)),
    ):
        with pytest.raises(UsageError, match="daily_users is over all entities, so there is no value of 'user-1'"):
            ask()


@ALSO_AWS
def test_a_metric_does_not_change_what_it_is_per(defined: Store, engine: DuckEngine, tmp_path: Path) -> None:
    over_all = Definition(name="paid", value="count(*)", per=Per.ALL)
    new = Definition(name="fresh", value="count(*)")
    with pytest.raises(Invalid, match='paid is per = "entity" in its version 1') as error:
        apply(defined.metrics, engine, [new, over_all], 2)
    assert error.value.hint == "another name, such as paid_all"
    assert not defined.metrics.versions("fresh")
    ingest(defined, tmp_path, random_events(8))
    path = tmp_path / "paid.toml"
    path.write_text('name = "paid"\nvalue = "count(*)"\nper = "all"\n')
    with pytest.raises(UsageError, match='paid is per = "entity" in the store'):
        diff_aggregates(defined, engine, ALL_TIME, scenario=Scenario(None, (OtherDefinition(str(path)),)))


@ALSO_AWS
def test_what_fails_over_all_entities_stops_nothing_else(defined: Store, engine: DuckEngine, tmp_path: Path) -> None:
    events = random_events(9)
    wrong = {**events[0], "event_type": "paid", "payload": {"v": "?"}}
    ingest(defined, tmp_path, [*events, wrong])
    replayed(defined, engine)
    at = parse_instant(wrong["event_time"])
    half = at - at % (12 * HOUR)
    found = {key: value for key, value in current(defined).items() if key[0] == "average"}
    assert found == {key: value for key, value in truth(events).items() if key[0] == "average" and key[1] != half}
    [row] = diff_aggregates(defined, engine, ALL_TIME).rows
    assert (row.metric, row.bucket, row.entity_id) == ("average", half, ALL_ENTITIES)
    assert row.failure is not None
    assert (row.failure.events, row.failure.damage) == (1, False)


def test_the_state_of_values_over_all_entities_is_sound(defined: Store, engine: DuckEngine, tmp_path: Path) -> None:
    ingest(defined, tmp_path, random_events(10))
    replayed(defined, engine)
    assert list(defined.state_audit.problems()) == []
    rows = list(defined.aggregates.current("daily_users", ALL_TIME, (ALL_ENTITIES,)))
    assert rows == list(defined.aggregates.current("daily_users", ALL_TIME, checked=True))
    assert all(row.sound for row in rows)
    versions = list(defined.aggregates.versions("daily_users", ALL_TIME, (ALL_ENTITIES,)))
    assert [row.computed for row in versions] == [row.computed for row in rows]


@ALSO_AWS
def test_what_investigates_takes_values_over_all_entities(defined: Store, engine: DuckEngine, tmp_path: Path) -> None:
    events = random_events(11)
    ingest(defined, tmp_path, events[:50])
    replayed(defined, engine)
    before = current(defined)
    ingest(defined, tmp_path, events[50:])
    now = truth(events)
    moved = {key for key in now if key[0] == "daily_users" and key in before and before[key] != now[key]}
    late = {
        (one.metric, one.bucket, one.entity_id): one.delta
        for one in find_late(defined, engine, ALL_TIME, metrics=["daily_users"]).buckets
        if one.delta
    }
    assert late == {key: now[key] - (before[key] or 0) for key in moved}
    metric, bucket, entity = min(moved)
    explanation = explain(defined, engine, metric, ALL_ENTITIES, bucket + HOUR)
    assert (explanation.delta, explanation.proven) == (late[metric, bucket, entity], True)
    assert [(share.cause, share.share) for share in explanation.shares] == [
        (Cause.LATE, explanation.delta),
        (Cause.UNEXPLAINED, 0),
    ]
    changed = impact(defined, engine, ALL_TIME, Overrides(until=0), metrics=["daily_users", "average"])
    differing = {(one.metric, one.bucket, one.entity_id): one.value for one in changed.values}
    assert differing == {key: value for key, value in now.items() if key[0] in ("daily_users", "average")}
    assert impact(defined, engine, ALL_TIME, Overrides(), entities=("user-1",)).left_out == tuple(sorted(OVER_ALL))
    [day] = {one for one in before if one[0] == "daily_users" and one[1] == bucket}
    known = list(deliveries(defined, Filter(Window(bucket, bucket + DAY)), only="accepted"))
    first = min(known, key=lambda one: one.segment.recorded_at)
    counting = show_event(defined, engine, first.delivery.event_id, 1).aggregates
    assert day in {(one.computed.metric, one.computed.bucket, one.computed.entity_id) for one in counting or ()}


def computed_under(store: Store, engine: DuckEngine, *assumptions: str) -> dict[tuple[str, int, str], Decimal | None]:
    """The values over all entities under assumptions; nothing of them is current."""
    scenario = read_scenario(None, assumptions, read_event_ids)
    rows = diff_aggregates(store, engine, ALL_TIME, metrics=sorted(OVER_ALL), scenario=scenario).rows
    return {(row.metric, row.bucket, row.entity_id): row.recomputed for row in rows}


def over_all(events: list[dict[str, Any]]) -> dict[tuple[str, int, str], Decimal]:
    return {key: value for key, value in truth(events).items() if key[0] in OVER_ALL}


@ALSO_AWS
def test_scenarios_change_values_over_all_entities_as_if_the_store_were_so(
    defined: Store, engine: DuckEngine, tmp_path: Path
) -> None:
    events = random_events(12)
    ingest(defined, tmp_path, events[:40])
    ingest(defined, tmp_path, events[30:])
    [late] = (one.batch_id for one in defined.index.batches() if one.counts.accepted == len(events) - 40)
    assert computed_under(defined, engine) == over_all(events)
    assert computed_under(defined, engine, f"without-batch={late}") == over_all(events[:40])
    assert computed_under(defined, engine, "without=selected,entity=user-3") == over_all(
        [each for each in events if each["entity_id"] != "user-3"]
    )

    def later(each: dict[str, Any]) -> dict[str, Any]:
        time = f"2026-01-{int(each['event_time'][8:10]) + 1:02}{each['event_time'][10:]}"
        return {**each, "event_time": time} if each["entity_id"] == "user-3" else each

    assert computed_under(defined, engine, "shift=24h,entity=user-3") == over_all(list(map(later, events)))
    counted = computed_under(defined, engine, "duplicates=counted")
    twice = [*events[:40], *({**each, "again": True} for each in events[30:40]), *events[40:]]
    assert counted == over_all(twice)

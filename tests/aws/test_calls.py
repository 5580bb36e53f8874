"""What it costs, in calls of AWS and in write units (docs/benchmarks.md has those of a large file)."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, nullcontext
from pathlib import Path
from time import time_ns
from typing import Any

import pytest

from bench.gen_events import generate
from pik import lambdas
from pik.engine import DuckEngine
from pik.lambdas import replay
from pik.model.batch import Verdict
from pik.model.delivery import Filter
from pik.model.instant import DAY, parse_instant
from pik.model.run import RunRequest, RunState
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from pik.stores.aws.stack import stack_of
from pik.usecases.care.triage import triage
from pik.usecases.ingest.api_request import record_request
from pik.usecases.inspect.conditions import Conditions
from pik.usecases.inspect.count_events import count_events
from pik.usecases.inspect.events import list_events
from pik.usecases.inspect.follow import Follower
from pik.usecases.inspect.sql import SqlQuery
from pik.usecases.inspect.where import matching
from pik.usecases.replay.execute import Pace, run_locally
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote, rollback
from tests.support.aws.calls import Calls, clients_of, counting
from tests.support.aws.emulator import make_stack, publish
from tests.support.aws.processor import CONTEXT, environment, process_once
from tests.survival.conftest import ingest


@pytest.fixture
def store(aws: Clients, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A stack's, and that of its functions. However slow the machine is, none asks for the generation again."""
    monkeypatch.setattr(generation, "NOTICED", 60)
    stack = make_stack(aws)
    made = open_store(publish(aws, stack))
    open_store(made.url).requests.expect_ready()  # the first write of all says which format the store has
    for name, value in environment(stack).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(lambdas, "store", lambda: made)
    return made


def event(number: int, **fields: object) -> dict[str, object]:
    """The events of one entity and day."""
    time = f"2026-01-31T{number // 60:02}:{number % 60:02}:00Z"
    payload = {"number": number, "note": "a small payload"}
    return {
        "source": "shop",
        "event_type": "order",
        "entity_id": "customer-17",
        "event_time": time,
        "payload": payload,
        **fields,
    }


def written(directory: Path, events: list[dict[str, object]]) -> Path:
    path = directory / "events.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in events))
    return path


def test_a_file(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    generate(20_000, path, seed=1, keys=False)
    with counting(store) as calls:
        batch = ingest(store, path).batch
    assert batch.counts.duplicates > 300
    assert calls.total / 20 <= 60, calls.made
    assert calls.units / 20_000 <= 1.1


def test_one_event(store: Store) -> None:
    """The first one of a function, which lists the day, those that follow, and one that came before."""
    for number, units in ((0, 8), (1, 6), (2, 6), (1, 12)):
        with counting(store) as calls:
            record_request(store, json.dumps(event(number)).encode())
        assert calls.total <= 3, (number, calls.made)
        assert calls.units == units, (number, calls.made)


def test_a_request_with_a_hundred_events(store: Store) -> None:
    """What docs/cost.md reckons with; a duplicate costs the claim that it does not get, and its own item."""
    body = json.dumps([event(number) for number in range(100)]).encode()
    for units_an_event in (1.08, 2.08):
        with counting(store) as calls:
            record_request(store, body)
        assert calls.made["PutObject"] == 2
        assert calls.units / 100 <= units_an_event, calls.made


def replayed(store: Store, events: int) -> Calls:
    """The calls from the request to the written aggregate: of the replay function, and of the processor."""
    body = {"entity_id": "customer-17", "start_time": "2026-01-31", "end_time": "2026-02-01"}
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        calls = Calls()
        functions = [open_store(store.url) for _ in range(2)]  # each knows nothing yet
        for function in functions:
            stack.enter_context(counting(function, calls))
        patch.setattr(lambdas, "store", lambda: functions[0])
        answer = replay.handler({"httpMethod": "POST", "body": json.dumps(body), "isBase64Encoded": False}, CONTEXT)
        planned = json.loads(answer["body"])
        assert (planned["scanned"], planned["sent"]) == (events, 1), planned
        patch.setattr(lambdas, "store", lambda: functions[1])
        assert process_once(clients_of(functions[1]).client("sqs"), stack_of(os.environ).queue_url)
    assert store.runs.get(planned["run_id"]).state == RunState.COMPLETED
    (change,) = store.aggregates.changes(planned["run_id"])
    assert change.written.computed.value == events
    return calls


def test_replaying_an_entitys_day_that_came_in_one_file(store: Store, tmp_path: Path) -> None:
    others = [event(number, entity_id=f"other-{number % 50}") for number in range(2000)]
    ingest(store, written(tmp_path, [event(number) for number in range(640)] + others))
    calls = replayed(store, 640)
    assert calls.total <= 26, calls.made


def test_replaying_an_entitys_day_that_came_one_by_one(store: Store) -> None:
    for number in range(640):
        record_request(store, json.dumps(event(number)).encode())
    calls = replayed(store, 640)
    assert calls.total <= 60, calls.made


@pytest.mark.parametrize("one_by_one", [False, True])
def test_listing_an_entitys_day_takes_few_calls(store: Store, tmp_path: Path, one_by_one: bool) -> None:
    """How often an event came is told by the day's own lists, with another entity's events among them."""
    again = [event(number) for number in range(40)]
    if one_by_one:
        for number in range(640):
            record_request(store, json.dumps(event(number)).encode())
        for each in again:
            record_request(store, json.dumps(each).encode())
    else:
        others = [event(number, entity_id=f"other-{number % 50}") for number in range(2000)]
        ingest(store, written(tmp_path, [event(number) for number in range(640)] + others + again))
    start = parse_instant("2026-01-31T00:00:00Z")
    fresh = open_store(store.url)
    with counting(fresh) as calls:
        rows = list(list_events(fresh, Filter(Window(start, start + DAY), ("customer-17",))))
    assert [row.deliveries for row in rows] == [2] * 40 + [1] * 600
    assert calls.total <= 30, calls.made


def test_reading_a_day_touches_only_its_objects(store: Store, tmp_path: Path) -> None:
    days = [event(number, event_time=f"2026-01-{1 + number % 20:02}T00:00:00Z") for number in range(400)]
    ingest(store, written(tmp_path, days))
    start = parse_instant("2026-01-07T00:00:00Z")
    with counting(store) as calls:
        found = list(list_events(store, Filter(Window(start, start + DAY))))
    assert len(found) == 20
    assert calls.keys
    assert all(key.startswith("raw/event_date=2026-01-07/") for key in calls.keys), calls.keys


def test_following_takes_a_few_calls_for_each_look(store: Store, tmp_path: Path) -> None:
    ingest(store, written(tmp_path, [event(number) for number in range(640)]))
    reader = open_store(store.url)
    follower = Follower(reader, Filter())
    for number in (700, 701):
        with counting(reader) as calls:
            assert list(follower.new()) == []
        assert calls.total <= 12, calls.made
        record_request(store, json.dumps(event(number)).encode())
        with counting(reader) as calls:
            assert len(list(follower.new())) == 1
        assert calls.total <= 20, calls.made


def test_events_and_sql_answer_as_on_a_local_store(store: Store, tmp_path: Path) -> None:
    local = open_store(str(tmp_path / "local"), create=True)
    events = [event(number, event_time=f"2026-01-{1 + number % 5:02}T00:00:00Z") for number in range(200)]
    answers: list[list[Any]] = []
    for each in (store, local):
        ingest(each, written(tmp_path, events))
        ingest(each, written(tmp_path, [*events[:20], event(900)]))
        batch = next(each.index.batches())
        places = matching(each, DuckEngine(), Filter(), "(payload->>'number')::INTEGER % 3 = 0")
        of_batch = Conditions(batch_id=batch.batch_id)
        sql = "SELECT verdict, count(*), sum(length(payload::VARCHAR)) FROM deliveries GROUP BY 1 ORDER BY 1"
        with SqlQuery(each, DuckEngine(), sql, ALL_TIME).result() as found:
            rows = list(found.rows)
        answers.append(
            [
                [row.event_id for row in list_events(each, Filter(), 7, newest=True)],
                [(row.seq, row.deliveries) for row in list_events(each, Filter(), conditions=of_batch)],
                [row.seq for row in list_events(each, Filter(), conditions=Conditions(kind=Verdict.EXACT))],
                [row.seq for row in list_events(each, Filter(), conditions=Conditions(places=places))],
                list(count_events(each, Filter(), "hour")),
                rows,
            ]
        )
    assert answers[0] == answers[1]
    assert [len(part) for part in answers[0]] == [7, 1, 20, 68, 6, 2]


def test_triage_finds_what_it_finds_on_a_local_store_and_costs_what_its_window_costs(
    store: Store, tmp_path: Path
) -> None:
    local = open_store(str(tmp_path / "local"), create=True)
    day = Window(parse_instant("2026-01-31T00:00:00Z"), parse_instant("2026-02-01T00:00:00Z"))
    answers: list[Any] = []
    totals: list[int] = []
    for each in (store, local):
        ingest(each, written(tmp_path, [event(number, idempotency_key=f"{number}") for number in range(60)]))
        runs = [replay_all(each, day)]
        ingest(each, written(tmp_path, [event(number, idempotency_key=f"{number}") for number in range(50, 70)]))
        ingest(each, written(tmp_path, [event(1, idempotency_key="1", payload={})]))
        runs.append(replay_all(each, day))
        rollback(each, runs[1], time_ns(), "a mistake")
        for _ in range(2):
            fresh = open_store(each.url)
            with counting(fresh) if fresh.deployed else nullcontext(Calls()) as calls:
                found = triage(fresh, DuckEngine(), day, ["customer-17"])
            totals.append(calls.total)
            if each is store and len(totals) == 1:  # what is beyond the window costs nothing
                others = [event(number, event_time="2025-06-01T00:00:00Z") for number in range(40)]
                for number in range(0, 40, 4):
                    ingest(each, written(tmp_path, others[number : number + 4]))
        named = {run_id: f"run {number}" for number, run_id in enumerate(runs)}
        answers.append([(one.check, one.cause, named.get(one.scope, one.scope), one.delta) for one in found.findings])
    assert answers[0] == answers[1]
    assert [one[:3] for one in answers[0]] == [
        ("late events", "late", ""),
        ("promotions", "rolled back", "run 1"),
        ("conflicts", "", "shop"),
    ]
    assert abs(totals[0] - totals[1]) <= 3, totals  # a slow machine asks for the generation once more
    assert totals[0] <= 90, totals


def replay_all(store: Store, window: Window) -> str:
    """A run, promoted."""
    plan = plan_replay(store, DuckEngine(), RunRequest(start=window.start, end=window.end), time_ns())
    run_id = start(store, plan).run_id
    run_locally(store, DuckEngine(), run_id, Pace(workers=0), SILENT)
    promote(store, run_id, time_ns(), "")
    return run_id

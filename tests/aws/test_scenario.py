"""Scenarios and explanations on a stack: those of a local store with the same events, and what they cost in calls.

tests/usecases/test_scenario_model.py compares the local ones with stores that were really built so.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.errors import NothingSelected
from pik.model.instant import parse_instant
from pik.model.metric import Definition
from pik.model.run import RunState, TaskState
from pik.model.scenario import COUNTED_DUPLICATES, PLAIN
from pik.ports.store import Store
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from pik.usecases.ingest.api_request import record_request
from pik.usecases.metrics.candidates import Question
from pik.usecases.metrics.chain import Cause
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.explain import explain
from pik.usecases.metrics.explain_events import events_behind
from pik.usecases.metrics.sides import RecordedSide, Side, SideKind
from pik.usecases.metrics.trials import try_scenarios
from pik.usecases.replay.execute import finish_run
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote
from pik.usecases.replay.tasks import execute_task
from tests.support.aws.calls import counting_reads
from tests.support.aws.emulator import make_stack, publish
from tests.support.stores import event, ingest, request, window
from tests.usecases.test_scenario import Built, Event, assume, values

ENGINE = DuckEngine(threads=1)
TOTAL = Definition(name="total", value="sum((payload->>'v')::BIGINT)")
FIRST = parse_instant("2026-01-01T00:00:00Z")


@pytest.fixture
def new_store(aws: Clients, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Store]:
    """Makes empty stores of stacks."""
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    return lambda: open_store(publish(aws, make_stack(aws)))


def filled(store: Store, directory: Path, made: Sequence[Sequence[Event]]) -> Built:
    """The first batch comes in a file, then one in a request for each event, one in a request for all, and so on."""
    for number, events in enumerate(made):
        if number % 3 == 0:
            ingest(store, directory, events, again=True)
        elif number % 3 == 1:
            for each in events:
                record_request(store, json.dumps(each).encode())
        else:
            record_request(store, json.dumps(events).encode())
    found = sorted(store.index.batches(), key=lambda batch: batch.recorded_at)
    ids, recorded = [one.batch_id for one in found], [one.recorded_at for one in found]
    return Built(store, [list(each) for each in made], ids, recorded)


def batches(chance: random.Random) -> list[list[Event]]:
    """Two to four batches of events of five days: many of them come again, some with a key and another content or
    day."""
    known: list[Event] = []
    made = []
    for _ in range(chance.randrange(2, 5)):
        batch = []
        for _ in range(chance.randrange(1, 12)):
            if known and chance.random() < 0.45:
                again = dict(chance.choice(known))
                if "idempotency_key" in again and chance.random() < 0.7:
                    again["payload"] = {"v": chance.randrange(100)}
                    again["event_time"] = f"2026-01-0{chance.randrange(1, 6)}T{chance.randrange(24):02}:00:00Z"
                batch.append(again)
                continue
            at = f"0{chance.randrange(1, 6)}T{chance.choice(['00:00', '23:59', '12:00'])}"
            one = event(chance.randrange(100), chance.choice("abc"), at, source=chance.choice(["web", "app"]))
            if chance.random() < 0.4:
                one["idempotency_key"] = f"k{chance.randrange(8)}"
                one["entity_id"], one["source"] = "a", "web"
            known.append(one)
            batch.append(one)
        made.append(batch)
    return made


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_promise_10_a_number_under_a_scenario_is_the_same_on_every_store(
    new_store: Callable[[], Store], tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    made = batches(chance) + batches(chance)
    home = filled(open_store(str(tmp_path / "home"), create=True), tmp_path, made)
    away = filled(new_store(), tmp_path, made)
    assert len(away.ids) == len(home.ids)
    file, single = 0, chance.randrange(1, 1 + len(made[1]))
    for number in {file, single, len(home.ids) - 1}:
        without = [assume(f"without-batch={built.ids[number]}") for built in (home, away)]
        assert values(away.store, without[1]) == values(home.store, without[0]), number
        until = [assume(as_of=built.recorded[number]) for built in (home, away)]
        assert values(away.store, until[1]) == values(home.store, until[0]), number
    for text in (
        "conflicts=last",
        "conflicts=last,source=web,to=2026-01-03",
        "duplicates=counted",
        "shift=-1h,entity=a",
        "without=suspects,within=1h,same=source",
    ):
        assert values(away.store, assume(text)) == values(home.store, assume(text)), text
    day = window("02", "03")
    for text in ("conflicts=last", "without=selected,source=app"):
        assert values(away.store, assume(text), day, ("a",)) == values(home.store, assume(text), day, ("a",)), text
    ids = away.store.index.locate("", limit=40)
    assert ids == home.store.index.locate("", limit=40)
    several = next(each for each in ids if len(home.store.index.deliveries(each)) > 1)
    second = assume(f"delivery={several}:2")
    assert values(away.store, second) == values(home.store, second)


def replayed(store: Store) -> str:
    """A run over everything, promoted, whose tasks this process executes."""
    run_id = run(store)
    promote(store, run_id, 2, "")
    return run_id


def run(store: Store, *assumed: str) -> str:
    run_id = start(store, plan_replay(store, ENGINE, request(assumed=assumed), 1)).run_id
    store.runs.set_state(run_id, RunState.RUNNING)
    for task in list(store.runs.open_tasks(run_id)):
        computed = execute_task(store, ENGINE, task)
        store.runs.mark(task, TaskState.DONE, computed.failures())
    finish_run(store, run_id)
    return run_id


def test_a_difference_is_explained_on_a_stack(new_store: Callable[[], Store], tmp_path: Path) -> None:
    store = new_store()
    add_version(store.metrics, TOTAL, 1)
    ingest(store, tmp_path, [event(1, "a", "01T01:00"), event(2, "a", "01T23:00")])
    record_request(store, json.dumps({**event(8, "a", "01T02:00"), "idempotency_key": "k"}).encode())
    replayed(store)
    record_request(store, json.dumps(event(4, "a", "01T05:00")).encode())
    record_request(store, json.dumps(event(1, "a", "01T01:00")).encode())
    record_request(store, json.dumps({**event(16, "a", "01T03:00"), "idempotency_key": "k"}).encode())
    add_version(store.metrics, Definition(name="total", value="2 * sum((payload->>'v')::BIGINT)"), 2)
    found = explain(store, ENGINE, "total", "a", FIRST, assume("conflicts=last", "duplicates=counted"), events=True)
    assert found.proven
    assert [(f"{one.cause}", one.share) for one in found.shares] == [
        ("definition", Decimal(11)),
        ("late", Decimal(8)),
        ("assumed", Decimal(16)),
        ("assumed", Decimal(2 * (1 + 2 + 8 + 4 + 1 + 16) - 2 * (1 + 2 + 16 + 4))),
        ("unexplained", Decimal(0)),
    ]
    assert sum(one.share for one in found.shares) == found.delta
    late = [one for one in events_behind(store, found) if f"{one.cause}" == "late"]
    assert [bytes(one.delivery.payload) for one in late if one.delivery] == [b'{"v": 4}']


def test_promise_10_any_two_sides_are_explained_alike_on_every_store(
    new_store: Callable[[], Store], tmp_path: Path
) -> None:
    found: list[list[Any]] = []
    for store in (open_store(str(tmp_path / "home"), create=True), new_store()):
        add_version(store.metrics, TOTAL, 1)
        ingest(store, tmp_path, [event(1, "a", "01T01:00"), event(2, "a", "01T23:00"), event(9, "b", "02T01:00")])
        old = replayed(store)
        ingest(store, tmp_path, [event(4, "a", "01T05:00"), event(1, "a", "01T01:00")])
        counted = run(store, COUNTED_DUPLICATES)
        add_version(store.metrics, Definition(name="total", value="2 * sum((payload->>'v')::BIGINT)"), 2)
        sides = [
            Side(SideKind.CURRENT),
            Side(SideKind.CURRENT, at=1),
            *(Side(SideKind.RUN, one) for one in (old, counted)),
        ]
        all_of_it: list[Any] = []
        for left, right in product(sides, [None, *sides[1:]]):
            if left == right:
                continue
            before, after = RecordedSide(store, left), None if right is None else RecordedSide(store, right)
            try:
                one = explain(store, ENGINE, "total", "a", FIRST, left=before, right=after)
            except NothingSelected:
                continue
            all_of_it.append([(share.cause, share.share, share.proven) for share in one.shares])
        asked = Question(Decimal(2 * (1 + 2 + 4 + 1)), Decimal(14), store.metrics.latest()[-1], "a", FIRST, PLAIN)
        all_of_it.append([trial.scenario for trial in try_scenarios(store, ENGINE, asked).met])
        found.append(all_of_it)
    assert found[0] == found[1]
    assert found[0][-1] == [COUNTED_DUPLICATES]
    assert any((Cause.DUPLICATES, Decimal(-1), True) in shares for shares in found[0][:-1])


def test_explaining_one_bucket_reads_only_that_entitys_day(new_store: Callable[[], Store], tmp_path: Path) -> None:
    """And takes as many calls in a store with twenty times as many days and entities."""
    calls = []
    for days, entities in ((1, 1), (20, 20)):
        store = new_store()
        add_version(store.metrics, TOTAL, 1)
        made = [
            event(number, "a" if number % 20 == 0 else f"b{number % entities}", f"{1 + day:02}T{number % 24:02}:00")
            for day in range(days)
            for number in range(200)
        ]
        ingest(store, tmp_path, made)
        replayed(store)
        ingest(store, tmp_path, [event(1000 + day, "a", f"{1 + day:02}T05:00") for day in range(days)])
        fresh = open_store(store.url)
        with counting_reads(fresh) as counted:
            found = explain(fresh, ENGINE, "total", "a", FIRST, events=True)
            assert len(list(events_behind(fresh, found))) == 1
        assert {f"{one.cause}": one.share for one in found.shares} == {"late": Decimal(1000), "unexplained": Decimal(0)}
        assert counted.keys
        assert all(key.startswith("raw/event_date=2026-01-01/") for key in counted.keys), counted.keys
        calls.append(counted)
    assert calls[1].total <= calls[0].total + 2, [one.made for one in calls]
    assert calls[1].total <= 25, calls[1].made

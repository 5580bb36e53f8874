"""Promise 6: recomputing is idempotent and order-free."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pik.errors import EngineError, StoreError
from pik.model.instant import DAY
from pik.model.metric import EVENT_COUNT
from pik.model.run import Run, RunState, Task
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.stores import open_store
from pik.stores.local.state.aggregates import LocalAggregates
from pik.stores.local.state.audit import LocalStateAudit
from pik.stores.local.state.metrics import LocalMetrics
from pik.stores.local.state.runs import LocalQueue, LocalRuns
from pik.stores.local.state.tables import state_database
from pik.usecases.metrics.definitions import add_version
from pik.usecases.replay.promote import promote
from pik.usecases.replay.tasks import execute_task
from tests.support.stores import EVENTS, FIRST, SUM, Faulty, PlainEngine, current, event, ingest, replay, request, truth

METRICS = {"event_count@1": 1, "total@1": 1}
ENTITIES = sorted({each["entity_id"] for each in EVENTS})
LAST_DAY = 20


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Store:
    """A store with EVENTS, some of them twice, in two batches that know nothing of each other."""
    directory = tmp_path_factory.mktemp("raw")
    store = open_store(str(directory / "store"), create=True)
    ingest(store, directory, EVENTS[::2] + EVENTS[:3])
    ingest(store, directory, EVENTS[::-1])
    return store


def with_new_state(store: Store, directory: Path) -> Store:
    (directory / "tmp").mkdir(exist_ok=True)
    database = state_database(directory)
    database.create()
    fresh = replace(
        store,
        metrics=LocalMetrics(database),
        runs=LocalRuns(database, directory / "locks"),
        queue=LocalQueue(database),
        aggregates=LocalAggregates(database),
        promotions=LocalAggregates(database),
        state_audit=LocalStateAudit(database),
    )
    add_version(fresh.metrics, SUM, 1)
    return fresh


@st.composite
def coverings(draw):
    """Tasks that together cover every day and entity, some parts of them more than once, in any order; with each how
    often it fails first, and how often it is done again after it succeeded."""
    tasks = []
    for metric in METRICS:
        for entities in [(), *([tuple(draw(st.lists(st.sampled_from(ENTITIES), min_size=1, unique=True)))] * 2)]:
            cuts = draw(st.sets(st.integers(1, LAST_DAY - 1), max_size=4))
            days = [0, *sorted(cuts), LAST_DAY]
            parts = [(metric, left, right, entities) for left, right in pairwise(days)]
            tasks += parts if not entities else parts[: draw(st.integers(0, len(parts)))]
    plan = [(task, draw(st.integers(0, 2)), draw(st.integers(0, 1))) for task in tasks]
    return draw(st.permutations(plan))


@settings(max_examples=25, deadline=None)
@given(coverings(), st.randoms(use_true_random=False))
def test_promise_6_whatever_happens_to_tasks_the_aggregates_are_the_truth(raw, plan, random):
    with TemporaryDirectory() as directory:
        store = with_new_state(raw, Path(directory))
        run = a_run(store)
        for number, ((metric, left, right, entities), failures, repeats) in enumerate(plan):
            task = Task(
                run_id=run,
                number=number,
                metrics=(metric,),
                start=FIRST + left * DAY,
                end=FIRST + right * DAY,
                entities=entities,
            )
            for _ in range(failures):
                fail_somewhere(store, task, random)
            for _ in range(1 + repeats):
                execute_task(store, PlainEngine(), task)
        promote_all(store, run)
        assert current(store) == truth()
        found = store.runs.get(run)
        assert (found.new, found.changed, found.unchanged, found.removed) == (len(truth()), 0, 0, 0)


def a_run(store: Store) -> str:
    run = Run(
        run_id="01J00000000000000000000001",
        request=request(),
        state=RunState.COMPLETED,
        created_at=1,
        finished_at=None,
        effective_start=0,
        effective_end=1,
        events_matched=0,
        buckets=0,
        tasks=0,
    )
    store.runs.create(run, [])
    store.runs.set_state(run.run_id, RunState.COMPLETED, 1)
    return run.run_id


def promote_all(store: Store, run: str) -> None:
    counts = promote(store, run, 1, "").counts
    assert not counts.conflicts


def fail_somewhere(store: Store, task: Task, random) -> None:
    """Before the first row, behind the last one, or when the store takes what was computed."""
    left = random.randint(0, 2)

    def fault(_window) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise EngineError("failed at will")

    faulty = replace(store, aggregates=_Refusing(store.aggregates))  # type: ignore[arg-type]  # it forwards the rest
    with pytest.raises((EngineError, StoreError)):
        execute_task(faulty, Faulty(fault), task)


class _Refusing:
    """Aggregates that do not take the last row."""

    def __init__(self, inner) -> None:
        self.current = inner.current
        self._inner = inner

    def write(self, task, rows, **why) -> None:
        def torn():
            yield from rows
            raise StoreError("no space left")

        self._inner.write(task, torn(), **why)


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_promise_6_events_that_arrive_between_replays_end_up_in_the_truth(random):
    events = [
        event(
            random.randint(0, 99), random.choice("ab"), f"{random.randint(1, 3):02}T{random.randint(0, 23):02}:{n:02}"
        )
        for n in range(12)
    ]
    with TemporaryDirectory() as name:
        directory = Path(name)
        store = open_store(str(directory / "store"), create=True)
        add_version(store.metrics, SUM, 1)
        for first in range(0, 12, 4):
            batch = events[: first + 4]
            random.shuffle(batch)
            ingest(store, directory, batch)
            run = replay(store, PlainEngine(), **random.choice([{}, {"entities": ("a", "b")}, {"event_type": "paid"}]))
            promote_all(store, run.run_id)
            assert current(store) == truth(events[: first + 4])


def test_a_version_records_why_it_exists(raw, tmp_path):
    """Promise 7: run, reason, metric version, inputs, hash over them, and up to when the index was known."""
    store = with_new_state(raw, tmp_path)
    run = replay(store, PlainEngine(), reason="because")
    (found, *_) = store.aggregates.versions(EVENT_COUNT.name, ALL_TIME)
    assert (found.run_id, found.reason, found.metric_version, found.computed.inputs) == (run.run_id, "because", 1, 3)
    assert found.known_until == max(segment.recorded_at for segment in store.index.segments(ALL_TIME))
    assert len(found.computed.input_ids) == len(found.computed.input_contents) == 32

"""What an answer asks of AWS does not grow with what else is stored and compacted."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from pik.engine import DuckEngine
from pik.model.batch import Batch, BatchState, request_origin
from pik.model.delivery import Filter
from pik.model.ids import new_id
from pik.ports.store import Store
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients, Flow
from pik.usecases.ingest.api_request import record_request
from pik.usecases.inspect.batches import status
from pik.usecases.inspect.deliveries import show_event
from pik.usecases.inspect.events import list_events
from tests.aws.test_compact import sum_up
from tests.support.aws.calls import counting_reads
from tests.support.aws.compacted import compact, compacting
from tests.support.aws.emulator import make_stack, publish
from tests.support.contracts.chunks import Sent, chunk
from tests.support.stores import event, ingest, window

LATEST = 50
"""Requests that are not compacted."""

EVENTS = 640
"""Of one entity on the first day, every second one with an idempotency key."""


@pytest.fixture
def store(aws: Clients, tmp_path: Path) -> Store:
    """These events in a file; the first ones once more, one by one and in an array; and a conflict on another day."""
    made = open_store(publish(aws, make_stack(aws)))
    events = [with_key(number, "01") for number in range(EVENTS)]
    ingest(made, tmp_path, events)
    for body in (*events[:4], events[:3], with_key(0, "02")):
        record_request(made, json.dumps(body).encode())
    return made


def with_key(number: int, day: str) -> dict[str, object]:
    made = event(number, "e", f"{day}T{number // 60:02}:{number % 60:02}")
    return made if number % 2 else {**made, "idempotency_key": f"key {number}"}


def fill(store: Store, numbers: range) -> None:
    """Record requests of other events, without raw: one in ten has two events, and each event comes twice."""

    def record(number: int) -> None:
        batch_id = new_id()
        batch = Batch(batch_id=batch_id, origin=request_origin(batch_id), state=BatchState.COMPLETE, started_at=1)
        says = None if number % 3 else str(number)
        sent = [Sent(f"{number // 20}/{number % 10}/{each}", 5, says) for each in range(1 if number % 10 else 2)]
        store.requests.record_request(batch, chunk(sent, batch_id=batch_id, number=0), {})

    for _ in Flow().map(record, numbers):
        pass


def shown(store: Store, event_id: str) -> list[str]:
    found = show_event(store, DuckEngine(), event_id[:8])
    return [found.event.event_id, *(each.kind for each in found.deliveries)]


def listed(store: Store) -> list[int]:
    return [row.deliveries for row in list_events(store, Filter(window("01", "02"), ("e",)))]


@pytest.mark.parametrize("sizes", [(100, 400), pytest.param((100, 10_000), marks=pytest.mark.slow)])
def test_a_question_costs_what_it_asks_for_however_many_requests_are_stored(store: Store, sizes: range) -> None:
    rows = list(list_events(store, Filter(window("01", "02"), ("e",)), 5))
    ids = [row.event_id for row in rows]
    questions: dict[str, tuple[int, int, Callable[[Store], object]]] = {
        "show, with two exact duplicates and a conflict": (12, 21, lambda fresh: shown(fresh, ids[0])),
        "show, with exact duplicates": (12, 18, lambda fresh: shown(fresh, ids[1])),
        "show, once": (12, 10, lambda fresh: shown(fresh, ids[4])),
        "events": (30, 26, listed),
        "status": (12, 12, lambda fresh: status(fresh).totals.segments - stored),
        "batches --limit 10": (10, 10, lambda fresh: len(list(islice(fresh.index.batches(), 11)))),
    }
    answers: list[dict[str, object]] = []
    costs: list[dict[str, int]] = []
    stored = 0

    def ask() -> None:
        answers.append({})
        costs.append({})
        for question, (*most, answer) in questions.items():
            fresh = open_store(store.url)
            with counting_reads(fresh) as calls:
                answers[-1][question] = answer(fresh)
            assert calls.total <= most[min(len(costs), 2) - 1], (question, len(costs), calls.made)
            costs[-1][question] = calls.total

    ask()
    for size in sizes:
        fill(store, range(stored, size - LATEST))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(generation, "NOTICED", 0.01)
            sum_up(store)
            compact(compacting(store, patch))
        fill(store, range(size - LATEST, size))
        stored = size
        ask()
    del answers[0], costs[0]  # before there was anything else, nor any pack
    assert answers[0] == answers[1]
    assert costs[0] == costs[1]
    assert answers[0]["events"] == [4, 3, 3, 2] + [1] * (EVENTS - 4)
    exact, conflict = "exact", "conflict"
    assert answers[0]["show, with two exact duplicates and a conflict"] == [ids[0], "accepted", exact, exact, conflict]

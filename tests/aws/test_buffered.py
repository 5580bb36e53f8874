"""Buffered requests in a deployed store: delivered again and again, in other groupings, by several recorders at once,
each of which may die behind any call, their events end as if each request had been recorded once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from random import Random
from typing import Any

import pytest

from pik.errors import StoreError
from pik.model.batch import BatchState
from pik.model.buffered import BufferedRequest
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest.buffered import record_buffered
from pik.usecases.inspect.batches import with_closing
from tests.aws.test_crash import dying
from tests.aws.test_requests import event
from tests.support.aws.calls import Calls, counting
from tests.support.aws.clock import later
from tests.support.aws.emulator import make_stack, publish
from tests.support.aws.unreliable import unreliable
from tests.support.snapshot import damage

NOON = 1_772_442_000_000_000_000
BODIES: list[Any] = [
    event(1),
    event(1),
    [event(2), event(1), {"source": ""}, event(3, day=2)],
    event(4, idempotency_key="k"),
    event(5, day=2, entity_id="e/0", idempotency_key="k", payload={"other": 1}),
    [event(6), event(6), event(4, idempotency_key="k")],
]


def requests(bodies: Sequence[Any], name: str = "r") -> list[BufferedRequest]:
    return [
        BufferedRequest(request_id=f"{name}{n}", received_at=NOON + n * 1_000_000, body=json.dumps(body).encode())
        for n, body in enumerate(bodies)
    ]


REQUESTS = [*requests(BODIES), BufferedRequest(request_id="poison", received_at=NOON, body=b"[no event")]
EVENTS, DELIVERIES, REJECTED = 5, 10, 2
PLACES = {
    (request.id, record)
    for request, records in zip(REQUESTS, [[1], [1], [1, 2, 4], [1], [1], [1, 2, 3], []], strict=True)
    for record in records
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "NOTICED", 0.01)


def expect_once(store: Store, note: str = "") -> None:
    """Every delivery is there once, and counted once."""
    found = [
        (one.delivery.file, one.delivery.file_record) for one in deliveries(store, Filter(ALL_TIME), as_received=True)
    ]
    assert sorted(found) == sorted(PLACES), note
    totals, batches = store.index.totals(), [with_closing(store, one) for one in store.index.batches()]
    assert (totals.events, totals.deliveries) == (EVENTS, DELIVERIES), note
    assert sum(batch.counts.read for batch in batches) == DELIVERIES + REJECTED, note
    assert sum(batch.counts.rejected for batch in batches) == REJECTED, note
    assert {batch.state for batch in batches} <= {BatchState.COMPLETE, BatchState.REPLACED}, note
    assert all(batch.counts.read == 0 for batch in batches if batch.state == BatchState.REPLACED), note


def record_all(store: Store, parts: Sequence[Sequence[BufferedRequest]]) -> None:
    for part in parts:
        result = record_buffered(store, part)
        assert result.failure is None
        assert result.done == {request.id for request in part}


def test_promise_4_messages_that_come_again_in_other_groupings_are_recorded_once(aws: Clients) -> None:
    store = open_store(publish(aws, make_stack(aws)))
    record_all(store, [REQUESTS[:3], REQUESTS[2:], REQUESTS])
    expect_once(store)
    assert len(list(store.index.batches())) == 3, "the request without an event is one of its own"
    assert damage(store) == []
    assert rebuild_index(store, SILENT).revised == 0
    expect_once(store)
    record_all(store, [REQUESTS[1:4], REQUESTS])
    expect_once(store)


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_promise_1_a_recorder_dies_after_every_call(aws: Clients, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others get its messages, in other groupings, and one of these dies in its turn."""
    for number in count(1, step):
        url, random = publish(aws, make_stack(aws)), Random(number)
        with dying(store := open_store(url), number) as die:
            record_buffered(store, REQUESTS)
        later(monkeypatch, number)
        with dying(store := open_store(url), random.randint(1, 60)):
            record_buffered(store, random.sample(REQUESTS, 3))
        later(monkeypatch, number + 2)
        store = open_store(url)
        record_all(store, [REQUESTS[::2], REQUESTS[1::2]])
        expect_once(store, f"call {number}")
        if number % 2:
            assert damage(store) == []
            rebuild_index(store, SILENT)
            expect_once(store, f"call {number}, rebuilt")
        if die.calls < number:
            assert number > 25
            break


def test_promise_4_recorders_have_the_same_messages_at_once(aws: Clients) -> None:
    """Throttled, and with lost answers; what a live recorder has is left to it, and comes again."""
    url = publish(aws, make_stack(aws))

    def recorder(seed: int) -> None:
        random, store = Random(seed), open_store(url)
        with unreliable(store, seed):
            for _ in range(4):
                with suppress(StoreError):
                    record_buffered(store, random.sample(REQUESTS, random.randint(1, len(REQUESTS))))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(recorder, range(4)))
    store = open_store(url)
    record_all(store, [REQUESTS])
    expect_once(store)
    assert damage(store) == []


def test_attempts_beside_a_rebuild_leave_no_batch_that_the_next_one_counts_as_unfinished(aws: Clients) -> None:
    store = open_store(publish(aws, make_stack(aws)))
    with store.batches.rebuild():
        assert record_buffered(store, REQUESTS).failure is not None
    record_all(store, [REQUESTS])
    assert {with_closing(store, batch).state for batch in store.index.batches()} > {BatchState.REPLACED}
    done = rebuild_index(open_store(store.url), SILENT)
    assert (done.unfinished, done.superseded) == (0, 0)
    expect_once(open_store(store.url))


def test_what_docs_cost_reckons_with(aws: Clients) -> None:
    """Of requests that are recorded together: units and objects an event, one by one and in arrays of 20."""
    store = open_store(publish(aws, make_stack(aws)))
    for events, units in ((1, 2.05), (20, 1.10)):
        bodies = [
            [event(1, entity_id=f"e{request}", payload={"number": [events, number]}) for number in range(events)]
            for request in range(1000 // events)
        ]
        with counting(store, Calls()) as calls:
            record_all(store, [requests(bodies, f"of {events} ")])
        assert calls.units / 1000 <= units, (calls.units, calls.made)
        assert calls.made["PutObject"] == 3, calls.made  # the segment, its id file, the record of the batch

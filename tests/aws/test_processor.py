"""The processor on a bad day: it dies behind any call, or AWS refuses; its messages come again; each version is written
once, and the aggregates are the truth."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random

import msgspec
import pytest

from pik import lambdas
from pik.lambdas import processor
from pik.model.run import RunState
from pik.ports.state import Message
from pik.ports.store import Store
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.usecases.metrics.definitions import add_version
from pik.usecases.replay.execute import enqueue_tasks
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote
from tests.aws.test_crash import dying
from tests.support.aws.emulator import make_stack, publish
from tests.support.aws.processor import CONTEXT
from tests.support.aws.unreliable import unreliable
from tests.support.stores import SUM, PlainEngine, current, ingest, request, truth


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Callable[[Store, Message], bool]:
    """Hands a message to the processor of a store; whether it was settled."""
    monkeypatch.setattr(lambdas, "engine", PlainEngine)
    monkeypatch.setattr(lambdas, "attempts", lambda: 1000)

    def run(store: Store, message: Message) -> bool:
        monkeypatch.setattr(lambdas, "store", lambda: store)
        record = {
            "messageId": "m",
            "receiptHandle": message.receipt,
            "body": msgspec.json.encode(message.task).decode(),
            "attributes": {"ApproximateReceiveCount": str(message.receives)},
        }
        return processor.handler({"Records": [record]}, CONTEXT)["batchItemFailures"] == []

    return run


@pytest.fixture
def url(aws: Clients, tmp_path: Path) -> str:
    """Of a store with events, and a metric of them."""
    store = open_store(publish(aws, make_stack(aws)))
    ingest(store, tmp_path)
    add_version(store.metrics, SUM, 1)
    return store.url


def handed_over(url: str) -> tuple[Store, str, list[Message]]:
    """A run whose messages have all been received."""
    store = open_store(url)
    run_id = start(store, plan_replay(store, PlainEngine(), request(), 1)).run_id
    sent = enqueue_tasks(store, run_id)
    messages = [message for _ in range(20) if (message := store.queue.receive(run_id, 300))]
    assert len(messages) == sent == 2
    return store, run_id, messages


def expect_done(store: Store, run_id: str) -> None:
    run = store.runs.get(run_id)
    assert run.state == RunState.COMPLETED
    counted = run.new + run.changed + run.unchanged + run.removed
    assert sum(1 for _ in store.aggregates.changes(run_id)) == counted == len(truth())
    promote(store, run_id, 2, "")
    assert current(store) == truth()


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 12])
def test_promise_6_it_dies_after_every_call(url: str, handle: Callable[[Store, Message], bool], step: int) -> None:
    for number in count(1, step):
        store, run_id, messages = handed_over(url)
        with dying(mortal := open_store(url), number) as die:
            for message in messages:
                handle(mortal, message)
        for message in reversed(messages):
            assert handle(store, message)
        run = store.runs.get(run_id)
        assert (run.state, run.done) == (RunState.COMPLETED, 2), f"call {number}"
        assert sum(1 for _ in store.aggregates.changes(run_id)) == len(truth()), f"call {number}"
        if die.calls < number:
            assert number > 20
            expect_done(store, run_id)
            return


@pytest.mark.usefixtures("no_delays")
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_promise_6_what_fails_is_delivered_again(url: str, handle: Callable[[Store, Message], bool], seed: int) -> None:
    """In any order, and some of what was done as well."""
    random = Random(seed)
    store, run_id, messages = handed_over(url)
    waiting = messages * 2
    with unreliable(bad := open_store(url), seed) as day:
        while waiting:
            message = waiting.pop(random.randrange(len(waiting)))
            if not handle(bad, message):
                waiting.append(message)
    assert day.happened
    expect_done(store, run_id)

"""Promise 6, and 9: whatever SQS does to the processor's messages, and whenever the processor is killed, the aggregates
end equal to the truth, and the run ends."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pytest

from pik import lambdas
from pik.errors import StoreError
from pik.lambdas import processor, replay
from pik.model.run import RunState
from pik.ports.state import UNSETTLED
from pik.ports.store import Store
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.usecases.ingest.api_request import record_request
from pik.usecases.replay.execute import MessageOutcome
from pik.usecases.replay.plan import TaskSize, plan_replay
from tests.support.aws.emulator import make_stack, publish
from tests.support.aws.processor import CONTEXT
from tests.support.faults import Crash, FailAt, wrapped

STEPS = {"aggregates.write", "runs.mark", "runs.set_state", "queue.acknowledge"}
STATE = ("runs", "queue", "dead_letters", "aggregates", "promotions")
DAYS = {"2026-01-30": 1, "2026-01-31": 2}

Message = dict[str, Any]


@pytest.fixture(scope="module")
def filled(aws: Clients) -> Store:
    """A deployed store with a few events of one entity on two days. Replays leave its events as they are."""
    store = open_store(publish(aws, make_stack(aws)))
    events = [
        {"source": "s", "event_type": "t", "entity_id": "e", "event_time": day, "payload": {"number": number}}
        for day, count in ((f"{day}T00:00:00Z", count) for day, count in DAYS.items())
        for number in range(count)
    ]
    record_request(store, json.dumps(events).encode())
    return store


class Acknowledging:
    """A queue that notes whose receipts were acknowledged."""

    def __init__(self, queue: Any) -> None:
        self._queue, self.acknowledged = queue, set[str]()

    def __getattr__(self, call: str) -> Any:
        return getattr(self._queue, call)

    def acknowledge(self, receipt: str) -> None:
        self._queue.acknowledge(receipt)
        self.acknowledged.add(receipt)


class Sqs:
    """The messages of one run, handed to the processor as Lambda does it: what a call that ends does not report as
    failed is deleted, and what a killed call had and did not acknowledge is handed out again."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self._patch = store, monkeypatch
        monkeypatch.setenv("PIK_MAX_RECEIVES", "3")
        monkeypatch.setattr(replay, "plan_replay", partial(plan_replay, size=TaskSize(days=1)))
        monkeypatch.setattr(lambdas, "store", lambda: store)
        asked = {"entity_id": "e", "start_time": "2026-01-29", "end_time": "2026-02-01", "metrics": ["event_count"]}
        answer = replay.handler({"httpMethod": "POST", "body": json.dumps(asked), "isBase64Encoded": False}, CONTEXT)
        self.run_id: str = json.loads(answer["body"])["run_id"]
        self.messages = [self._received() for _ in DAYS]
        self.receives = dict.fromkeys((message["messageId"] for message in self.messages), 0)

    def _received(self) -> Message:
        message = self.store.queue.receive(self.run_id, 600)
        assert message is not None
        task = message.task
        assert task.run_id == self.run_id
        body = msgspec.json.encode(task).decode()
        return {"messageId": str(task.number), "receiptHandle": message.receipt, "body": body}

    def hand_out(self, messages: list[Message], around: Callable[..., Any] | None = None) -> list[str]:
        """The names of those that come again, after a call of the processor in which calls of the store go through
        `around`."""
        queue: Any = Acknowledging(self.store.queue)
        store = replace(self.store, queue=queue)
        if around is not None:
            store = wrapped(store, around, *STATE)
        self._patch.setattr(lambdas, "store", lambda: store)
        records = []
        for message in messages:
            self.receives[message["messageId"]] += 1
            receives = str(self.receives[message["messageId"]])
            records.append({**message, "attributes": {"ApproximateReceiveCount": receives}})
        try:
            answer = processor.handler({"Records": records}, CONTEXT)
        except Crash:
            left = (message for message in messages if message["receiptHandle"] not in queue.acknowledged)
            return [message["messageId"] for message in left]
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    def deliver(self, messages: list[Message], around: Callable[..., Any] | None = None) -> None:
        """Hand them out until none comes again."""
        left = self.hand_out(messages, around)
        while left:
            left = self.hand_out([message for message in messages if message["messageId"] in left])

    def values(self) -> list[int]:
        """What the run wrote, the smallest first. A version that was written twice would be there twice."""
        found = [change.written.computed.value for change in self.store.aggregates.changes(self.run_id)]
        return sorted(int(value) for value in found if value is not None)


@pytest.fixture
def sqs(filled: Store, monkeypatch: pytest.MonkeyPatch) -> Sqs:
    return Sqs(filled, monkeypatch)


@pytest.mark.parametrize("seed", range(3))
def test_promise_6_messages_come_twice_late_and_in_any_order(sqs: Sqs, seed: int) -> None:
    chosen = random.Random(seed)
    messages = chosen.sample(sqs.messages * 3, len(sqs.messages) * 3)
    while messages:
        size = chosen.randint(1, 4)
        sqs.deliver(messages[:size])
        messages = messages[size:]
    assert sqs.values() == sorted(DAYS.values())
    run = sqs.store.runs.get(sqs.run_id)
    assert (run.state, run.done, run.failed, run.new) == (RunState.COMPLETED, 2, 0, 2)
    assert [letter for letter in sqs.store.dead_letters.letters() if letter.task.run_id == sqs.run_id] == []


@pytest.mark.parametrize(
    "after", [pytest.param(False, id="before", marks=pytest.mark.slow), pytest.param(True, id="after")]
)
def test_promise_1_the_processor_is_killed_between_any_two_steps(filled, monkeypatch, after: bool) -> None:
    counting = FailAt(0)
    whole = Sqs(filled, monkeypatch)
    whole.deliver(whole.messages, counting)
    assert set(counting.calls) == STEPS
    for number, step in enumerate(counting.calls, 1):
        sqs = Sqs(filled, monkeypatch)
        sqs.deliver(sqs.messages, FailAt(number, after=after))
        run = filled.runs.get(sqs.run_id)
        assert (run.state, run.done, run.new) == (RunState.COMPLETED, 2, 2), f"{number}: {step}"
        assert sqs.values() == sorted(DAYS.values()), f"{number}: {step}"


def test_promise_9_a_task_that_kills_the_processor_each_time_is_buried_and_the_run_ends(sqs: Sqs) -> None:
    poison, *rest = sqs.messages
    for _ in range(2):
        assert sqs.hand_out([poison], FailAt(1)) == [poison["messageId"]]
    sqs.deliver(rest)
    assert sqs.store.runs.get(sqs.run_id).state == RunState.RUNNING
    assert sqs.hand_out([poison]) == []
    run = sqs.store.runs.get(sqs.run_id)
    assert (run.state, run.done, run.failed) == (RunState.PARTIAL, 1, 1)
    (letter,) = (letter for letter in sqs.store.dead_letters.letters() if letter.task.run_id == sqs.run_id)
    assert (str(letter.task.number), letter.reason, letter.attempts) == (
        poison["messageId"],
        UNSETTLED,
        3,
    )


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["dead_letters.bury", "runs.mark", "runs.set_state", "queue.acknowledge"])
def test_promise_9_a_burial_that_is_interrupted_is_finished(filled, monkeypatch, step: str, after: bool) -> None:
    monkeypatch.setattr(processor, "process_message", lambda *given: MessageOutcome(given[2], "no such thing"))
    sqs = Sqs(filled, monkeypatch)
    assert sqs.hand_out(sqs.messages) == [message["messageId"] for message in sqs.messages]
    *others, last = sqs.messages
    sqs.deliver(others)
    steps = ["dead_letters.bury", "runs.mark", "runs.set_state", "queue.acknowledge"]
    sqs.deliver([last], FailAt(steps.index(step) + 1, after=after))
    run = filled.runs.get(sqs.run_id)
    assert (run.state, run.failed) == (RunState.FAILED, 2)
    letters = [letter for letter in filled.dead_letters.letters() if letter.task.run_id == sqs.run_id]
    assert {letter.task.number for letter in letters} == {0, 1}
    assert "no such thing" in {letter.reason for letter in letters}


def test_promise_9_one_message_of_a_batch_fails_and_the_others_are_done(sqs: Sqs) -> None:
    """A store that does not answer for one task: only that one is reported back, and done when it comes again."""
    nobody = {"messageId": "x", "receiptHandle": "x", "body": "[]"}
    sqs.receives["x"] = 0
    first = sqs.messages[0]["messageId"]
    again = sqs.hand_out([*sqs.messages, nobody], FailAt(1, StoreError("the table does not answer")))
    assert again == [first, "x"]
    assert [task.number for task in sqs.store.runs.open_tasks(sqs.run_id)] == [int(first)]
    assert sqs.store.runs.get(sqs.run_id).state == RunState.RUNNING
    assert sqs.hand_out(sqs.messages[:1]) == []
    assert sqs.store.runs.get(sqs.run_id).state == RunState.COMPLETED


def test_promise_9_a_task_is_retried_soon_after_the_store_failed_and_its_letter_shows_it(
    sqs: Sqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only when the time of its processor would have been over, half an hour later."""
    waits: list[float] = []
    release = type(sqs.store.queue).release

    def released(queue: Any, message: Any, delay: float, reason: str = "") -> None:
        waits.append(delay)
        release(queue, message, delay, reason)

    monkeypatch.setattr(type(sqs.store.queue), "release", released)
    for _ in range(2):
        assert sqs.hand_out(sqs.messages[:1], FailAt(1, StoreError("the table throttles")))
    assert waits == [30, 120]
    assert sqs.hand_out(sqs.messages[:1]) == []
    (letter,) = (letter for letter in sqs.store.dead_letters.letters() if letter.task.run_id == sqs.run_id)
    assert letter.reason == ("the store could not be used: the table throttles" if sqs.store.deployed else UNSETTLED)

"""The contract of pik.ports.state.Queue. It is at-least-once: nothing here relies on order, or on once."""

from __future__ import annotations

import time

import pytest
from msgspec import structs

from pik.model.run import Task
from pik.ports.state import UNSETTLED
from tests.contracts.conftest import WITH_MOTO, state_of

LONG = 60.0


@pytest.fixture(params=WITH_MOTO)
def state(request, tmp_path):
    return state_of(request, tmp_path)


def tasks(count=3, run_id="R1"):
    return [Task(run_id=run_id, number=number, metrics=("m@1",), start=0, end=10) for number in range(count)]


def received(queue, run_id="R1", visibility=LONG):
    found = []
    while message := queue.receive(run_id, visibility):
        found.append(message)
    return found


def numbers(messages):
    return sorted(message.task.number for message in messages)


def eventually(queue, run_id="R1"):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if message := queue.receive(run_id, LONG):
            return message
        time.sleep(0.01)
    raise AssertionError("nothing became visible")


def test_what_is_sent_is_received(state):
    assert state.queue.receive("R1", LONG) is None
    assert state.queue.send(iter(tasks())) == 3
    messages = received(state.queue)
    assert sorted((message.task for message in messages), key=lambda task: task.number) == tasks()
    assert {message.receives for message in messages} == {1}


def test_a_received_message_is_hidden_and_comes_again_when_nobody_acknowledges(state):
    state.queue.send(tasks(1))
    began = time.monotonic()
    first = state.queue.receive("R1", 0.05)
    again = eventually(state.queue)
    assert time.monotonic() - began > 0.05
    assert again.task == first.task
    assert again.receives == 2
    assert again.receipt != first.receipt


def test_an_acknowledged_message_never_comes_again_and_a_repeat_does_nothing(state):
    state.queue.send(tasks(2))
    first, second = received(state.queue)
    for _ in range(2):
        state.queue.acknowledge(first.receipt)
    state.queue.release(second, 0)
    assert numbers(received(state.queue)) == numbers([second])


def test_a_released_message_comes_again_after_its_delay(state):
    state.queue.send(tasks(1))
    message = state.queue.receive("R1", LONG)
    assert state.queue.receive("R1", LONG) is None
    began = time.monotonic()
    state.queue.release(message, 0.05)
    assert eventually(state.queue).receives == 2
    assert time.monotonic() - began > 0.05


@pytest.mark.parametrize("state", ["local", "aws"], indirect=True)  # with moto it has
def test_an_old_receipt_has_no_power_over_a_later_receiving(state):
    state.queue.send(tasks(1))
    old = state.queue.receive("R1", 0.0)
    new = eventually(state.queue)
    state.queue.release(old, 0)
    assert state.queue.receive("R1", LONG) is None
    state.queue.acknowledge(old.receipt)
    state.queue.release(new, 0)
    assert state.queue.receive("R1", LONG) is not None


def test_a_task_that_is_sent_again_comes_again(state):
    state.queue.send(tasks(2))
    assert numbers(received(state.queue)) == [0, 1]
    state.queue.send(tasks(2))
    assert set(numbers(received(state.queue))) == {0, 1}


def test_a_buried_message_is_a_dead_letter_with_its_reason(state):
    state.queue.send(tasks(2))
    first, second = received(state.queue)
    state.dead_letters.bury(first, "no such column", 77)
    (letter,) = state.dead_letters.letters()
    assert (letter.task, letter.reason, letter.attempts, letter.failed_at) == (first.task, "no such column", 1, 77)
    assert letter.hint == ""
    state.dead_letters.bury(second, "again", 78, "correct it")
    assert [(letter.reason, letter.hint) for letter in state.dead_letters.letters()] == [
        ("no such column", ""),
        ("again", "correct it"),
    ]
    for message in (first, second):
        state.queue.acknowledge(message.receipt)
    state.queue.send([])
    assert state.queue.receive("R1", LONG) is None


def test_a_letter_without_a_reason_keeps_the_last_one(state):
    state.queue.send(tasks(2))
    first, second = received(state.queue)
    state.queue.release(first, 0, "the table throttles")
    for message in (eventually(state.queue), second):
        state.dead_letters.bury(message, "", 1)
    kept = "the table throttles" if state.deployed else UNSETTLED
    assert [letter.reason for letter in state.dead_letters.letters()] == [kept, UNSETTLED]


def test_letters_that_are_removed_are_gone_and_a_repeat_does_nothing(state):
    state.queue.send(tasks(3))
    for number, message in enumerate(received(state.queue)):
        state.dead_letters.bury(message, "x", number)
    first, second, third = state.dead_letters.letters()
    for _ in range(2):
        state.dead_letters.delete([first, third])
    assert state.dead_letters.letters() == [second]
    assert state.dead_letters.purged() == []


def test_purged_letters_are_kept_with_their_reason(state):
    state.queue.send(tasks(2))
    for number, message in enumerate(received(state.queue)):
        state.dead_letters.bury(message, "no such column", number)
    first, second = state.dead_letters.letters()
    given_up = structs.replace(first, purged_at=9, purge_reason="the metric is gone")
    for _ in range(2):
        state.dead_letters.purge([given_up])
    assert state.dead_letters.letters() == [second]
    assert state.dead_letters.purged() == [given_up]


def test_dropping_leaves_and_counts_what_is_in_flight(state):
    if state.deployed:
        return  # a shared queue cannot be searched
    state.queue.send(tasks(4))
    working = state.queue.receive("R1", LONG)
    failed = state.queue.receive("R1", LONG)
    state.queue.release(failed, LONG)
    assert state.queue.drop("R1") == 1
    assert state.queue.receive("R1", LONG) is None
    state.queue.acknowledge(working.receipt)
    assert state.queue.drop("R1") == 0


def test_dropping_one_run_leaves_the_others(state):
    state.queue.send([*(() if state.deployed else tasks(2)), *tasks(1, "R2")])
    assert state.queue.drop("R1") == 0
    assert state.queue.receive("R2", LONG).task == tasks(1, "R2")[0]

"""The contract of pik.ports.state.Queue. It is at-least-once: nothing here relies on order, or on once."""

from __future__ import annotations

import time

import pytest

from pik.errors import NotFound
from pik.model.run import Task

LONG = 60.0


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
    first = state.queue.receive("R1", 0.05)
    assert state.queue.receive("R1", LONG) is None
    again = eventually(state.queue)
    assert again.task == first.task
    assert again.receives == 2
    assert again.receipt != first.receipt


def test_an_acknowledged_message_never_comes_again_and_a_repeat_does_nothing(state):
    state.queue.send(tasks(2))
    first, second = received(state.queue)
    for _ in range(2):
        state.queue.acknowledge(first.receipt)
    state.queue.release(second.receipt, 0)
    assert numbers(received(state.queue)) == numbers([second])


def test_a_released_message_comes_again_after_its_delay(state):
    state.queue.send(tasks(1))
    state.queue.release(state.queue.receive("R1", LONG).receipt, 0.05)
    assert state.queue.receive("R1", LONG) is None
    assert eventually(state.queue).receives == 2


def test_an_old_receipt_has_no_power_over_a_later_receiving(state):
    state.queue.send(tasks(1))
    old = state.queue.receive("R1", 0.0)
    new = eventually(state.queue)
    state.queue.release(old.receipt, 0)
    assert state.queue.receive("R1", LONG) is None
    state.queue.acknowledge(old.receipt)
    state.queue.release(new.receipt, 0)
    assert state.queue.receive("R1", LONG) is not None


def test_a_task_that_is_sent_again_comes_again(state):
    state.queue.send(tasks(2))
    assert numbers(received(state.queue)) == [0, 1]
    state.queue.send(tasks(2))
    assert set(numbers(received(state.queue))) == {0, 1}


def test_a_buried_message_is_a_dead_letter_with_its_reason(state):
    state.queue.send(tasks(2))
    first, second = received(state.queue)
    state.queue.bury(first, "no such column", 77)
    (letter,) = state.queue.letters()
    assert (letter.task, letter.reason, letter.attempts, letter.failed_at) == (first.task, "no such column", 1, 77)
    state.queue.bury(second, "again", 78)
    assert [letter.reason for letter in state.queue.letters()] == ["no such column", "again"]
    state.queue.send([])
    assert state.queue.receive("R1", LONG) is None


def test_a_redriven_letter_is_a_message_again(state):
    state.queue.send(tasks(1))
    state.queue.bury(state.queue.receive("R1", LONG), "x", 1)
    (letter,) = state.queue.letters()
    assert state.queue.redrive(letter.letter_id.lower()) == letter.task
    assert state.queue.letters() == []
    message = state.queue.receive("R1", LONG)
    assert (message.task, message.receives) == (letter.task, 1)
    with pytest.raises(NotFound):
        state.queue.redrive(letter.letter_id)


def test_dropping_leaves_and_counts_what_is_in_flight(state):
    state.queue.send(tasks(4))
    working = state.queue.receive("R1", LONG)
    failed = state.queue.receive("R1", LONG)
    state.queue.release(failed.receipt, LONG)
    assert state.queue.drop("R1") == 1
    assert state.queue.receive("R1", LONG) is None
    state.queue.acknowledge(working.receipt)
    assert state.queue.drop("R1") == 0


def test_dropping_one_run_leaves_the_others(state):
    state.queue.send([*tasks(2), *tasks(1, "R2")])
    assert state.queue.drop("R1") == 0
    assert state.queue.receive("R2", LONG).task == tasks(1, "R2")[0]

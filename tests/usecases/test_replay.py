"""Replays: planned, driven, interrupted, resumed, failed, redriven, cancelled."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from decimal import Decimal
from functools import partial
from unittest.mock import Mock

import pytest

from pik.engine import DuckEngine
from pik.errors import Busy, EngineError, NotFound, StoreError, Unreadable, UsageError
from pik.model.aggregate import NO_INPUTS, Computed
from pik.model.instant import DAY
from pik.model.metric import Definition
from pik.model.run import RunState, Task
from pik.model.scenario import COUNTED_DUPLICATES
from pik.model.window import ALL_TIME, Window
from pik.ports.state import Message
from pik.runtime import SILENT
from pik.usecases.metrics.definitions import add_version
from pik.usecases.replay import dead_letters as dlq
from pik.usecases.replay import execute
from pik.usecases.replay.execute import Pace, run_locally
from pik.usecases.replay.plan import TaskSize, plan_replay, start
from pik.usecases.replay.promote import promote
from pik.usecases.replay.runs import cancel, detail
from pik.usecases.replay.wait import wait
from tests.support import stores as kit
from tests.support.fleet import RepeatingFleet
from tests.support.stores import (
    EVENTS,
    FIRST,
    HERE,
    Faulty,
    PlainEngine,
    broken,
    current,
    event,
    ingest,
    replay,
    request,
    truth,
    window,
)

NOW = 1


def started(store, engine, within=ALL_TIME, **fields):
    return start(store, plan_replay(store, engine, request(within, **fields), NOW)).run_id


def planned_by(monkeypatch, size):
    """Plan replays into tasks of this size."""
    for module in (kit, sys.modules[__name__]):
        monkeypatch.setattr(module, "plan_replay", partial(plan_replay, size=size))


@pytest.fixture
def daily(monkeypatch):
    """Every day is a task, so that there are many."""
    planned_by(monkeypatch, TaskSize(days=1))


def written(store, run_id):
    return {
        (change.written.computed.metric, change.written.computed.bucket, change.written.computed.entity_id): (
            change.written.computed.value
        )
        for change in store.aggregates.changes(run_id)
    }


def test_a_replay_writes_new_versions_and_promote_makes_it_current(filled, engine):
    run = replay(filled, engine)
    assert (run.state, run.failed, run.done) == (RunState.COMPLETED, 0, run.tasks)
    assert (run.new, run.changed, run.unchanged) == (len(truth()), 0, 0)
    assert run.finished_at is not None
    assert current(filled) == {}
    assert promote(filled, run.run_id, NOW, "").run.promoted == len(truth())
    assert current(filled) == truth()


def test_planning_counts_and_writes_nothing(filled, engine):
    planned = plan_replay(filled, engine, request(window("01T11:59:00Z", "02T00:30:00Z")), NOW).run
    assert planned.events_matched == 3
    assert planned.buckets == 3 + 4  # event_count by day, total by twelve hours: whole, and of all entities in them
    assert planned.effective == window("01", "03")
    assert planned.request.window == window("01T11:59:00Z", "02T00:30:00Z")
    assert planned.state == RunState.PLANNED
    assert list(filled.runs.newest_first()) == []


def test_buckets_are_computed_whole_whatever_part_of_them_was_asked_for(filled, engine):
    """Promise 6: the window chooses buckets, never their inputs."""
    run = replay(filled, engine, window("01T11:59:00Z", "01T11:59:30Z"))
    assert written(filled, run.run_id) == {
        ("event_count", FIRST, "a"): 3,
        ("total", FIRST, "a"): 3,
    }


@pytest.mark.parametrize(
    ("fields", "pairs"),
    [
        ({"source": "app"}, {(FIRST + DAY, "a"), (FIRST + 4 * DAY, "b"), (FIRST + 4 * DAY, "é")}),
        ({"event_type": "seen"}, {(FIRST + DAY, "a"), (FIRST + 4 * DAY, "é")}),
        ({"source": "app", "event_type": "seen"}, {(FIRST + 4 * DAY, "é")}),
        ({"source": "app", "entities": ("a",)}, {(FIRST + DAY, "a")}),
        ({"source": "nobody"}, set()),
        ({"source": "web", "within": window("01T11:00:00Z", "02T00:30:00Z")}, {(FIRST, "a")}),
        ({"source": "app", "within": window("02T00:30:00Z", "05T13:01:00Z")}, {(FIRST + 4 * DAY, "b")}),
    ],
)
def test_filters_choose_buckets_never_their_inputs(filled, engine, fields, pairs):
    """Promise 6."""
    within = fields.get("within", ALL_TIME)
    fields = {name: value for name, value in fields.items() if name != "within"}
    planned = plan_replay(filled, engine, request(within, metrics=("event_count",), **fields), NOW)
    assert planned.run.buckets == len(pairs)
    run = replay(filled, engine, within, metrics=("event_count",), **fields)
    assert written(filled, run.run_id) == {
        key: value for key, value in truth().items() if key[0] == "event_count" and key[1:] in pairs
    }


def test_filters_with_more_entities_than_a_task_names(filled, engine, monkeypatch):
    planned_by(monkeypatch, TaskSize(named=1))
    run = replay(filled, engine, event_type="paid")
    assert {task.entities for task in plan_replay(filled, engine, request(event_type="paid"), NOW).tasks} == {()}
    paid = {each["entity_id"] for each in EVENTS if each["event_type"] == "paid"}
    assert {entity for _, _, entity in written(filled, run.run_id)} == paid


def test_entities_choose_entities(filled, engine, monkeypatch):
    planned_by(monkeypatch, TaskSize(entities=2))
    run = replay(filled, engine, entities=("a", "b", "é"))
    assert written(filled, run.run_id) == {key: value for key, value in truth().items() if key[2] != "z"}


def test_tasks_leave_no_day_out(filled, engine, daily):
    """Where events are gone there may still be aggregates."""
    tasks = list(plan_replay(filled, engine, request(metrics=("event_count",)), NOW).tasks)
    assert [task.start for task in tasks] == [ALL_TIME.start, *(FIRST + day * DAY for day in (1, 4, 19))]
    assert [task.end for task in tasks] == [*(task.start for task in tasks[1:]), ALL_TIME.end]
    assert [task.number for task in tasks] == list(range(4))


def test_tasks_are_made_of_whole_buckets(filled, engine, daily):
    add_version(filled.metrics, Definition(name="weekly", value="count(*)", bucket="7d"), NOW)
    tasks = list(plan_replay(filled, engine, request(window("01", "21"), metrics=("weekly",)), NOW).tasks)
    assert len(tasks) > 1
    assert {(task.start % (7 * DAY), task.end % (7 * DAY)) for task in tasks} == {(0, 0)}
    run = replay(filled, engine, window("01", "21"), metrics=("weekly",))
    assert sum(written(filled, run.run_id).values()) == len(EVENTS)


def test_worker_processes_do_it_too(filled, daily):
    run = replay(filled, DuckEngine(threads=1), window("01", "21"), Pace(workers=2), metrics=("event_count",))
    assert (run.state, run.done) == (RunState.COMPLETED, 4)
    assert written(filled, run.run_id) == {key: value for key, value in truth().items() if key[0] == "event_count"}


def test_including_duplicates_shows_what_no_dedupe_would_have_computed(filled, engine, tmp_path):
    ingest(filled, tmp_path, again=True)
    twice = replay(filled, engine, metrics=("total",), assumed=(COUNTED_DUPLICATES,))
    assert written(filled, twice.run_id) == {
        key: 2 * value for key, value in truth().items() if key[0] == "total" and value
    }
    with pytest.raises(UsageError, match="counted duplicates"):
        promote(filled, twice.run_id, NOW, "")
    assert written(filled, replay(filled, engine).run_id) == truth()


def test_a_current_value_without_events_becomes_null_with_no_inputs(filled, engine):
    stale = Computed("event_count", FIRST, "nobody", Decimal(7), 7, "1" * 32, "2" * 32)
    task = Task(run_id=replay(filled, engine).run_id, number=99, metrics=(), start=0, end=1)
    filled.aggregates.write(task, [stale], versions={"event_count": 1}, known_until=1, reason="")
    promote(filled, task.run_id, NOW, "")
    run = replay(filled, engine, reason="raw says no")
    (change,) = [change for change in filled.aggregates.changes(run.run_id) if change.written.computed.value is None]
    assert change.written.computed == Computed("event_count", FIRST, "nobody", None, 0, NO_INPUTS, NO_INPUTS)
    assert (run.new, run.changed, run.unchanged, run.removed) == (0, 0, len(truth()), 1)
    promote(filled, run.run_id, NOW, "")
    again = replay(filled, engine)
    assert len(written(filled, again.run_id)) == len(truth())


def test_a_run_keeps_to_the_definitions_it_was_planned_with(filled, engine):
    run_id = started(filled, engine, metrics=("total",))
    add_version(filled.metrics, Definition(name="total", value="count(*)", bucket="1d"), NOW)
    run = run_locally(filled, engine, run_id, HERE, SILENT)
    assert run.state == RunState.COMPLETED
    assert written(filled, run_id) == {key: value for key, value in truth().items() if key[0] == "total"}


def test_a_store_without_events_and_an_unknown_metric_are_named(store, filled, engine):
    with pytest.raises(NotFound, match="no metric 'nonsense'"):
        replay(filled, engine, metrics=("nonsense",))
    with pytest.raises(UsageError, match="is empty"):
        replay(filled, engine, source="")


def test_an_empty_store_has_nothing_to_replay(store, engine):
    with pytest.raises(NotFound, match="no events"):
        replay(store, engine)


class Interrupting:
    """Raises after some computations."""

    def __init__(self, after, error):
        self.left, self.error = after, error

    def __call__(self, _window):
        self.left -= 0.5  # it is asked before and behind each
        if self.left < 0:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StoreError("no space left")])
def test_promise_1_an_interrupted_run_resumes_without_what_is_done(filled, engine, daily, error):
    asked = request(metrics=("event_count",))
    run_id = started(filled, engine, metrics=("event_count",))
    stopping = Faulty(Interrupting(2, error))
    with pytest.raises(type(error)):
        run_locally(filled, stopping, run_id, HERE, SILENT)
    unfinished = filled.runs.unfinished(asked)
    assert unfinished is not None
    assert (unfinished.run_id, unfinished.state, unfinished.done) == (run_id, RunState.RUNNING, 2)
    rest = Faulty()
    assert run_locally(filled, rest, run_id, HERE, SILENT).state == RunState.COMPLETED
    assert len(rest.computed) == 2
    assert not set(rest.computed) & set(stopping.computed[:2])
    assert filled.runs.unfinished(asked) is None
    assert written(filled, run_id) == {key: value for key, value in truth().items() if key[0] == "event_count"}


def test_what_a_killed_driver_had_received_is_taken_back_at_once(filled, engine, daily):
    run_id = started(filled, engine)
    tasks = list(filled.runs.open_tasks(run_id))
    filled.runs.set_state(run_id, RunState.RUNNING)
    filled.queue.send(tasks)
    while message := filled.queue.receive(run_id, 900):
        done = message
    filled.runs.mark(done.task, "DONE")  # and killed before it acknowledged
    assert run_locally(filled, engine, run_id, HERE, SILENT).state == RunState.COMPLETED
    assert filled.runs.get(run_id).done == len(tasks)


def test_a_task_that_fails_sometimes_is_done_in_the_end(filled, daily):
    tries: dict[Window, list[Exception]] = {}

    def fault(within):
        left = tries.setdefault(within, [EngineError("no"), ValueError("a bug"), EngineError("not yet")])
        if left:
            raise left.pop(0)

    queue = Mock(wraps=filled.queue)
    run = replay(replace(filled, queue=queue), Faulty(fault))
    assert (run.state, run.failed) == (RunState.COMPLETED, 0)
    assert written(filled, run.run_id) == truth()
    released = [call.args[:2] for call in queue.release.call_args_list]
    assert [delay for _, delay in released] == [execute.FIRST_DELAY * 2 ** (one.receives - 1) for one, _ in released]
    assert {one.receives for one, _ in released} == {1, 2}


def failing_run(store, engine=None):
    """A run whose task for the fifth of January fails, every time."""

    def fault(window):
        if FIRST + 4 * DAY in window:
            raise EngineError("the metric event_count cannot be computed")

    return replay(
        store, engine or Faulty(fault), window("01", "21"), Pace(workers=0, attempts=2), metrics=("event_count",)
    )


def test_a_task_that_always_fails_ends_among_the_dead_letters_and_the_rest_is_done(filled, daily):
    run = failing_run(filled)
    assert (run.state, run.tasks, run.done, run.failed) == (RunState.PARTIAL, 4, 3, 1)
    (letter,) = dlq.letters(filled)
    assert (letter.task.run_id, letter.attempts) == (run.run_id, 2)
    assert letter.reason == "the metric event_count cannot be computed"
    assert FIRST + 4 * DAY in letter.task.window
    assert FIRST + 4 * DAY not in {bucket for _, bucket, _ in written(filled, run.run_id)}
    assert detail(filled, run.run_id).letters == [letter]
    assert dlq.letters(filled, run.run_id) == [letter]
    assert dlq.letter(filled, letter.letter_id[:20].lower()) == letter
    with pytest.raises(NotFound):
        dlq.letter(filled, "nope")
    with pytest.raises(UsageError, match="is PARTIAL"):
        run_locally(filled, PlainEngine(), run.run_id, HERE, SILENT)
    assert promote(filled, run.run_id, NOW, "").counts.moved == 4


def test_a_redriven_task_completes_the_run(filled, engine, daily):
    run = failing_run(filled)
    (ended,) = dlq.redrive(filled, engine, dlq.letters(filled), HERE, SILENT)
    assert (ended.run_id, ended.state, ended.done, ended.failed) == (run.run_id, RunState.COMPLETED, 4, 0)
    assert dlq.letters(filled) == []
    assert written(filled, run.run_id) == {key: value for key, value in truth().items() if key[0] == "event_count"}


def test_a_redriven_task_that_fails_again_is_a_dead_letter_again(filled, daily):
    failing_run(filled)
    (ended,) = dlq.redrive(filled, Faulty(broken), dlq.letters(filled), Pace(0, attempts=1), SILENT)
    assert (ended.state, ended.failed) == (RunState.PARTIAL, 1)
    assert len(dlq.letters(filled)) == 1


@pytest.mark.parametrize("by", ["the same command", "runs resume"])
def test_promise_1_an_interrupted_redrive_is_gone_on_with(filled, engine, daily, by):
    run = failing_run(filled)
    with pytest.raises(KeyboardInterrupt):
        dlq.redrive(filled, Faulty(Interrupting(0, KeyboardInterrupt())), dlq.letters(filled), HERE, SILENT)
    assert filled.runs.get(run.run_id).state == RunState.RUNNING
    if by == "runs resume":
        ended = run_locally(filled, engine, run.run_id, HERE, SILENT)
    else:
        (ended,) = dlq.redrive(filled, engine, dlq.letters(filled), HERE, SILENT)
    assert (ended.run_id, ended.state, ended.failed) == (run.run_id, RunState.COMPLETED, 0)
    assert dlq.letters(filled) == []


def deadly(window):
    if FIRST + 4 * DAY in window:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_task_that_kills_its_process_each_time_is_buried_and_the_rest_is_done(filled, engine, daily):
    run_id = started(filled, engine, metrics=("event_count",))
    run = run_locally(filled, Faulty(deadly), run_id, Pace(workers=2, attempts=2), SILENT)
    assert (run.state, run.tasks, run.done, run.failed) == (RunState.PARTIAL, 4, 3, 1)
    assert [letter.reason for letter in dlq.letters(filled)] == ["its worker process died each time"]


def test_promise_1_a_driver_that_is_killed_however_often_is_not_its_tasks_fault(filled, engine):
    run_id = started(filled, engine, metrics=("event_count",))
    for _ in range(10):
        filled.queue.send(filled.runs.open_tasks(run_id))
        assert filled.queue.receive(run_id, 60)
    assert run_locally(filled, engine, run_id, Pace(workers=0, attempts=2), SILENT).state == RunState.COMPLETED


def test_only_one_drives_and_the_rate_is_kept(filled, engine, daily, monkeypatch):
    run_id = started(filled, engine, metrics=("event_count",))
    with filled.runs.driving(run_id), pytest.raises(Busy):
        run_locally(filled, engine, run_id, HERE, SILENT)
    slept: list[float] = []
    monkeypatch.setattr("pik.usecases.replay.execute.sleep", slept.append)
    run_locally(filled, engine, run_id, Pace(workers=0, rate=0.01), SILENT)
    assert len(slept) == 4
    assert all(90 < seconds <= 100 for seconds in slept)


def test_a_cancelled_run_begins_nothing_and_is_never_promoted(filled, engine, daily):
    run_id = started(filled, engine)
    assert cancel(filled, run_id).state == RunState.CANCELLED
    assert cancel(filled, run_id).state == RunState.CANCELLED
    for action in (
        lambda: run_locally(filled, engine, run_id, HERE, SILENT),
        lambda: promote(filled, run_id, NOW, ""),
    ):
        with pytest.raises(UsageError, match=r"CANCELLED|cancelled"):
            action()
    assert filled.runs.unfinished(request()) is None
    task = Task(run_id=run_id, number=0, metrics=(), start=0, end=1)
    late = [Computed("total", 0, "late", Decimal(1), 1, "0" * 32, "0" * 32)]
    filled.aggregates.write(task, late, versions={"total": 1}, known_until=1, reason="")
    assert written(filled, run_id) == {}  # not even by a worker whose parent was killed


def test_an_interrupted_run_is_cancelled_at_once(filled, daily, engine):
    run_id = started(filled, engine)
    filled.runs.set_state(run_id, RunState.RUNNING)
    filled.queue.send(filled.runs.open_tasks(run_id))
    filled.queue.receive(run_id, 900)  # and killed
    assert cancel(filled, run_id).state == RunState.CANCELLED


def test_a_run_is_cancelled_when_what_is_in_flight_has_ended(filled, engine, daily):
    run_id = started(filled, engine, metrics=("event_count",))
    working, go_on = threading.Event(), threading.Event()

    def fault(_window):
        working.set()
        go_on.wait(10)

    ended = []
    driver = threading.Thread(target=lambda: ended.append(run_locally(filled, Faulty(fault), run_id, HERE, SILENT)))
    driver.start()
    working.wait(10)
    canceller = threading.Thread(target=lambda: ended.append(cancel(filled, run_id)))
    canceller.start()
    while filled.queue.drop(run_id) > 1:
        time.sleep(0.01)
    assert filled.runs.get(run_id).state == RunState.RUNNING
    go_on.set()
    driver.join()
    canceller.join()
    assert [run.state for run in ended] == [RunState.CANCELLED, RunState.CANCELLED]
    assert filled.runs.get(run_id).done == 1


def test_a_run_that_has_ended_cannot_be_cancelled(filled, engine):
    run = replay(filled, engine)
    with pytest.raises(UsageError, match="COMPLETED already"):
        cancel(filled, run.run_id)


def test_waiting_ends_with_the_run(filled, engine, daily):
    run_id = started(filled, engine)
    with pytest.raises(StoreError, match="no process is working on it") as caught:
        wait(filled, run_id, SILENT)
    assert run_id in caught.value.hint
    working = threading.Event()
    driver = threading.Thread(target=run_locally, args=(filled, Faulty(lambda _: working.set()), run_id, HERE, SILENT))
    driver.start()
    working.wait(10)
    assert wait(filled, run_id, SILENT).state == RunState.COMPLETED
    driver.join()
    assert wait(filled, run_id[:25], SILENT).done == filled.runs.get(run_id).tasks


def test_damage_is_a_reason_and_never_a_smaller_number(filled, engine, daily):
    run_id = started(filled, engine, metrics=("event_count",))
    (segment, *_) = filled.index.segments(window("05", "06"))
    (filled.raw.raw.root / segment.key).unlink()
    run = run_locally(filled, engine, run_id, Pace(workers=0, attempts=1), SILENT)
    assert (run.state, run.failed) == (RunState.PARTIAL, 1)
    (letter,) = dlq.letters(filled)
    assert "is missing; [2026-01-05T00:00:00Z, 2026-01-06T00:00:00Z) is not computed" in letter.reason
    assert letter.hint.startswith("`pik verify --full`")
    assert FIRST + 4 * DAY not in {bucket for _, bucket, _ in written(filled, run_id)}


def test_what_cannot_be_read_now_is_not_called_damage(filled, engine, daily):
    """Here it is a dead letter, and its hint is what to do about it; on a fleet nothing is buried because of it."""
    (segment, *_) = filled.index.segments(window("05", "06"))
    place = filled.raw.raw.root / segment.key
    place.unlink()
    place.symlink_to(place)
    run_id = started(filled, engine, metrics=("event_count",))
    run = run_locally(filled, engine, run_id, Pace(workers=0, attempts=1), SILENT)
    assert (run.state, run.failed) == (RunState.PARTIAL, 1)
    (letter,) = dlq.letters(filled)
    assert letter.reason.startswith(f"raw object {segment.key} cannot be read: too many levels of symbolic links; [")
    assert letter.hint.endswith("leads back to itself; once it can be read: pik dlq redrive --all")
    with pytest.raises(Unreadable, match="too many levels"):
        list(RepeatingFleet(filled, engine).map(execute._executed, [Message(letter.task, "", 1)]))


def test_promise_7_a_bucket_promoted_by_another_run_is_left(filled, engine, tmp_path):
    mine = replay(filled, engine)
    ingest(filled, tmp_path, [event(1000, "a", "01T03:00")])
    theirs = replay(filled, engine, window("01", "02"))
    assert promote(filled, theirs.run_id, NOW, "").counts.moved == 3
    move = promote(filled, mine.run_id, NOW, "")
    assert (move.counts.moved, move.counts.conflicts) == (len(truth()) - 3, 3)
    assert current(filled)["total", FIRST, "a"] == 1003


def test_a_dry_run_of_promote_changes_nothing(filled, engine):
    run = replay(filled, engine)
    assert promote(filled, run.run_id, NOW, "", dry_run=True).counts.moved == len(truth())
    assert current(filled) == {}

"""The contract of pik.ports.state.Runs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest
from msgspec.structs import replace
from ulid import ULID

from pik.errors import Busy, NotFound
from pik.model.run import KEPT_FAILURES, FailedAggregate, Failures, Run, RunRequest, RunState, Task, TaskState
from pik.usecases.recent import Recent, find_recent

REQUEST = RunRequest(start=0, end=100, entities=("a", "b"), metrics=("event_count",), reason="späte Ereignisse")


def a_run(request=REQUEST, tasks=3):
    return Run(
        run_id=str(ULID()),
        request=request,
        state=RunState.PLANNED,
        created_at=5,
        finished_at=None,
        effective_start=-10,
        effective_end=110,
        events_matched=7,
        buckets=4,
        corrections_until=3,
        tasks=tasks,
    )


def tasks_of(run, count=3):
    return [
        Task(run_id=run.run_id, number=number, metrics=("event_count@1",), start=0, end=10, entities=("a", "\0é"))
        for number in range(count)
    ]


@pytest.fixture
def run(state):
    run = a_run()
    state.runs.create(run, iter(tasks_of(run)))
    return run


def test_a_created_run_is_there_with_its_tasks(state, run):
    assert state.runs.get(run.run_id) == run
    assert list(state.runs.open_tasks(run.run_id)) == tasks_of(run)


def test_a_failing_creation_leaves_nothing(state):
    def broken():
        yield from tasks_of(run)
        raise KeyboardInterrupt

    run = a_run()
    with pytest.raises(KeyboardInterrupt):
        state.runs.create(run, broken())
    assert list(state.runs.newest_first()) == []
    state.runs.create(run, tasks_of(run))


def test_a_run_that_is_planning_is_planned_once_and_never_begun_again(state):
    run = a_run()
    begun = replace(run, state=RunState.PLANNING, tasks=0, events_matched=None, buckets=None, corrections_until=0)
    assert state.runs.create(begun, ())
    assert state.runs.get(run.run_id) == state.runs.unfinished(REQUEST) == begun
    assert [one.state for one in state.runs.newest_first()] == [RunState.PLANNING]

    def killed():
        yield from tasks_of(run, 60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        state.runs.create(replace(run, tasks=60), killed())
    assert (state.runs.get(run.run_id), list(state.runs.open_tasks(run.run_id))) == (begun, [])
    assert state.runs.create(run, tasks_of(run)), "its tasks are others now"
    assert state.runs.get(run.run_id) == run
    assert list(state.runs.open_tasks(run.run_id)) == tasks_of(run)
    assert not state.runs.create(begun, ()), "whoever accepted it comes late"
    assert not state.runs.create(run, tasks_of(run))
    state.runs.set_state(run.run_id, RunState.RUNNING)
    assert not state.runs.create(run, tasks_of(run))
    assert state.runs.get(run.run_id).state == RunState.RUNNING
    assert list(state.audit.problems()) == []


def test_a_run_that_could_not_be_planned_has_failed_with_the_reason(state):
    begun = replace(a_run(), state=RunState.PLANNING, tasks=0)
    state.runs.create(begun, ())
    state.runs.set_state(begun.run_id, RunState.FAILED, 9, "zu groß: 'x'")
    failed = replace(begun, state=RunState.FAILED, finished_at=9, planning_failure="zu groß: 'x'")
    assert state.runs.get(begun.run_id) == next(state.runs.newest_first()) == failed
    assert not state.runs.create(replace(begun, state=RunState.PLANNED), ())
    assert state.runs.unfinished(REQUEST) is None
    assert list(state.audit.problems()) == []


def test_a_run_that_was_cancelled_while_it_was_planned_stays_so(state):
    run = a_run()
    begun = replace(run, state=RunState.PLANNING, tasks=0)
    state.runs.create(begun, ())
    state.runs.set_state(run.run_id, RunState.CANCELLED, 9)
    assert not state.runs.create(run, tasks_of(run))
    cancelled = state.runs.get(run.run_id)
    assert (cancelled.state, cancelled.tasks, cancelled.finished_at) == (RunState.CANCELLED, 0, 9)
    assert list(state.runs.open_tasks(run.run_id)) == []
    assert state.runs.unfinished(REQUEST) is None
    assert list(state.audit.problems()) == []


def test_a_prefix_names_a_run_unless_it_names_several(state, run):
    other = a_run()
    state.runs.create(other, [])
    differ = [mine == theirs for mine, theirs in zip(run.run_id, other.run_id, strict=True)].index(False)
    assert state.runs.get(run.run_id[: differ + 1].lower()) == run
    newest_first = ", ".join(sorted([run.run_id, other.run_id], reverse=True))
    several = f"several run ids start with {run.run_id[:differ]}: {newest_first}$"
    for wrong, said in (
        (run.run_id[:differ], several),
        ("", "the run id is empty"),
        ("ZZZZ", "run ZZZZ is not in this store"),
        (run.run_id + "0", "is not in this store"),
    ):
        with pytest.raises(NotFound, match=said):
            state.runs.get(wrong)


def test_a_slip_in_an_id_is_asked_about(state, run):
    typed = run.run_id[:11] + ("0" if run.run_id[11] != "0" else "1") + run.run_id[12:]
    for slip in (typed, run.run_id[:11] + run.run_id[12:], f"{run.run_id}0"):
        with pytest.raises(NotFound) as error:
            state.runs.get(slip)
        assert error.value.hint == f"did you mean {run.run_id}? all of them: pik runs list"


def test_words_for_recent_runs_are_the_newest(state):
    runs = sorted((a_run() for _ in range(3)), key=lambda run: run.run_id)
    for run in runs:
        state.runs.create(run, [])
    found = [find_recent(state, Recent.RUN, word) for word in ("latest", "-1", "-3")]
    assert found == [runs[2].run_id, runs[2].run_id, runs[0].run_id]
    with pytest.raises(NotFound, match="-4: there are only 3 runs"):
        find_recent(state, Recent.RUN, "-4")


def test_an_ambiguous_prefix_lists_at_most_six_ids(state):
    runs = [a_run() for _ in range(8)]
    for each in runs:
        state.runs.create(each, [])
    newest = sorted((each.run_id for each in runs), reverse=True)
    with pytest.raises(NotFound) as error:
        state.runs.get(newest[0][:2])
    assert error.value.message.endswith(f": {', '.join(newest[:6])}, …")
    assert error.value.hint == "use a longer prefix"


def test_runs_come_newest_first(state):
    runs = sorted((a_run() for _ in range(3)), key=lambda run: run.run_id)
    for run in (runs[1], runs[0], runs[2]):
        state.runs.create(run, [])
    assert [run.run_id for run in state.runs.newest_first()] == [run.run_id for run in reversed(runs)]


def test_marked_tasks_are_counted_and_no_longer_open(state, run):
    first, second, third = tasks_of(run)
    state.runs.mark(first, TaskState.DONE)
    state.runs.mark(second, RunState.FAILED)
    got = state.runs.get(run.run_id)
    assert (got.done, got.failed) == (1, 1)
    assert list(state.runs.open_tasks(run.run_id)) == [third]


def failures(count, entity="é", kept=None):
    one = FailedAggregate(
        metric="m",
        metric_version=2,
        inputs=3,
        bucket=-10,
        entity_id=entity,
        reason="kein Wert: 'x'",
        events=2,
        event_ids=("a" * 32, "b" * 32),
    )
    return Failures(count=count, kept=(one,) * (count if kept is None else kept))


def test_a_run_has_the_failures_of_its_tasks_and_counts_them_all(state, run):
    first, second, third = tasks_of(run)
    state.runs.mark(third, TaskState.DONE, failures(1, "third"))
    state.runs.mark(first, TaskState.DONE, failures(KEPT_FAILURES + 5, "first", KEPT_FAILURES - 1))
    state.runs.mark(second, RunState.FAILED, failures(3, "second"))
    got = state.runs.get(run.run_id)
    assert (got.done, got.failed, got.failed_aggregates) == (2, 1, KEPT_FAILURES + 9)
    assert [one.entity_id for one in got.failures] == ["first"] * (KEPT_FAILURES - 1) + ["second"]
    assert got.failures[0] == failures(1, "first").kept[0]
    (listed,) = state.runs.newest_first()
    assert (listed.failed_aggregates, listed.failures) == (KEPT_FAILURES + 9, ())


def test_failures_are_those_of_a_tasks_last_time_and_of_a_task_that_is_done_for_good(state, run):
    first, second, third = tasks_of(run)
    state.runs.mark(first, RunState.FAILED, failures(2))
    state.runs.mark(first, TaskState.OPEN)
    assert state.runs.get(run.run_id).failed_aggregates == 0
    state.runs.mark(first, TaskState.DONE)
    state.runs.mark(second, TaskState.DONE, failures(1, "kept"))
    state.runs.mark(second, TaskState.DONE, failures(2, "too late"))
    state.runs.mark(second, RunState.FAILED)
    state.runs.mark(third, TaskState.DONE)
    got = state.runs.get(run.run_id)
    assert (got.done, got.failed, got.failed_aggregates) == (3, 0, 1)
    assert [one.entity_id for one in got.failures] == ["kept"]


def test_a_task_that_is_done_stays_done_and_a_failed_one_may_open_again(state, run):
    first, second, third = tasks_of(run)
    for name in (TaskState.DONE, RunState.FAILED, TaskState.OPEN):
        state.runs.mark(first, name)
    for name in (RunState.FAILED, TaskState.OPEN):
        state.runs.mark(second, name)
    for name in (RunState.FAILED, TaskState.DONE):
        state.runs.mark(third, name)
    got = state.runs.get(run.run_id)
    assert (got.done, got.failed) == (2, 0)
    assert list(state.runs.open_tasks(run.run_id)) == [second]


def test_states(state, run):
    for name, at in (
        (RunState.RUNNING, None),
        (RunState.FAILED, 9),
        (RunState.RUNNING, None),
        (RunState.COMPLETED, 10),
    ):
        state.runs.set_state(run.run_id, name, at)
        got = state.runs.get(run.run_id)
        assert (got.state, got.finished_at) == (name, at)


def test_a_cancelled_run_neither_completes_nor_fails(state, run):
    state.runs.set_state(run.run_id, RunState.CANCELLED, 5)
    for name in (RunState.COMPLETED, RunState.FAILED):
        state.runs.set_state(run.run_id, name, 6)
        assert (state.runs.get(run.run_id).state, state.runs.get(run.run_id).finished_at) == (RunState.CANCELLED, 5)


def test_unfinished_finds_the_newest_run_of_the_same_request(state, run):
    assert state.runs.unfinished(REQUEST) == run
    assert state.runs.unfinished(RunRequest(start=0, end=101, entities=("a", "b"), metrics=("event_count",))) is None
    for name in (RunState.COMPLETED, RunState.PARTIAL, RunState.FAILED, RunState.CANCELLED):
        state.runs.set_state(run.run_id, name, 1)
        assert state.runs.unfinished(REQUEST) is None
    state.runs.set_state(run.run_id, RunState.RUNNING)
    assert state.runs.unfinished(REQUEST).run_id == run.run_id


def test_iterating_over_tasks_sees_them_as_they_were_and_stops_nobody(state, run):
    tasks = state.runs.open_tasks(run.run_id)
    seen = []
    for task in tasks:
        state.runs.mark(task, TaskState.DONE)
        seen.append(task)
        assert state.runs.get(run.run_id).done == len(seen)
    assert seen == tasks_of(run)


def test_only_one_drives_a_run(state, run):
    with state.runs.driving(run.run_id):
        with pytest.raises(Busy), state.runs.driving(run.run_id):
            pass
        with state.runs.driving("another"):
            pass
    with state.runs.driving(run.run_id):
        pass


def _drive(state, run_id, pipe):
    try:
        with state.runs.driving(run_id):
            pipe.send("driving")
            time.sleep(60)
    except Busy:
        pipe.send("busy")


def _spawned(state, run_id):
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_drive, args=(state, run_id, theirs), daemon=True)
    process.start()
    return process, mine.recv()


def test_the_right_to_drive_ends_with_the_process(state, run):
    process, said = _spawned(state, run.run_id)
    assert said == "driving"
    with pytest.raises(Busy), state.runs.driving(run.run_id):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    if state.deployed:
        return  # half a minute later: tests/aws/test_lease.py shows it of a shorter one
    with state.runs.driving(run.run_id):
        process, said = _spawned(state, run.run_id)
        process.join()
        assert said == "busy"

"""One bad value or one damaged object stops nothing else, and is named: in a diff, in a replay, in a promotion."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pik.engine import DuckEngine
from pik.model.instant import DAY
from pik.model.metric import Definition
from pik.model.run import KEPT_FAILURES, RunState
from pik.model.window import ALL_TIME
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.metrics.comparison import Difference
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.replay import dead_letters as dlq
from pik.usecases.replay.execute import Pace, run_locally
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote
from tests.support.diffs import diff_run
from tests.support.stores import EVENTS, FIRST, current, event, ingest, replay, replayed, request, window

RATE = Definition(name="rate", value="(sum((payload->>'$.v')::BIGINT) // count(*))::BIGINT")
AMOUNT = Definition(name="amount", value="sum((payload->>'$.v')::DECIMAL(18,0))")
ONCE = Pace(workers=0, attempts=1)


@pytest.fixture
def engine():
    return DuckEngine(threads=1)


@pytest.fixture
def store(tmp_path):
    made = open_store(str(tmp_path / "store"), create=True)
    add_version(made.metrics, AMOUNT, 1)
    return made


def bad(entity="a", at="01T05:00", text="twelve"):
    return {**event(0, entity, at), "payload": {"v": text}}


def rows(diff):
    return [(row.op, row.metric, (row.bucket - FIRST) // DAY, row.entity_id, row.recomputed) for row in diff.rows]


def test_what_cannot_be_computed_is_a_row_and_the_others_are_compared(store, engine, tmp_path):
    ingest(store, tmp_path, [event(1, "a", "01T00:00"), event(2, "b", "01T00:00"), bad()])
    diff = diff_aggregates(store, engine, ALL_TIME)
    found = list(diff.rows)
    assert [(row.op, row.metric, row.entity_id, row.recomputed) for row in found] == [
        ("!", "amount", "a", None),
        ("+", "amount", "b", 2),
        ("+", "event_count", "a", 2),
        ("+", "event_count", "b", 1),
    ]
    assert isinstance(found[0], Difference)
    failure = found[0].failure
    assert failure
    assert "twelve" in failure.reason
    assert (failure.events, len(failure.event_ids)) == (1, 1)
    assert (diff.stats.compared, diff.stats.added, diff.stats.failed) == (3, 3, 1)
    only = diff_aggregates(store, engine, ALL_TIME, changed_only=True)
    assert [row[0] for row in rows(only)] == ["!"]
    for entity in ("a", "b"):
        alone = diff_aggregates(store, engine, ALL_TIME, entities=[entity])
        assert rows(alone) == [
            (row.op, row.metric, 0, row.entity_id, row.recomputed) for row in found if row.entity_id == entity
        ]


def test_a_value_that_fails_now_keeps_its_current_value_through_replay_and_promotion(store, engine, tmp_path):
    ingest(store, tmp_path, [event(1, "a", "01T00:00"), event(2, "b", "01T00:00"), event(3, "a", "02T00:00")])
    replayed(store, engine)
    before = current(store)
    ingest(store, tmp_path, [bad(), event(5, "b", "01T01:00")])
    run = replay(store, engine)
    assert (run.state, run.done, run.failed, run.failed_aggregates) == (RunState.PARTIAL, run.tasks, 0, 1)
    (failed,) = run.failures
    assert (failed.metric, failed.bucket, failed.entity_id, failed.events) == ("amount", FIRST, "a", 1)
    assert "twelve" in failed.reason
    assert dlq.letters(store) == []
    move = promote(store, run.run_id, 3, "")
    assert (move.counts.conflicts, move.run.failures) == (0, run.failures)
    assert current(store) == {
        **before,
        ("amount", FIRST, "b"): Decimal(7),
        ("event_count", FIRST, "a"): Decimal(2),
        ("event_count", FIRST, "b"): Decimal(2),
    }
    assert [row[0] for row in rows(diff_run(store, run.run_id))] == ["!"]
    assert rows(diff_run(store, run.run_id, entities=["a"], metrics=["amount"])) == [("!", "amount", 0, "a", None)]
    with pytest.raises(Exception, match="nothing to compare"):
        rows(diff_run(store, run.run_id, entities=["nobody"]))
    assert [row[0] for row in rows(diff_aggregates(store, engine, ALL_TIME))] == ["!"]


def test_a_diff_with_a_run_reports_failed_rows_as_a_diff_without_it(store, engine, tmp_path):
    ingest(store, tmp_path, [bad("a"), bad("b"), event(2, "b", "01T00:00"), event(3, "b", "01T00:01")])
    run = replay(store, engine, metrics=("amount",))
    of_run, fresh = diff_run(store, run.run_id), diff_aggregates(store, engine, ALL_TIME, metrics=["amount"])
    expected = [(row.entity_id, row.inputs_before, row.inputs_after, row.failure) for row in fresh.rows]
    assert [(row.entity_id, row.inputs_before, row.inputs_after, row.failure) for row in of_run.rows] == expected
    assert [inputs for _, _, inputs, _ in expected] == [1, 3]
    assert of_run.basis.versions == fresh.basis.versions == {"amount@1"}


def test_a_run_keeps_a_bounded_number_of_failures_and_counts_all(store, engine, tmp_path):
    ingest(store, tmp_path, [bad(f"e{number}") for number in range(KEPT_FAILURES + 7)])
    run = replay(store, engine)
    assert (run.state, run.failed_aggregates, len(run.failures)) == (RunState.PARTIAL, KEPT_FAILURES + 7, KEPT_FAILURES)
    assert run.new == KEPT_FAILURES + 7  # event_count


def test_failures_outside_of_what_the_filters_choose_are_none_of_the_runs(store, engine, tmp_path):
    ingest(store, tmp_path, [bad("a"), {**event(1, "b", "01T00:00"), "source": "app"}])
    run = replay(store, engine, source="app")
    assert (run.state, run.failed_aggregates, run.new) == (RunState.COMPLETED, 0, 2)


def damage(store, day):
    """Cut an object of that day short; what it was, to be restored."""
    (segment, *_) = store.index.segments(window(day, f"{int(day) + 1:02}"))
    path = store.raw.raw.root / segment.key
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-1])
    return path, data


@pytest.mark.parametrize("filters", [{}, {"event_type": "paid"}, {"entities": ("a", "b", "z")}])
def test_damage_keeps_only_its_own_buckets_from_being_computed(store, engine, tmp_path, filters):
    """Promise 6: and after the object was restored, doing the task again makes the run what it would have been."""
    ingest(store, tmp_path, EVENTS)
    expected = replay(store, engine, **filters)
    reference = {
        (change.written.computed.metric, change.written.computed.bucket, change.written.computed.entity_id)
        for change in store.aggregates.changes(expected.run_id)
    }
    path, data = damage(store, "02")
    run_id = start(store, plan_replay(store, engine, request(**filters), 1)).run_id
    run = run_locally(store, engine, run_id, ONCE, SILENT)
    assert (run.state, run.failed) == (RunState.PARTIAL, 1)
    assert (run.events_matched, run.buckets) == (None, None)
    whole = {key for key in reference if key[1] != FIRST + DAY}
    assert whole < reference

    def written():
        return {
            (change.written.computed.metric, change.written.computed.bucket, change.written.computed.entity_id)
            for change in store.aggregates.changes(run_id)
        }

    assert written() == whole
    (letter,) = dlq.letters(store)
    assert "[2026-01-02T00:00:00Z, 2026-01-03T00:00:00Z) is not computed" in letter.reason
    assert "restore" in letter.hint
    path.write_bytes(data)
    (ended,) = dlq.redrive(store, engine, [letter], ONCE, SILENT)
    assert (ended.state, ended.failed, ended.failed_aggregates) == (RunState.COMPLETED, 0, 0)
    assert written() == reference


def test_damage_is_a_row_for_each_metric_and_the_other_days_are_compared(store, engine, tmp_path):
    add_version(store.metrics, Definition(name="weekly", value="count(*)", bucket="7d"), 1)
    ingest(store, tmp_path, EVENTS)
    reference = rows(diff_aggregates(store, engine, ALL_TIME))
    damage(store, "02")
    diff = diff_aggregates(store, engine, ALL_TIME)
    found = rows(diff)
    failed = [row for row in found if row[0] == "!"]
    assert [(row[1], row[3]) for row in failed] == [("amount", ""), ("event_count", ""), ("weekly", "")]
    assert failed[0][2] == 1
    week = {row[2] for row in reference if row[1] == "weekly" and row[2] <= 1}
    lost = [row for row in reference if (row[2] == 1 and row[1] != "weekly") or (row[1] == "weekly" and row[2] in week)]
    assert lost
    assert [row for row in found if row[0] != "!"] == [row for row in reference if row not in lost]
    assert found == sorted(found, key=lambda row: (row[1], row[2], row[3].encode()))
    assert diff.stats.failed == 3


def test_a_run_of_which_nothing_can_be_computed_is_failed(store, engine, tmp_path):
    ingest(store, tmp_path, [event(1, "a", "02T00:00")])
    damage(store, "02")
    run_id = start(store, plan_replay(store, engine, request(), 1)).run_id
    run = run_locally(store, engine, run_id, ONCE, SILENT)
    assert (run.state, run.failed, run.values) == (RunState.FAILED, 1, 0)

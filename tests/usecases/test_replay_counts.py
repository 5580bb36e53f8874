"""What a replay counts, so that a reader can add it up."""

from __future__ import annotations

import pytest

from pik.model.run import RunState
from pik.usecases.replay.promote import promote
from tests.support.stores import Faulty, PlainEngine, broken, replay, window

NOW = 1


@pytest.mark.parametrize(
    ("fields", "without"),
    [
        ({}, 1),
        ({"within": window("01T11:59:00Z", "02T00:30:00Z")}, 0),
        ({"within": window("05T13:00:30Z", "05T13:30:00Z")}, 1),
        ({"source": "app"}, 1),
        ({"entities": ("nobody",)}, 0),
    ],
)
def test_counts_add_up(filled, engine, fields, without):
    """Every bucket has a new, a changed or the same value, or none, because the metric lets none of its events in."""
    first = replay(filled, engine, **fields)
    assert (first.new, first.without_value) == (sum(1 for _ in filled.aggregates.changes(first.run_id)), without)
    promote(filled, first.run_id, NOW, "")
    again = replay(filled, engine, **fields)
    assert (again.unchanged, again.removed) == (first.new, 0)
    for run in (first, again):
        assert run.buckets == run.new + run.changed + run.unchanged + run.without_value


def test_a_value_without_events_is_removed_and_counted_apart(filled, engine):
    first = replay(filled, engine, metrics=("total",))
    promote(filled, first.run_id, NOW, "")
    run = replay(filled, NothingPaid(), metrics=("total",))
    assert (run.new, run.changed, run.unchanged, run.removed) == (0, 0, 0, first.new)
    assert run.without_value == run.buckets


class NothingPaid(PlainEngine):
    """Finds no event that a metric lets in."""

    def compute(self, *_, **__):
        return iter(())


def test_a_run_that_is_not_complete_has_no_such_count(filled):
    run = replay(filled, Faulty(fault=broken))
    assert (run.state, run.without_value) == (RunState.FAILED, None)

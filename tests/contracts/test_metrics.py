"""The contract of pik.ports.state.Metrics."""

from __future__ import annotations

from pik.model.metric import EVENT_COUNT, Definition, Metric

REVENUE = Definition(name="revenue", value="sum(x)", bucket="1h", where="event_type = 'paid'")


def test_a_new_store_has_the_built_in_metric(state):
    assert state.metrics.latest() == [EVENT_COUNT]
    assert state.metrics.versions("event_count") == [EVENT_COUNT]
    assert state.metrics.versions("revenue") == []


def test_each_other_definition_is_the_next_version(state):
    first = state.metrics.apply(REVENUE, 10)
    second = state.metrics.apply(Definition(name="revenue", value="count(*)"), 20, 2)
    assert first == Metric(definition=REVENUE, version=1, applied_at=10)
    assert (second.version, second.applied_at, second.scale) == (2, 20, 2)
    assert state.metrics.versions("revenue") == [first, second]
    assert state.metrics.latest() == [EVENT_COUNT, second]


def test_the_latest_definition_applied_again_stays_the_version_it_is(state):
    first = state.metrics.apply(REVENUE, 10)
    assert state.metrics.apply(REVENUE, 99) == first
    assert state.metrics.versions("revenue") == [first]


def test_an_older_definition_applied_again_is_a_new_version(state):
    state.metrics.apply(REVENUE, 10)
    state.metrics.apply(Definition(name="revenue", value="count(*)"), 20)
    assert state.metrics.apply(REVENUE, 30).version == 3


def test_the_built_in_metric_is_version_1(state):
    assert state.metrics.apply(EVENT_COUNT.definition, 10) == EVENT_COUNT
    second = state.metrics.apply(Definition(name="event_count", value="count(*)", bucket="1h"), 20)
    assert second.version == 2
    assert state.metrics.versions("event_count") == [EVENT_COUNT, second]
    assert state.metrics.latest() == [second]

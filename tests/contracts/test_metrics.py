"""The contract of pik.ports.state.Metrics."""

from __future__ import annotations

import pytest
from msgspec import structs

from pik.errors import UsageError
from pik.model.metric import EVENT_COUNT, Definition, Metric
from pik.usecases.metrics.definitions import AppliedMetric, add_version, chosen, computed, computed_by
from pik.usecases.metrics.retire import reinstate, retire
from tests.contracts.conftest import WITH_MOTO, state_of

REVENUE = Definition(name="revenue", value="sum(x)", bucket="1h", timezone="Europe/Berlin", where="event_type = 'paid'")


@pytest.fixture(params=WITH_MOTO)
def state(request, tmp_path):
    return state_of(request, tmp_path)


def test_a_new_store_has_the_built_in_metric(state):
    assert state.metrics.latest() == [EVENT_COUNT]
    assert state.metrics.versions("event_count") == [EVENT_COUNT]
    assert state.metrics.versions("revenue") == []


def test_each_other_definition_is_the_next_version(state):
    first = add_version(state.metrics, REVENUE, 10).metric
    second = add_version(state.metrics, Definition(name="revenue", value="count(*)"), 20, 2).metric
    assert first == Metric(definition=REVENUE, version=1, applied_at=10)
    assert (second.version, second.applied_at, second.scale) == (2, 20, 2)
    assert state.metrics.versions("revenue") == [first, second]
    assert state.metrics.latest() == [EVENT_COUNT, second]


def test_the_latest_definition_applied_again_stays_the_version_it_is(state):
    first = add_version(state.metrics, REVENUE, 10).metric
    assert add_version(state.metrics, REVENUE, 99) == AppliedMetric(first, first, changed=False)
    assert state.metrics.versions("revenue") == [first]


def test_an_older_definition_applied_again_is_a_new_version(state):
    add_version(state.metrics, REVENUE, 10)
    add_version(state.metrics, Definition(name="revenue", value="count(*)"), 20)
    assert add_version(state.metrics, REVENUE, 30).metric.version == 3


def test_the_built_in_metric_is_version_1(state):
    assert add_version(state.metrics, EVENT_COUNT.definition, 10).metric == EVENT_COUNT
    second = add_version(state.metrics, Definition(name="event_count", value="count(*)", bucket="1h"), 20).metric
    assert second.version == 2
    assert state.metrics.versions("event_count") == [EVENT_COUNT, second]
    assert state.metrics.latest() == [second]


def test_retiring_and_reinstating_are_versions_that_say_who_when_and_why(state):
    first = add_version(state.metrics, REVENUE, 10, 2).metric
    gone = retire(state.metrics, "revenue", 20, actor="ana", reason="not used")
    assert gone == Metric(
        definition=REVENUE, version=2, applied_at=20, scale=2, actor="ana", reason="not used", retired=True
    )
    assert state.metrics.versions("revenue") == [first, gone]
    assert state.metrics.latest() == [EVENT_COUNT, gone]
    assert add_version(state.metrics, REVENUE, 30) == AppliedMetric(gone, gone, changed=False)
    for change in (
        lambda: retire(state.metrics, "revenue", 30, actor="", reason="x"),
        lambda: add_version(state.metrics, Definition(name="revenue", value="count(*)", bucket="1h"), 30),
        lambda: chosen(state.metrics, ["revenue"]),
        lambda: computed_by(state.metrics, ["revenue@1"]),
    ):
        with pytest.raises(UsageError, match=r"^revenue is retired since 1970-01-01T00:00:00Z, by ana \(not used\)"):
            change()
    assert (chosen(state.metrics, []), computed(state.metrics)) == ([EVENT_COUNT], [EVENT_COUNT])
    assert state.metrics.versions("revenue") == [first, gone]
    back = reinstate(state.metrics, "revenue", 40, actor="bo", reason="")
    assert back == Metric(definition=REVENUE, version=3, applied_at=40, scale=2, actor="bo")
    assert chosen(state.metrics, ["revenue"]) == state.metrics.latest()[1:] == [back]
    with pytest.raises(UsageError, match=r"^revenue is not retired$"):
        reinstate(state.metrics, "revenue", 50, actor="", reason="")
    assert retire(state.metrics, "event_count", 60, actor="", reason="x").version == 2
    assert [metric.name for metric in chosen(state.metrics, [])] == ["revenue"]


def test_of_two_that_retire_a_metric_at_once_one_does(state):
    class Slow:
        """Another writer is faster."""

        latest, versions = state.metrics.latest, state.metrics.versions

        def append(self, metric):
            state.metrics.append(structs.replace(metric, actor="other"))
            return state.metrics.append(metric)

    with pytest.raises(UsageError, match="by other"):
        retire(Slow(), "event_count", 10, actor="ana", reason="x")
    assert len(state.metrics.versions("event_count")) == 2


def test_a_version_that_is_there_stays_as_it_is(state):
    first = Metric(definition=REVENUE, version=1, applied_at=10)
    assert state.metrics.append(first)
    assert not state.metrics.append(
        Metric(definition=Definition(name="revenue", value="count(*)"), version=1, applied_at=20)
    )
    assert state.metrics.versions("revenue") == [first]

"""Comparing what is current with what it should be."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pik.engine import DuckEngine
from pik.errors import NothingSelected, UsageError
from pik.model.aggregate import Aggregate, Computed, DigestLines
from pik.model.calendar import UTC_DAYS
from pik.model.instant import DAY
from pik.model.metric import Definition
from pik.model.run import Task
from pik.model.scenario import COUNTED_DUPLICATES
from pik.model.window import ALL_TIME, Window
from pik.rawlog.gathering import gather
from pik.rawlog.selection import Selection
from pik.usecases.metrics.comparison import Difference, Op, Stats
from pik.usecases.metrics.computation import NO_LINES, compare
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.metrics.tolerance import Tolerance, read_tolerances
from pik.usecases.replay.promote import promote, rollback
from tests.support.diffs import diff_run
from tests.support.stores import EVENTS, FIRST, event, ingest, replay, replayed, truth, window

KEYS = st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.sampled_from(["", "A", "a", "é", "￿", "\U0001f600"]))


@given(st.sets(KEYS), st.sets(KEYS))
def test_both_sides_meet_where_metric_bucket_and_entity_are_the_same(left, right):
    def computed(keys: set[tuple[str, int, str]]) -> list[Computed]:
        ordered = sorted(keys, key=lambda key: (*key[:2], key[2].encode()))
        return [Computed(metric, bucket, entity, Decimal(1), 1, "", "") for metric, bucket, entity in ordered]

    current = (Aggregate(row, "R", 1, 1, "", True) for row in computed(left))
    pairs = list(compare(current, iter(computed(right))))
    either = [one.computed if one else two for one, two in pairs]
    seen = [(row.metric, row.bucket, row.entity_id) for row in either if row]
    assert seen == sorted(left | right, key=lambda key: (*key[:2], key[2].encode()))
    assert [(one is not None, two is not None) for one, two in pairs] == [(key in left, key in right) for key in seen]


def rows(diff):
    return [
        (row.op, row.metric, (row.bucket - FIRST) // DAY, row.entity_id, row.current, row.recomputed)
        for row in diff.rows
    ]


def overwrite(store, value, entity="a", metric="event_count", inputs=3, hashes=("1" * 32, "2" * 32)):
    """Make another value current, as nobody should."""
    run = replay(store, NoEvents())
    task = Task(run_id=run.run_id, number=99, metrics=(), start=0, end=1)
    row = Computed(metric, FIRST, entity, value, inputs, *hashes)
    store.aggregates.write(task, [row], versions={metric: 1}, known_until=1, reason="")
    promote(store, run.run_id, 1, "")


class NoEvents:
    """An engine that finds nothing, so that its runs write nothing but what the test adds; it leaves current values."""

    version = "none 1"

    def compute(self, *_):
        return iter(())

    def touched(self, *_, **__):
        return iter(())


def test_nothing_is_current_yet(filled, engine):
    diff = diff_aggregates(filled, engine, ALL_TIME)
    assert {row.op for row in diff.rows} == {"+"}
    assert diff.stats == Stats(compared=len(truth()), added=len(truth()))


def test_after_promoting_a_replay_there_is_no_difference(filled, engine):
    replayed(filled, engine)
    diff = diff_aggregates(filled, engine, ALL_TIME)
    assert list(diff.rows) == []
    assert diff.stats == Stats(compared=len(truth()), equal=len(truth()))


@pytest.mark.parametrize("joined", [1, 100, 1 << 16])
def test_equal_buckets_are_seen_to_be_equal_by_their_digests(store, tmp_path, monkeypatch, joined):
    """Store and engine write the same lines of the same values; otherwise each aggregate would be compared."""
    monkeypatch.setattr("pik.model.aggregate.JOINED_LINES", joined)
    numbers = [0, -1.5, 0.000001, 10, 100.25, 12345678901]
    ingest(store, tmp_path, [event(numbers[at % 6], f"é{at}", f"0{at % 3 + 1}T00:00") for at in range(120)])
    add_version(store.metrics, Definition(name="exact", value="sum((payload->>'$.v')::DECIMAL(38,6))"), 1)
    engine, names = DuckEngine(threads=1), ("event_count", "exact")
    replayed(store, engine, metrics=names)
    current = {digest for name in names for digest in store.aggregates.digests(name, ALL_TIME)}
    assert {digest.aggregates for digest in current} == {40}
    assert any(one.computed.input_contents.startswith("0") for one in store.aggregates.current("exact", ALL_TIME))
    metrics = [metric.definition for metric in store.metrics.latest() if metric.name in names]
    whole = UTC_DAYS.widened(ALL_TIME)
    selection = Selection(store, ALL_TIME)
    with gather(selection) as gathered, engine.computation(gathered.inputs, metrics, whole) as computation:
        computed = list(computation.digests())
        rows = list(computation.rows())
        skipped = [("exact", computed[-1].bucket), ("event_count", computed[0].bucket)]
        others = list(computation.rows(skipping=skipped))
        among = {("exact", computed[-1].bucket): ["é1", "é2", "é5"], ("event_count", computed[1].bucket): []}
        named = list(computation.rows(skipping=skipped[1:], among=among))
        lines = [line for name in sorted(names) for line in computation.lines(name, whole)]
        of_day = list(computation.lines("exact", Window(computed[-1].bucket, computed[-1].bucket + 1)))
    assert [(one.metric, one.bucket) for one in computed] == sorted((one.metric, one.bucket) for one in current)
    assert {(one.metric, one.bucket, *one.values) for one in computed} == {
        (one.metric, one.bucket, *one.values) for one in current
    }
    assert len(rows) == 240
    assert others == [row for row in rows if (row.metric, row.bucket) not in skipped]
    assert named == [
        row
        for row in rows
        if (row.metric, row.bucket) not in skipped[1:]
        and row.entity_id in among.get((row.metric, row.bucket), [row.entity_id])
    ]
    assert len(named) == 240 - 40 - 40 - 40 + len({"é2", "é5"})
    stored = [line for name in sorted(names) for line in store.aggregates.lines(name, ALL_TIME)]
    assert texts(lines) == texts(stored)
    assert texts(of_day) == {computed[-1].bucket: texts(lines[len(lines) // 2 :])[computed[-1].bucket]}


def texts(lines: Iterable[DigestLines]) -> dict[int, str]:
    """The lines by bucket."""
    found = defaultdict[int, str](str)
    for bucket, text, *_ in lines:
        found[bucket] += text or ""
    return found


@pytest.mark.parametrize("joined", [50, 1 << 16])
def test_a_few_differences_in_a_bucket_are_found_as_they_are_by_comparing_every_value(
    store, tmp_path, monkeypatch, joined
):
    """Changed, added, failed and NULL ones, and equal values of other events; in one bucket nearly all differ."""
    monkeypatch.setattr("pik.model.aggregate.JOINED_LINES", joined)
    days = [FIRST + day * DAY for day in range(5)]
    ingest(
        store, tmp_path, [event(n % 7 or None, f"é{n:02}", f"0{day}T00:00") for n in range(40) for day in range(1, 6)]
    )
    add_version(store.metrics, Definition(name="some", value="sum((payload->>'$.v')::DECIMAL(18,2))"), 1)
    add_version(store.metrics, Definition(name="number", value="count(*)"), 1)
    engine = DuckEngine(threads=1)
    names = ("some", "number")
    replayed(store, engine, metrics=names)
    late = [event("x", "é03", "01T01:00"), event(0, "é04", "01T01:00"), event(None, "new", "01T01:00")]
    late += [event(5, "later", "03T01:00"), event(-5, "later", "03T02:00")]
    late += [event(n, f"é{n:02}", "05T01:00") for n in range(30)]
    ingest(store, tmp_path, late)
    overwrite(store, Decimal(1), "é20", "number", inputs=1)
    asked: list[tuple[int, int, int]] = []
    current = type(store.aggregates).current

    def noted(self, metric, window, entities=(), **more):
        asked.append((window.start, window.end, len(entities)))
        return current(self, metric, window, entities, **more)

    monkeypatch.setattr(type(store.aggregates), "current", noted)
    by_lines = diff_aggregates(store, engine, ALL_TIME, metrics=names)
    found = list(by_lines.rows)
    few = {entities for start, end, entities in asked if start < days[4]}
    assert few
    assert few <= {1, 2, 3, 4}
    assert {entities for start, end, entities in asked if start == days[4]} == {0}
    monkeypatch.setattr("pik.usecases.metrics.comparison.differing_lines", lambda *_: NO_LINES)
    by_value = diff_aggregates(store, engine, ALL_TIME, metrics=names)
    assert found == list(by_value.rows)
    assert by_lines.stats == by_value.stats
    assert by_lines.stats.other_inputs >= 2
    assert {row.op for row in found} == {"~", "+", "!"}


def test_late_events_are_the_difference_and_a_replay_repairs_it(filled, engine, tmp_path):
    replayed(filled, engine)
    late = [event(1, "a", "01T03:00"), event(1, "new", "01T04:00", kind="seen")]
    ingest(filled, tmp_path, late)
    diff = diff_aggregates(filled, engine, ALL_TIME)
    assert rows(diff) == [
        ("~", "event_count", 0, "a", 3, 4),
        ("+", "event_count", 0, "new", None, 1),
        ("~", "total", 0, "a", 3, 4),
    ]
    assert diff.stats == Stats(compared=len(truth()) + 1, equal=len(truth()) - 2, changed=2, added=1)
    only = diff_aggregates(filled, engine, ALL_TIME, changed_only=True)
    assert [row.op for row in only.rows] == ["~", "~"]
    assert only.stats == diff.stats
    replayed(filled, engine, window("01", "02"))
    assert rows(diff_aggregates(filled, engine, ALL_TIME)) == []


def test_a_row_has_delta_percent_and_inputs(filled, engine):
    overwrite(filled, Decimal(4), inputs=4)
    (row,) = [row for row in diff_aggregates(filled, engine, ALL_TIME).rows if row.op == "~"]
    assert replace(row, version=None) == Difference(
        Op.CHANGED, "event_count", FIRST, "a", Decimal(4), Decimal(3), Decimal(-1), Decimal(-25), 4, 3
    )


def test_a_current_value_without_events_is_removed(filled, engine):
    overwrite(filled, Decimal(4), entity="nobody", inputs=4)
    (row,) = [row for row in diff_aggregates(filled, engine, ALL_TIME).rows if row.op == "-"]
    assert replace(row, version=None) == Difference(
        Op.REMOVED, "event_count", FIRST, "nobody", Decimal(4), None, None, None, 4, 0
    )
    replayed(filled, engine)
    diff = diff_aggregates(filled, engine, ALL_TIME)
    assert rows(diff) == []
    assert diff.stats.compared == len(truth())  # a current null is no value


def test_the_same_value_from_other_events_is_reported(filled, engine):
    overwrite(filled, Decimal(3))
    diff = diff_aggregates(filled, engine, window("01", "02"), metrics=["event_count"])
    assert rows(diff) == []
    assert diff.stats == Stats(compared=1, equal=1, other_inputs=1)


def test_a_long_diff_does_not_keep_the_selections_of_stretches_that_it_is_done_with(
    store, engine, tmp_path, monkeypatch
):
    """Each remembers its segments, and a diff of years has thousands of stretches."""
    monkeypatch.setattr("pik.usecases.metrics.diff.BYTES_AT_ONCE", 1)  # a stretch per day
    ingest(store, tmp_path, [event(1, "a", f"{day:02}T00:00") for day in range(1, 13)])
    gc.collect()
    before = _selections()
    kept = [_selections() - before for _ in diff_aggregates(store, engine, ALL_TIME, metrics=["event_count"]).rows]
    assert len(kept) == 12
    assert max(kept) <= 3


def _selections():
    return sum(isinstance(each, Selection) for each in gc.get_objects())


def test_window_entities_and_metrics_choose(filled, engine):
    diff = diff_aggregates(
        filled, engine, window("01T13:00:00Z", "02T00:30:00Z"), metrics=["event_count"], entities=["a", "nobody"]
    )
    assert rows(diff) == [("+", "event_count", 0, "a", None, 3), ("+", "event_count", 1, "a", None, 2)]
    assert (diff.window, diff.effective) == (window("01T13:00:00Z", "02T00:30:00Z"), window("01", "03"))
    with pytest.raises(NothingSelected, match="neither an event nor a current value of 'nobody' at any time"):
        rows(diff_aggregates(filled, engine, ALL_TIME, entities=["nobody"]))


def test_a_store_without_events_is_not_clean(store, engine):
    with pytest.raises(NothingSelected, match="the store holds no events"):
        diff_aggregates(store, engine, ALL_TIME)


def test_what_a_run_wrote_is_compared_with_what_is_current_now(filled, engine, tmp_path):
    first = replayed(filled, engine)
    ingest(filled, tmp_path, [event(1, "a", "01T03:00")])
    run = replay(filled, engine, window("01", "02")).run_id
    expected = [("~", "event_count", 0, "a", 3, 4), ("~", "total", 0, "a", 3, 4)]
    diff = diff_run(filled, run)
    assert rows(diff) == expected
    assert diff.stats.compared == 3
    assert rows(diff_aggregates(filled, engine, window("01", "02"))) == expected  # in the same order
    assert rows(diff_run(filled, run, metrics=["total"])) == expected[1:]
    with pytest.raises(NothingSelected, match=f"run {run} wrote none of these values"):
        rows(diff_run(filled, run, entities=["b"]))
    promote(filled, run, 1, "")
    assert rows(diff_run(filled, run)) == []
    assert rows(diff_run(filled, first, metrics=["total"])) == [("~", "total", 0, "a", 4, 3)]
    rollback(filled, run, 1, "")
    assert rows(diff_run(filled, run)) == expected


def test_what_a_run_with_duplicates_wrote_can_be_compared(filled, engine, tmp_path):
    replayed(filled, engine)
    ingest(filled, tmp_path, again=True)
    run = replay(filled, engine, metrics=("event_count",), assumed=(COUNTED_DUPLICATES,))
    diff = diff_run(filled, run.run_id)
    assert [(row.current, row.recomputed, row.percent) for row in diff.rows] == [
        (value, 2 * value, Decimal(100))
        for (metric, *_), value in sorted(truth(EVENTS).items())
        if metric == "event_count" and value
    ]


def test_differences_within_tolerance_do_not_count(filled, engine):
    overwrite(filled, Decimal(4))
    for texts, tolerated in (
        (["1"], 1),
        (["0.999"], 0),
        (["25%"], 1),
        (["24.9%"], 0),
        (["0", "event_count=1"], 1),
        (["99", "event_count=0.5"], 1),  # whichever covers it
        (["event_count=0.5", "99"], 1),
        (["0.5", "1%", "event_count=24%", "event_count=0.9", "total=99"], 0),
        (["1%", "1"], 1),
        (["1", "1%"], 1),
        (["event_count=25%", "event_count=0"], 1),
        (["event_count=0", "event_count=25%"], 1),
        (["total=99"], 0),
    ):
        diff = diff_aggregates(
            filled, engine, window("01", "02"), metrics=["event_count"], tolerances=read_tolerances(texts)
        )
        assert len(list(diff.rows)) == 1 - tolerated
        assert diff.stats.tolerated == tolerated


HUGE = Decimal("99999999999999999999999999999999999999")
DIGIT = Decimal("0.00000000000000000000000000000000000001")


@pytest.mark.parametrize(
    ("tolerance", "current", "delta", "covered"),
    [
        (Tolerance(), Decimal(1), Decimal(0), True),
        (Tolerance(), HUGE, DIGIT, False),
        (Tolerance(HUGE), HUGE, HUGE, True),
        (Tolerance(Decimal("0.01")), Decimal(0), Decimal("-0.01"), True),
        (Tolerance(Decimal("0.01")), Decimal(0), Decimal("0.0100000000000000000000000000000000000001"), False),
        (Tolerance(Decimal(100), relative=True), HUGE.copy_negate(), HUGE, True),
        (Tolerance(Decimal(1), relative=True), Decimal(0), DIGIT, False),
        (
            Tolerance(Decimal(1), relative=True),
            Decimal("12345678901234567890123456789012345678"),
            Decimal("123456789012345678901234567890123456.78"),
            True,
        ),
        (
            Tolerance(Decimal(1), relative=True),
            Decimal("12345678901234567890123456789012345678"),
            Decimal("123456789012345678901234567890123456.79"),
            False,
        ),
    ],
)
def test_tolerances_are_exact(tolerance, current, delta, covered):
    assert tolerance.covers(current, delta) is covered


@pytest.mark.parametrize("text", ["", "x", "1e333", "-1", "revenue=", "=1", "revenue=1%%", "Revenue=1", "1 %", "NaN"])
def test_an_invalid_tolerance_is_refused(text):
    with pytest.raises(UsageError, match="--tolerance"):
        read_tolerances([text])

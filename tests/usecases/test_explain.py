"""A difference split by cause: shares add up, and each is by how much the value changes for that reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from pik.engine import DuckEngine
from pik.errors import NothingSelected, UsageError
from pik.model.criteria import Criteria
from pik.model.instant import DAY, parse_instant
from pik.model.metric import ALL_ENTITIES, Definition, Per
from pik.model.scenario import (
    PLAIN,
    CountedConflict,
    CountedDuplicates,
    OtherDefinition,
    Scenario,
    Shift,
    Which,
    WithoutSelected,
)
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.objects import frame_lines
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.verify import verify
from pik.usecases.metrics.causes import Sides, explained
from pik.usecases.metrics.chain import Cause, value_of
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.metrics.diff_recorded import diff_recorded
from pik.usecases.metrics.explain import explain
from pik.usecases.metrics.explain_events import events_behind
from pik.usecases.metrics.explanation import Explanation
from pik.usecases.metrics.sides import RecordedSide, Side, SideKind
from pik.usecases.replay.promote import promote, rollback
from tests.support.stores import event, ingest, replay, replayed, window

ENGINE = DuckEngine()
NONE: Any = 0
DAY_ONE = parse_instant("2026-01-01T00:00:00Z")
HOUR = 3600 * 10**9
TOTAL = Definition(name="total", value="sum((payload->>'v')::BIGINT)")
TWICE = Definition(name="total", value="2 * sum((payload->>'v')::BIGINT)")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """1 + 2 are current, 4 came later."""
    made = open_store(str(tmp_path / "store"), create=True)
    add_version(made.metrics, TOTAL, 1)
    ingest(made, tmp_path, [event(1, "a", "01T01:00"), event(2, "a", "01T23:00")])
    replayed(made, ENGINE)
    ingest(made, tmp_path, [event(4, "a", "01T05:00"), event(1, "a", "01T01:00")])
    return made


def shares(found: Explanation) -> Any:
    assert sum(one.share for one in found.shares) == found.delta
    return {f"{one.cause}": one.share for one in found.shares}


def assume(*assumptions: object) -> Scenario:
    return Scenario(None, assumptions)  # type: ignore[arg-type]


def test_what_was_recorded_after_the_current_version_is_late(store: Store) -> None:
    found = explain(store, ENGINE, "total", "a", DAY_ONE + 5, events=True)
    assert (found.bucket, found.proven, shares(found)) == (DAY_ONE, True, {"late": 4, "unexplained": 0})
    [late] = list(events_behind(store, found))
    assert late.delivery is not None
    assert (late.cause, late.change.before, late.change.after, bytes(late.delivery.payload)) == (
        Cause.LATE,
        False,
        True,
        b'{"v": 4}',
    )


def test_equal_sides_have_nothing_to_explain_but_say_so(store: Store) -> None:
    replayed(store, ENGINE)
    found = explain(store, ENGINE, "total", "a", DAY_ONE)
    assert (found.delta, shares(found), found.left.promotion is not None) == (NONE, {"unexplained": 0}, True)


def test_a_new_definition_is_told_from_late_events(store: Store) -> None:
    add_version(store.metrics, TWICE, 1)
    found = explain(store, ENGINE, "total", "a", DAY_ONE)
    assert shares(found) == {"definition": 3, "late": 8, "unexplained": 0}
    assert found.left.knowledge is not None
    assert (found.left.knowledge.metric.version, found.metric.version) == (1, 2)
    assert shares(explain(store, ENGINE, "total@1", "a", DAY_ONE)) == {"late": 4, "unexplained": 0}


@pytest.mark.parametrize(("first", "then", "expected"), [("1d", "6h", (3, 5)), ("6h", "1d", (1, 7))])
def test_a_definition_with_other_buckets_is_told_from_lost_and_late_events(
    tmp_path: Path, first: str, then: str, expected: tuple[int, int]
) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    add_version(store.metrics, replace(TOTAL, bucket=first), 1)
    ingest(store, tmp_path, [event(1, "a", "01T01:00"), event(2, "a", "01T23:00")])
    replayed(store, ENGINE)
    add_version(store.metrics, replace(TOTAL, bucket=then), 1)
    ingest(store, tmp_path, [event(4, "a", "01T05:00")])
    found = explain(store, ENGINE, "total", "a", DAY_ONE, events=True)
    assert (int(found.left.value), int(value_of(found.recomputed)), found.proven) == (*expected, True)
    assert shares(found) == {"definition": expected[1] - 4 - expected[0], "late": 4, "unexplained": 0}
    behind = [(one.cause, one.change.before) for one in events_behind(store, found)]
    assert behind == [(Cause.DEFINITION, first == "1d"), (Cause.LATE, False)]


def test_a_value_that_no_run_computed_or_that_was_rolled_back_is_not_computed(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [event(5, "b", "03T00:00")])
    day = DAY_ONE + 2 * DAY
    found = explain(store, ENGINE, "total", "b", day)
    assert (shares(found), found.shares[0].detail) == ({"not computed": 5, "unexplained": 0}, "no run has computed it")
    run = replay(store, ENGINE)
    assert "was not promoted" in explain(store, ENGINE, "total", "b", day).shares[0].detail
    promote(store, run.run_id, 1, "")
    rollback(store, run.run_id, 2, "")
    assert "rolled back" in explain(store, ENGINE, "total", "b", day).shares[0].detail


def test_each_assumption_has_its_share_in_the_order_given(store: Store) -> None:
    web = Criteria(source="web")
    scenario = assume(CountedDuplicates(), Shift(3600 * 10**9, web), WithoutSelected(web))
    found = explain(store, ENGINE, "total", "a", DAY_ONE, scenario, events=True)
    steps: Any = [(one.cause, one.share) for one in found.shares]
    assert steps == [
        (Cause.LATE, 4),
        (Cause.ASSUMED, 1),
        (Cause.ASSUMED, -2),
        (Cause.ASSUMED, -6),
        (Cause.UNEXPLAINED, 0),
    ]
    assert found.recomputed is None
    changes = [(one.change.before, one.change.after) for one in events_behind(store, found) if "shift" in one.detail]
    assert sorted(changes) == [(True, False), *[(True, True)] * 3]


def test_as_of_an_earlier_moment_gives_negative_shares(store: Store, tmp_path: Path) -> None:
    replayed(store, ENGINE)
    assert explain(store, ENGINE, "total", "a", DAY_ONE).left.version is not None
    first = min(batch.recorded_at for batch in store.index.batches())
    found = explain(store, ENGINE, "total", "a", DAY_ONE, Scenario(first))
    assert shares(found) == {"late": -4, "unexplained": 0}


def test_promise_9_neither_side_has_a_value(store: Store) -> None:
    for entity, name in (("z", "total"), ("a", "absent")):
        with pytest.raises(NothingSelected):
            explain(store, ENGINE, name, entity, DAY_ONE)
    with pytest.raises(NothingSelected, match="neither a current value nor events"):
        explain(store, ENGINE, "total", "a", DAY_ONE + 9 * DAY)


def test_values_of_many_digits_are_not_rounded(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    add_version(store.metrics, Definition(name="total", value="sum((payload->>'v')::DECIMAL(38, 5))"), 1, 5)
    huge = {**event(0, "a", "01T00:00"), "payload": {"v": "123456789012345678901234567890.12345"}}
    ingest(store, tmp_path, [huge])
    replayed(store, ENGINE)
    ingest(store, tmp_path, [{**huge, "payload": {"v": "0.00001"}}])
    found = explain(store, ENGINE, "total", "a", DAY_ONE)
    assert [str(one.share) for one in found.shares] == ["0.00001", "0.00000"]
    assert str(found.delta) == "0.00001"
    rows = explained(store, ENGINE, diff_aggregates(store, ENGINE, window(), metrics=["total"]).rows)
    assert [{cause: str(share) for cause, share in one.shares.items()} for one in rows] == [{"late": "0.00001"}]


def test_the_events_that_an_assumption_moves_into_the_bucket_are_those_of_other_days(
    store: Store, tmp_path: Path
) -> None:
    ingest(store, tmp_path, [event(8, "a", "04T12:00", source="app")])
    scenario = assume(Shift(-3 * DAY, Criteria(source="app")))
    found = explain(store, ENGINE, "total", "a", DAY_ONE, scenario, events=True)
    assert shares(found) == {"late": 4, "assumed": 8, "unexplained": 0}
    [moved] = [one for one in events_behind(store, found) if one.cause == Cause.ASSUMED]
    assert moved.delivery is not None
    assert (moved.change.before, moved.change.after, moved.delivery.event_time[:10]) == (False, True, "2026-01-04")
    assert moved.counted_at == moved.delivery.event_instant - 3 * DAY
    assert [one.counted_at for one in events_behind(store, found) if one.cause == Cause.LATE] == [None]
    found = explain(store, ENGINE, "total", "a", DAY_ONE, assume(Shift(-3 * HOUR, Criteria(source="web"))), events=True)
    there = [one for one in events_behind(store, found) if one.cause == Cause.ASSUMED]
    hours = {
        one.counted_at and (one.counted_at - DAY_ONE) // HOUR: (one.change.before, one.change.after) for one in there
    }
    assert hours == {None: (True, False), 2: (True, True), 20: (True, True)}  # the first leaves the bucket


def test_events_behind_causes_are_listed_though_other_raw_is_lost(store: Store, tmp_path: Path) -> None:
    [first, _] = sorted((tmp_path / "store" / "raw").glob("event_date=*/*"))
    first.unlink()
    found = explain(store, ENGINE, "total", "a", DAY_ONE, events=True)
    assert [one.cause for one in found.shares] == [Cause.LOST, Cause.LATE, Cause.UNEXPLAINED]
    assert [one.cause for one in events_behind(store, found)] == [Cause.LATE]


def test_an_exact_copy_counts_in_the_place_of_a_delivery_that_cannot_be_read_and_a_conflict_does_not(
    store: Store, tmp_path: Path
) -> None:
    """As `verify` counts them; and no copy where a selection, or the metric, may tell it from the lost delivery."""
    for name, value in (("number", "count(*)"), ("days", "count(DISTINCT date_trunc('day', ingest_time))")):
        add_version(store.metrics, Definition(name=name, value=value), 1)
    lost = [{**event(v, "a", f"01T{v}:00"), "idempotency_key": f"k{v}"} for v in (10, 11, 12)]
    before = set((tmp_path / "store" / "raw").glob("event_date=*/*"))
    ingest(store, tmp_path, lost)
    [path] = set((tmp_path / "store" / "raw").glob("event_date=*/*")) - before
    ingest(store, tmp_path, [{**lost[0], "payload": {"v": 9}}, lost[0], {**lost[1], "payload": {"v": 100}}])
    path.unlink()
    where, source = (
        assume(Shift(3600 * 10**9, Criteria(source=one, where=two))) for one, two in ((None, "true"), ("web", None))
    )
    conflicts = assume(CountedConflict(Which.LAST, Criteria()))
    expected: Any = (
        ("total", PLAIN, 7 + 10, 2),
        ("number", PLAIN, 3 + 1, 2),
        ("total", source, 7 + 10 - 2, 2),
        ("total", conflicts, 7 + 10 + 100, 1),
        ("total", where, 7 - 2, 3),
        ("days", PLAIN, 1, 3),
    )
    for name, scenario, value, unread in expected:
        found = explain(store, ENGINE, name, "a", DAY_ONE, scenario)
        assert (int(value_of(found.recomputed)), found.unread.events()) == (value, unread), (name, scenario)
    assert [int(one or 0) for one in explain(store, ENGINE, "number", "a", DAY_ONE).bounds] == [4, 6]
    problems = [one.value for one in verify(open_store(store.url), ENGINE, ALL_TIME, SILENT) if one.value is not None]
    assert {one.candidates for one in problems} == {2}


def test_a_value_of_which_exact_copies_are_left_is_known_and_proven(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [event(2, "a", "01T23:00"), event(4, "a", "01T05:00")])
    replayed(store, ENGINE)
    paths = sorted((tmp_path / "store" / "raw").glob("event_date=*/*"))
    paths[0].unlink()
    found = explain(store, ENGINE, "total", "a", DAY_ONE)
    assert (shares(found), found.proven, found.is_complete, len(found.lost)) == ({"unexplained": 0}, True, True, 1)
    assert not [one for one in verify(open_store(store.url), ENGINE, ALL_TIME, SILENT) if one.value is not None]


def test_a_value_of_which_nothing_can_be_read_is_not_said_to_have_no_events(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [event(8, "b", "02T12:00")])
    [path] = (tmp_path / "store" / "raw").glob("event_date=2026-01-02/*")
    path.unlink()
    found = explain(store, ENGINE, "total", "b", DAY_ONE + DAY)
    assert (found.recomputed, found.is_complete, found.unread.events(), found.unread_since) == (None, False, 1, None)
    with pytest.raises(NothingSelected):
        explain(store, ENGINE, "total", "nobody", DAY_ONE + DAY)


def test_of_a_damaged_object_only_the_frames_that_cannot_be_read_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pik.rawlog.segment_writer.FRAME", 1000)
    store = open_store(str(tmp_path / "store"), create=True)
    for name, per in (("total", Per.ENTITY), ("all", Per.ALL)):
        add_version(store.metrics, replace(TOTAL, name=name, per=per), 1)
    ingest(store, tmp_path, [event(n, entity, f"01T{n:02}:00") for n in range(1, 21) for entity in "ab"])
    [segment] = store.index.segments(window())
    damaged = segment.frames[1]
    held = [sum(map(value_in, frame_lines(store.raw, segment, frame))) for frame in segment.frames]
    assert (damaged.first, damaged.last, sum(held), len(held) > 4) == ("a", "a", 420, True)
    replayed(store, ENGINE)
    ingest(store, tmp_path, [event(1000, "a", "01T05:00")])
    path = tmp_path / "store" / segment.key
    data = bytearray(path.read_bytes())
    data[damaged.offset + damaged.length // 2] ^= 4
    path.chmod(0o644)
    path.write_bytes(data)
    for name, entity, rest in (("total", "a", 210 - held[1]), ("all", ALL_ENTITIES, 420 - held[1])):
        found = explain(store, ENGINE, name, entity, DAY_ONE, events=True)
        assert shares(found) == {"lost": -held[1], "late": 1000, "unexplained": 0}
        assert (int(value_of(found.recomputed)), found.lost) == (rest + 1000, [segment.key])
        assert [one.cause for one in events_behind(store, found)] == [Cause.LATE]
    assert shares(explain(store, ENGINE, "total", "b", DAY_ONE)) == {"unexplained": 0}
    # A diff has a right value of what cannot be read only where that is recorded.
    left, right = (RecordedSide(store, Side(SideKind.CURRENT, at=at)) for at in (1, None))
    rows = diff_recorded(store, left, right, window(), metrics=["total"], entities=["a"]).rows
    [row] = explained(store, ENGINE, rows, metrics=["total"], sides=Sides(left, right=right))
    assert row.shares == {Cause.NOT_COMPUTED: 210 - held[1], Cause.LOST: held[1]}


def value_in(line: bytes) -> int:
    return int(msgspec.json.decode(line)["payload"]["v"])


def test_a_lost_object_of_another_day_does_not_stop_an_assumption_that_reads_it(store: Store, tmp_path: Path) -> None:
    """A shift of an hour reads the next day too; the lost object there has no event of the first hour."""
    ingest(store, tmp_path, [event(8, "a", "02T12:00")])
    replayed(store, ENGINE)
    [path] = (tmp_path / "store" / "raw").glob("event_date=2026-01-02/*")
    path.unlink()
    found = explain(store, ENGINE, "total", "a", DAY_ONE, assume(Shift(-3600 * 10**9, Criteria(source="web"))))
    assert shares(found) == {"assumed": 0, "unexplained": 0}
    assert len(found.lost) == 1


def test_a_value_computed_from_no_delivery_is_proven(store: Store, tmp_path: Path) -> None:
    none = Definition(name="total", value="sum((payload->>'v')::BIGINT)", where="source = 'nowhere'")
    add_version(store.metrics, none, 2)
    replayed(store, ENGINE)
    add_version(store.metrics, TOTAL, 3)
    found = explain(store, ENGINE, "total", "a", DAY_ONE)
    assert found.shares[0].detail == "computed with total@2; recomputed with total@3"
    assert found.left.computed is not None
    assert (found.left.computed.inputs, found.proven, shares(found)) == (
        0,
        True,
        {"definition": 7, "unexplained": 0},
    )
    [row] = explained(store, ENGINE, diff_aggregates(store, ENGINE, window(), metrics=["total"]).rows)
    assert row.proven


def test_a_value_that_an_assumption_takes_away_is_explained(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [event(5, "b", "03T00:00")])
    found = explain(store, ENGINE, "total", "b", DAY_ONE + 2 * DAY, assume(WithoutSelected(Criteria(source="web"))))
    assert shares(found) == {"not computed": 5, "assumed": -5, "unexplained": 0}


def test_a_definition_of_other_buckets_explains_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('name = "total"\nvalue = "9 * count(*)"\nbucket = "7d"\n')
    scenario = assume(OtherDefinition(str(tmp_path / "m.toml")))
    with pytest.raises(UsageError, match="buckets of another size"):
        explain(store, ENGINE, "total", "a", DAY_ONE, scenario)
    rows = diff_aggregates(store, ENGINE, window(), metrics=["total"], scenario=scenario).rows
    with pytest.raises(UsageError, match="buckets of another size"):
        list(explained(store, ENGINE, rows, scenario, metrics=["total"]))


def test_promise_8_events_behind_causes_are_read_a_few_at_a_time(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(store, tmp_path, [event(number, "a", f"01T{number:02}:00") for number in range(6, 12)])
    found = explain(store, ENGINE, "total", "a", DAY_ONE, events=True)
    at_once = list(events_behind(store, found))
    monkeypatch.setattr("pik.usecases.metrics.explain_events.AT_ONCE", 2)
    assert list(events_behind(store, found)) == at_once
    payloads = [bytes(one.delivery.payload) for one in at_once if one.delivery]
    assert sorted(payloads) == sorted(b'{"v": %d}' % number for number in (4, *range(6, 12)))
    assert [one.change.event_id for one in at_once] == sorted(one.change.event_id for one in at_once)


def test_promise_9_a_copy_that_may_be_written_otherwise_or_was_known_later_proves_nothing(
    store: Store, tmp_path: Path
) -> None:
    """1 and 1.0 are one content, and two texts; and what a copy adds later is not late."""
    texts = {"texts": "count(DISTINCT payload->>'v')", "words": "count_if(payload->>'v' = '2')"}
    for name, value in texts.items():
        add_version(store.metrics, Definition(name=name, value=value), 1)
    ingest(store, tmp_path, [event(2, "c", "01T10:00")])
    lost = max((tmp_path / "store" / "raw").glob("event_date=*/*"), key=lambda path: path.stat().st_mtime_ns)
    ingest(store, tmp_path, [event(2, "c", "01T11:00")])
    replayed(store, ENGINE)
    ingest(store, tmp_path, [{**event(2, "c", "01T10:00"), "payload": {"v": 2.0}}, event(4, "c", "01T12:00")])
    lost.unlink()
    found = explain(store, ENGINE, "total", "c", DAY_ONE)
    assert (shares(found), found.unread.events()) == ({"lost": -2, "late": 4, "unexplained": 0}, 1)
    for name in texts:
        found = explain(store, ENGINE, name, "c", DAY_ONE)
        assert (found.is_complete, found.unread.events()) == (False, 1), name

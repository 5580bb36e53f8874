"""Corrections as `pik correct` plans, records and revokes them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from time import time_ns
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pik.engine import DuckEngine
from pik.errors import Busy, NothingSelected, UsageError
from pik.model.assumption_text import read_scenario
from pik.model.batch import BatchState
from pik.model.correction import Correction, active
from pik.model.delivery import Filter
from pik.model.instant import SECOND
from pik.model.scenario import Without
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.corrections import read_list, with_frames, without_frames
from pik.rawlog.deliveries import deliveries
from pik.rawlog.selection import NO_OVERRIDES
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify import verify
from pik.usecases.correct.consequences import PlannedCorrection
from pik.usecases.correct.plan import CorrectionPlan, plan_correction, record_correction, repeated
from pik.usecases.correct.revoke import plan_revocation, record_revocation
from pik.usecases.correct.standing import list_corrections, show_correction
from pik.usecases.inspect.batches import status, with_closing
from pik.usecases.metrics.impact import impact
from tests.support.corrected_model import RecordedCorrection, holding, listed, resolve
from tests.support.faults import Crash, FailAt, OneByOne, wrapped
from tests.support.scenario_model import BATCHES, ZONES, Assumed, Chosen, Sent, written
from tests.support.stores import ingest, replayed
from tests.usecases.test_corrected_model import DEEP, QUICK, RECORDABLE, WHOLE, arrive, values_of
from tests.usecases.test_scenario_model import Built, build

ENGINE = DuckEngine()
_PLACE = attrgetter("batch_id", "seq")


def plan_of(store: Store, *texts: str, like: Correction | None = None) -> CorrectionPlan:
    likes = [] if like is None else [like]
    return plan_correction(store, ENGINE, read_scenario(None, texts, lambda path: ()).assumptions, likes=likes)


def correct(store: Store, *texts: str) -> list[Correction]:
    return record_correction(plan_of(store, *texts), texts, "INC-1", "ana")


def revoke(store: Store, correction: Correction) -> Correction:
    return record_revocation(plan_revocation(store, ENGINE, correction.correction_id), "it was right", "ben")


def sale(second: int, entity: str = "a", source: str = "web", v: int = 1, **more: Any) -> dict[str, Any]:
    time = f"2026-03-01T01:00:{second:02}Z"
    return {"source": source, "event_type": "sale", "entity_id": entity, "event_time": time, "payload": {"v": v}} | more


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


def check_lists(batches: list[list[Sent]], steps: list[Assumed | int | list[Sent]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        built = build(Path(directory), batches, "count(*)")
        for step in steps:
            if isinstance(step, list):
                arrive(built, step)
            elif isinstance(step, int):
                revoke_one(built, step)
            else:
                record_one(built, step)
            assert values_of(built, WHOLE) == built.model.values("count(*)", *WHOLE), step


def revoke_one(built: Built, number: int) -> None:
    log = built.model.log
    holds = [one for one in log if not any(later.revokes is one for later in log)]
    if not holds:
        return
    revoked = holds[number % len(holds)]
    before = {one.correction_id for one in active(built.store.corrections.recorded())}
    plan = plan_revocation(built.store, ENGINE, revoked.correction_id)
    made = record_revocation(plan, "no", "ben")
    assert before ^ {one.correction_id for one in active(built.store.corrections.recorded())} == {
        one.correction_id for one in (*plan.ended, *plan.restored)
    }
    log.append(RecordedCorrection("", made.recorded_at, made.correction_id, revokes=revoked))


def record_one(built: Built, one: Assumed) -> None:
    kept, texts = written(built.model, [one], None, built.ids, built.directory)
    gone = {entry.batch for entry in holding(built.model.log, None)}
    if not kept or (kept[0].kind == "delivery" and built.model.arrivals[kept[0].number].batch in gone):
        return
    expected = resolve(built.model, kept[0])
    lines = listed(built.model, expected, built.ids)
    if not lines and expected.batch < 0:
        with pytest.raises(NothingSelected):
            plan_of(built.store, *texts)
        return
    if expected.batch in gone and expected.batch >= 0:
        with pytest.raises(UsageError, match="withdrawn already"):
            plan_of(built.store, *texts)
        return
    scenario = read_scenario(None, texts, lambda path: ())
    before, assumed = values_of(built, WHOLE), values_of(built, WHOLE, scenario)
    plan, counting = plan_of(built.store, *texts), counting_of(built.store)
    assert plan.changes_nothing == (before == assumed)
    [made] = record_correction(plan, texts, f"INC-{len(built.model.log)}", "ana")
    check_effects(plan.corrections[0], counting, counting_of(built.store))
    found = [line for each in with_frames(built.store.raw, made).lists for line in read_list(built.store.raw, each)]
    assert sorted(found, key=_PLACE) == sorted(lines, key=_PLACE), texts
    assert values_of(built, WHOLE) == assumed, texts
    expected.recorded_at, expected.correction_id = made.recorded_at, made.correction_id
    built.model.log.append(expected)


def counting_of(store: Store) -> dict[str, tuple[str, int, int]]:
    """Return batch, seq and time of the delivery that counts of each event."""
    found = (one.delivery for one in deliveries(store, Filter(ALL_TIME), only="accepted"))
    return {one.event_id: (one.batch_id, one.seq, one.event_instant) for one in found}


def check_effects(planned: PlannedCorrection, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Check what a plan says that becomes of events against what counted before and what counts after."""
    stays = before.keys() & after.keys()
    assert planned.taken_out == len(before) - len(stays), planned
    assert planned.replaced == sum(before[one][:2] != after[one][:2] for one in stays), planned
    moved = (one for one in stays if before[one][:2] == after[one][:2] and before[one][2] != after[one][2])
    assert planned.moved == sum(1 for _ in moved), planned
    assert planned.unchanged >= 0


STEPS = st.lists(st.one_of(RECORDABLE, RECORDABLE, RECORDABLE, st.integers(0, 5)), min_size=1, max_size=5)


@pytest.mark.parametrize("chosen", [Chosen(where=2), Chosen(source="web")], ids=["where", "source"])
def test_a_selection_hits_what_does_not_count_too_with_and_without_a_condition(chosen: Chosen) -> None:
    sent = [[Sent("a", "web", 0, value, "k"), Sent("b", "web", 0, value, None)] for value in (0, 1)]
    taken = [Assumed("without", 0), Assumed("without-batch", 1)]
    hitting = [("shift", "1d"), ("zone", ZONES[1]), ("conflicts", "last"), ("without-selected", "")]
    steps = [*taken, *(Assumed(kind, chosen=chosen, word=word) for kind, word in hitting)]
    check_lists(sent, [*steps, len(steps) - 1, 0, 0])


test_a_correction_lists_what_its_assumption_hits_and_does_what_that_showed = QUICK(given(BATCHES, STEPS)(check_lists))
test_a_correction_lists_what_its_assumption_hits_and_does_what_that_showed_for_long = pytest.mark.slow(
    DEEP(given(BATCHES, STEPS)(check_lists))
)


def test_several_assumptions_are_recorded_together_in_their_order(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [sale(1), sale(2, "b"), sale(3, source="till")])
    texts = ["shift=1d,source=web", "without=selected,source=till", "shift=2d,entity=b"]
    plan = plan_of(store, *texts)
    made = record_correction(plan, texts, "INC-1", "ana")
    assert [one.statement for one in made] == texts
    assert [one.recorded_at for one in made] == sorted({one.recorded_at for one in made})
    assert [(one.metric, one.delta) for one in plan.impact.metrics] == [("event_count@1", Decimal(-1))]
    assert [(one.taken_out, one.moved, one.unchanged) for one in plan.corrections] == [(0, 2, 0), (1, 0, 0), (0, 1, 0)]
    [twice] = plan.corrections[2].overlaps  # of the same command: the last one holds
    assert (twice.correction, twice.number, twice.deliveries, twice.events) == (None, 1, 1, 1)
    assert plan.corrections[2].overridden == []


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("without=selected,entity=a", "conflicts=last"),
        ("without=selected,entity=a", "without-batch="),
        ("conflicts=last", "without-batch="),
        ("conflicts=first,entity=a", "conflicts=last"),
    ],
)
def test_what_selects_by_what_another_one_lets_count_is_not_recorded_with_it(
    store: Store, tmp_path: Path, text: str, choice: str
) -> None:
    ingest(store, tmp_path, [sale(1, idempotency_key="k")])
    ingest(store, tmp_path, [sale(1, "a", v=2, idempotency_key="k")], again=True)
    choice += next(store.index.batches()).batch_id if choice.endswith("=") else ""
    with pytest.raises(UsageError, match="depends on") as error:
        plan_of(store, choice, text)
    assert f"pik correct --assume {choice}" in error.value.hint


def test_the_plan_counts_what_is_hit(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [sale(1), sale(2, "b"), sale(3, source="till"), sale(1)])
    [planned] = plan_of(store, "shift=1h,source=web").corrections
    assert (planned.deliveries, planned.events, planned.partial, planned.collisions) == (3, 2, 0, 0)
    assert {facet.by: [(one.name, one.deliveries) for one in facet.top] for facet in planned.facets} == {
        "source": [("web", 3)],
        "type": [("sale", 3)],
        "entity": [("a", 2), ("b", 1)],
        "day": [("2026-03-01", 3)],
    }


def test_the_plan_counts_events_that_are_hit_in_some_deliveries_only(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [sale(1), sale(2)])
    ingest(store, tmp_path, [sale(1), sale(3)], again=True)
    batch = max(store.index.batches(), key=lambda one: one.recorded_at)
    [planned] = plan_of(store, f"shift=1h,batch={batch.batch_id}").corrections
    assert (planned.deliveries, planned.partial) == (2, 1)


def test_the_plan_counts_keyed_events_hit_in_one_of_two_places(store: Store, tmp_path: Path) -> None:
    later = sale(9, v=2, idempotency_key="k") | {"event_time": "2026-03-04T01:00:00Z"}
    whole = [sale(3, idempotency_key="w"), sale(4, v=2, idempotency_key="w")]
    among = [sale(5, idempotency_key="m"), sale(6, source="web", v=2, idempotency_key="m")]
    ingest(store, tmp_path, [sale(1, idempotency_key="k"), later, *whole, *among])
    [planned] = plan_of(store, "shift=1h,from=2026-03-01,to=2026-03-02").corrections
    assert (planned.deliveries, planned.partial) == (5, 1)
    [planned] = plan_of(store, "shift=1h,from=2026-03-01,to=2026-03-01T01:00:06Z").corrections
    assert (planned.deliveries, planned.partial) == (4, 2)


def test_the_plan_counts_moved_events_that_equal_one_that_came_right(store: Store, tmp_path: Path) -> None:
    right = [sale(n) | {"event_time": f"2026-03-01T00:00:{n:02}Z"} for n in (1, 2, 3, 4, 4)]
    for one, payload in zip(right, ({"v": 1.0}, {"v": 7}, {"v": 8}, {"v": 1}, {"v": 9}), strict=True):
        one["payload"] = payload
    keyed = [sale(3, idempotency_key="k", v=2), sale(4, idempotency_key="k")]  # the second of them does not count
    ingest(store, tmp_path, [sale(1), sale(1), sale(2), *keyed, sale(2, idempotency_key="l"), *right])
    [planned] = plan_of(store, "shift=-1h,from=2026-03-01T01:00:00Z").corrections
    assert planned.collisions == 3  # that of the first second, and both of the other second: they are equal before
    [planned] = plan_of(store, "shift=-3599s,from=2026-03-01T01:00:00Z").corrections
    assert planned.collisions == 2


def test_the_plan_names_the_corrections_that_it_overrides(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [sale(1), sale(2, "b")])
    [first] = correct(store, "shift=1h,source=web")
    [planned] = plan_of(store, "shift=1h,entity=b").corrections
    assert [one.deliveries for one in planned.overlaps] == [1]
    assert planned.overridden == [first.correction_id]
    [out] = correct(store, "without=selected,entity=b")
    [planned] = plan_of(store, "shift=-1h,source=web").corrections
    assert [(one.correction and one.correction.correction_id, one.events) for one in planned.overlaps] == [
        (first.correction_id, 2),
        (out.correction_id, 1),
    ]
    assert (planned.overridden, planned.moved, planned.unchanged) == ([first.correction_id], 1, 1)


def test_what_came_since_is_recorded_like_the_first(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [sale(1)])
    [first] = correct(store, "shift=1d,source=web")
    text, before = repeated(store, first.correction_id)
    with pytest.raises(NothingSelected, match="beside those of correction"):
        plan_of(store, text, like=before)
    ingest(store, tmp_path, [sale(1), sale(2), sale(4)], again=True)
    plan = plan_of(store, text, like=before)
    assert [one.deliveries for one in plan.corrections] == [3]
    assert [(one.metric, one.differing) for one in plan.impact.metrics] == [("event_count@1", 2)]
    [second] = record_correction(plan, [text], "INC-1", "ana")
    ingest(store, tmp_path, [sale(3)], again=True)
    for like in (first, second):
        text, before = repeated(store, like.correction_id)
        assert [one.deliveries for one in plan_of(store, text, like=before).corrections] == [1]
    revoke(store, first)  # what it lists came before the second
    assert [one.deliveries for one in plan_of(store, text, like=second).corrections] == [1]
    revoke(store, second)
    assert [one.deliveries for one in plan_of(store, text, like=first).corrections] == [4]


def test_promise_11_suspects_are_out_as_they_were_assumed_and_like_the_first_only_what_came_since(
    store: Store, tmp_path: Path
) -> None:
    """Beside them: the same a moment later from another source, after too long, and of other events that day."""
    sent = [
        sale(1),
        sale(3),
        sale(5),
        sale(20, v=2),
        sale(23, v=2, source="app"),
        sale(30),
        sale(41, "b"),
        sale(44, "b"),
    ]
    ingest(store, tmp_path, [*sent, sale(3)], again=True)
    for text, out in (
        ("without=suspects,entity=b", 1),
        ("without=suspects,within=25s,to=2026-03-01T01:00:04Z", 1),
        ("without=suspects,where=seq <> 2", 2),
        ("without=suspects,within=25s", 4),
        ("without=suspects", 3),
    ):
        plan = plan_of(store, text)
        assert [one.taken_out for one in plan.corrections] == [out], text
    assumed = plan.impact.metrics[0].assumed
    [first] = record_correction(plan, [text], "INC-1", "ana")
    assert (assumed, first.statement, first.events) == (Decimal(len(sent) - 3), text, 3)
    now = impact(store, ENGINE, ALL_TIME, NO_OVERRIDES).metrics[0].total
    assert now == assumed
    with pytest.raises(NothingSelected, match="without=suspects selects no suspect"):
        plan_of(store, text)
    ingest(store, tmp_path, [sale(4), sale(22, v=2), sale(3)], again=True)
    again, like = repeated(store, first.correction_id)
    [since] = plan_of(store, again, like=like).corrections
    assert (since.deliveries, since.taken_out) == (2, 2)


def test_another_last_delivery_of_an_event_with_conflicts_has_come_since(store: Store, tmp_path: Path) -> None:
    batches = ([sale(1, idempotency_key="k", v=v)] for v in range(3))
    ingest(store, tmp_path, next(batches))
    ingest(store, tmp_path, next(batches), again=True)
    first, last = (correct(store, f"conflicts={which}")[0] for which in ("first", "last"))
    with pytest.raises(NothingSelected, match="beside those of correction"):
        plan_of(store, "conflicts=last", like=last)
    ingest(store, tmp_path, next(batches), again=True)
    [planned] = plan_of(store, "conflicts=last", like=last).corrections
    assert (planned.deliveries, planned.events) == (3, 1)
    with pytest.raises(NothingSelected, match="beside those of correction"):
        plan_of(store, "conflicts=first", like=first)
    ingest(store, tmp_path, [sale(1, idempotency_key="k", v=0)], again=True)
    [planned] = plan_of(store, "conflicts=last").corrections
    assert (planned.replaced, planned.repeated) == (1, 0)  # v=1 counts
    revoke(store, last)
    [planned] = plan_of(store, "conflicts=last").corrections
    assert (planned.replaced, planned.repeated) == (1, 1)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("with=@more.jsonl", "pik ingest"),
        ("definition=@metric.toml", "pik metrics apply"),
        ("duplicates=counted", "pik replay"),
        ("corrections=none", "pik diff"),
    ],
)
def test_what_is_only_an_assumption_is_not_recorded(store: Store, tmp_path: Path, text: str, hint: str) -> None:
    ingest(store, tmp_path, [sale(1)])
    with pytest.raises(UsageError, match="cannot be recorded") as error:
        plan_of(store, text)
    assert hint in error.value.hint


def test_nothing_is_recorded_by_a_plan_that_another_correction_overtook(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [sale(1), sale(2, "b")])
    plan = plan_of(store, "shift=1h,entity=a")
    correct(store, "shift=1h,entity=b")
    with pytest.raises(Busy, match="meanwhile"):
        record_correction(plan, ["shift=1h,entity=a"], "INC-1", "ana")
    assert len(store.corrections.recorded()) == 1


def test_what_came_after_the_plan_is_not_listed_and_what_the_plan_should_have_seen_refuses_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(store, tmp_path, [sale(1)])
    plan = plan_of(store, "shift=1h,source=web")
    ingest(store, tmp_path, [sale(2)])
    [made] = record_correction(plan, ["shift=1h,source=web"], "INC-1", "ana")
    assert [one.seq for each in with_frames(store.raw, made).lists for one in read_list(store.raw, each)] == [1]
    with monkeypatch.context() as patched:  # as if another process had begun to record what comes next
        patched.setattr("pik.usecases.correct.plan.time.time_ns", lambda: time_ns() + 600 * SECOND)
        plan = plan_of(store, "shift=2h,source=web")
    ingest(store, tmp_path, [sale(3)])
    with pytest.raises(Busy, match="deliveries were recorded meanwhile"):
        record_correction(plan, ["shift=2h,source=web"], "INC-1", "ana")
    assert list(store.corrections.recorded()) == [without_frames(made)]


def test_plans_and_standing_know_where_heirs_and_moved_events_count(store: Store, tmp_path: Path) -> None:
    keyed, heir = sale(1, idempotency_key="k"), sale(1, v=2, idempotency_key="k", event_time="2026-03-07T01:00:00Z")
    ingest(store, tmp_path, [keyed, sale(2)])
    ingest(store, tmp_path, [heir], again=True)
    replayed(store, ENGINE)

    def differing(plan: Any) -> list[int]:
        return [one.differing for one in plan.impact.metrics]

    correct(store, "shift=-9d,from=2026-03-07")
    plan = plan_of(store, f"without-batch={min(store.index.batches(), key=attrgetter('recorded_at')).batch_id}")
    assert differing(plan) == [2]  # 1 March loses its value, 26 February has one
    [gone] = record_correction(plan, [""], "INC-1", "ana")
    assert differing(plan_revocation(store, ENGINE, gone.correction_id)) == [2]
    _, [standing] = show_correction(store, ENGINE, gone.correction_id)
    assert (standing.computed, standing.outdated, standing.missing) == (0, 1, 1)  # on 7 March nothing counts
    [out] = correct(store, "without=selected,from=2026-02-26,to=2026-02-27")
    assert differing(plan_revocation(store, ENGINE, out.correction_id)) == [1]


def test_a_revocation_can_be_revoked(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [sale(1)])
    [made] = correct(store, "without=selected,entity=a")
    back = revoke(store, made)
    with pytest.raises(UsageError, match=f"revoked already, by {back.correction_id}"):
        plan_revocation(store, ENGINE, made.correction_id)
    again = revoke(store, back)
    assert [(one.correction.correction_id, one.revoked_by) for one in list_corrections(store)] == [
        (again.correction_id, None),
        (back.correction_id, again.correction_id),
        (made.correction_id, None),
    ]


def test_a_batch_cannot_be_withdrawn_twice(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [sale(1)])
    [batch] = store.index.batches()
    correct(store, f"without-batch={batch.batch_id}")
    with pytest.raises(UsageError, match="withdrawn already"):
        plan_of(store, f"without-batch={batch.batch_id}")
    [event_id] = {one.delivery.event_id for one in deliveries(store, Filter(ALL_TIME))}
    [planned] = plan_of(store, f"without={event_id}").corrections  # it would keep out what comes later
    assert (planned.deliveries, planned.taken_out, planned.unchanged) == (1, 0, 1)


def test_lists_have_times_names_and_days_exactly_as_raw_has_them(store: Store, tmp_path: Path) -> None:
    """A nanosecond before midnight, before 1970, and names with what JSON escapes."""
    times = ("2026-03-01T23:59:59.999999999Z", "2026-03-02T00:00:00.000000001Z", "1969-12-31T23:59:59.999999999Z")
    events = [sale(1, f'a"\\/ü\u2028{number}') | {"event_time": time} for number, time in enumerate(times)]
    ingest(store, tmp_path, events)
    [made] = correct(store, "shift=1s,source=web,from=1900-01-01")
    lists = with_frames(store.raw, made).lists
    found = [line for each in lists for line in read_list(store.raw, each)]
    assert {(one.entity_id, one.event_time, one.time) for one in found} == {
        (events[0]["entity_id"], times[0], "2026-03-02T00:00:00.999999999Z"),
        (events[1]["entity_id"], times[1], "2026-03-02T00:00:01.000000001Z"),
        (events[2]["entity_id"], times[2], "1970-01-01T00:00:00.999999999Z"),
    }
    assert [one.day for one in lists] == sorted({segment.day for segment in store.index.segments(ALL_TIME)})
    assert [
        one.name for one in plan_of(store, "shift=1s,source=web,from=1900-01-01").corrections[0].facets[-1].top
    ] == [
        "1970-01-01",
        "2026-03-02",
    ]


@pytest.mark.parametrize("text", ["without={}", "delivery={}:2", "conflicts=last"])
def test_events_that_are_named_are_found_where_an_earlier_correction_moved_them(
    store: Store, tmp_path: Path, text: str
) -> None:
    ingest(store, tmp_path, [sale(1, idempotency_key="k"), sale(1, v=2, idempotency_key="k"), sale(3, "b")])
    [first] = correct(store, "shift=40d,entity=a")
    [listed, _] = [line for each in with_frames(store.raw, first).lists for line in read_list(store.raw, each)]
    [planned] = plan_of(store, text.format(listed.event_id)).corrections
    assert (planned.deliveries, planned.events) == (2, 1)


def test_the_same_command_again_does_not_record_it_again_unless_it_was_revoked(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [sale(1), sale(2, "b")])
    [made] = correct(store, "shift=1h,source=web")
    with pytest.raises(UsageError, match=f"recorded already for this reason, by correction {made.correction_id}"):
        correct(store, "without=selected,entity=b", "shift=1h,source=web")
    assert len(store.corrections.recorded()) == 1
    [other] = record_correction(plan_of(store, made.statement), [made.statement], "INC-2", "ana")
    revoke(store, other)
    revoke(store, made)
    assert len(correct(store, "shift=1h,source=web")) == 1


def test_promise_1_corrections_and_a_revocation_that_are_killed_after_every_durable_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command again records all of it, or reports that it is recorded; a part of it never holds."""
    monkeypatch.setattr("pik.usecases.care.verify_corrections.RECENT", 0)
    texts = ["shift=1d,source=web", "shift=2d,entity=b"]
    for number, left in enumerate((1, 2, 3, 0, 0), start=1):  # after two lists, two corrections, their rows
        (tmp_path / str(number)).mkdir()
        store = open_store(str(tmp_path / str(number) / "store"), create=True)
        ingest(store, tmp_path, [sale(1), sale(2, "b")])
        again(store, number, lambda store: correct(store, *texts))
        made = list(store.corrections.recorded())
        assert [(one.statement, one.deliveries) for one in made] == [(texts[0], 2), (texts[1], 1)]
        assert [one.group for one in made] == [tuple(one.correction_id for one in made)] * 2
        if number < 3:  # a revocation has no lists
            again(store, number, lambda store: [revoke(store, store.corrections.recorded()[0])])
            assert [one.revokes for one in store.corrections.recorded()] == ["", "", made[0].correction_id]
        found = verify(store, ENGINE, ALL_TIME, SILENT)
        assert list(found) == []
        assert found.summary.unacknowledged == left
        log = list(store.corrections.recorded())
        assert rebuild_index(store, SILENT).damaged == ()
        assert list(store.corrections.recorded())[:-1] == log


def again(store: Store, number: int, command: Callable[[Store], list[Correction]]) -> None:
    """Give a command that is killed after a durable step, and again."""
    before = len(store.corrections.recorded())
    fault = FailAt(number, after=True)
    broken = wrapped(store, fault, "raw", "corrections")
    with pytest.raises(Crash):
        command(replace(broken, raw=OneByOne(broken.raw)))
    was_recorded, made = len(store.corrections.recorded()) > before, list[Correction]()
    assert was_recorded == (fault.calls[-1] == "corrections.follow")
    with suppress(UsageError):
        made = command(store)
    recorded = list(store.corrections.recorded())[before:]
    assert [one.correction_id for one in made] in ([], [one.correction_id for one in recorded])
    with pytest.raises(UsageError, match="already"):
        command(store)


def test_a_batch_that_was_interrupted_and_withdrawn_is_not_resumed(store: Store, tmp_path: Path) -> None:
    fault = FailAt(3)
    with pytest.raises(Crash):
        ingest(wrapped(store, fault, "batches"), tmp_path, [sale(1), sale(2, "b")])
    assert fault.calls == ["batches.open", "batches.record", "batches.finish"]
    [cut] = store.index.batches()
    assert cut.state == BatchState.INTERRUPTED
    assert status(store).interrupted == 1
    correct(store, f"without-batch={cut.batch_id}")
    assert status(store).interrupted == 0
    ingest(store, tmp_path, [sale(1), sale(2, "b")])
    [new, old] = [with_closing(store, one) for one in store.index.batches()]
    assert (old.batch_id, old.state, old.replaced_by) == (cut.batch_id, BatchState.REPLACED, new.batch_id)


def test_other_events_are_taken_out_for_the_same_reason(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [sale(second) for second in range(4)])
    ids = sorted(found.delivery.event_id for found in deliveries(store, Filter(ALL_TIME)))
    for some in (ids[:2], ids[2:]):
        plan = plan_correction(store, ENGINE, [Without(tuple(some))])
        record_correction(plan, ["without=@ids"], "INC-1", "ana")
    assert list(deliveries(store, Filter(ALL_TIME), only="accepted")) == []

"""Single scenarios that make raw give a number of a file: each kind is planted, and found."""

from __future__ import annotations

from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path
from time import time_ns
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.errors import NotHeld
from pik.model.criteria import Criteria
from pik.model.instant import DAY, HOUR, SECOND, format_instant
from pik.model.metric import Definition
from pik.model.scenario import PLAIN, CountedDuplicates, Scenario, Shift
from pik.model.window import Window
from pik.ports.store import Store
from pik.stores import open_store
from pik.usecases.metrics import candidates
from pik.usecases.metrics.candidates import OFFSETS, Question
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.explain import explain
from pik.usecases.metrics.tolerance import read_tolerances
from pik.usecases.metrics.trials import Trials, try_scenarios
from pik.usecases.replay.promote import promote
from tests.support.contracts.pulling import pulled
from tests.support.stores import FIRST, event, ingest, replay

ENGINE = DuckEngine(threads=1)
BUCKET = FIRST + DAY
ONCE = Definition(name="total", value="sum((payload->>'v')::BIGINT)")
THRICE = Definition(name="total", value="3 * sum((payload->>'v')::BIGINT)")


def keyed(v: int) -> dict[str, Any]:
    return {**event(v, "a", "02T14:00"), "idempotency_key": "k"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[str]]:
    """Four batches and their ids. The value was promoted after the first one, under another definition."""
    directory = tmp_path_factory.mktemp("trials")
    store = open_store(str(directory / "store"), create=True)
    add_version(store.metrics, ONCE, 1)
    near = [
        event(v, "a", at)
        for v, at in ((100, "01T22:45"), (1, "02T12:00"), (5, "02T11:00"), (10, "02T23:30"), (1000, "03T00:20"))
    ]
    ingest(store, directory, [*near, event(7, "b", "02T12:00")])
    promote(store, replay(store, ENGINE).run_id, time_ns(), "", "ana")
    ingest(store, directory, [event(10_000, "a", "02T13:00"), event(1, "a", "02T12:00")])
    ingest(store, directory, [keyed(100_000), event(20_000, "a", "02T15:00")])
    ingest(store, directory, [keyed(300_000)])
    add_version(store.metrics, THRICE, 2)
    batches = sorted(store.index.batches(), key=lambda one: one.recorded_at)
    return store, [one.batch_id for one in batches]


def tried(store: Store, number: int, scenario: Scenario = PLAIN, *tolerances: str) -> Trials:
    [metric] = [one for one in store.metrics.latest() if one.name == "total"]
    asked = Question(Decimal(number), Decimal(3 * ALL), metric, "a", BUCKET, scenario, read_tolerances(tolerances))
    return try_scenarios(store, ENGINE, asked)


ALL = 1 + 5 + 10 + 10_000 + 20_000 + 100_000
NEAR = range(-1, 5)
"""Offsets in half hours: those that are planted, and some more."""

PLANTED = {
    "definition": (ALL, "total@1"),
    "duplicates": (3 * (ALL + 1 + 300_000), "duplicates=counted"),
    "conflicts": (3 * (ALL - 100_000 + 300_000), "conflicts=last"),
    "first batch": (3 * (ALL - 5 - 10), "without-batch="),  # another batch has the other event of it, too
    "third batch": (3 * (ALL - 20_000 - 100_000 + 300_000), "without-batch="),
    "as of": (3 * (1 + 5 + 10), "as-of="),
    "current": (1 + 5 + 10, "current@"),
    "the bucket before": (3 * 100, "bucket=2026-01-01T00:00:00Z"),
    "the bucket after": (3 * 1000, "bucket=2026-01-03T00:00:00Z"),
    "days at UTC-00:30": (3 * (ALL + 1000), "shift=-30m,entity=a"),
    "days at UTC+02:00": (3 * (ALL - 10 + 100), "shift=2h,entity=a"),
}


@pytest.fixture(autouse=True)
def fewer_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "OFFSETS", NEAR)


@pytest.mark.parametrize("kind", PLANTED)
def test_the_scenario_that_gives_the_number_is_found_and_no_other(made: tuple[Store, list[str]], kind: str) -> None:
    store, _ = made
    number, scenario = PLANTED[kind]
    found = tried(store, number)
    kinds = {one.kind for one in found.met}
    assert any(one.scenario.startswith(scenario) for one in found.met)
    assert len(kinds) == 1
    assert {one.value for one in found.met} == {number}
    assert (found.failed, found.tried) == (0, 1 + 1 + 1 + 1 + 4 + 2 + len(NEAR) - 1 + 2)


def test_every_half_hour_from_12_behind_to_14_ahead_is_tried(
    made: tuple[Store, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "OFFSETS", OFFSETS)
    found = tried(made[0], 3 * (1 + 5 + 10 + 1000 + 10_000 + 20_000 + 100_000))
    assert (found.tried, OFFSETS[0], OFFSETS[-1]) == (10 + 2 + 12 * 2 + 14 * 2, -24, 28)
    assert "shift=-30m,entity=a" in {one.scenario for one in found.met}
    assert {one.kind for one in found.met} == {"zone"}


def test_promise_9_raw_that_a_copy_lacks_is_not_taken_for_a_day_without_events(
    made: tuple[Store, list[str]], tmp_path: Path
) -> None:
    store, _ = made
    copied = Window(BUCKET, BUCKET + DAY)
    copy, _ = pulled(store, tmp_path / "copy", copied)
    number, _ = PLANTED["days at UTC+02:00"]
    found = tried(copy, number)
    assert not found.met
    zones, before, after = found.not_tried[-3:]
    assert zones.startswith("days of other zones, since not all raw of [2026-01-01T10:00:00Z, ")
    assert (before, after) == tuple(f"the bucket {one}, whose raw is not all there" for one in ("before", "after"))
    earlier = Criteria(entity="a", window=Window(BUCKET - 2 * HOUR, BUCKET))
    for criteria, is_held in ((Criteria(entity="a"), False), (earlier, False), (Criteria(window=copied), True)):
        scenario = Scenario(None, (Shift(2 * HOUR, criteria),))
        with nullcontext() if is_held else pytest.raises(NotHeld, match=r"does not hold .*T22:00:00Z"):
            explain(copy, ENGINE, "total", "a", BUCKET, scenario)


def test_promise_9_a_trial_that_needs_raw_which_a_copy_lacks_is_not_tried(
    made: tuple[Store, list[str]], tmp_path: Path
) -> None:
    copy, _ = pulled(made[0], tmp_path / "copy", Window(BUCKET - DAY, BUCKET + 2 * DAY))
    found = tried(copy, 12345, Scenario(None, (Shift(-DAY, Criteria(entity="a")),)))
    assert "bucket=2026-01-03T00:00:00Z, whose raw is not all there" in found.not_tried
    assert found.failed == 0


def test_none_that_meets_is_no_finding_and_a_tolerance_widens_what_does(made: tuple[Store, list[str]]) -> None:
    store, _ = made
    assert tried(store, 12345).met == ()
    near = PLANTED["current"][0] + 2
    assert tried(store, near).met == ()
    assert [one.kind for one in tried(store, near, PLAIN, "total=2").met] == ["current"]
    assert tried(store, near, PLAIN, "other=2").met == ()


def test_scenarios_are_tried_on_top_of_the_one_assumed(made: tuple[Store, list[str]]) -> None:
    store, batches = made
    every = Scenario(None, (CountedDuplicates(),))
    found = tried(store, 3 * (ALL - 5 - 10 + 300_000), every)
    assert [one.scenario for one in found.met] == [f"without-batch={batches[0]}"]


def test_what_producers_sent_wrong_is_tried_alone_and_together_and_what_changes_the_least_comes_first(
    tmp_path: Path,
) -> None:
    """A payment that was stamped anew two seconds later, and one whose amount was sent again under its key."""
    store = open_store(str(tmp_path / "store"), create=True)
    add_version(store.metrics, ONCE, 1)
    retried = {**event(20, "a", "02T15:00"), "event_time": "2026-01-02T15:00:02Z"}
    ingest(store, tmp_path, [event(20, "a", "02T15:00"), retried, event(7, "b", "02T12:00"), keyed(100)])
    ingest(store, tmp_path, [keyed(300)])
    [metric] = [one for one in store.metrics.latest() if one.name == "total"]
    found = {
        number: [
            (one.scenario, one.events)
            for one in try_scenarios(
                store, ENGINE, Question(Decimal(number), Decimal(140), metric, "a", BUCKET, PLAIN)
            ).met
            if one.kind != "without-batch"
        ]
        for number in (120, 340, 320, 147, 321)
    }
    both = "conflicts=last and without=suspects,source=web"
    assert found == {
        120: [("without=suspects,source=web", 1)],
        340: [("conflicts=last", 2)],
        320: [(both, 3)],
        147: [("entity=b", None)],
        321: [],
    }
    tolerances = read_tolerances(["total=1"])
    near = try_scenarios(store, ENGINE, Question(Decimal(148), Decimal(140), metric, "a", BUCKET, PLAIN, tolerances))
    assert [(one.scenario, one.value) for one in near.met if one.kind == "entity"] == [("entity=b", Decimal(147))]


def test_clocks_that_are_off_are_righted_for_the_arrivals_that_have_it_alone_and_together_with_retries(
    tmp_path: Path,
) -> None:
    """The app's clock is an hour ahead on the evening of the second day; a retry was stamped anew at noon."""
    store = open_store(str(tmp_path / "store"), create=True)
    add_version(store.metrics, ONCE, 1)
    sent = []
    for number in range(3 * 6 * 8):
        day, rest = divmod(number, 6 * 8)
        hour, part = divmod(rest, 8)
        true = BUCKET + (day - 1) * DAY + (18 + hour) * HOUR + part * HOUR // 9
        sent.append(
            {
                **event(number, "a", "01T00:00"),
                "source": "app",
                "event_time": format_instant(true + (HOUR if day == 1 else 0)),
                "received_time": format_instant(true + 2 * SECOND),
            }
        )
    noon = {**event(1000, "a", "02T12:00"), "received_time": "2026-01-02T12:00:02Z"}
    ingest(store, tmp_path, [*sent, noon, {**noon, "event_time": "2026-01-02T12:00:01Z"}])
    [metric] = [one for one in store.metrics.latest() if one.name == "total"]
    before = sum(range(48, 88)) + 2000
    for number, added in (
        (sum(range(48, 96)) + 2000, ""),
        (sum(range(48, 96)) + 1000, "without=suspects,source=web and "),
    ):
        asked = Question(Decimal(number), Decimal(before), metric, "a", BUCKET, PLAIN)
        [found] = try_scenarios(store, ENGINE, asked).met
        since, until = (sent[at]["received_time"] for at in (48, 95))
        assert (
            found.scenario == f"{added}shift=-1h,source=app,received-from={since},received-to={until[:-1]}.000000001Z"
        )
        assert (found.is_correctable, found.events) == (True, 48 + bool(added))

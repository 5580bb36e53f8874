"""Clocks that are off are found with their figures, and healthy data has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.model.delivery import Filter
from pik.model.instant import HOUR, MINUTE, SECOND
from pik.ports.store import Store
from pik.stores import open_store
from pik.usecases.timing.grouping import read_grouping
from pik.usecases.timing.lag import GROUPS
from pik.usecases.timing.skew import SkewReport, Verdict, find_skew, zone_of
from tests.support.regular import START, at, healthy, made, received, shifted
from tests.support.stores import ingest

SINCE, UNTIL = START + 30 * HOUR + 17 * MINUTE, START + 50 * HOUR + 3 * MINUTE


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


def found_in(store: Store, tmp_path: Path, events: list[dict[str, Any]], by: str = "source") -> SkewReport:
    ingest(store, tmp_path, events)
    return find_skew(store, DuckEngine(), Filter(), read_grouping(by, GROUPS))


def planted(seed: int, source: str, by: int, since: int, until: int) -> tuple[list[dict[str, Any]], set[int]]:
    """Return healthy events of three days, those of a source that arrive in a window shifted; and when these arrive."""
    events = healthy(seed, 3)
    hit = [one["source"] == source and since <= received(one) <= until for one in events]
    moved = [shifted(one, by) if is_hit else one for one, is_hit in zip(events, hit, strict=True)]
    return moved, {received(one) for one, is_hit in zip(events, hit, strict=True) if is_hit}


@pytest.mark.parametrize("seed", range(4))
def test_healthy_events_have_no_shift(store: Store, tmp_path: Path, seed: int) -> None:
    found = found_in(store, tmp_path, healthy(seed, 3, per_hour=(2, 12)[seed % 2]))
    assert found.shifts == ()
    assert list(found.negative) == []
    assert {one.group for one in found.groups} == {"web", "app", "nightly"}


@pytest.mark.parametrize(
    ("source", "by", "zone"),
    [
        ("web", 2 * HOUR, -2 * HOUR),
        ("app", -90 * MINUTE, 90 * MINUTE),
        ("web", -5 * MINUTE, None),
        ("app", 20 * MINUTE, None),
    ],
)
def test_a_shift_has_its_sign_its_size_and_its_first_and_last_arrival(
    store: Store, tmp_path: Path, source: str, by: int, zone: int | None
) -> None:
    events, hit = planted(7, source, by, SINCE, UNTIL)
    found = found_in(store, tmp_path, events)
    [shift] = found.shifts
    assert (shift.group, shift.zone) == (source, zone)
    assert abs(shift.shift + by) < 10 * SECOND
    inside = sorted(hit)
    assert abs(inside.index(shift.since)) <= 1
    assert shift.until is not None
    assert abs(len(inside) - 1 - inside.index(shift.until)) <= 1
    assert shift.base is not None
    wrong, right = shift.base + shift.shift, shift.base
    lags = [
        received(one) - at(one)
        for one in events
        if one["source"] == source and shift.since <= received(one) <= shift.until
    ]
    assert shift.events == sum(abs(lag - wrong) < abs(lag - right) for lag in lags)
    assert list(found.negative) == []
    assert {one.group: one.verdict for one in found.groups}[source] == Verdict.SHIFTED


def test_a_shift_that_lasts_has_no_end_and_one_from_the_beginning_no_base(store: Store, tmp_path: Path) -> None:
    events = [one for one in healthy(2, 3) if one["source"] != "nightly"]
    changed = [
        shifted(one, HOUR) if one["source"] == "web" else shifted(one, 10 * MINUTE) if received(one) >= SINCE else one
        for one in events
    ]
    app, web = found_in(store, tmp_path, changed).shifts
    assert (web.group, web.base, web.until, web.zone, web.since) == (
        "web",
        None,
        None,
        -HOUR,
        min(received(one) for one in events if one["source"] == "web"),
    )
    assert (app.group, app.until, app.base is None, app.zone) == ("app", None, False, None)


def test_a_part_of_a_source_is_found_by_a_field_of_its_payload(store: Store, tmp_path: Path) -> None:
    events = [one for one in healthy(5, 3, per_hour=24) if one["source"] == "web"]
    for number, one in enumerate(events):
        one["payload"]["release"] = "new" if number % 5 == 0 else "old"
    changed = [shifted(one, HOUR) if one["payload"]["release"] == "new" and at(one) > SINCE else one for one in events]
    [shift] = found_in(store, tmp_path, changed, "payload.release").shifts
    assert (shift.group, shift.zone) == ("new", -HOUR)
    assert find_skew(store, DuckEngine(), Filter(), read_grouping("source", GROUPS)).shifts == ()


def test_single_negative_lags_are_shown_and_are_not_shifts(store: Store, tmp_path: Path) -> None:
    events = healthy(3, 3)
    wrong = {100: 40, 200: 7, 300: 90}  # minutes
    changed = [shifted(one, wrong[number] * MINUTE) if number in wrong else one for number, one in enumerate(events)]
    found = found_in(store, tmp_path, changed)
    lags = [received(one) - at(one) for one in changed]
    [negative] = found.negative
    assert found.shifts == ()
    assert (negative.events, negative.least) == (sum(lag < 0 for lag in lags), min(lags))
    assert negative.event_time == at(changed[lags.index(min(lags))])


def test_a_backlog_that_drains_and_a_slow_hour_are_not_shifts(store: Store, tmp_path: Path) -> None:
    events = healthy(4, 3, sources=["web"])
    backlog, end = START + 40 * HOUR, START + 46 * HOUR
    delayed = [
        made("web", at(one), end + (at(one) - backlog) // 6, one["payload"]["n"]) if backlog <= at(one) < end else one
        for one in events
    ]
    assert found_in(store, tmp_path, delayed).shifts == ()


def test_too_few_events_are_unknown_and_not_guessed(store: Store, tmp_path: Path) -> None:
    few = [made("web", START + number * HOUR + 2 * HOUR, START + number * HOUR, number) for number in range(12)]
    together = [made("app", START + number * MINUTE, START + 2 * HOUR, number) for number in range(59)]
    found = found_in(store, tmp_path, few + together)
    assert {one.group: one.verdict for one in found.groups} == {"web": Verdict.UNKNOWN, "app": Verdict.UNKNOWN}
    assert found.shifts == ()
    assert [(one.group, one.events, one.event_time) for one in found.negative] == [("web", 12, at(few[0]))]


@pytest.mark.parametrize(
    ("text", "zone"),
    [("1h", 60), ("61m", 60), ("63m", None), ("29m", 30), ("330m", 330), ("1m", None), ("14h", 840), ("15h", None)],
)
def test_a_zone_is_near_half_an_hour_or_a_multiple(text: str, zone: int | None) -> None:
    nanos = int(text[:-1]) * {"m": MINUTE, "h": HOUR}[text[-1]]
    assert zone_of(nanos) == (None if zone is None else zone * MINUTE)
    assert zone_of(-nanos) == (None if zone is None else -zone * MINUTE)


def test_no_events_are_no_groups(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path)
    found = find_skew(store, DuckEngine(), Filter(source="nobody"), read_grouping("source", GROUPS))
    assert (found.shifts, list(found.negative), list(found.groups)) == ((), [], [])

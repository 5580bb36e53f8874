"""What did not come is found, exactly or by its printed rule, and healthy data has nothing missing."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from time import time_ns
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.errors import NothingSelected, UsageError
from pik.model.delivery import Filter
from pik.model.instant import DAY, HOUR, MAX_INSTANT, MINUTE, SECOND, parse_instant
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.stores import open_store
from pik.usecases.timing.gaps import GROUPS, GapsReport, Question, find_gaps
from pik.usecases.timing.grouping import payload_text, read_grouping
from pik.usecases.timing.usual import HISTORY
from tests.support.regular import START, at, healthy, made
from tests.support.stores import ingest

TODAY = Window(START + 15 * DAY, START + 16 * DAY)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


def found_in(
    store: Store,
    window: Window = ALL_TIME,
    *,
    by: str = "source",
    every: int | None = None,
    history: int | None = HISTORY,
    sequence: str | None = None,
    **wanted: Any,
) -> GapsReport:
    number = payload_text(sequence, "--sequence-field") if sequence else None
    question = Question(Filter(window, **wanted), read_grouping(by, GROUPS), every, history, number)
    return find_gaps(store, DuckEngine(), question)


def without(events: list[dict[str, Any]], source: str, start: int, end: int, keep: int = 0) -> list[dict[str, Any]]:
    """Return the events without most of a source in some time: one in `keep` stays."""
    return [
        one
        for number, one in enumerate(events)
        if one["source"] != source or not start <= at(one) < end or (keep and number % keep == 0)
    ]


@pytest.mark.parametrize(("seed", "per_hour"), [(1, 2), (2, 8), (3, 30)])
def test_healthy_events_have_no_silence_drop_or_spike(store: Store, tmp_path: Path, seed: int, per_hour: float) -> None:
    events = healthy(seed, 12, per_hour=per_hour, sources=["web", "app"])
    ingest(store, tmp_path, [made("web", 0, START, 0), *events])  # the first is of a clock that was off
    for by in ("source", "entity"):
        found = found_in(store, by=by)
        assert (list(found.silences), list(found.changes), found.found) == ([], [], 0)
        assert {one.learned_from for one in found.groups} <= {START + 7 * DAY + hour * HOUR for hour in range(1, 9)}


def test_a_silence_a_drop_and_a_spike_are_found_where_they_were_planted(store: Store, tmp_path: Path) -> None:
    events = healthy(4, 17, per_hour=60, sources=["web", "app"])
    silent = TODAY.start + 9 * HOUR + 10 * MINUTE
    events = without(events, "web", silent, silent + 3 * HOUR)
    events = without(events, "app", TODAY.start + 10 * HOUR, TODAY.start + 12 * HOUR, keep=12)
    spike = TODAY.start + 15 * HOUR
    events += [made("app", spike + number * SECOND, spike + number * SECOND, 10**6 + number) for number in range(400)]
    ingest(store, tmp_path, events)
    found = found_in(store, TODAY)
    [silence] = found.silences
    times = sorted(at(one) for one in events if one["source"] == "web")
    [expected] = [(one, other) for one, other in pairwise(times) if other - one > 3 * HOUR]
    assert (silence.group, silence.start, silence.end, silence.ended) == ("web", *expected, True)
    assert silence.expected is not None
    assert 100 < silence.expected < 260
    assert [(one.kind, one.group, one.start, one.end) for one in found.changes] == [
        ("drop", "app", TODAY.start + 10 * HOUR, TODAY.start + 12 * HOUR),
        ("spike", "app", spike, spike + HOUR),
    ]
    for change in found.changes:
        assert change.events == sum(one["source"] == "app" and change.start <= at(one) < change.end for one in events)
    assert found.found == 3
    assert found.history == Window(TODAY.start - HISTORY, TODAY.end)


def test_half_a_day_that_is_missing_is_a_drop_of_the_day(store: Store, tmp_path: Path) -> None:
    events = without(healthy(5, 16, per_hour=20, sources=["web"]), "web", TODAY.start, TODAY.end, keep=4)
    ingest(store, tmp_path, events)
    assert [(one.kind, one.start, one.end) for one in found_in(store, TODAY).changes] == [
        ("drop", TODAY.start, TODAY.end)
    ]


def test_a_source_that_stops_and_one_that_never_came_in_the_window_are_silent(store: Store, tmp_path: Path) -> None:
    events = healthy(6, 16, per_hour=20, sources=["web", "app"])
    events = without(events, "web", TODAY.start + 12 * HOUR, TODAY.end)
    events = without(events, "app", TODAY.start - 5 * HOUR, TODAY.end)
    ingest(store, tmp_path, events)
    found = found_in(store, TODAY)
    assert [(one.group, one.end, one.ended) for one in found.silences] == [
        ("app", TODAY.end, False),
        ("web", TODAY.end, False),
    ]
    assert list(found.changes) == []


def test_a_named_source_is_silent_until_the_last_event_of_any_source(store: Store, tmp_path: Path) -> None:
    events = [made("web", START + n * MINUTE, START, n) for n in range(180)]
    events = without(events, "web", START + 60 * MINUTE, START + 180 * MINUTE)
    ingest(store, tmp_path, [*events, made("app", START + 170 * MINUTE, START, 0)])
    [silence] = found_in(store, every=HOUR, history=None, source="web").silences
    assert (silence.start, silence.end, silence.ended) == (START + 59 * MINUTE, START + 170 * MINUTE + 1, False)


def test_a_silence_hides_neither_a_spike_beside_it_nor_a_drop_that_is_mostly_elsewhere(
    store: Store, tmp_path: Path
) -> None:
    events = healthy(13, 17, per_hour=40, sources=["web", "app"])
    silent, caught_up = TODAY.start + 9 * HOUR, TODAY.start + 12 * HOUR + 20 * MINUTE
    events = without(events, "web", silent, caught_up)
    events += [made("web", caught_up + n * SECOND, START, 10**6 + n) for n in range(400)]
    events = without(events, "app", silent, silent + 2 * HOUR)
    events = without(events, "app", TODAY.start, TODAY.end, keep=3)
    ingest(store, tmp_path, events)
    found = found_in(store, TODAY)
    assert {one.group for one in found.silences} == {"web", "app"}
    assert [(one.kind, one.group, one.start // HOUR) for one in found.changes if one.kind == "spike"] == [
        ("spike", "web", caught_up // HOUR)
    ]
    assert ("drop", "app") in {(one.kind, one.group) for one in found.changes}


def test_events_hundreds_of_years_apart_are_a_silence(store: Store, tmp_path: Path) -> None:
    early, late = parse_instant("1700-01-01T00:00:00Z"), parse_instant("2025-01-01T00:00:00Z")
    ingest(store, tmp_path, [made("web", early, START, 1), made("web", late, START, 2)])
    [silence] = found_in(store, every=HOUR, history=None).silences
    assert (silence.start, silence.end) == (early, late)
    assert found_in(store).found == 0


def test_a_regular_source_is_silent_sooner_than_a_random_one(store: Store, tmp_path: Path) -> None:
    quiet = range(15 * 24 * 12 + 100, 15 * 24 * 12 + 106)  # half an hour
    beats = [made("beat", START + n * 5 * MINUTE, START, n) for n in range(16 * 24 * 12) if n not in quiet]
    chance = random.Random(12)
    times = sorted(chance.uniform(0, 16 * DAY) for _ in beats)
    ingest(store, tmp_path, beats + [made("random", START + round(moment), START, n) for n, moment in enumerate(times)])
    [silence] = found_in(store, TODAY).silences
    assert (silence.group, silence.start) == ("beat", START + (quiet[0] - 1) * 5 * MINUTE)


def test_with_every_exactly_the_longer_silences_are_found(store: Store, tmp_path: Path) -> None:
    chance = random.Random(7)
    events = [
        made(source, START + number * 7 * MINUTE + chance.randrange(6 * MINUTE), START, number)
        for source in ("web", "app")
        for number in range(150)
        if chance.random() < 0.8
    ]
    ingest(store, tmp_path, events)
    window = Window(START + 2 * HOUR + 1, START + 16 * HOUR)
    for within in (window, ALL_TIME):
        end = window.end if within is window else max(map(at, events)) + 1
        expected = []
        for source in ("web", "app"):
            times = sorted(at(one) for one in events if one["source"] == source and at(one) in within)
            edges = [*([window.start] if within is window else []), *times, end]
            expected += [(source, one, other) for one, other in pairwise(edges) if other - one > 12 * MINUTE]
        found = found_in(store, within, every=12 * MINUTE, history=None)
        assert sorted((one.group, one.start, one.end) for one in found.silences) == sorted(expected)
        assert len(expected) == found.found > 5
        assert all(one.expected is None for one in found.silences)
        assert list(found.changes) == []


def test_a_named_source_without_any_event_is_silent_and_without_every_there_is_nothing_to_look_at(
    store: Store, tmp_path: Path
) -> None:
    ingest(store, tmp_path, healthy(8, 1))
    [silence] = found_in(store, TODAY, every=HOUR, history=None, source="till").silences
    assert (silence.group, silence.start, silence.end, silence.ended) == ("till", TODAY.start, TODAY.end, False)
    with pytest.raises(NothingSelected, match="no event of source 'till'"):
        found_in(store, TODAY, source="till")
    with pytest.raises(NothingSelected, match="neither an event"):
        found_in(store, Window(START - DAY, START), history=None, every=HOUR)


def test_too_few_days_to_learn_from_are_reported_and_nothing_is_guessed(store: Store, tmp_path: Path) -> None:
    events = without(healthy(9, 6, per_hour=40), "web", START + 5 * DAY, START + 6 * DAY)
    ingest(store, tmp_path, events)
    found = found_in(store)
    assert (found.unknown, found.found) == (3, 0)
    assert all(one.learned_from is None for one in found.groups)


def test_missing_numbers_are_exact_and_numbers_just_outside_of_the_window_are_not_missing(
    store: Store, tmp_path: Path
) -> None:
    chance = random.Random(10)
    events = []
    for source, base in (("web", 2**53), ("app", -40)):
        for number in range(300):
            if chance.random() < 0.9:
                moment = START + number * 10 * MINUTE + chance.randrange(40 * MINUTE)
                events.append(made(source, moment, moment, base + number))
    for number, value in enumerate(("7", 8.0, 9.5, "x", None, [1], True, str(2**127 - 1))):
        events.append({**made("odd", START + DAY, START, 0, f"o{number}"), "payload": {"n": value}})
    ingest(store, tmp_path, events)
    window = Window(START + 10 * HOUR, START + 40 * HOUR)
    found = found_in(store, window, every=DAY * 9, history=None, sequence="payload.n")
    ranges = list(found.missing_ranges)
    for source in ("web", "app"):
        numbers = {one["payload"]["n"] for one in events if one["source"] == source}
        inside = {one["payload"]["n"] for one in events if one["source"] == source and at(one) in window}
        lost = [number for number in range(min(inside), max(inside)) if number not in numbers]
        assert [n for one in ranges if one.group == source for n in range(one.first, one.last + 1)] == lost
        [sequence] = [one for one in found.sequences if one.group == source]
        assert (sequence.least, sequence.greatest, sequence.missing) == (min(inside), max(inside), len(lost))
    [odd] = [one for one in found.sequences if one.group == "odd"]
    assert (odd.least, odd.greatest, odd.missing, odd.without_number) == (7, 8, 0, 6)
    assert all(one.last + 1 != other.first for one, other in pairwise(ranges) if one.group == other.group)


def test_a_repeated_delivery_fills_no_gap(store: Store, tmp_path: Path) -> None:
    events = [made("web", START + number * MINUTE, START, number) for number in (1, 2, 5)]
    ingest(store, tmp_path, events + events)
    [one] = found_in(store, every=HOUR, history=None, sequence="payload.n").missing_ranges
    assert (one.group, one.first, one.last, one.count) == ("web", 3, 4, 2)


def test_the_future_is_not_silent(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, healthy(11, 1))
    now = time_ns()
    ingest(store, tmp_path, [made("web", now + 300 * DAY, START, 1), made("web", now - 2 * HOUR, START, 2)])
    for window in (Window(START, START + 300 * 365 * DAY // 2), Window(START, MAX_INSTANT + 1)):
        found = found_in(store, window, every=HOUR, history=None)
        assert max(one.end for one in found.silences) - now < HOUR
        [web] = [one for one in found.groups if one.group == "web"]
        assert web.events == 1 + sum(one["source"] == "web" for one in healthy(11, 1))


def test_a_number_is_looked_for_in_the_payload_only() -> None:
    with pytest.raises(UsageError, match="--sequence-field n: "):
        payload_text("n", "--sequence-field")


@pytest.mark.parametrize("every", [SECOND, 7 * SECOND, 90 * SECOND])
def test_silences_around_1970_are_those_between_neighbours_in_time(store: Store, tmp_path: Path, every: int) -> None:
    chance = random.Random(every)
    near = every * 6 // 10  # a silence of 1.2 times as long lies across 1970
    instants = {chance.randrange(-3000, 3000) * SECOND for _ in range(250)}
    instants = {one for one in instants if abs(one) > near} | {-near, near}
    moments = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=one // 1000) for one in sorted(instants)]
    events = [{**made("web", START, START, n), "event_time": one.isoformat()} for n, one in enumerate(moments)]
    ingest(store, tmp_path, events)
    found = found_in(store, every=every, history=None)
    expected = [(one, two) for one, two in pairwise(sorted(instants)) if two - one > every]
    assert (-near, near) in expected
    assert [(one.start, one.end) for one in found.silences if one.ended] == expected

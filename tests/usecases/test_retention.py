"""A store whose raw expires: what is gone is called so, is no damage, and no number is made without it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pik.errors import NotHeld
from pik.exporters import exporter
from pik.model.delivery import Filter
from pik.model.instant import DAY, day_text
from pik.model.window import ALL_TIME, Window
from pik.ports.exporter import Layout
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.usecases import availability as held
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_findings import ProblemKind, depth_of
from pik.usecases.export.export import export
from pik.usecases.inspect.deliveries import show_event
from pik.usecases.inspect.duplicates import DuplicateFilter, count_duplicates, list_duplicates
from pik.usecases.inspect.events import list_events
from pik.usecases.metrics.definitions import list_aggregates
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.replay.execute import run_locally
from pik.usecases.replay.plan import limited, plan_replay, start
from tests.support.stores import EVENTS, HERE, PlainEngine, current, ingest, replayed, request, truth, window

KEPT = 30
LATER = [each for each in EVENTS if each["event_time"] > "2026-01-03"]


@pytest.fixture
def aged(store: Store, tmp_path: Path, engine: PlainEngine, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Events of 1 and 2 January came first, and have expired; the later ones came a month later. All were counted."""
    ingest(store, tmp_path, [each for each in EVENTS if each not in LATER])
    old = [segment.key for segment in store.index.segments(ALL_TIME)]
    began = time.time_ns()
    clock = began
    monkeypatch.setattr("pik.rawlog.segment_writer.time_ns", lambda: clock)
    monkeypatch.setattr("pik.usecases.ingest.batch_ingest.time_ns", lambda: clock)
    monkeypatch.setattr(held, "time_ns", lambda: clock)
    clock = began + (KEPT + 2) * DAY
    ingest(store, tmp_path, LATER)
    replayed(store, engine)
    for key in old:
        (Path(store.url) / key).unlink()
    return replace(store, retention_days=KEPT)


REFUSED: dict[str, Callable[[Store, Window, tuple[str, ...]], Any]] = {
    "diff": lambda store, within, entities: list(diff_aggregates(store, PlainEngine(), within, entities=entities).rows),
    "replay": lambda store, within, entities: plan_replay(store, PlainEngine(), request(within, entities=entities), 1),
    "limited replay": lambda store, within, entities: limited(
        store, PlainEngine(), request(within, entities=entities), 5
    ),
    "events": lambda store, within, entities: list(list_events(store, Filter(within, entities))),
    "duplicates": lambda store, within, entities: list(
        list_duplicates(store, DuplicateFilter(Filter(within, entities)))
    ),
    "counted duplicates": lambda store, within, entities: list(
        count_duplicates(store, DuplicateFilter(Filter(within, entities)), "batch")
    ),
    "export": lambda store, within, entities: export(
        store,
        exporter(Layout(Filter(within, entities), "jsonl", "none")),
        Path(store.url).parent / f"{len(entities)}.jsonl",
        SILENT,
        directory=False,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_no_number_is_made_without_what_has_expired(aged: Store, name: str) -> None:
    with pytest.raises(
        NotHeld, match=r"raw of 2026-01-01 to 2026-01-02 has expired: .* 30 days, and 2 of the"
    ) as found:
        REFUSED[name](aged, ALL_TIME, ())
    assert "--from 2026-01-03" in found.value.hint
    assert not (Path(aged.url).parent / "0.jsonl").exists()
    REFUSED[name](aged, window("03"), ())
    REFUSED[name](aged, window(), ("z",))


def test_an_hour_of_a_day_whose_raw_has_expired_is_refused_if_it_is_part_of_a_bucket(aged: Store) -> None:
    with pytest.raises(NotHeld):
        REFUSED["diff"](aged, window("02T20:00:00", "02T21:00:00"), ())
    assert REFUSED["events"](aged, window("02T20:00:00", "02T21:00:00"), ()) == []


def test_a_task_that_waited_until_its_raw_had_expired_fails_with_the_reason(aged: Store, engine: PlainEngine) -> None:
    run = start(
        aged, plan_replay(replace(aged, retention_days=None), engine, request(window("", "02")), 1, count=False)
    )
    ended = run_locally(aged, engine, run.run_id, replace(HERE, attempts=1), SILENT)
    assert (ended.state, ended.done, ended.failed) == ("FAILED", 0, 2)
    assert all("has expired" in letter.reason for letter in aged.dead_letters.letters())


def test_numbers_that_were_made_are_still_shown(aged: Store) -> None:
    assert current(aged) == truth()
    assert len(list(list_aggregates(aged, ALL_TIME).rows)) == len(truth())


def test_an_event_whose_raw_has_expired_is_called_so(aged: Store, engine: PlainEngine) -> None:
    places = [place for event_id in aged.index.locate("", limit=20) for place in aged.index.deliveries(event_id, 1)]
    assert len(places) == len(EVENTS)
    for place in places:
        if day_text(place.day) < "2026-01-03":
            with pytest.raises(NotHeld, match=r"raw of .* has expired"):
                show_event(aged, engine, place.event_id)
        else:
            show_event(aged, engine, place.event_id)


@pytest.mark.parametrize("full", [True, False])
def test_expired_is_not_damage(aged: Store, engine: PlainEngine, full: bool) -> None:
    (Path(aged.url) / f"raw/batches/{min(b.batch_id for b in aged.index.batches())}.ndjson.zst").unlink()
    found = verify(aged, engine, ALL_TIME, SILENT, depth_of(quick=not full, full=full))
    assert list(found) == []
    answer = found.summary
    assert (answer.segments, answer.expired, answer.missing, answer.damage) == (4, 2, 0, 0)
    counted = sum(start >= window("03").start for _, start, _ in truth())
    assert answer.aggregates == (counted if full else None)


def test_what_is_gone_before_its_time_is_missing(aged: Store, engine: PlainEngine) -> None:
    young = next(aged.index.segments(window("03")))
    (Path(aged.url) / young.key).unlink()
    answer = verify(aged, engine, ALL_TIME, SILENT)
    assert {problem.kind for problem in answer} == {ProblemKind.MISSING, ProblemKind.UNPROVEN}
    assert answer.summary.expired == 2
    without = verify(replace(aged, retention_days=None), engine, ALL_TIME, SILENT)
    assert [problem.kind for problem in without].count(ProblemKind.MISSING) == 3


def test_a_rebuild_keeps_knowing_what_has_expired(aged: Store, engine: PlainEngine) -> None:
    done = rebuild_index(aged, SILENT)
    assert (done.expired, done.damaged, done.segments) == (2, (), 2)
    test_expired_is_not_damage(aged, engine, True)
    test_no_number_is_made_without_what_has_expired(aged, "events")


def test_a_batch_of_which_all_has_expired_is_not_dropped(aged: Store) -> None:
    """Not even where the index does not list its segments any more."""
    old = next(segment.batch_id for segment in aged.index.segments(ALL_TIME))
    (Path(aged.url) / "raw" / "batches" / f"{old}.ndjson.zst").unlink()
    with aged.index.database.write() as connection:  # type: ignore[attr-defined]
        connection.execute("DELETE FROM segment WHERE batch = ?", (old,))
    assert rebuild_index(aged, SILENT).dropped == ()
    assert old in {batch.batch_id for batch in aged.index.batches()}

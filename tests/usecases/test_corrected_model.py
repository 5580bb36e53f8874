"""What an assumption shows before it is recorded is what holds afterwards, whatever else was corrected."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pik.errors import NothingSelected
from pik.exporters import exporter
from pik.fleets.here import Here
from pik.model.assumption_text import read_scenario
from pik.model.correction import revoked
from pik.model.delivery import Filter
from pik.model.instant import DAY, SECOND, parse_instant
from pik.model.scenario import PLAIN, Scenario
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Tables
from pik.ports.exporter import Layout
from pik.rawlog.deliveries import deliveries
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.selection import Selection
from pik.runtime import SILENT
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify import verify
from pik.usecases.export import fleet
from pik.usecases.export.export import export
from pik.usecases.export.fleet import export_on
from pik.usecases.inspect.conditions import Conditions
from pik.usecases.inspect.deliveries import EventDetail, show_event
from pik.usecases.inspect.effects import Effects, corrected_effects
from pik.usecases.inspect.events import list_events
from pik.usecases.metrics.causes import explained
from pik.usecases.metrics.chain import Cause
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.replay.execute import run_locally
from pik.usecases.replay.plan import plan_replay, start
from tests.support.corrected_model import KINDS, RecordedCorrection, record_correction, resolve
from tests.support.scenario_model import ASSUMED, BATCHES, DAY_ONE, FORMULAS, SENT, Arrival, Assumed, Sent, written
from tests.support.stores import HERE, ingest, replayed, request
from tests.usecases.test_scenario_model import ENGINE, Built, Place, build, computed

WHOLE: Place = (ALL_TIME, ())
WINDOWS = st.sampled_from(
    [
        WHOLE,
        (Window(DAY_ONE + DAY, DAY_ONE + 2 * DAY), ()),
        (Window(DAY_ONE + DAY, DAY_ONE + 2 * DAY), ("a",)),
        (Window(DAY_ONE, DAY_ONE + 3 * DAY), ("b",)),
    ]
)
RECORDABLE = ASSUMED.filter(lambda one: one.kind in KINDS)
STEPS = st.lists(
    st.one_of(
        RECORDABLE,
        RECORDABLE,
        RECORDABLE,
        st.integers(0, 5),
        st.lists(SENT, min_size=1, max_size=4),
        st.sampled_from(["replay", "plan"]),
    ),
    min_size=1,
    max_size=7,
)
Step = Assumed | int | str | list[Sent]
"""An assumption is recorded, a number revokes a correction, events are ingested; a run is promoted, or only planned."""


def values_of(built: Built, place: Place, scenario: Scenario = PLAIN) -> dict[tuple[int, str], object]:
    return {key: found[:2] for key, found in computed(built.store, place, scenario).items()}


def allowed(built: Built, one: Assumed) -> tuple[Assumed, str] | None:
    """Return the assumption and how it is typed, if the store allows it."""
    kept, texts = written(built.model, [one], None, built.ids, built.directory)
    gone = {entry.batch for entry in _holding(built)}
    if not kept or (kept[0].kind == "delivery" and built.model.arrivals[kept[0].number].batch in gone):
        return None
    return kept[0], texts[0]


def _holding(built: Built) -> list[RecordedCorrection]:
    from tests.support.corrected_model import holding

    return holding(built.model.log, None)


def arrive(built: Built, sent: list[Sent]) -> None:
    """Ingest events into the store and the model."""
    ingest(built.store, built.directory, [one.line for one in sent], again=True)
    newest = max(built.store.index.batches(), key=lambda batch: batch.recorded_at)
    built.model.add(len(built.ids), sent, newest.recorded_at)
    built.ids.append(newest.batch_id)


def check_recorded(
    batches: list[list[Sent]], formula: str, place: Place, steps: list[Step], more: list[Assumed]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        built = build(Path(directory), batches, formula)
        planned: list[tuple[str, int]] = []
        for step in steps:
            if step == "replay":
                replayed(built.store, ENGINE)
            elif isinstance(step, str):
                plan = plan_replay(built.store, ENGINE, request(), 1)
                last = max((one.recorded_at for one in built.model.log), default=0)
                assert plan.run.corrections_until == last
                planned.append((start(built.store, plan).run_id, last))
            elif isinstance(step, list):
                arrive(built, step)
            elif isinstance(step, int):
                if built.model.log:
                    revoked = built.model.log[step % len(built.model.log)]
                    record_correction(built.store, built.model, RecordedCorrection("", revokes=revoked), built.ids)
            elif (found := allowed(built, step)) is not None:
                one, text = found
                scenario = read_scenario(None, [text], lambda path: ())
                expected = values_of(built, place, scenario)
                record_correction(built.store, built.model, resolve(built.model, one), built.ids)
                assert values_of(built, place) == expected, (text, "recorded")
            assert values_of(built, place) == built.model.values(formula, *place), step
        check_runs(built, formula, planned)
        check_others(built, formula, place, more)


def check_runs(built: Built, formula: str, planned: list[tuple[str, int]]) -> None:
    """A run computes with the corrections that its planner knew; what later ones change is no damage, and explained."""
    store = built.store
    assert list(verify(store, ENGINE, ALL_TIME, SILENT)) == []
    rows = []
    with suppress(NothingSelected):  # nothing counts
        rows = list(diff_aggregates(store, ENGINE, ALL_TIME, metrics=["m"]).rows)
    for one in explained(store, ENGINE, rows, metrics=["m"]):
        assert one.proven
        assert set(one.shares) <= {Cause.LATE, Cause.CORRECTED, Cause.NOT_COMPUTED}
    for run_id, corrections_until in planned:
        run_locally(store, ENGINE, run_id, HERE, SILENT)
        written = {
            (row.written.computed.bucket, row.written.computed.entity_id): row.written.computed
            for row in store.aggregates.changes(run_id)
            if row.written.computed.metric == "m"
        }
        found = {key: (one.value, one.inputs) for key, one in written.items() if one.inputs}
        assert found == built.model.values(formula, ALL_TIME, corrections_until=corrections_until)


def check_others(built: Built, formula: str, place: Place, more: list[Assumed]) -> None:
    """Moments, assumptions on top, windows and a rebuild."""
    model = built.model
    for moment in [*(entry.recorded_at for entry in model.log), *(entry.recorded_at - 1 for entry in model.log)]:
        expected = model.values(formula, *place, as_of=moment)
        assert values_of(built, place, Scenario(moment)) == expected, "as of"
        expected = model.values(formula, *place, corrections_until=moment)
        assert values_of(built, place, Scenario(corrections_until=moment)) == expected, "until"
    kept, texts = written(model, more, None, built.ids, built.directory)
    gone = {entry.batch for entry in _holding(built)}
    pairs = [
        (one, text)
        for one, text in zip(kept, texts, strict=True)
        if one.kind != "delivery" or model.arrivals[one.number].batch not in gone
    ]
    texts = [text for _, text in pairs]
    scenario = read_scenario(None, texts, lambda path: ())
    assert values_of(built, place, scenario) == model.values(formula, *place, assumed=[one for one, _ in pairs]), texts
    none = read_scenario(None, ["corrections=none"], lambda path: ())
    plain = model.values(formula, *place, corrections_until=0)
    assert values_of(built, place, none) == plain
    gone_ids = revoked(built.store.corrections.recorded())
    for entry in (one for one in model.log if one.correction_id not in gone_ids):
        never = read_scenario(None, [f"without-correction={entry.correction_id}"], lambda path: ())
        others = replace(model, log=[one for one in model.log if one is not entry])
        assert values_of(built, place, never) == others.values(formula, *place), entry
    whole, (window, entities) = values_of(built, WHOLE), place
    within = {key: each for key, each in whole.items() if key[0] in window and (not entities or key[1] in entities)}
    before = computed(built.store, place)
    assert {key: found[:2] for key, found in before.items()} == within
    check_readers(built, place)
    check_effects(built, place)
    rebuild_index(built.store, SILENT)
    assert computed(built.store, place) == before


def check_readers(built: Built, place: Place) -> None:
    """Events and deliveries, day by day, at their corrected times; SQL tables and an export have the same."""
    window, entities = place
    expected = sorted(
        (sent.event_id, DAY_ONE + at * SECOND)
        for sent, at in built.model.counted(None, [])
        if DAY_ONE + at * SECOND in window and (not entities or sent.entity in entities)
    )
    found = list(deliveries(built.store, Filter(window, entities), only="accepted"))
    assert sorted((one.delivery.event_id, one.delivery.event_instant) for one in found) == expected
    days = [one.day for one in found]
    assert days == sorted(days) == [one.delivery.event_instant // DAY for one in found]
    every = list(deliveries(built.store, Filter(window, entities)))
    assert sorted(one.line for one in every if one.counts) == sorted(one.line for one in found)
    listed = list_events(built.store, Filter(window, entities), newest=True)
    assert sorted((one.event_id, one.event_time) for one in listed) == expected
    columns = ["event_id", "event_ns", "received_ns", "correction", "batch_id", "seq"]
    with (
        gather_deliveries(Selection(built.store, window, entities)) as files,
        ENGINE.tables(files, columns, window, entities) as tables,
    ):
        assert sorted(tables.rows("SELECT event_id, event_ns FROM events")) == expected
        rows = {tuple(place): rest for *rest, place in _rows(tables)}
        assert rows == {
            (one.delivery.batch_id, one.delivery.seq): [
                one.delivery.event_instant,
                parse_instant(one.received_event_time or one.delivery.event_time),
                ",".join(one.corrections) or None,
            ]
            for one in every
        }
    layout = Layout(Filter(window, entities), "jsonl")
    alone, on_fleet = built.directory / "alone", built.directory / "on_fleet"
    for directory in (alone, on_fleet):
        shutil.rmtree(directory, ignore_errors=True)
    export(built.store, exporter(layout), alone, SILENT, directory=True)
    exported = lines(alone)
    assert sorted((one["event_id"], parse_instant(one["event_time"])) for one in map(json.loads, exported)) == expected
    with patch.object(fleet, "TASK_BYTES", 300):
        export_on(Here(built.store, ENGINE), built.store, exporter, layout, on_fleet, SILENT)
    assert lines(on_fleet) == exported


def lines(directory: Path) -> list[str]:
    """The lines of all files of an export, in order."""
    found: list[str] = []
    for path in directory.glob("part-*"):
        with zstandard.open(path, "rt", encoding="utf-8") as file:
            found += file
    return sorted(found)


def check_effects(built: Built, place: Place) -> None:
    """What is said of corrections: which events they took out of the window, moved, or count by another delivery; the
    state of each event; and what came."""
    (window, entities), model, wanted = place, built.model, Filter(*place)
    state = model.state(None, [])
    counting = {
        one.number: one for identity, found in state.counting.items() for one in found if identity not in state.out
    }
    accepted = {min(model.of_event(each.sent.identity), key=lambda one: one.order).number for each in model.arrivals}

    def is_there(one: Arrival, at: int) -> bool:
        return DAY_ONE + at * SECOND in window and (not entities or one.sent.entity in entities)

    here = {number for number, one in counting.items() if is_there(one, state.times[number])}
    left = {counting[number].sent.identity for number in here}
    gone = [
        one
        for one in model.arrivals
        if one.number in accepted and is_there(one, state.times[one.number]) and one.sent.identity not in left
    ]
    moved = [
        one
        for number, one in counting.items()
        if state.times[number] != one.sent.at and (number in here or is_there(one, one.sent.at))
    ]
    effects = corrected_effects(built.store, ENGINE, wanted)
    assert (effects or Effects()) == Effects(len(gone), len(moved), len(here - accepted))
    as_received = list_events(built.store, wanted, conditions=Conditions(as_received=True))
    assert [(one.event_time, one.event_id) for one in as_received] == sorted(
        (DAY_ONE + one.sent.at * SECOND, one.sent.event_id)
        for one in model.arrivals
        if one.number in accepted and is_there(one, one.sent.at)
    )
    for event_id, locations in {one.sent.event_id: one for one in model.arrivals}.items():
        shown = show_event(built.store, ENGINE, event_id)
        assert shown.counts == any(one.sent.event_id == event_id for one in counting.values())
        for row in shown.deliveries:
            [one] = [
                each
                for each in model.of_event(locations.sent.identity)
                if (built.ids[each.batch], each.seq) == (row.batch_id, row.seq)
            ]
            assert row.counts == (one.number in counting)
            assert row.event_time == DAY_ONE + state.times[one.number] * SECOND
            assert (row.received_event_time is None) == (state.times[one.number] == one.sent.at)
        check_story(built, shown, locations.sent)


def check_story(built: Built, shown: EventDetail, sent: Sent) -> None:
    """After each thing that happened to an event, the delivery counts, at the time, that did by what was known then."""
    model, story = built.model, shown.story
    concerning = {one.id for one in story if one.what in ("correction", "revocation")}
    for one in story:
        state = model.state(one.at, [])
        found = [] if sent.identity in state.out else state.counting.get(sent.identity, [])
        expected: set[tuple[object, ...]] = {
            (built.ids[each.batch], each.seq, DAY_ONE + state.times[each.number] * SECOND) for each in found
        }
        assert {(one.batch_id, one.seq, one.event_time)} == (expected or {(None, None, None)}), one
    assert (story[-1].batch_id is not None) == shown.counts
    for entry in model.log:
        lists = {model.arrivals[number].sent.identity for number in entry.times} | entry.chosen.keys() | entry.out
        is_of = any(each.batch == entry.batch for each in model.of_event(sent.identity))
        revoked = "" if entry.revokes is None else entry.revokes.correction_id
        assert (entry.correction_id in concerning) == (sent.identity in lists or is_of or revoked in concerning)


def _rows(tables: Tables) -> Iterator[list[Any]]:
    for event_ns, received_ns, correction, batch_id, seq in tables.rows(
        "SELECT event_ns, received_ns, correction, batch_id, seq FROM deliveries"
    ):
        yield [event_ns, received_ns, correction, (batch_id, seq)]


QUICK = settings(max_examples=4, suppress_health_check=list(HealthCheck), deadline=None)
DEEP = settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
GIVEN = given(BATCHES, st.sampled_from(list(FORMULAS)), WINDOWS, STEPS, st.lists(ASSUMED, min_size=1, max_size=3))

test_what_was_assumed_is_what_holds_once_it_is_recorded = QUICK(GIVEN(check_recorded))
test_what_was_assumed_is_what_holds_once_it_is_recorded_for_long = pytest.mark.slow(DEEP(GIVEN(check_recorded)))

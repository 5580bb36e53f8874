"""Numbers under recorded corrections are the same in every store: those of a plain model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pik.engine import DuckEngine
from pik.model.assumption_text import read_scenario
from pik.model.instant import DAY
from pik.model.scenario import PLAIN, Scenario
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.usecases.care.verify import verify
from pik.usecases.metrics.definitions import add_version
from tests.support.corrected_model import RecordedCorrection, record_correction, resolve
from tests.support.scenario_model import DAY_ONE, DAY_SECONDS, Assumed, Chosen, Model, Sent, definition
from tests.support.stores import ingest, replay, replayed
from tests.usecases.test_scenario_model import Built, computed

ENGINE = DuckEngine(threads=1)
FORMULA = "sum((payload->>'v')::BIGINT)"
NOON = DAY_SECONDS // 2
EVENTS = [
    Sent("a", "web", NOON, 1, None),
    Sent("a", "web", DAY_SECONDS + NOON, 2, "k"),
    Sent("b", "app", DAY_SECONDS - 1, 3, None),
    Sent("b", "app", 2 * DAY_SECONDS, 4, None),
]
CONFLICT = replace(EVENTS[1], at=2 * DAY_SECONDS + NOON, value=7)
BATCHES = [EVENTS, [EVENTS[0], CONFLICT, Sent("a", "app", 3 * DAY_SECONDS, 5, None)]]
STEPS = [
    Assumed("shift", chosen=Chosen(source="app"), word="-1h"),
    Assumed("conflicts", word="last"),
    Assumed("without", 3),
    Assumed("shift", chosen=Chosen(entity="b"), word="1d"),
    Assumed("without-batch", 0),
]
PLACES = [(ALL_TIME, ()), (Window(DAY_ONE + DAY, DAY_ONE + 2 * DAY), ("b",)), (Window(DAY_ONE, DAY_ONE + DAY), ())]


def expect_model(built: Built, scenario: Scenario = PLAIN, until: int | None = None) -> None:
    for place in PLACES:
        found = {key: each[:2] for key, each in computed(built.store, place, scenario).items()}
        assert found == built.model.values(FORMULA, *place, corrections_until=until)


def test_corrections_change_numbers_as_they_do_in_a_plain_model(store: Store, tmp_path: Path) -> None:
    add_version(store.metrics, definition(FORMULA), 1)
    built = Built(tmp_path, store, Model(), [], [])
    for number, events in enumerate(BATCHES):
        ingest(store, tmp_path, [one.line for one in events])
        built.ids.append(max(one.batch_id for one in store.index.batches()))
        built.model.add(number, events, built.recorded[-1])
    replayed(store, ENGINE)
    for step in STEPS:
        record_correction(store, built.model, resolve(built.model, step), built.ids)
        expect_model(built)
    log = built.model.log
    record_correction(store, built.model, RecordedCorrection("", revokes=log[-1]), built.ids)
    expect_model(built)
    moment = log[2].recorded_at
    expect_model(built, Scenario(corrections_until=moment), moment)
    expect_model(built, read_scenario(None, ["corrections=none"], lambda path: ()), 0)
    run = replay(store, ENGINE, correction=log[3].correction_id)
    assert run.corrections_until == log[-1].recorded_at == store.runs.get(run.run_id).corrections_until
    assert {row.written.computed.entity_id for row in store.aggregates.changes(run.run_id)} == {"b"}
    replayed(store, ENGINE)
    assert list(verify(store, ENGINE, ALL_TIME, SILENT)) == []

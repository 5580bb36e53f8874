"""A number under any scenario is the number of a store that was really built so, and that of a plain model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pik.engine import DuckEngine
from pik.model.assumption_text import read_scenario
from pik.model.instant import DAY
from pik.model.metric import Metric
from pik.model.scenario import PLAIN, Scenario
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.rawlog.selection import Selection
from pik.stores import open_store
from pik.usecases.metrics.computation import recompute
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.scenario import applied, definitions, resolved
from tests.support.scenario_model import (
    ASSUMED,
    BATCHES,
    DAY_ONE,
    FORMULAS,
    SHIFTS,
    Assumed,
    Chosen,
    Model,
    Sent,
    Values,
    definition,
    written,
)
from tests.support.stores import ingest

ENGINE = DuckEngine(threads=1)
WINDOWS = st.sampled_from(
    [(ALL_TIME, ()), (Window(DAY_ONE + DAY, DAY_ONE + 2 * DAY), ("a",)), (Window(DAY_ONE + DAY, DAY_ONE + 3 * DAY), ())]
)
FORMULA = st.sampled_from(list(FORMULAS))
Place = tuple[Window, tuple[str, ...]]
Batches = list[list[Sent]]


@dataclass
class Built:
    """A store, its model, the ids of its batches, and what was computed after each of them."""

    directory: Path
    store: Store
    model: Model
    ids: list[str]
    stages: list[Values]

    @property
    def recorded(self) -> list[int]:
        return [next(self.store.index.batches(one)).recorded_at for one in self.ids]

    def values(self, place: Place, *texts: str, as_of: int | None = None) -> Values:
        scenario = replace(read_scenario(None, texts, lambda path: tuple(Path(path).read_text().split())), as_of=as_of)
        return {key: found[:2] for key, found in computed(self.store, place, scenario).items()}


def computed(store: Store, place: Place, scenario: Scenario = PLAIN) -> dict[tuple[int, str], Any]:
    """Each value, its number of inputs, and the XORs of their ids and contents."""
    within, entities = place
    metrics: list[Metric] = definitions(store, ENGINE, scenario, ["m"])
    with applied(store, ENGINE, resolved(store, scenario), within, entities) as overrides:
        found = {}
        for part in recompute(Selection(store, within, entities, overrides), ENGINE, metrics):
            assert not isinstance(part.computed, Exception)
            for row in part.computed.rows():
                found[row.bucket, row.entity_id] = row.value, row.inputs, row.input_ids, row.input_contents
    return found


def build(directory: Path, batches: Sequence[Sequence[Sent]], formula: str, place: Place | None = None) -> Built:
    """Build the store; with a place, compute it after each batch."""
    directory.mkdir(parents=True, exist_ok=True)
    store = open_store(str(directory / "store"), create=True)
    add_version(store.metrics, definition(formula), 1)
    built = Built(directory, store, Model(), [], [])
    for number, events in enumerate(batches):
        ingest(store, directory, [one.line for one in events], again=True)
        newest = max(store.index.batches(), key=lambda batch: batch.recorded_at)
        built.ids.append(newest.batch_id)
        built.model.add(number, events, newest.recorded_at)
        if place is not None:
            built.stages.append(computed(store, place))
    return built


QUICK = settings(max_examples=5, suppress_health_check=list(HealthCheck))
DEEP = settings(max_examples=100, suppress_health_check=list(HealthCheck))


def check_as_of(batches: Batches, formula: str, place: Place) -> None:
    """Each moment at and between recordings has the numbers that the store itself had then."""
    with tempfile.TemporaryDirectory() as directory:
        built = build(Path(directory), batches, formula, place)
        for number, recorded in enumerate(built.recorded):
            before = built.stages[number - 1] if number else {}
            assert computed(built.store, place, Scenario(recorded - 1)) == before
            assert computed(built.store, place, Scenario(recorded)) == built.stages[number]


def check_without_batch(batches: Batches, formula: str, place: Place, out: int) -> None:
    out %= len(batches)
    with tempfile.TemporaryDirectory() as directory:
        whole = build(Path(directory) / "whole", batches, formula)
        rest = build(Path(directory) / "rest", [*batches[:out], *batches[out + 1 :]], formula, place)
        scenario = read_scenario(None, [f"without-batch={whole.ids[out]}"], lambda path: ())
        assert computed(whole.store, place, scenario) == rest.stages[-1]
        for number, recorded in enumerate(whole.recorded):
            seen = number if number >= out else number + 1
            expected = rest.stages[seen - 1] if seen else {}
            assert computed(whole.store, place, replace(scenario, as_of=recorded)) == expected


def check_shift(batches: Batches, formula: str, place: Place, by: str, chosen: Chosen) -> None:
    """All deliveries of an event are hit, and no moved event is equal to another."""
    moved = [
        [replace(one, at=one.at + SHIFTS[by]) if _hits(chosen, one) else one for one in batch] for batch in batches
    ]
    before = {one.identity for batch in batches for one in batch}
    assume(len(before) == len({one.identity for batch in moved for one in batch}))
    with tempfile.TemporaryDirectory() as directory:
        wrong = build(Path(directory) / "wrong", batches, formula)
        right = build(Path(directory) / "right", moved, formula)
        assert wrong.values(place, f"shift={by},{chosen.text(wrong.ids)}") == right.values(place)


def _hits(chosen: Chosen, one: Sent) -> bool:
    return chosen.source in (None, one.source) and chosen.entity in (None, one.entity)


def check_model(
    batches: Batches, formula: str, place: Place, scenarios: list[tuple[int | None, list[Assumed]]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        built = build(Path(directory), batches, formula)
        for stage, given in scenarios:
            as_of = None if stage is None else built.recorded[stage % len(batches)]
            assumed, texts = written(built.model, given, as_of, built.ids, Path(directory))
            expected = built.model.values(formula, *place, as_of=as_of, assumed=assumed)
            assert built.values(place, *texts, as_of=as_of) == expected, texts


SHIFTED = st.one_of(
    st.builds(Chosen, source=st.sampled_from(["web", "app"]), entity=st.sampled_from([None, "a"])),
    st.builds(Chosen, entity=st.sampled_from(["a", "b"])),
)
SCENARIOS = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(0, 3)), st.lists(ASSUMED, min_size=1, max_size=4)),
    min_size=1,
    max_size=6,
)

AS_OF = given(BATCHES, FORMULA, WINDOWS)
WITHOUT_BATCH = given(BATCHES, FORMULA, WINDOWS, st.integers(0, 3))
SHIFT = given(BATCHES, FORMULA, WINDOWS, st.sampled_from(list(SHIFTS)), SHIFTED)
MODEL = given(BATCHES, FORMULA, WINDOWS, SCENARIOS)

test_as_of_is_what_the_store_itself_computed_then = QUICK(AS_OF(check_as_of))
test_without_a_batch_is_a_store_that_never_got_it = QUICK(WITHOUT_BATCH(check_without_batch))
test_a_shift_is_a_store_whose_events_had_the_right_times = QUICK(SHIFT(check_shift))
test_any_assumptions_in_any_order_give_the_numbers_of_a_plain_model = QUICK(MODEL(check_model))

test_as_of_is_what_the_store_itself_computed_then_for_long = pytest.mark.slow(DEEP(AS_OF(check_as_of)))
test_without_a_batch_is_a_store_that_never_got_it_for_long = pytest.mark.slow(DEEP(WITHOUT_BATCH(check_without_batch)))
test_a_shift_is_a_store_whose_events_had_the_right_times_for_long = pytest.mark.slow(DEEP(SHIFT(check_shift)))
test_any_assumptions_give_the_numbers_of_a_plain_model_for_long = pytest.mark.slow(DEEP(MODEL(check_model)))

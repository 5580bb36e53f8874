"""After any history, shares add up to the difference, and are those of a plain model; diff --explain has the same.

Batches with repeats and conflicts, definitions, replays, promotions in any order, rollbacks, lost objects of raw, and
rebuilds of the index, from the old one or from raw alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from time import time_ns
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pik.engine import DuckEngine
from pik.errors import NothingSelected
from pik.model.aggregate import Aggregate
from pik.model.assumption_text import read_scenario
from pik.model.instant import DAY, day_text
from pik.model.scenario import Scenario
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.metrics.causes import explained
from pik.usecases.metrics.chain import Cause
from pik.usecases.metrics.comparison import Op
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.metrics.explain import explain
from pik.usecases.metrics.scenario import resolved
from pik.usecases.replay.promote import promote, rollback
from tests.support.scenario_model import (
    ASSUMED,
    DAY_ONE,
    DAYS,
    ENTITIES,
    FORMULAS,
    SENT,
    Assumed,
    Model,
    Sent,
    definition,
    written,
)
from tests.support.stores import ingest, replay

ENGINE = DuckEngine(threads=1)
FORMULA = st.sampled_from(list(FORMULAS))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ingest"), st.lists(SENT, min_size=1, max_size=5)),
        st.tuples(st.just("ingest_again"), st.integers(0, 9)),
        st.tuples(st.just("conflict"), st.integers(0, 9)),
        st.tuples(st.just("define"), FORMULA),
        st.tuples(st.just("replay"), st.integers(-2, DAYS - 1), st.booleans()),
        st.tuples(st.just("promote"), st.integers(0, 9)),
        st.tuples(st.just("rollback"), st.integers(0, 9)),
        st.tuples(st.just("lose"), st.integers(0, 30)),
        st.tuples(st.just("rebuild"), st.booleans()),
    ),
    max_size=9,
)
WINNER_LOST = [("replay", -1, True), ("lose", 0), ("rebuild", True)]
ENDS = st.sampled_from(
    [[], WINNER_LOST, [("conflict", 0), *WINNER_LOST], [("conflict", 0), ("conflict", 0), *WINNER_LOST, *WINNER_LOST]]
)
"""What seldom comes together by itself."""
SCENARIOS = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(0, 3)), st.lists(ASSUMED, max_size=2)), min_size=1, max_size=2
)
Step = tuple[Any, ...]
Key = tuple[int, str]

LASTING = {"duplicates", "without-selected", "shift", "without"}
"""Assumptions whose meaning does not depend on deliveries that are lost."""


@dataclass
class History:
    """The same steps, done in a store and in the model."""

    directory: Path
    store: Store
    model: Model = field(default_factory=Model)
    formulas: list[str] = field(default_factory=list)
    batches: list[list[Sent]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    runs: dict[str, int] = field(default_factory=dict)
    """When each was planned."""
    lost_days: set[int] = field(default_factory=set)

    def ingest(self, events: Sequence[Sent]) -> None:
        ingest(self.store, self.directory, [one.line for one in events], again=True)
        newest = max(self.store.index.batches(), key=lambda batch: batch.batch_id)
        self.model.add(len(self.batches), events, newest.recorded_at)
        self.batches.append(list(events))
        self.ids.append(newest.batch_id)

    def ingest_again(self, number: int) -> None:
        self.ingest(self.batches[number % len(self.batches)])

    def conflict(self, number: int) -> None:
        """An event comes again, with another value if it has a key."""
        one = self.model.arrivals[number % len(self.model.arrivals)].sent if self.model.arrivals else self.batches[0][0]
        self.ingest([replace(one, value=one.value + 1) if one.key else one])

    def define(self, formula: str) -> None:
        add_version(self.store.metrics, definition(formula), 1)
        if not self.formulas or self.formulas[-1] != formula:
            self.formulas.append(formula)

    def replay(self, day: int, promoted: bool) -> None:
        if day in self.lost_days or (day < 0 and self.lost_days):
            return
        window = ALL_TIME if day < 0 else Window(DAY_ONE + day * DAY, DAY_ONE + (day + 1) * DAY)
        planned = time_ns()
        try:
            run = replay(self.store, ENGINE, window, metrics=("m",))
        except NothingSelected:
            return
        self.runs[run.run_id] = planned
        if promoted:
            promote(self.store, run.run_id, 2, "")

    def promote(self, number: int) -> None:
        if self.runs:
            promote(self.store, list(self.runs)[number % len(self.runs)], 2, "")

    def rollback(self, number: int) -> None:
        if self.runs:
            rollback(self.store, list(self.runs)[number % len(self.runs)], 2, "")

    def lose(self, number: int) -> None:
        left = [one for one in self.model.arrivals if not one.lost]
        if not left:
            return
        one = left[number % len(left)]
        day = one.sent.at * 10**9 // DAY
        name = day_text((DAY_ONE + day * DAY) // DAY)
        for path in self.directory.glob(f"store/raw/event_date={name}/{self.ids[one.batch]}-*"):
            path.unlink()
        self.model.lose(one.batch, day)
        self.lost_days.add(day)

    def rebuild(self, gone: bool) -> None:
        if gone:
            for path in self.directory.glob("store/index.db*"):
                path.unlink()
            self.store = open_store(self.store.url)
        rebuild_index(self.store, SILENT)
        self.store = open_store(self.store.url)
        if gone:
            self.model.forget(time_ns())

    def value(self, key: Key, formula: str, *arguments: Any, **options: Any) -> tuple[Decimal, int]:
        window = Window(key[0], key[0] + DAY)
        return self.model.values(formula, window, (key[1],), *arguments, **options).get(key, (Decimal(0), 0))

    def expected(self, key: Key, current: Aggregate | None, as_of: int | None, assumed: list[Assumed]) -> Any:
        """The shares that are not 0, by cause, and whether they are proven."""
        right = self.formulas[-1]
        # What may hit a lost delivery and not its copy, or counts both, lets no copy count, in any state.
        selected = [one.chosen for one in assumed if one.kind in ("without-selected", "shift")]
        alike = all(one.batch is None and one.where is None for one in selected)
        known_until = None if current is None else current.known_until
        moments: list[int] | None = [one for one in (known_until, as_of) if one is not None]
        if not alike or any(one.kind == "duplicates" for one in assumed):
            moments = None
        last = self.value(key, right, as_of=as_of, moments=moments)[0]
        shares: dict[str, Decimal] = {}
        proven = None
        if current is None:
            shares[Cause.NOT_COMPUTED] = last
        else:
            known: Any = {"as_of": current.known_until, "corrected": self.runs[current.run_id], "moments": moments}
            first, inputs = self.value(key, self.formulas[current.metric_version - 1], **known)
            redefined = self.value(key, right, **known)[0]
            late = self.value(key, right, **{**known, "as_of": as_of})[0]
            proven = inputs == current.computed.inputs
            shares[Cause.LOST] = first - (current.computed.value or 0)
            shares[Cause.DEFINITION] = redefined - first
            shares[Cause.LATE], shares[Cause.VERDICT] = late - redefined, last - late
        after = self.value(key, right, as_of=as_of, assumed=assumed, moments=moments)[0]
        shares[Cause.ASSUMED] = after - last
        return {cause: share for cause, share in shares.items() if share}, proven

    def check(self, stage: int | None, given: list[Assumed]) -> None:
        """Compare explain and diff --explain with the model."""
        times = sorted({one.recorded_at for one in self.model.arrivals})
        if not times:
            return
        as_of = None if stage is None else times[stage % len(times)]
        given = [one for one in given if one.kind in LASTING or not self.lost_days]
        assumed, texts = written(self.model, given, as_of, self.ids, self.directory)
        scenario = Scenario(as_of, read_scenario(None, texts, lambda path: ()).assumptions)
        current = {
            (row.computed.bucket, row.computed.entity_id): row for row in self.store.aggregates.current("m", ALL_TIME)
        }
        keys = [(DAY_ONE + day * DAY, entity) for day in range(DAYS) for entity in ENTITIES]
        for key in keys:
            expected, proven = self.expected(key, current.get(key), as_of, assumed)
            try:
                found = explain(self.store, ENGINE, "m", key[1], key[0], scenario)
            except NothingSelected:
                assert key not in current
                assert not expected
                continue
            shares: dict[str, Decimal] = {}
            for one in found.shares:
                shares[one.cause] = shares.get(one.cause, Decimal(0)) + one.share
            assert {cause: share for cause, share in shares.items() if share} == expected, (key, texts)
            assert sum(shares.values()) == found.delta
            assert shares[Cause.UNEXPLAINED] == 0
            assert found.proven == proven
        try:
            rows: Any = list(
                diff_aggregates(
                    self.store, ENGINE, ALL_TIME, metrics=["m"], scenario=resolved(self.store, scenario)
                ).rows
            )
        except NothingSelected:
            return
        for row in explained(self.store, ENGINE, rows, resolved(self.store, scenario), metrics=["m"], together=3):
            bucket = row.difference.bucket
            if row.difference.op == Op.FAILED or (bucket - DAY_ONE) // DAY in self.lost_days:
                continue
            key = bucket, row.difference.entity_id
            if key not in keys:  # only moved there
                continue
            expected, proven = self.expected(key, current.get(key), as_of, assumed)
            assert (dict(row.shares), row.proven) == (expected, proven is not False), (key, texts)


def play(
    formula: str, events: list[Sent], steps: list[Step], scenarios: list[tuple[int | None, list[Assumed]]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        history = History(Path(directory), open_store(f"{directory}/store", create=True))
        history.define(formula)
        history.ingest(events)
        for name, *arguments in steps:
            getattr(history, name)(*arguments)
        for stage, assumed in scenarios:
            history.check(stage, assumed)


PLAYED = given(
    FORMULA,
    st.lists(SENT, min_size=1, max_size=6).map(lambda events: [replace(events[0], key="k"), *events[1:]]),
    st.builds(lambda steps, end: [*steps, *end], STEPS, ENDS),
    SCENARIOS,
)
test_shares_of_any_history_are_those_of_a_plain_model = settings(
    max_examples=5, suppress_health_check=list(HealthCheck)
)(PLAYED(play))
test_shares_of_any_history_are_those_of_a_plain_model_for_long = pytest.mark.slow(
    settings(max_examples=150, suppress_health_check=list(HealthCheck))(PLAYED(play))
)

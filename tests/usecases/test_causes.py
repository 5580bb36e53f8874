"""The causes of a whole diff are those that each of its values has alone."""

from __future__ import annotations

import random
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.model.metric import Definition
from pik.model.scenario import PLAIN, CountedDuplicates, Scenario, WithoutBatch
from pik.stores import open_store
from pik.usecases.metrics.causes import explained
from pik.usecases.metrics.chain import Cause
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.metrics.explain import explain
from pik.usecases.replay.runs import rollback
from tests.support.stores import event, ingest, replayed, window

ENGINE = DuckEngine()
DEFINITIONS = {
    "total": [f"{factor} * sum((payload->>'v')::BIGINT)" for factor in (1, 2)],
    "largest": ["max((payload->>'v')::BIGINT)", "min((payload->>'v')::BIGINT)"],
}


@pytest.mark.parametrize(("seed", "together"), [(0, 1), (1, 3), (2, 1000), (3, 2)])
def test_each_row_has_the_shares_that_explain_finds(tmp_path: Path, seed: int, together: int) -> None:
    chance = random.Random(seed)
    store = open_store(str(tmp_path / "store"), create=True)
    runs: list[str] = []
    for step in range(9):
        what = 0.0 if step == 0 else chance.random()
        if step == 0 or what > 0.85:
            for name, values in DEFINITIONS.items():
                add_version(store.metrics, Definition(name=name, value=chance.choice(values)), step)
        if what < 0.45:
            days = [f"0{chance.randrange(1, 4)}T{chance.randrange(10, 20)}:00" for _ in range(5)]
            ingest(store, tmp_path, [event(chance.randrange(9), chance.choice("abc"), day) for day in days], again=True)
        elif what < 0.75:
            runs.append(replayed(store, ENGINE, window(f"0{chance.randrange(1, 4)}")))
        elif what < 0.85 and runs:
            rollback(store, chance.choice(runs), 2, "")
    ingest(store, tmp_path, [event(9, "a", "02T09:00")], again=True)
    for scenario in (PLAIN, Scenario(None, (CountedDuplicates(),))):
        rows: Any = diff_aggregates(store, ENGINE, window(), scenario=scenario).rows
        count = 0
        for one in explained(store, ENGINE, rows, scenario, together=together):
            count += 1
            alone: dict[str, Decimal] = defaultdict(Decimal)
            difference = one.difference
            found = explain(store, ENGINE, difference.metric, difference.entity_id, difference.bucket, scenario)
            for share in found.shares:
                alone[share.cause] += share.share
            assert dict(one.shares) == {cause: share for cause, share in alone.items() if share}
            assert sum(one.shares.values()) == found.delta
            assert one.proven == (found.proven is not False)
        assert count


def test_a_value_that_cannot_be_computed_between_the_sides_leaves_the_difference_unexplained(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    add_version(store.metrics, Definition(name="total", value="count(*)"), 1)
    ingest(store, tmp_path, [event(5, "a", "02T09:00")])
    ingest(store, tmp_path, [{**event(0, "a", "02T10:00"), "payload": {"v": "not a number"}}])
    replayed(store, ENGINE)
    add_version(store.metrics, Definition(name="total", value="sum((payload->>'v')::BIGINT)"), 2)
    bad = max(store.index.batches(), key=lambda batch: batch.recorded_at).batch_id
    scenario = Scenario(None, (WithoutBatch(bad),))
    rows: Any = diff_aggregates(store, ENGINE, window(), metrics=["total"], scenario=scenario).rows
    [one] = explained(store, ENGINE, rows, scenario)
    assert (one.difference.current, one.difference.recomputed) == (Decimal(2), Decimal(5))
    assert (dict(one.shares), one.proven) == ({Cause.UNEXPLAINED: Decimal(3)}, False)

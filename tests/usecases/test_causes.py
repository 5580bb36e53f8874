"""The causes of a whole diff. test_explain_histories.py compares them with those of each value alone."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from pik.engine import DuckEngine
from pik.model.metric import Definition
from pik.model.scenario import Scenario, WithoutBatch
from pik.stores import open_store
from pik.usecases.metrics.causes import explained
from pik.usecases.metrics.chain import Cause
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.diff import diff_aggregates
from tests.support.stores import event, ingest, replayed, window

ENGINE = DuckEngine()


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

"""Promise 1 in a deployed store: an import dies behind any call of AWS, and the same command finishes it."""

from __future__ import annotations

from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest

from pik.engine import DuckEngine
from pik.inputs.source import file_source
from pik.model.instant import DAY
from pik.model.run import RunKind, RunState
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from pik.usecases.metrics.file_numbers import FileRequest
from pik.usecases.metrics.imports import import_numbers, planned_import
from pik.usecases.replay.promote import rollback
from tests.aws.test_crash import dying
from tests.support.aws.clock import later
from tests.support.aws.emulator import make_stack, publish
from tests.support.stores import FIRST, current, ingest, replayed

LEDGER = "day,customer,event_count\n2026-01-01,a,30\n2026-01-02,a,20\n2026-01-02,c,0.5\n"
OUTSIDE = {
    ("event_count", FIRST, "a"): Decimal(30),
    ("event_count", FIRST + DAY, "a"): Decimal(20),
    ("event_count", FIRST + DAY, "c"): Decimal("0.5"),
}


def take(store: Store, path: Path) -> None:
    file = FileRequest(file_source(str(path)))
    with planned_import(store, DuckEngine(), file, "event_count", ALL_TIME, created_at=1) as plan:
        if not plan.is_done:
            import_numbers(store, plan, 2)


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 9])
def test_promise_1_an_import_that_dies_after_every_call(
    aws: Clients, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    ledger = tmp_path / "ledger.csv"
    ledger.write_text(LEDGER)
    url = publish(aws, make_stack(aws))
    store = open_store(url)
    ingest(store, tmp_path)
    replayed(store, DuckEngine())
    before = current(store)
    for number in count(2, step):
        with dying(store := open_store(url), number) as die:
            take(store, ledger)
        later(monkeypatch, number)
        store = open_store(url)
        for key, value in current(store).items():
            assert value in (before.get(key), OUTSIDE.get(key, before.get(key))), f"call {number}"
        take(store, ledger)
        assert current(store) == before | OUTSIDE, f"call {number}"
        run = next(run for run in store.runs.newest_first() if run.kind == RunKind.IMPORT)
        assert (run.state, run.promoted) == (RunState.COMPLETED, 3), f"call {number}"
        assert [run for run in store.runs.newest_first() if run.is_active] == []
        assert list(store.state_audit.problems()) == [], f"call {number}"
        rollback(store, run.run_id, 3, "")
        assert current(store) == before, f"call {number}"
        if die.calls < number:
            return

"""Runs that are accepted before they are planned: what each command does with one, and that it can be resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pik.engine import DuckEngine
from pik.errors import StoreError, UsageError
from pik.model.instant import parse_instant
from pik.model.run import Run, RunRequest, RunState
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.replay.execute import Pace, execute_run
from pik.usecases.replay.planning import accepted
from pik.usecases.replay.promote import promote
from pik.usecases.replay.runs import cancel, detail
from pik.usecases.replay.wait import wait
from tests.support.stores import event, ingest

REQUEST = RunRequest(
    start=parse_instant("2026-01-30T00:00:00Z"), end=parse_instant("2026-02-01T00:00:00Z"), entities=("e",)
)
ENGINE = DuckEngine()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"), create=True)
    ingest(store, tmp_path, [event(1, "e", "31T00:00")])
    return store


@pytest.fixture
def run(store: Store) -> Run:
    run = accepted(store, REQUEST, "ana")
    assert store.runs.create(run, ())
    return run


def test_it_is_shown_and_has_not_ended(store: Store, run: Run) -> None:
    shown = detail(store, run.run_id)
    assert (shown.run, shown.driven) == (run, False)
    assert (run.state, run.is_active, run.actor) == (RunState.PLANNING, True, "ana")
    with pytest.raises(UsageError, match="is PLANNING; only a whole run is promoted"):
        promote(store, run.run_id, 1, "")
    assert list(store.state_audit.problems()) == []


def test_resuming_it_plans_it(store: Store, run: Run) -> None:
    ended = execute_run(store, ENGINE, run.run_id, Pace(workers=0), SILENT)
    assert (ended.state, ended.tasks, ended.new, ended.actor) == (RunState.COMPLETED, 1, 1, "ana")
    assert ended.created_at == run.created_at


def test_waiting_for_it_ends_where_no_process_plans_it(store: Store, run: Run) -> None:
    with pytest.raises(StoreError, match="is PLANNING, but no process is working on it") as error:
        wait(store, run.run_id, SILENT)
    assert error.value.hint == f"pik runs resume {run.run_id}"


def test_it_can_be_cancelled(store: Store, run: Run) -> None:
    assert cancel(store, run.run_id).state == RunState.CANCELLED
    with pytest.raises(UsageError, match="is CANCELLED; there is nothing to resume"):
        execute_run(store, ENGINE, run.run_id, Pace(workers=0), SILENT)

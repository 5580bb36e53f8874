"""Imported numbers in every store: promise 7, what is current and why; promise 1, whatever step it ends at."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.errors import StoreError, UsageError
from pik.inputs.source import file_source
from pik.model.instant import DAY
from pik.model.run import RunKind, RunState
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.usecases.care.verify import verify
from pik.usecases.metrics.causes import explained
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.metrics.explain import explain
from pik.usecases.metrics.file_numbers import FileRequest
from pik.usecases.metrics.imports import ImportReport, import_numbers, planned_import
from pik.usecases.replay.execute import execute_run
from pik.usecases.replay.promote import promote, rollback
from pik.usecases.replay.runs import cancel
from tests.contracts.conftest import LOCAL_FIRST
from tests.support.faults import Crash, FailAt, wrapped
from tests.support.stores import FIRST, HERE, Values, ingest, replayed, truth

LEDGER = "day,customer,event_count\n2026-01-01,a,3\n2026-01-02,a,20\n2026-01-02,c,0.5\n"
"""One number is current already, one differs, one has no events."""

OUTSIDE: Values = {
    ("event_count", FIRST + DAY, "a"): Decimal(20),
    ("event_count", FIRST + DAY, "c"): Decimal("0.5"),
}
STATE = ("runs", "aggregates", "promotions")


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.csv"
    path.write_text(LEDGER)
    return path


@pytest.fixture
def filled(store: Store, tmp_path: Path) -> Store:
    """A store with events, whose numbers are current."""
    ingest(store, tmp_path)
    replayed(store, DuckEngine())
    return store


def take(store: Store, path: Path, **options: Any) -> ImportReport | None:
    """What `pik aggregates import FILE --metric event_count --yes` does."""
    file = FileRequest(file_source(str(path)))
    with planned_import(store, DuckEngine(), file, "event_count", ALL_TIME, created_at=1, **options) as plan:
        return None if plan.is_done else import_numbers(store, plan, 2)


def counts(store: Store) -> Values:
    """The current counts, and that each of them is as it was written."""
    rows = list(store.aggregates.current("event_count", ALL_TIME, checked=True))
    assert all(row.sound for row in rows)
    return {("event_count", row.computed.bucket, row.computed.entity_id): row.computed.value for row in rows}


def expected() -> Values:
    return {key: value for key, value in truth().items() if key[0] == "event_count"}


def test_promise_7_an_import_has_the_digest_of_its_file_instead_of_inputs(filled: Store, ledger: Path) -> None:
    report = take(filled, ledger, reason="the ledger is right", actor="ana")
    assert report is not None
    run = report.run
    assert (run.kind, run.state, run.new, run.changed, run.unchanged, run.promoted) == (
        RunKind.IMPORT,
        RunState.COMPLETED,
        1,
        1,
        0,
        2,
    )
    assert counts(filled) == expected() | OUTSIDE
    digest = sha256(LEDGER.encode()).hexdigest()
    found = {row.computed.entity_id: row for row in filled.aggregates.current("event_count", ALL_TIME, ["a", "c"])}
    assert (found["c"].file_digest, found["c"].computed.inputs, found["c"].known_until) == (digest, None, 0)
    assert (found["c"].reason, found["c"].actor, found["c"].run_id) == ("the ledger is right", "ana", run.run_id)
    assert filled.runs.get(run.run_id).request.file == run.request.file
    assert list(filled.state_audit.problems()) == []
    assert take(filled, ledger) is None
    assert len(list(filled.runs.newest_first())) == 2


def test_verify_diff_and_explain_agree_on_what_was_imported(filled: Store, ledger: Path) -> None:
    take(filled, ledger)
    engine = DuckEngine()
    problems = verify(filled, engine, ALL_TIME, SILENT)
    assert list(problems) == []
    assert [(one.metric, one.values, one.name) for one in problems.summary.not_provable] == [
        ("event_count", 2, str(ledger))
    ]
    diff = diff_aggregates(filled, engine, ALL_TIME, metrics=["event_count"])
    rows = list(explained(filled, engine, diff.rows, metrics=["event_count"]))
    assert [(row.difference.entity_id, row.difference.inputs_before, dict(row.shares), row.proven) for row in rows] == [
        ("a", None, {"imported": Decimal(-18)}, False),
        ("c", None, {"imported": Decimal("-0.5")}, False),
    ]
    for row in rows:
        found = explain(filled, engine, "event_count", row.difference.entity_id, FIRST + DAY)
        assert {one.cause: one.share for one in found.shares if one.share} == row.shares
        assert found.delta == sum(one.share for one in found.shares)


def test_a_replay_over_imported_values_and_back(filled: Store, ledger: Path) -> None:
    report = take(filled, ledger)
    assert report is not None
    run_id = replayed(filled, DuckEngine())
    replay = filled.runs.get(run_id)
    assert (replay.changed, replay.removed) == (1, 1)
    gone: Values = {("event_count", FIRST + DAY, "c"): None}
    assert counts(filled) == expected() | gone
    rollback(filled, run_id, 3, "")
    assert counts(filled) == expected() | OUTSIDE
    rollback(filled, report.run.run_id, 4, "")
    assert counts(filled) == expected()
    assert list(filled.state_audit.problems()) == []


@pytest.mark.parametrize("kind", LOCAL_FIRST)  # tests/aws/test_import.py ends it after every call
def test_promise_1_an_import_that_ends_at_any_step_is_finished_by_the_same_command(filled: Store, ledger: Path) -> None:
    counting = FailAt(0)
    report = take(wrapped(filled, counting, *STATE), ledger)
    assert report is not None
    rollback(filled, report.run.run_id, 3, "")
    assert counting.calls == [
        *("runs.create", "runs.set_state", "aggregates.write", "runs.mark", "promotions.promote", "runs.set_state")
    ]
    for number, step in enumerate(counting.calls, 1):
        for after in (False, True):
            with suppress(Crash):
                take(wrapped(filled, FailAt(number, after=after), *STATE), ledger)
            is_current = (number, after) > (5, False)
            assert counts(filled) == (expected() | OUTSIDE if is_current else expected()), (step, after)
            begun = [run.run_id for run in filled.runs.newest_first() if run.is_active]
            again = take(filled, ledger)
            assert (again is None) == ((number, after) == (6, True))
            assert counts(filled) == expected() | OUTSIDE, (step, after)
            run = next(filled.runs.newest_first())
            assert (run.state, run.promoted) == (RunState.COMPLETED, 2), (step, after)
            assert begun in ([], [run.run_id])
            assert take(filled, ledger) is None
            rollback(filled, run.run_id, 3, "")
    assert list(filled.state_audit.problems()) == []


def interrupted(store: Store, ledger: Path) -> str:
    """An import that was written and not promoted."""
    with suppress(Crash):
        take(wrapped(store, FailAt(5), *STATE), ledger)
    [run] = [run for run in store.runs.newest_first() if run.is_active]
    return run.run_id


def test_an_interrupted_import_is_neither_resumed_nor_promoted_but_can_be_cancelled(
    filled: Store, ledger: Path
) -> None:
    run_id = interrupted(filled, ledger)
    with pytest.raises(UsageError, match="is an import, and RUNNING") as refused:
        execute_run(filled, DuckEngine(), run_id, HERE, SILENT)
    assert f"pik aggregates import {ledger} --metric event_count" in refused.value.hint
    with pytest.raises(UsageError, match="only a whole run is promoted"):
        promote(filled, run_id, 3, "")
    assert cancel(filled, run_id).state == RunState.CANCELLED
    with pytest.raises(UsageError, match="was cancelled"):
        promote(filled, run_id, 3, "")
    assert counts(filled) == expected()
    report = take(filled, ledger)
    assert report is not None
    assert report.run.run_id != run_id
    assert counts(filled) == expected() | OUTSIDE
    assert list(filled.state_audit.problems()) == []


def test_an_import_that_is_cancelled_meanwhile_makes_nothing_current(filled: Store, ledger: Path) -> None:
    def cancelling(name: str, call: Callable[[], Any]) -> Any:
        done = call()
        if name == "runs.mark":
            [run] = [run for run in filled.runs.newest_first() if run.is_active]
            filled.runs.set_state(run.run_id, RunState.CANCELLED, 3)
        return done

    with pytest.raises(StoreError, match="was cancelled, and none of its values became current"):
        take(wrapped(filled, cancelling, *STATE), ledger)
    assert counts(filled) == expected()


def test_a_value_that_changes_between_plan_and_promotion_is_a_conflict_and_stays(filled: Store, ledger: Path) -> None:
    other = ledger.with_name("other.csv")
    other.write_text("day,customer,event_count\n2026-01-02,a,7\n")

    def overtaking(name: str, call: Callable[[], Any]) -> Any:
        if name == "promotions.promote":
            take(filled, other)
        return call()

    report = take(wrapped(filled, overtaking, *STATE), ledger)
    assert report is not None
    assert (report.moved.moved, report.moved.conflicts) == (1, 1)
    assert counts(filled) == expected() | OUTSIDE | {("event_count", FIRST + DAY, "a"): Decimal(7)}
    again = take(filled, ledger)
    assert again is not None
    assert (again.moved.moved, again.moved.conflicts) == (1, 0)
    assert counts(filled) == expected() | OUTSIDE

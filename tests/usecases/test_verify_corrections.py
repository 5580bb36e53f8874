"""What verify says of corrections, their lists, and the values that were computed with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pik.engine import DuckEngine
from pik.model.correction import Correction
from pik.model.instant import DAY
from pik.model.window import ALL_TIME
from pik.ports.raw import RawKey, RawKind
from pik.ports.store import Store
from pik.rawlog.corrections import record
from pik.runtime import SILENT
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_findings import Problem, ProblemKind, VerifyReport, depth_of
from tests.support.contracts.harm import correction_of
from tests.support.corrections import moved
from tests.support.stores import PlainEngine, replayed, truth, window

pytestmark = pytest.mark.usefixtures("filled")


def checked(store: Store, *, full: bool = True) -> tuple[list[Problem], VerifyReport]:
    answer = verify(store, PlainEngine(), ALL_TIME, SILENT, depth_of(quick=not full, full=full))
    return list(answer), answer.summary


@pytest.fixture
def correction(store: Store) -> Correction:
    """It lists two deliveries of two days, and a run has computed all values since."""
    (made,) = record(store, [correction_of(store)])
    replayed(store, PlainEngine())
    return made


def gone(path: Path) -> None:
    path.unlink()


def flipped(path: Path) -> None:
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:30] + bytes([data[30] ^ 1]) + data[31:])


def cut(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])


HARMS = [(gone, ProblemKind.MISSING), (flipped, ProblemKind.MODIFIED), (cut, ProblemKind.MODIFIED)]


def test_whole_corrections_are_no_problem(store: Store, correction: Correction) -> None:
    for full in (True, False):
        problems, report = checked(store, full=full)
        assert (problems, report.unacknowledged) == ([], 0)
    assert correction.lists


@pytest.mark.parametrize(("harm", "kind"), HARMS)
def test_a_lost_or_damaged_list_is_named_with_the_values_under_it(
    store: Store, correction: Correction, harm: Callable[[Path], None], kind: ProblemKind
) -> None:
    listed = correction.lists[0]
    harm(Path(store.url) / listed.key)
    problems, report = checked(store)
    problem, *values = [one for one in problems if one.kind is not ProblemKind.UNCERTAIN]
    others = [one for one in problems if one.kind is ProblemKind.UNCERTAIN]
    entity, date = listed.frames[0].first, RawKey.of(listed.key).day
    assert (problem.kind, problem.what, problem.entities) == (kind, listed.key, (entity,))
    assert "it lists 1 delivery that happened from " in problem.detail
    assert "according to shift=+1s by ana (INC-1" in problem.detail
    assert "values that were computed with it cannot be proven" in problem.detail
    expected = [metric for metric, bucket, name in sorted(truth()) if (name, bucket // DAY) == (entity, date)]
    assert sorted(one.what.split()[0] for one in values) == expected
    assert {(one.kind, one.entities, one.day) for one in values} == {(ProblemKind.UNPROVEN, (entity,), problem.day)}
    assert all(correction.correction_id in one.detail for one in values)
    unchecked = [metric for metric, bucket, name in truth() if name != entity and bucket // DAY == date]
    assert [one.what for one in others] == list(dict.fromkeys(sorted(unchecked, reverse=True)))
    assert sum(int(one.detail.split()[0]) for one in others) == len(unchecked)
    assert (report.damage, report.unproven) == (1, len(values))
    assert report.kinds == {kind}
    assert report.proven == (report.aggregates or 0) - len(values)


@pytest.mark.parametrize(("harm", "kind"), HARMS)
def test_a_lost_or_damaged_correction_is_named_with_all_values_of_its_days(
    store: Store, correction: Correction, harm: Callable[[Path], None], kind: ProblemKind
) -> None:
    key = RawKind.CORRECTION.key(correction.correction_id)
    harm(Path(store.url) / key)
    problem, *values = checked(store)[0]
    assert (problem.kind, problem.what) == (kind, key)
    days = {one.day for one in correction.lists}
    assert "shift=+1s by ana (INC-1, 2 events received on " in problem.detail
    assert len(values) == sum(bucket // DAY in days for _, bucket, _ in truth()) > 3
    assert {one.kind for one in values} == {ProblemKind.UNPROVEN}
    if kind is ProblemKind.MISSING:
        assert [(one.kind, one.what) for one in checked(store, full=False)[0]] == [(kind, key)]


def test_values_from_before_a_lost_correction_are_not_under_it(store: Store) -> None:
    replayed(store, PlainEngine())
    (made,) = record(store, [correction_of(store)])
    gone(Path(store.url) / made.lists[0].key)
    problem, *others = checked(store)[0]
    assert problem.what == made.lists[0].key
    assert {one.kind for one in others} == {ProblemKind.UNCERTAIN}


def test_lists_without_a_correction_are_left_by_a_crash_and_no_problem(store: Store) -> None:
    made = correction_of(store)
    problems, report = checked(store)
    assert (problems, report.unacknowledged) == ([], len(made.lists))


def test_a_correction_that_the_index_does_not_follow_is_a_problem_unless_it_is_being_recorded(
    store: Store, correction: Correction, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.index.database.write() as connection:  # type: ignore[attr-defined]
        connection.execute("DELETE FROM correction")
    problems, report = checked(store)
    assert (problems, report.in_progress) == ([], 1)
    monkeypatch.setattr("pik.usecases.care.verify_corrections.RECENT", 0)
    (problem,), report = checked(store)
    key = RawKind.CORRECTION.key(correction.correction_id)
    assert (problem.kind, problem.what) == (ProblemKind.INDEX, key)
    assert "the index does not follow shift=+1s by ana" in problem.detail


def test_an_index_whose_rows_of_corrections_are_damaged_is_a_problem(store: Store, correction: Correction) -> None:
    with store.index.database.write() as connection:  # type: ignore[attr-defined]
        connection.execute("UPDATE correction SET header = substr(header, 2)")
    assert correction.correction_id
    (problem,), report = checked(store)
    assert report.aggregates is None
    assert (problem.kind, problem.what) == (ProblemKind.INDEX, "the corrections that the index follows")


def test_values_that_deliveries_moved_into_are_under_the_list_that_moved_them(store: Store) -> None:
    engine = DuckEngine()
    made = moved(store, "02", "09", entity="b")
    replayed(store, engine)
    assert list(verify(store, engine, ALL_TIME, SILENT)) == []
    gone(Path(store.url) / made.lists[0].key)
    problem, *values = verify(store, engine, ALL_TIME, SILENT)
    assert problem.what == made.lists[0].key
    under = {(one.day, one.entities, one.what.split()[0]) for one in values if one.kind is ProblemKind.UNPROVEN}
    assert under == {("2026-01-09", ("b",), "event_count")}
    elsewhere = verify(store, engine, window("20", "21"), SILENT)
    assert list(elsewhere) == []
    assert elsewhere.summary.proven

"""A generated month with every kind of fault: triage and explain name those that were planted and no other, and their
figures are those of an independent computation, to the last decimal."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from pik.__main__ import main
from pik.runtime import SILENT
from pik.usecases.care.triage import CHECKS, Triage, triage
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_findings import ProblemKind
from pik.usecases.metrics.causes import explained
from pik.usecases.metrics.comparison import Op
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.metrics.disputed import disputes
from pik.usecases.metrics.explain import explain
from pik.usecases.metrics.passed_over import passed_over
from tests.support.month import month as faults
from tests.support.month.events import ENTITIES
from tests.support.month.month import ENGINE, WINDOW, Month, clean, days, faulty, planted
from tests.support.month.truth import ZERO, Key

pytestmark = pytest.mark.xdist_group("month")  # which takes long, and is made once for each process

STATISTICAL = {"suspects", "skew", "gaps"}
SUMS = {"event_count", "revenue"}
SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))]


@pytest.fixture(scope="module", params=SEEDS)
def month(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Month:
    """With every fault that leaves raw whole."""
    return faulty(tmp_path_factory.mktemp("month"), request.param)


@pytest.fixture(scope="module")
def found(month: Month) -> Triage:
    return triage(month.store, ENGINE, WINDOW)


@pytest.fixture(scope="module")
def broken(month: Month, tmp_path_factory: pytest.TempPathFactory) -> Month:
    """The same, and some raw is lost, some damaged."""
    made = month.copied(tmp_path_factory.mktemp("broken"))
    faults.lost(made)
    faults.damaged(made)
    faults.late_and_damaged(made)
    return made


def named(found: Triage) -> set[tuple[str, str, str, str]]:
    return {one.identity for one in found.findings if one.check not in STATISTICAL}


def expect_statistical(month: Month, found: Triage) -> None:
    statistical = {(one.check, one.cause, one.scope) for one in found.findings if one.check in STATISTICAL}
    assert month.statistical - statistical == set()


def test_triage_names_each_planted_fault_and_no_other(month: Month, found: Triage) -> None:
    assert named(found) == planted(month)
    expect_statistical(month, found)
    assert not any(one.failure for one in found.checks)
    kinds = {"late events", "old definitions", "promotions", "conflicts", "rejects"}
    assert {one.check for one in found.findings} == kinds | STATISTICAL
    moves = {one.cause for one in found.findings if one.check == "promotions"}
    assert moves == {"rolled back", "promoted in part"}


def test_triage_names_lost_and_damaged_raw_as_well_and_looks_at_the_rest(broken: Month) -> None:
    found = triage(broken.store, ENGINE, WINDOW)
    assert named(found) == planted(broken)
    expect_statistical(broken, found)
    incomplete = {one.check for one in found.checks if one.failure}
    assert incomplete >= {"conflicts", *STATISTICAL}


def test_triage_of_an_entity_names_what_concerns_it(month: Month) -> None:
    for entity in ENTITIES[:2]:
        found = triage(month.store, ENGINE, WINDOW, [entity])
        assert named(found) == planted(month, entity)


def test_a_second_triage_finds_nothing_that_the_first_did_not(month: Month, found: Triage) -> None:
    again = triage(month.store, ENGINE, WINDOW, baseline=[one.identity for one in found.findings])
    assert (again.findings, again.known) == ((), found.findings)


def expect_shares(month: Month) -> None:
    shares = month.truth.shares()
    seen: set[Key] = set()
    for one in explained(month.store, ENGINE, diff_aggregates(month.store, ENGINE, WINDOW).rows):
        row = one.difference
        key = row.metric, row.bucket, row.entity_id
        if row.op == Op.FAILED:
            assert row.failure is not None
            assert row.failure.damage
            continue
        seen.add(key)
        right = shares[key]
        assert (row.current, row.recomputed) == (right.current, right.right), key
        assert {str(cause): share for cause, share in one.shares.items()} == right.causes, key
        assert one.late == right.late
        assert one.proven
    readable = {key for key in shares if not month.truth.unreadable(key)}
    assert seen == {key for key in readable if shares[key].current != shares[key].right}


def test_the_right_numbers_and_the_shares_are_those_of_the_independent_computation(month: Month, broken: Month) -> None:
    expect_shares(month)
    expect_shares(broken)


def test_what_a_finding_moves_is_the_sum_over_its_values(month: Month, found: Triage) -> None:
    sums: dict[tuple[str, str], Decimal] = {}
    moved: dict[tuple[str, str], int] = {}
    late: dict[str, int] = {}
    for (metric, _, _), one in month.truth.shares().items():
        for cause, share in one.causes.items():
            moved[metric, cause] = moved.get((metric, cause), 0) + 1
            sums[metric, cause] = sums.get((metric, cause), ZERO) + share
            late[metric] = late.get(metric, 0) + (one.late if cause == "late" else 0)
    causes = [one for one in found.findings if (one.metric, one.cause) in sums]
    assert len(causes) == len(sums)
    for finding in causes:
        adds_up = finding.metric in SUMS or moved[finding.metric, finding.cause] == 1
        assert finding.delta == (sums[finding.metric, finding.cause] if adds_up else None)
        if finding.check == "late events":
            assert finding.events == late[finding.metric]
    behind = month.truth.left_behind()
    for finding in found.findings:
        if finding.check == "promotions":
            values, delta = behind[finding.metric, finding.cause, finding.scope]
            assert finding.buckets == values
            assert finding.delta == (delta if values == 1 or finding.metric in SUMS else None)


def test_explain_has_the_same_shares_also_where_raw_is_lost(broken: Month) -> None:
    shares, chance = broken.truth.shares(), broken.producer.chance
    unreadable = sorted(key for key in shares if broken.truth.unreadable(key) and shares[key].causes)
    different = sorted(key for key in shares if not broken.truth.unreadable(key) and shares[key].causes)
    for key in [*chance.sample(unreadable, min(6, len(unreadable))), *chance.sample(different, 6)]:
        metric, bucket, entity = key
        explanation = explain(broken.store, ENGINE, metric, entity, bucket)
        assert {str(one.cause): one.share for one in explanation.shares if one.share} == shares[key].causes, key


def test_explain_names_the_conflicts_and_suspects_that_would_change_the_value_and_no_others(month: Month) -> None:
    truth, shares, seen = month.truth, month.truth.shares(), set[str]()
    changed = [
        key
        for key, one in sorted(shares.items())
        if any((truth.otherwise(key, kind) or ZERO) != (one.right or ZERO) for kind in ("conflicts", "suspects"))
    ]
    for metric, bucket, entity in [*month.producer.chance.sample(changed, 8), *sorted(shares)[:2]]:
        key = metric, bucket, entity
        found = disputes(month.store, ENGINE, explain(month.store, ENGINE, metric, entity, bucket))
        right = shares[key].right or ZERO
        expected = {kind: truth.otherwise(key, kind) for kind in ("conflicts", "suspects")}
        assert {one.kind: one.value for one in found} == {
            kind: value for kind, value in expected.items() if (value or ZERO) != right
        }, key
        assert all(one.delta == (one.value or ZERO) - right for one in found)
        seen |= {one.kind for one in found}
    assert seen == {"conflicts", "suspects"}


def test_explain_names_the_run_whose_value_is_nearer_to_the_right_one(month: Month) -> None:
    shares = month.truth.shares()
    different = sorted(key for key, one in shares.items() if (one.current or ZERO) != (one.right or ZERO))
    nearer = {key: month.truth.nearer(key, shares[key]) for key in different}
    kinds = ("rolled back", "promoted in part", None)
    some = [[key for key in different if (nearer[key] or (None,))[0] == kind] for kind in kinds]
    for key in (key for keys in some for key in keys[:2]):
        metric, bucket, entity = key
        found = passed_over(month.store, explain(month.store, ENGINE, metric, entity, bucket))
        expected = nearer[key]
        assert (found and (found.what, found.run_id)) == expected, key
        if found is not None:
            assert found.value == month.truth.versions[key][found.run_id].value
    assert all(some)


def test_explain_says_what_cannot_be_read_and_never_more_of_the_right_value_than_follows(broken: Month) -> None:
    truth, right = broken.truth, {key: one.right for key, one in broken.truth.whole().shares().items()}
    keys = sorted(key for key in right if truth.unread(key))
    readable = sorted(key for key in right if not truth.unreadable(key))
    assert any(key in truth.current and truth.unread(key, truth.known(key)) == truth.unread(key) for key in keys)
    for key in [*broken.producer.chance.sample(keys, min(16, len(keys))), *readable[:2]]:
        metric, bucket, entity = key
        found = explain(broken.store, ENGINE, metric, entity, bucket)
        unread, since = truth.unread(key), truth.unread(key, truth.known(key))
        assert found.is_complete == (not unread), key
        if not unread:
            continue
        assert not any(one.proven for one in found.shares)
        assert (found.unread.events() or 0) >= unread
        if key in truth.current:
            assert since <= (found.unread_since or 0) <= (found.unread.events() or 0)
            assert found.proven == (unread == since)
        lowest, highest = found.bounds
        assert lowest is None or lowest <= (right[key] or ZERO), key
        assert highest is None or highest >= (right[key] or ZERO), key
        assert (lowest is None) == (metric == "revenue")
        assert (highest is None) == (metric in ("revenue", "largest"))


def test_verify_names_each_value_that_lacks_what_was_recorded_since_and_is_lost(broken: Month) -> None:
    truth = broken.truth
    problems = verify(broken.store, ENGINE, WINDOW, SILENT)
    values = [one.value for one in problems if one.kind == ProblemKind.INCOMPLETE]
    found = {(one.metric, one.bucket, one.entity_id): one.candidates for one in values if one is not None}
    assert problems.summary.incomplete == len(values) == len(found)
    assert problems.summary.damage == len(truth.lost)
    lacking = {key: truth.unread(key, truth.known(key)) for key in truth.current}
    assert found.keys() >= {key for key, events in lacking.items() if events}
    for key, candidates in found.items():
        assert candidates >= lacking[key]
        explanation = explain(broken.store, ENGINE, key[0], key[2], key[1])
        assert (explanation.is_complete, explanation.unread_since) == (False, candidates)


def test_the_command_of_each_finding_shows_it(
    month: Month, found: Triage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: set[tuple[str, str]] = set()
    for one in found.findings:
        if (one.check, one.cause) not in shown:
            shown.add((one.check, one.cause))
            words = shlex.split(one.command)
            monkeypatch.setattr(sys, "argv", [words[0], "--store", str(month.directory / "store"), *words[1:]])
            assert main() in (0, 1), one.command
            shows = one.metric if one.check == "promotions" else one.scope or one.metric
            assert shows in capsys.readouterr().out, one.command


def test_a_clean_month_has_no_finding(tmp_path: Path) -> None:
    found = triage(clean(tmp_path, 1).store, ENGINE, WINDOW)
    assert found.findings == ()
    assert [one.check for one in found.checks] == list(CHECKS)
    assert not any(one.failure for one in found.checks)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Month:
    return clean(tmp_path_factory.mktemp("sound"), 5)


ALONE: dict[str, tuple[Callable[[Month], object], set[str]]] = {
    "late": (lambda month: faults.late(month, (1, 31), 20), {"late events"}),
    "doubled": (faults.doubled, set()),
    "conflicting": (faults.conflicting, {"conflicts"}),
    "old definition": (lambda month: faults.old_definition(month, (4, 9)), {"old definitions"}),
    "wrong rollback": (
        lambda month: faults.wrong_rollback(month, days(month.producer.chance, 7)),
        {"late events", "promotions"},
    ),
    "partial promotion": (
        lambda month: faults.partial_promotion(month, days(month.producer.chance, 6)),
        {"late events", "promotions"},
    ),
    "lost": (faults.lost, {"differences", "damage"}),
    "damaged": (faults.damaged, {"differences", "damage"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ALONE)
def test_a_fault_alone_is_named_alone(sound: Month, tmp_path: Path, fault: str) -> None:
    month = sound.copied(tmp_path)
    plant, checks = ALONE[fault]
    plant(month)
    found = triage(month.store, ENGINE, WINDOW)
    assert named(found) == planted(month)
    assert {one.check for one in found.findings} - STATISTICAL == checks
    expect_shares(month)

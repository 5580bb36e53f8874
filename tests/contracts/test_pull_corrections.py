"""What a pull brings of corrections, and what it needs for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pik.engine import DuckEngine
from pik.errors import UsageError
from pik.model.assumption_text import read_scenario
from pik.model.correction import Correction, CorrectionKind
from pik.model.instant import DAY, parse_instant
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.corrections import read_list, record, with_frames
from pik.runtime import SILENT
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify_findings import ProblemKind
from pik.usecases.correct.plan import plan_correction
from pik.usecases.correct.revoke import plan_revocation
from pik.usecases.metrics.diff import diff_aggregates
from tests.support.contracts.pulling import pulled, sound
from tests.support.contracts.pulling import record as ingested
from tests.support.corrections import moved
from tests.support.stores import event, replayed, window

pytestmark = pytest.mark.parametrize("kind", ["local", pytest.param("aws", marks=pytest.mark.slow)])


@pytest.fixture
def source(store: Store, tmp_path: Path) -> Store:
    """A batch per day, with an event of `a` and one of `b`."""
    for day in ("01", "03", "05"):
        ingested(store, tmp_path, day, [event(1, "a", f"{day}T01:00"), event(2, "b", f"{day}T02:00")])
    return store


def segment_days(store: Store) -> list[int]:
    return sorted(segment.day for segment in store.index.segments(ALL_TIME))


def day(text: str) -> int:
    return parse_instant(f"2026-01-{text}T00:00:00Z") // DAY


def lists(store: Store) -> Iterator[str]:
    return (found.key for found in store.raw.objects("corrections/") if found.key.count("/") == 2)


def test_a_copy_has_all_corrections_the_lists_of_its_window_and_the_days_from_which_deliveries_came(
    source: Store, tmp_path: Path
) -> None:
    into, out, elsewhere = moved(source, "01", "03"), moved(source, "03", "05"), moved(source, "05", "06")
    chosen = moved(source, "05", "05", CorrectionKind.CONFLICTS)
    taken_out = moved(source, "05", "05", CorrectionKind.WITHOUT, entity="b")
    (revoked,) = record(
        source,
        [
            Correction(
                format=0,
                correction_id="",
                kind=CorrectionKind.REVOCATION,
                recorded_at=0,
                reason="no",
                events=0,
                revokes=elsewhere.correction_id,
            )
        ],
    )
    copy, report = pulled(source, tmp_path / "copy", window("03", "04"))
    assert report.problems == ()
    assert list(copy.corrections.recorded()) == list(source.corrections.recorded())
    assert copy.corrections.recorded()[-1].revokes == revoked.revokes
    assert sorted(lists(copy)) == sorted(one.lists[0].key for one in (into, out, chosen, taken_out))
    assert segment_days(copy) == [day("01"), day("03")]
    for one in (into, out):
        (listed,) = with_frames(copy.raw, one).lists
        assert list(read_list(copy.raw, listed)) == list(read_list(source.raw, listed))
    sound(copy)
    rebuild_index(copy, SILENT)
    assert list(copy.corrections.recorded()) == list(source.corrections.recorded())
    sound(copy)


def test_a_copy_computes_the_corrected_values_of_its_source(source: Store, tmp_path: Path) -> None:
    replayed(source, DuckEngine())
    moved(source, "01", "03")
    moved(source, "03", "05", entity="b")
    moved(source, "05", "06")  # whose list the copy does not need
    copy, _ = pulled(source, tmp_path / "copy", window("03", "04"))
    sound(copy)
    mine, theirs = (list(diff_aggregates(one, DuckEngine(), window("03", "04")).rows) for one in (copy, source))
    assert mine == theirs
    assert {row.entity_id: int(row.recomputed or 0) for row in mine} == {"a": 2, "b": 0}


def test_a_copy_is_not_corrected_and_its_source_is_named(source: Store, tmp_path: Path) -> None:
    made = moved(source, "01", "03")
    copy, _ = pulled(source, tmp_path / "copy")
    [assumption] = read_scenario(None, ["shift=1h,entity=a"], lambda path: ()).assumptions
    with pytest.raises(UsageError, match=f"is a copy of {source.url}; a correction belongs to that store") as error:
        plan_correction(copy, DuckEngine(), [assumption])
    assert source.url in error.value.hint
    with pytest.raises(UsageError, match=f"is a copy of {source.url}"):
        plan_revocation(copy, DuckEngine(), made.correction_id)


def test_an_entity_brings_only_what_moved_of_it(source: Store, tmp_path: Path) -> None:
    moved(source, "01", "03")
    copy, _ = pulled(source, tmp_path / "copy", window("03", "04"), ["b"])
    assert segment_days(copy) == [day("03")]
    sound(copy)


def test_the_next_pull_brings_what_was_recorded_since_for_all_parts_of_the_copy(source: Store, tmp_path: Path) -> None:
    pulled(source, tmp_path / "copy", window("03", "04"))
    made = moved(source, "01", "03")
    copy, report = pulled(source, tmp_path / "copy", window("05", "06"))
    assert report.changed
    assert [one.correction_id for one in copy.corrections.recorded()] == [made.correction_id]
    assert segment_days(copy) == [day("01"), day("03"), day("05")]
    sound(copy)
    assert not pulled(source, tmp_path / "copy", window("05", "06"))[1].changed


def test_a_correction_or_a_list_that_is_lost_in_the_source_is_a_problem(source: Store, tmp_path: Path) -> None:
    if source.deployed:
        pytest.skip("the files of a directory are removed here")
    made = moved(source, "01", "03")
    key = made.lists[0].key
    (Path(source.url) / key).unlink()
    _, report = pulled(source, tmp_path / "copy", window("03", "04"))
    assert {(one.kind, one.what) for one in report.problems} == {(ProblemKind.MISSING, key)}
    header = next(found.key for found in source.raw.objects("corrections/"))
    (Path(source.url) / header).unlink()
    _, report = pulled(source, tmp_path / "other", window("03", "04"))
    assert [one.what for one in report.problems] == [header]

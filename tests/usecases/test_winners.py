"""A rebuild that changes which delivery of an event counts leaves a record, and what is asked about before sees it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.errors import NothingSelected
from pik.model.delivery import Filter
from pik.model.instant import format_instant
from pik.model.metric import Definition
from pik.model.scenario import PLAIN, CountedDuplicates, Scenario, Without, WithoutBatch
from pik.ports.store import Store
from pik.rawlog.corrections import correction_keys, read_correction
from pik.rawlog.deliveries import deliveries
from pik.runtime import SILENT
from pik.stores import open_copy, open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.triage import triage
from pik.usecases.care.verify import verify
from pik.usecases.correct.plan import plan_correction, record_correction
from pik.usecases.inspect.not_counted import CurrentValues, Reason
from pik.usecases.metrics.causes import explained
from pik.usecases.metrics.chain import Cause
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.metrics.explain import explain
from pik.usecases.metrics.explain_events import events_behind
from pik.usecases.metrics.explanation import Explanation
from pik.usecases.pull.pull import PullRequest, pull
from tests.support.stores import FIRST, event, ingest, replayed, window

ENGINE = DuckEngine(threads=1)
TOTAL = Definition(name="total", value="sum((payload->>'v')::BIGINT)")


def keyed(value: int, key: str = "k", at: str = "01T01:00") -> dict[str, Any]:
    return {**event(value, "a", at), "idempotency_key": key}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """k counts with 1, then 2 came for it; l counts with 8 and came again; all of it is current."""
    made = open_store(str(tmp_path / "store"), create=True)
    add_version(made.metrics, TOTAL, 1)
    ingest(made, tmp_path, [keyed(1), keyed(8, "l")])
    ingest(made, tmp_path, [keyed(2), keyed(8, "l")])
    replayed(made, ENGINE)
    return made


def first_segment(store: Store) -> Path:
    oldest = min(store.index.segments(window()), key=lambda segment: segment.recorded_at)
    return Path(store.url) / oldest.key


def rebuilt(store: Store, *, gone: bool = True, actor: str = "ana") -> Store:
    """Rebuild from raw alone, or with what the old index has."""
    if gone:
        for name in ("index.db", "index.db-wal", "index.db-shm"):
            (Path(store.url) / name).unlink(missing_ok=True)
    store = open_store(store.url)
    rebuild_index(store, SILENT, actor)
    return open_store(store.url)


def shares(found: Explanation) -> Any:
    assert sum(one.share for one in found.shares) == found.delta
    return {f"{one.cause}": int(one.share) for one in found.shares}


def lost(store: Store) -> Store:
    """The first batch's record and object are gone, and the index too."""
    batch_id = min(batch.batch_id for batch in store.index.batches())
    first_segment(store).unlink()
    (Path(store.url) / f"raw/batches/{batch_id}.ndjson.zst").unlink()
    return rebuilt(store)


def test_promise_3_a_winner_that_a_rebuild_changed_has_a_share_with_the_record(store: Store) -> None:
    store = lost(store)
    found = explain(store, ENGINE, "total", "a", FIRST, events=True)
    # What counted is lost: 1 for good; 8 came again, and that stands for it.
    assert shares(found) == {"lost": -1, "verdict": 2, "unexplained": 0}
    [key] = correction_keys(store.raw)
    head = read_correction(store.raw, key)
    [verdict] = [one for one in found.shares if one.cause == Cause.VERDICT]
    assert head.correction_id in verdict.detail
    assert "by ana" in verdict.detail
    assert "1 event counts" in verdict.detail
    [behind] = [one for one in events_behind(store, found) if one.cause == Cause.VERDICT]
    assert (behind.change.before, behind.change.after, behind.delivery and bytes(behind.delivery.payload)) == (
        False,
        True,
        b'{"v": 2}',
    )


def flipped(store: Store) -> None:
    """Bits of the index flip: the later delivery of k counts. The record of its batch says otherwise."""
    with store.index.database.write() as connection:  # type: ignore[attr-defined]
        (later,) = connection.execute("SELECT max(number) FROM segment").fetchone()
        row = connection.execute("SELECT event_id, content_hash, seq FROM keyed_event ORDER BY seq LIMIT 1").fetchone()
        event_id, content, seq = row
        (other,) = connection.execute("SELECT content_hash FROM duplicate WHERE event_id = ?", (event_id,)).fetchone()
        connection.execute(
            "UPDATE keyed_event SET segment = ?, content_hash = ? WHERE event_id = ?", (later, other, event_id)
        )
        connection.execute(
            "UPDATE duplicate SET segment = ?, content_hash = ? WHERE event_id = ?", (later - 1, content, event_id)
        )
        assert seq == 1


def explained_alike(store: Store, found: Explanation, scenario: Scenario = PLAIN) -> None:
    """The row of the diff has the same shares."""
    rows = diff_aggregates(store, ENGINE, window(), metrics=["total"], scenario=scenario).rows
    found_rows = list(explained(store, ENGINE, rows, scenario, metrics=["total"]))
    if not found.delta:
        assert found_rows == []
        return
    [row] = found_rows
    alone: dict[str, Decimal] = {}
    for one in found.shares:
        alone[one.cause] = alone.get(one.cause, Decimal(0)) + one.share
    assert dict(row.shares) == {cause: share for cause, share in alone.items() if share}
    assert row.proven == found.proven


def test_a_value_of_a_flipped_index_differs_by_its_verdict_and_is_proven(store: Store, tmp_path: Path) -> None:
    before = explain(store, ENGINE, "total", "a", FIRST)
    assert (shares(before), before.proven) == ({"unexplained": 0}, True)
    flipped(store)
    store = open_store(store.url)
    replayed(store, ENGINE)
    ingest(store, tmp_path, [keyed(32, "m")])
    store = rebuilt(store, gone=False)
    for scenario, assumed in ((PLAIN, {}), (Scenario(None, (CountedDuplicates(),)), {"assumed": 10})):
        found = explain(store, ENGINE, "total", "a", FIRST, scenario)
        assert shares(found) == {"late": 32, "verdict": -1, **assumed, "unexplained": 0}
        assert found.proven
        explained_alike(store, found, scenario)
    assert list(verify(store, ENGINE, window(), SILENT)) == []
    replayed(store, ENGINE)
    found = explain(store, ENGINE, "total", "a", FIRST)
    assert (shares(found), found.proven) == ({"unexplained": 0}, True)


def recorded(store: Store, number: int) -> int:
    return sorted(batch.recorded_at for batch in store.index.batches())[number]


def test_as_of_a_moment_before_a_rebuild_has_the_verdicts_of_then(store: Store) -> None:
    flipped(store)
    store = rebuilt(open_store(store.url), gone=False)
    replayed(store, ENGINE)
    found = explain(store, ENGINE, "total", "a", FIRST, Scenario(recorded(store, 1)))
    assert shares(found) == {"verdict": 1, "unexplained": 0}
    explained_alike(store, found, Scenario(recorded(store, 1)))
    # Without the batch of the delivery that counted then, the first that is left counts.
    out = max(batch.batch_id for batch in store.index.batches())
    scenario = Scenario(recorded(store, 1), (WithoutBatch(out),))
    found = explain(store, ENGINE, "total", "a", FIRST, scenario)
    assert shares(found) == {"verdict": 1, "assumed": -1, "unexplained": 0}
    explained_alike(store, found, scenario)


def test_each_rebuild_that_changed_winners_has_its_own_share(store: Store) -> None:
    flipped(store)
    replayed(open_store(store.url), ENGINE)
    store = rebuilt(open_store(store.url), gone=False)
    store = lost(store)
    found = explain(store, ENGINE, "total", "a", FIRST)
    verdicts = [int(one.share) for one in found.shares if one.cause == Cause.VERDICT]
    assert (shares(found)["unexplained"], sum(verdicts), len(verdicts)) == (0, 0, 2)
    explained_alike(store, found)


def test_shares_of_lost_winners_are_the_same_in_a_diff(store: Store) -> None:
    store = lost(store)
    explained_alike(store, explain(store, ENGINE, "total", "a", FIRST))


def findings(store: Store) -> set[tuple[str, str, str]]:
    return {(one.kind, one.what, one.detail) for one in verify(store, ENGINE, window(), SILENT)}


@pytest.mark.parametrize("gone", [True, False])
def test_a_value_is_proven_again_once_what_it_counted_is_restored(store: Store, tmp_path: Path, gone: bool) -> None:
    """The first batch's object is lost with the index, so a rebuild counts the second delivery of each event and cannot
    name the first; the next rebuild follows it, though the object is there again."""
    add_version(store.metrics, Definition(name="place", value="max(seq)"), 1)
    replayed(store, ENGINE)
    whole = first_segment(store)
    kept = whole.rename(tmp_path / "kept")
    store = rebuilt(store)
    assert {(kind, what) for kind, what, _ in findings(store)} == {
        ("missing", str(whole.relative_to(store.url))),
        *(("not proven", name) for name in ("event_count", "place", "total")),
    }
    kept.rename(whole)
    store = rebuilt(store, gone=gone)
    found = explain(store, ENGINE, "total", "a", FIRST)
    assert (shares(found), found.proven) == ({"verdict": 1, "unexplained": 0}, True)
    explained_alike(store, found)
    found = explain(store, ENGINE, "event_count", "a", FIRST)
    assert (int(found.delta), found.proven) == (0, True)
    found = explain(store, ENGINE, "total", "a", FIRST, Scenario(recorded(store, 1)))
    assert shares(found) == {"unexplained": 0}
    # The two deliveries of l say the same, so nothing names the one that counted, which this metric reads.
    reason = "which delivery of an event counted then was lost with the index"
    assert findings(store) == {("not provable", "place", reason)}
    replayed(store, ENGINE)
    assert findings(store) == set()


def test_a_value_of_which_only_a_record_of_a_rebuild_knows_a_lost_event_is_not_proven(store: Store) -> None:
    events = [store.index.deliveries(event_id, 1) for event_id in store.index.locate("")]
    event = min((one for [one] in events), key=lambda one: one.order).event_id
    problems = list(verify(lost(store), ENGINE, window(), SILENT))
    assert {(one.kind, one.what, one.lost_events) for one in problems} == {
        ("not proven", name, (event,)) for name in ("event_count", "total")
    }


def test_a_rebuild_that_changes_nothing_is_not_a_cause(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [keyed(32, "m")])
    for gone in (True, False):
        store = rebuilt(store, gone=gone)
        assert shares(explain(store, ENGINE, "total", "a", FIRST)) == {"late": 32, "unexplained": 0}


def test_an_event_of_which_another_delivery_counts_since_a_rebuild_is_not_counted(store: Store) -> None:
    store = lost(store)
    values = CurrentValues(store, ENGINE, Filter(window()), "total")
    found = {
        bytes(one.delivery.payload): values.omission(one)
        for one in deliveries(store, Filter(window()), only="accepted")
    }
    assert {payload: one and one.reason for payload, one in found.items()} == {
        b'{"v": 2}': Reason.VERDICT,
        b'{"v": 8}': None,
    }


def test_an_event_that_a_correction_took_out_stays_out_where_a_rebuild_finds_another_delivery(
    store: Store, tmp_path: Path
) -> None:
    [event_id] = {deliveries[0].event_id for deliveries in store.repeats.conflicting()}
    record_correction(plan_correction(store, ENGINE, [Without((event_id,))]), [""], "INC-1", "ana")
    ingest(store, tmp_path, [keyed(4, at="05T01:00")])
    for segment in store.index.segments(window("01", "02")):
        (Path(store.url) / segment.key).unlink()
    store = rebuilt(store)
    assert list(deliveries(store, Filter(window("05", "06")), only="accepted")) == []
    with pytest.raises(NothingSelected):
        list(diff_aggregates(store, ENGINE, window("05", "06")).rows)


def test_triage_names_the_cause_and_the_rebuild(store: Store) -> None:
    flipped(store)
    replayed(open_store(store.url), ENGINE)
    store = rebuilt(open_store(store.url), gone=False)
    [finding] = [one for one in triage(store, ENGINE, window()).findings if one.metric == "total"]
    [key] = correction_keys(store.raw)
    when = format_instant(read_correction(store.raw, key).recorded_at)
    assert finding.what == f"total is off by -1 in 1 value: verdict, by the rebuild of the index {when}"
    assert (finding.check, finding.cause, finding.delta) == ("differences", "verdict", Decimal(-1))


def test_a_copy_answers_as_of_before_the_rebuild_as_its_source_does(store: Store, tmp_path: Path) -> None:
    flipped(store)
    store = rebuilt(open_store(store.url), gone=False)
    replayed(store, ENGINE)
    copy = open_copy(str(tmp_path / "copy"), store)
    pull(store, copy, PullRequest(window("01", "02")), SILENT)
    scenario = Scenario(recorded(store, 1))
    assert shares(explain(copy, ENGINE, "total", "a", FIRST, scenario)) == {"verdict": 1, "unexplained": 0}
    assert list(verify(copy, ENGINE, window(), SILENT)) == []
    rebuild_index(copy, SILENT)
    assert list(verify(copy, ENGINE, window(), SILENT)) == []
    assert not pull(store, copy, PullRequest(window("01", "02")), SILENT).copied

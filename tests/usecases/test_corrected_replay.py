"""Replays under corrections: which buckets they choose, what pinned corrections mean, and what a promotion says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from pik.engine import DuckEngine
from pik.model.aggregate import NO_INPUTS, Aggregate, delivery_hash
from pik.model.correction import Correction, CorrectionKind, ListedDelivery
from pik.model.delivery import Filter
from pik.model.ids import new_id
from pik.model.instant import DAY, HOUR, day_text, full_instant, parse_instant
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.corrections import record
from pik.rawlog.deliveries import deliveries
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.verify import verify
from pik.usecases.inspect.conditions import Conditions
from pik.usecases.inspect.events import list_events
from pik.usecases.inspect.not_counted import CurrentValues, Reason
from pik.usecases.metrics.chain import Cause
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.metrics.explain import explain
from pik.usecases.replay.execute import run_locally
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote
from tests.support.corrections import written_lists
from tests.support.stores import HERE, ingest, replay, replayed, request

ENGINE = DuckEngine(threads=1)
DAY_ONE = parse_instant("2026-01-01", date_only=True)


def event(number: int, day: int, source: str = "web", **fields: Any) -> dict[str, Any]:
    return {
        "source": source,
        "event_type": "paid",
        "entity_id": f"e{number % 2}",
        "event_time": full_instant(DAY_ONE + day * DAY + number * HOUR),
        "payload": {"n": number},
        **fields,
    }


def places(store: Store, batch: int = 0) -> list[Any]:
    """The deliveries of a batch, by seq."""
    ids = sorted(one.batch_id for one in store.index.batches())
    found = [one.delivery for one in deliveries(store, Filter())]
    return sorted((one for one in found if one.batch_id == ids[batch]), key=lambda one: one.seq)


def recorded(store: Store, kind: CorrectionKind, lines: Iterable[ListedDelivery] = (), **fields: Any) -> Correction:
    correction_id, lines = new_id(), list(lines)
    draft = Correction(
        format=0,
        correction_id=correction_id,
        kind=kind,
        recorded_at=0,
        actor="ana",
        reason="INC-42",
        statement=f"{kind}=…",
        events=len(lines),
        lists=written_lists(store.raw, correction_id, lines),
        **fields,
    )
    [written] = record(store, [draft])
    return written


def moved(delivery: Any, by: int | None = None) -> ListedDelivery:
    return ListedDelivery(
        event_id=delivery.event_id,
        entity_id=delivery.entity_id,
        batch_id=delivery.batch_id,
        seq=delivery.seq,
        event_time=delivery.event_time,
        time=None if by is None else full_instant(delivery.event_instant + by),
    )


def revoke(store: Store, one: Correction) -> Correction:
    return recorded(store, CorrectionKind.REVOCATION, revokes=one.correction_id)


def counts(store: Store) -> dict[tuple[str, str], int]:
    return {
        (day_text(row.computed.bucket // DAY), row.computed.entity_id): int(row.computed.value)
        for row in store.aggregates.current("event_count", ALL_TIME)
        if row.computed.value is not None
    }


def differing(store: Store) -> set[tuple[str, str]]:
    rows = diff_aggregates(store, ENGINE, ALL_TIME).rows
    return {(day_text(row.bucket // DAY), row.entity_id) for row in rows}


@pytest.fixture
def shop(tmp_path: Path) -> Store:
    """Two days with two events each of a source, and others of another one; their counts are current."""
    store = open_store(str(tmp_path / "store"), create=True)
    events = [event(number, day) for day in (0, 1) for number in (1, 2)]
    ingest(store, tmp_path, [*events, *(event(number, 0, "app") for number in (3, 4))])
    replayed(store, ENGINE)
    return store


REPAIRS: dict[str, Callable[[Correction], dict[str, Any]]] = {
    "source": lambda _: {"source": "web"},
    "correction": lambda one: {"correction": one.correction_id},
    "all": lambda _: {},
}


@pytest.mark.parametrize("how", REPAIRS)
def test_a_replay_repairs_the_buckets_that_moved_events_left_and_entered(shop: Store, how: str) -> None:
    web = [one for one in places(shop) if one.source == "web"]
    right = recorded(shop, CorrectionKind.SHIFT, [moved(one, 5 * DAY) for one in web if one.event_time < "2026-01-02"])
    assert differing(shop) == {("2026-01-01", "e0"), ("2026-01-01", "e1"), ("2026-01-06", "e0"), ("2026-01-06", "e1")}
    replayed(shop, ENGINE, **REPAIRS[how](right))
    assert differing(shop) == set()
    # Another one moves them further, and is revoked after its repair: neither place is one where they are now.
    other = recorded(shop, CorrectionKind.SHIFT, [moved(one, 9 * DAY) for one in web])
    replayed(shop, ENGINE, **REPAIRS[how](other))
    assert differing(shop) == set()
    revocation = revoke(shop, other)
    replayed(shop, ENGINE, **REPAIRS[how](revocation))
    assert differing(shop) == set()
    replayed(shop, ENGINE, **REPAIRS[how](revoke(shop, right)))
    assert counts(shop)["2026-01-01", "e1"] == 2
    assert differing(shop) == set()


@pytest.mark.parametrize("how", REPAIRS)
def test_a_replay_repairs_what_a_withdrawn_batch_left(shop: Store, tmp_path: Path, how: str) -> None:
    ingest(shop, tmp_path, [event(1, 0), event(9, 3), event(9, 4)])
    replayed(shop, ENGINE)
    batch_id = max(one.batch_id for one in shop.index.batches())
    withdrawn = recorded(shop, CorrectionKind.WITHOUT_BATCH, batch_id=batch_id)
    assert differing(shop) == {("2026-01-04", "e1"), ("2026-01-05", "e1")}
    replayed(shop, ENGINE, **REPAIRS[how](withdrawn))
    assert differing(shop) == set()
    first = min(one.batch_id for one in shop.index.batches())
    with_heir = recorded(shop, CorrectionKind.WITHOUT_BATCH, batch_id=first)
    replayed(shop, ENGINE)
    assert counts(shop) == {}
    replayed(shop, ENGINE, **REPAIRS[how](revoke(shop, withdrawn)))
    assert counts(shop) == {("2026-01-01", "e1"): 1, ("2026-01-04", "e1"): 1, ("2026-01-05", "e1"): 1}
    assert differing(shop) == set()
    assert with_heir.batch_id == first


def test_a_run_computes_with_the_corrections_that_its_planner_knew_and_its_promotion_says_so(shop: Store) -> None:
    plan = plan_replay(shop, ENGINE, request(), 1)
    run_id = start(shop, plan).run_id
    out = recorded(shop, CorrectionKind.WITHOUT, [moved(places(shop)[0])])
    run_locally(shop, ENGINE, run_id, HERE, SILENT)
    done = promote(shop, run_id, 2, "")
    assert done.corrections == (out.correction_id,)
    assert shop.runs.get(run_id).corrections_until == 0
    assert counts(shop)["2026-01-01", "e1"] == 2
    later = replay(shop, ENGINE)
    assert later.corrections_until == out.recorded_at
    assert promote(shop, later.run_id, 3, "").corrections == ()
    assert counts(shop)["2026-01-01", "e1"] == 1
    assert list(verify(shop, ENGINE, ALL_TIME, SILENT)) == []


def test_what_was_computed_between_two_corrections_is_proven_and_each_has_its_share(shop: Store) -> None:
    first, second = (one for one in places(shop) if one.source == "web" and one.event_time < "2026-01-02")
    recorded(shop, CorrectionKind.SHIFT, [moved(first, DAY), moved(second, DAY)])
    replayed(shop, ENGINE)
    back = recorded(shop, CorrectionKind.SHIFT, [moved(first, 0)])
    out = recorded(shop, CorrectionKind.WITHOUT, [moved(places(shop)[4])])
    again = revoke(shop, out)
    assert list(verify(shop, ENGINE, ALL_TIME, SILENT)) == []
    found = explain(shop, ENGINE, "event_count", "e1", DAY_ONE)
    shares = [(one.cause, int(one.share), one.proven) for one in found.shares]
    corrected, unexplained = Cause.CORRECTED, Cause.UNEXPLAINED
    assert shares == [*((corrected, share, True) for share in (1, -1, 1)), (unexplained, 0, True)]
    details = [one.detail for one in found.shares[:3]]
    for detail, one in zip(details, (back, out, again), strict=True):
        assert f"{one.correction_id}, " in detail
        assert "by ana" in detail


def test_events_that_a_value_does_not_count_since_a_correction_are_found(shop: Store) -> None:
    first, second = (one for one in places(shop) if one.source == "web" and one.event_time < "2026-01-02")
    away = recorded(shop, CorrectionKind.SHIFT, [moved(first, DAY)])
    out = recorded(shop, CorrectionKind.WITHOUT, [moved(places(shop)[4])])

    def omitted() -> set[tuple[str, str]]:
        values = CurrentValues(shop, ENGINE, Filter(), "event_count")
        rows = list_events(shop, Filter(), conditions=Conditions(values=values))
        return {(one.event_id, one.omission.reason) for one in rows if one.omission is not None}

    assert omitted() == {(first.event_id, Reason.CORRECTED)}
    replayed(shop, ENGINE)
    assert omitted() == set()
    recorded(shop, CorrectionKind.SHIFT, [moved(first, DAY + HOUR), moved(second, DAY)])
    revoke(shop, away)
    revoke(shop, out)
    assert omitted() == {(one.event_id, Reason.CORRECTED) for one in (second, places(shop)[4])}


def version(store: Store, day: str, entity: str) -> Aggregate:
    start = parse_instant(day, date_only=True)
    found = store.aggregates.current("event_count", ALL_TIME, [entity])
    return next(row for row in found if row.computed.bucket == start)


def test_the_content_of_a_version_covers_the_corrected_time_where_it_is_another_one(shop: Store) -> None:
    [_, second, *_] = places(shop)
    before = version(shop, "2026-01-01", "e0").computed
    recorded(shop, CorrectionKind.SHIFT, [moved(second, -HOUR)])
    replayed(shop, ENGINE)
    after = version(shop, "2026-01-01", "e0").computed
    assert (after.value, after.inputs, after.input_ids) == (before.value, before.inputs, before.input_ids)
    other = int(before.input_contents, 16) ^ int(second.content_hash, 16)
    expected = other ^ delivery_hash(second.content_hash, full_instant(second.event_instant - HOUR))
    assert after.input_contents == f"{expected:032x}" != NO_INPUTS
    recorded(shop, CorrectionKind.SHIFT, [moved(second, 0)])
    replayed(shop, ENGINE)
    assert version(shop, "2026-01-01", "e0").computed == structs.replace(before)

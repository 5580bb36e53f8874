"""What a rebuild changed of which delivery counts is dated, on every store: a question about before sees what was."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from pik.engine import DuckEngine
from pik.errors import Damaged
from pik.model.metric import Definition, Metric
from pik.model.scenario import PLAIN, Scenario
from pik.model.window import ALL_TIME
from pik.ports.raw import RawKind
from pik.ports.store import Store
from pik.rawlog.corrections import correction_keys, read_correction, read_winners
from pik.rawlog.gathering import gather, gather_deliveries
from pik.rawlog.selection import Selection
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify_findings import Depth
from pik.usecases.metrics.computation import recompute
from pik.usecases.metrics.scenario import applied
from tests.contracts.conftest import LOCAL_FIRST
from tests.contracts.test_rebuild import lose_index, remove
from tests.contracts.test_restore import copied
from tests.support.stores import event, ingest

TOTAL = Metric(
    definition=Definition(name="total", value="sum((payload->>'v')::BIGINT)", bucket="1d"), version=1, applied_at=0
)


def total(store: Store, scenario: Scenario = PLAIN) -> Decimal:
    engine, found = DuckEngine(threads=1), Decimal(0)
    with applied(store, engine, scenario, ALL_TIME) as overrides:
        for part in recompute(Selection(store, ALL_TIME, (), overrides), engine, [TOTAL]):
            assert not isinstance(part.computed, Exception)
            found += sum(row.value or 0 for row in part.computed.rows())
    return found


def test_a_winner_that_a_rebuild_chose_does_not_count_before_it(store: Store, tmp_path: Path) -> None:
    """The first of three batches is lost with its record and the index. 1 had a key, and 2 came for it; 4 came again.

    What requests are duplicates of stands in the index alone, so nobody knows then that another one counted.
    """

    def send(*values: int) -> None:
        events = [{**event(value, "a", "01T01:00"), "idempotency_key": f"k{value // 3}"} for value in values]
        ingest(store, tmp_path, events, again=True)

    send(1, 4)
    send(2, 4)
    send(8)
    first, _, last = sorted(store.index.batches(), key=lambda batch: batch.recorded_at)
    assert total(store) == 13
    for segment in list(store.index.segments(ALL_TIME, batch_id=first.batch_id)):
        remove(store, segment.key)
    remove(store, RawKind.BATCH.key(first.batch_id))
    before = last.recorded_at
    rebuild_index(lose_index(store), SILENT, "ana")
    store = open_store(store.url)
    assert total(store) == 14
    [key] = correction_keys(store.raw)
    head = read_correction(store.raw, key)
    assert (head.events, sorted((line.was, line.old) for line in read_winners(store.raw, key))) == (
        2,
        [("conflict", None), ("exact", None)],
    )
    for moment, expected in ((before, 12), (head.recorded_at - 1, 12), (head.recorded_at, 14)):
        assert total(store, Scenario(moment)) == expected, moment


@pytest.mark.parametrize("kind", LOCAL_FIRST)
def test_a_segment_that_the_index_was_rebuilt_without_is_not_read_before_the_next_rebuild(
    store: Store, tmp_path: Path
) -> None:
    """Its winner is lost with the index, so another delivery counts by the time it comes back."""
    for value in (1, 2):
        ingest(store, tmp_path, [{**event(value, "a", "01T01:00"), "idempotency_key": "k"}], again=True)
    first, second = sorted(store.index.batches(), key=lambda batch: batch.recorded_at)
    [segment] = store.index.segments(ALL_TIME, batch_id=first.batch_id)
    objects = copied(store, tmp_path / "copy")
    remove(store, segment.key)
    for _ in range(2):  # the second finds no more than the first
        for found in list(store.raw.objects("index/")):  # which a deployed store has beside its table
            remove(store, found.key)
        assert rebuild_index(lose_index(store), SILENT).lost == 1
    objects = objects.again()
    done = objects.restore()
    assert [one.key for one in done.objects] == list(done.unread) == [segment.key]
    assert list(objects.restore(depth=Depth.QUICK).unread) == [segment.key]
    for read in (gather(Selection(objects.store, ALL_TIME)), gather_deliveries(Selection(objects.store, ALL_TIME))):
        with pytest.raises(Damaged, match="the index was rebuilt while") as refused, read:
            pass
        assert "pik verify --rebuild-index" in refused.value.hint
    assert [(one.what, one.kind) for one in objects.verify()[0]] == [(segment.key, "index differs")]
    rebuild_index(objects.store, SILENT)
    after = objects.again()
    assert [total(after.store, one) for one in (PLAIN, Scenario(second.recorded_at))] == [2, 1]
    assert (after.verify()[0], after.restore().unread) == ([], ())

"""What a rebuild changed of which delivery counts is dated, on every store: a question about before sees what was."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from pik.engine import DuckEngine
from pik.model.instant import ALL_TIME
from pik.model.metric import Definition, Metric
from pik.model.scenario import PLAIN, Scenario
from pik.ports.raw import RawKind
from pik.ports.store import Store
from pik.rawlog.sealed_records import correction_keys, read_correction, read_winners
from pik.rawlog.selection import Selection
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.metrics.computation import recompute
from pik.usecases.metrics.scenario import applied
from tests.contracts.test_rebuild import lose_index, remove
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

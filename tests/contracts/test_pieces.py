"""A bucket that has too much raw for one piece is computed piece by piece, and nothing shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.model.metric import Definition, Metric
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog import gathering
from pik.rawlog.gathering import cut_by_size
from pik.rawlog.selection import Overrides, Selection
from pik.usecases.metrics.computation import recompute
from tests.contracts.test_rebuild import remove
from tests.support.corrections import moved
from tests.support.stores import event, ingest

VALUES = {
    "events": "count(*)",
    "batches": "count(DISTINCT batch_id)",
    "total": "(sum((payload->>'v')::DECIMAL(38, 2)) / count(DISTINCT payload->>'v'))::DECIMAL(38, 4)",
}
METRICS = [
    Metric(definition=Definition(name=name, value=value, bucket="7d"), version=1, applied_at=0)
    for name, value in VALUES.items()
]


def computed(selection: Selection) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for part in recompute(selection, DuckEngine(threads=1), METRICS):
        if isinstance(part.computed, Exception):
            found.append((part.window, part.known_until, str(part.computed)))
        else:
            results = list(part.computed.rows()), list(part.computed.digests())
            found.append((part.window, part.known_until, *results))
    return found


def test_promise_6_pieces_of_a_bucket_make_the_values_of_the_whole(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Duplicates and conflicts are in other pieces than what they repeat; one event happened on another day."""
    for n in range(4):
        keyed = [{**event(10 * n + k, "a", f"01T0{k}:00"), "idempotency_key": f"k{k}"} for k in range(3)]
        plain = [event(value, "b", "02T01:00") for value in (n, n + 1)]
        ingest(store, tmp_path, [*keyed, *plain, event(n, "a", f"0{3 + n}T05:00")], again=True)
    moved(store, "06", "20")
    selections = [
        Selection(store, ALL_TIME),
        Selection(store, ALL_TIME, ("a",)),
        Selection(store, ALL_TIME, (), Overrides(duplicates=True)),
    ]
    whole = [computed(each) for each in selections]
    assert all(len(cut_by_size(each, 1).counts) >= 4 for each in selections)
    monkeypatch.setattr(gathering, "PIECE_BYTES", 1)
    assert [computed(each) for each in selections] == whole
    segment = next(store.index.segments(ALL_TIME))
    remove(store, segment.key)
    damaged = computed(Selection(store, ALL_TIME))
    assert any(len(part) == 3 for part in damaged)
    monkeypatch.undo()
    assert computed(Selection(store, ALL_TIME)) == damaged

"""Promise 8: what a rebuild holds in memory does not grow with the number of requests."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from pik.ports.store import Store
from pik.runtime import SILENT, storage
from pik.stores import open_store
from pik.stores.local import sqlite
from pik.stores.local.raw import LocalRaw
from pik.usecases.care import rebuild, rebuild_batches, rebuild_orphans
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest.api_request import record_request


def fill(store: Store, numbers: range) -> None:
    """Record requests, each of its own event; every third one twice, every fifth with a key."""
    for number in numbers:
        key = {} if number % 5 else {"idempotency_key": f"k{number}"}
        time = f"2026-{1 + number % 12:02}-{1 + number % 17:02}T00:00:00Z"  # a directory is listed in memory
        event = {"source": "s", "event_type": "t", "entity_id": f"e{number % 97}", "event_time": time}
        body = json.dumps(
            {**event, **key, "event_time": f"2026-{1 + number % 12:02}-{1 + number % 17:02}T00:00:00Z"}
        ).encode()
        for _ in range(1 if number % 3 else 2):
            record_request(store, body)


def put_all(raw: LocalRaw, objects: Sequence[tuple[str, bytes]]) -> None:
    """Store objects without syncing them."""
    for key, data in objects:
        path = Path(raw.root) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def peak(store: Store) -> int:
    """Rebuild the index and return the most bytes that were held at a time."""
    rebuild_index(store, SILENT)  # fills what Python keeps for later
    tracemalloc.start()
    try:
        rebuild_index(store, SILENT)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("few", "many", "each", "is_gone"),
    [
        (200, 800, 1_000, False),
        pytest.param(1_000, 6_000, 100, False, marks=pytest.mark.slow),
        pytest.param(1_000, 6_000, 100, True, marks=pytest.mark.slow),
    ],
)
def test_promise_8_a_rebuild_holds_no_more_of_many_requests_than_of_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int, many: int, each: int, is_gone: bool
) -> None:
    """Less than so many bytes for each further request: the fewer there are, the more is noise."""
    monkeypatch.setattr(storage, "SORTED_IN_MEMORY", 20)
    monkeypatch.setattr(storage, "_MERGED", 4)
    monkeypatch.setattr(sqlite, "_FETCHED", 20)
    monkeypatch.setattr(rebuild, "_AT_ONCE", 20)
    monkeypatch.setattr(rebuild_batches, "_IN_MEMORY", 20)
    monkeypatch.setattr(rebuild_orphans, "_IN_MEMORY", 20)
    monkeypatch.setattr(rebuild_orphans, "_KEYED_BYTES", 2_000)
    monkeypatch.setattr(LocalRaw, "create_all", put_all)
    store, stored, peaks = open_store(str(tmp_path / "store"), create=True), 0, []
    for size in (few, many):
        fill(store, range(stored, size))
        stored = size
        if is_gone:
            for path in Path(store.url).glob("index.db*"):
                path.unlink()
        peaks.append(peak(store))
    assert peaks[1] - peaks[0] < each * (many - few), peaks

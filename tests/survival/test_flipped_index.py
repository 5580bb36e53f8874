"""One bit of index.db flipped: whenever an answer is another one, `verify` finds something, and a rebuild heals it."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pik.errors import PikError
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify import verify
from pik.usecases.inspect.events import list_events
from tests.support.contracts.harm import fill
from tests.support.stores import PlainEngine
from tests.survival.conftest import ingest

REFUSED = "refused"


@pytest.fixture
def filled(tmp_path: Path) -> Store:
    """A store whose index has several pages of everything, all of them in the one file."""
    store = open_store(str(tmp_path / "store"), create=True)
    fill(store, tmp_path)
    draw = random.Random(1)
    lines = []
    for _ in range(900):
        event = {
            "source": "s",
            "event_type": "t",
            "entity_id": f"e{draw.randrange(40)}",
            "event_time": f"2026-02-0{1 + draw.randrange(5)}T00:00:{draw.randrange(60):02}Z",
            "payload": {"n": draw.randrange(40)},
        }
        if draw.random() < 0.3:
            event["idempotency_key"] = f"k{draw.randrange(100)}"
        lines.append(json.dumps(event))
    for number in range(2):
        path = tmp_path / f"part{number}.jsonl"
        path.write_text("\n".join([*lines[number * 400 : number * 400 + 500], "no event"]) + "\n")
        ingest(store, path)
    return store


def answers(store: Store) -> list[Any]:
    """What the index says, asked in each way; what cannot be answered is refused."""
    some = "0123456789abcdef"
    return [
        _answer(question)
        for question in (
            lambda: [(row.event_id, row.deliveries, row.payload) for row in list_events(store, Filter(ALL_TIME))],
            lambda: sorted((found.kind, found.line) for found in deliveries(store, Filter(ALL_TIME))),
            lambda: list(store.index.batches()),
            store.index.totals,
            lambda: [store.index.locate(digit) for digit in some],
            lambda: [store.index.deliveries(event_id) for digit in some for event_id in store.index.locate(digit, 2)],
            lambda: [store.index.rejects(batch.batch_id) for batch in store.index.batches()],
            lambda: [store.batches.find(batch.origin) for batch in store.index.batches() if not batch.is_request],
            lambda: list(store.index.segments(ALL_TIME)),
        )
    ]


def _answer(question: Any) -> Any:
    try:
        return question()
    except PikError:
        return REFUSED


def is_found(store: Store) -> bool:
    try:
        return bool(list(verify(store, PlainEngine(), ALL_TIME, SILENT)))
    except PikError as error:
        return "damaged" in error.message


@pytest.mark.parametrize("count", [25, pytest.param(400, marks=pytest.mark.slow)])
def test_a_flip_that_changes_an_answer_is_found_and_healed(filled: Store, count: int) -> None:
    draw, path = random.Random(count), Path(filled.url) / "index.db"
    right = answers(filled)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    changed = 0
    for _ in range(count):
        place = draw.randrange(len(whole))
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        for name in ("index.db-wal", "index.db-shm"):
            path.with_name(name).unlink(missing_ok=True)
        path.unlink()
        path.write_bytes(flipped)
        store = open_store(filled.url)
        other = [got for got, answer in zip(answers(store), right, strict=True) if got not in (answer, REFUSED)]
        assert not other or is_found(store), place
        changed += bool(other)
        if other and changed == 1:
            rebuild_index(store, SILENT)
            assert answers(store)[:-1] == right[:-1]  # segments of requests are recorded anew
    assert changed > 0

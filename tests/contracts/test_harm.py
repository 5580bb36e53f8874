"""Promise 2 and 3: whatever is deleted or changed in a store, one thing at a time, `verify` finds it; and what is index
and not raw, a rebuild makes again."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from pik.errors import Damaged, StoreError, Unreadable
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_findings import Depth, ProblemKind
from pik.usecases.inspect.events import list_events
from tests.contracts.conftest import LOCAL_FIRST
from tests.support.contracts.harm import IMMATERIAL, PARTS, Harm, fill
from tests.support.stores import PlainEngine


@pytest.fixture
def filled(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("pik.usecases.care.verify_corrections.RECENT", 0)
    fill(store, tmp_path)
    assert problems(store) == []
    return store


def problems(store: Store, depth: Depth = Depth.STORED) -> list[str]:
    """What is wrong, in words; an index that cannot even be read is said to be damaged."""
    try:
        found = list(verify(store, PlainEngine(), ALL_TIME, SILENT, depth))
    except StoreError as error:
        return [f"{error.message} {error.hint}"] if "damaged" in error.message else []
    return [f"{one.kind} {one.what} {one.detail}" for one in found]


def harms(store: Store) -> Iterator[Harm]:
    return chain.from_iterable(part(store) for part in PARTS.values())


def immaterial(harm: Harm) -> bool:
    return not {harm.kind, f"{harm.kind}.{harm.value or 'deleted'}"}.isdisjoint(IMMATERIAL)


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", LOCAL_FIRST)
def test_whatever_is_deleted_is_found(filled: Store, every: bool) -> None:
    """One of each kind, or everything."""
    missed, kinds = [], set()
    for harm in harms(filled):
        if harm.value or immaterial(harm) or (harm.kind in kinds and not every):
            continue
        kinds.add(harm.kind)
        harm.do()
        if not problems(filled):
            missed.append(str(harm))
        harm.undo()
    assert missed == []
    assert problems(filled) == []


@pytest.mark.parametrize("kind", ["local", pytest.param("aws", marks=pytest.mark.slow)])
def test_whatever_is_changed_is_found(filled: Store) -> None:
    missed = []
    for harm in harms(filled):
        if not harm.value or immaterial(harm):
            continue
        harm.do()
        if not problems(filled, Depth.FULL):
            missed.append(str(harm))
        harm.undo()
    assert missed == []
    assert problems(filled) == []


@dataclass
class Closed:
    """Raw of which one object cannot be read."""

    raw: Raw
    key: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        if key == self.key:
            raise Unreadable(f"raw object {key}", "no permission to read it")
        return self.raw.read(key, offset, length)


@pytest.mark.parametrize("kind", ["local"])
def test_what_cannot_be_read_is_named_and_the_rest_is_checked(filled: Store) -> None:
    """Of every kind of object; and a rebuild, which would give up what it holds, refuses."""
    kept = [key.key for key in filled.index.segments(ALL_TIME)]
    for key in [found.key for prefix in ("raw/", "corrections/") for found in filled.raw.objects(prefix)]:
        store = replace(filled, raw=Closed(filled.raw, key))
        found = list(verify(store, PlainEngine(), ALL_TIME, SILENT))
        assert [(one.kind, one.what) for one in found if one.kind != ProblemKind.INDEX][:1] == [
            (ProblemKind.UNREADABLE, key)
        ]
        assert key not in kept or found[0].lost_events == ()
    with pytest.raises(StoreError, match="no permission") as raised:
        rebuild_index(replace(filled, raw=Closed(filled.raw, kept[0])), SILENT)
    assert not isinstance(raised.value, Damaged)
    assert problems(filled) == []


def test_what_the_index_has_lost_a_rebuild_makes_again(filled: Store) -> None:
    """Not of one request both its own item and that of its batch: it would be one that nobody acknowledged."""
    before = answers(filled)
    lost, unnamed = set(), set[str]()
    for harm in PARTS["index"](filled):
        if not harm.value and harm.kind not in lost and not immaterial(harm):
            if harm.kind in ("batch", "request"):
                batches = set(re.findall("[0-9A-Z]{26}", str(harm.thing)))
                if batches & unnamed:
                    continue
                unnamed |= batches
            lost.add(harm.kind)
            harm.do()
    assert len(lost) >= 6
    assert problems(filled)
    rebuild_index(filled, SILENT)
    assert problems(filled) == []
    assert answers(filled) == before


def answers(store: Store) -> list[Any]:
    return [
        [(row.event_id, row.deliveries, row.payload) for row in list_events(store, Filter(ALL_TIME))],
        sorted((found.kind, found.line) for found in deliveries(store, Filter(ALL_TIME))),
        [(batch.batch_id, batch.origin, batch.counts) for batch in store.index.batches()],
        store.index.totals(),
    ]


NAMING = [
    ("batch", "batch_id"),
    ("segment", "batch"),
    ("segment", "key"),
    ("reject_file", "batch"),
    ("reject_file", "key"),
    ("segment", "frames"),
]
"""The columns of index.db that say which batch something is of; and one without which a row cannot be read."""

TOLD_BY_RAW = [
    *[("batch", name) for name in ("content", "attempt", "read", "rejected", "started_at", "next_seq")],
    *[("segment", name) for name in ("day", "size", "digest", "deliveries", "ingest_time")],
    *[("reject_file", name) for name in ("size", "digest", "records")],
]


@pytest.mark.parametrize("column", [*NAMING, *[pytest.param(one, marks=pytest.mark.slow) for one in TOLD_BY_RAW]])
def test_a_rebuild_does_not_take_over_what_a_damaged_index_says(tmp_path: Path, column: tuple[str, str]) -> None:
    """Each row of a kind in turn says something else than raw does; one rebuild, and nothing is wrong any more."""
    table, name = column
    store = open_store(str(tmp_path / "store"), create=True)
    fill(store, tmp_path)
    path, before = Path(store.url) / "index.db", answers(store)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        rows = connection.execute(f"SELECT rowid, {name} FROM {table}").fetchall() if table != "reject_file" else []
        if table == "reject_file":  # it has no rowid
            rows = connection.execute(f"SELECT {name}, {name} FROM reject_file").fetchall()
    whole = path.read_bytes()
    for row, value in rows:
        with closing(sqlite3.connect(path)) as connection, connection:
            where = f"{name} = ?" if table == "reject_file" else "rowid = ?"
            connection.execute(f"UPDATE {table} SET {name} = ? WHERE {where}", (flipped(value), row))
        again = open_store(store.url)
        if column == ("batch", "batch_id"):
            assert not any(problem.startswith("missing") for problem in problems(again)), value
        done = rebuild_index(again, SILENT)
        assert done.damaged == (), (value, done)
        assert bool(done.dropped) == (column == ("batch", "batch_id"))
        assert problems(again) == [], value
        assert answers(again) == before, value
        for beside in ("index.db", "index.db-wal", "index.db-shm"):
            path.with_name(beside).unlink(missing_ok=True)
        path.write_bytes(whole)


def flipped(value: Any) -> Any:
    """One bit of a number, or of the last letter of an id, is another one."""
    if isinstance(value, int):
        return value ^ 1
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    place = (value.index("-", value.rindex("/")) if "/" in value else len(value)) - 1
    other = "1" if value[place] == "0" else "0"
    return value[:place] + other + value[place + 1 :]

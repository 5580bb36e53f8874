"""Republishes and what they could not send, in state.db."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pik.errors import CANDIDATES, ambiguous_id
from pik.model.republish import Refusal, Republish, SendingPlace
from pik.stores.local.lock import held, holding
from pik.stores.local.sqlite import Database
from pik.stores.local.state.tables import REFUSAL_DIGEST, REPUBLISH_DIGEST
from pik.stores.state_rows import damaged_row, read_refusal, read_republish, row_digest

_SELECT = f"SELECT republish_id, body, digest IS {REPUBLISH_DIGEST} FROM republish"
_REFUSALS = f"SELECT republish_id, body, digest IS {REFUSAL_DIGEST} FROM refusal"


@dataclass(slots=True)
class LocalRepublishes:
    """`locks` is the store's lock file."""

    database: Database
    locks: Path

    def create(self, republish: Republish) -> None:
        with self.database.write() as connection:
            connection.execute("INSERT INTO republish VALUES (?, ?, ?)", republish_row(republish))

    def get(self, republish_id: str) -> Republish:
        low = republish_id.upper()  # ULIDs
        query = f"{_SELECT} WHERE republish_id >= ?1 AND republish_id < ?1 || '~' ORDER BY republish_id DESC LIMIT ?2"
        found = self.database.read().execute(query, (low, CANDIDATES + 1)).fetchall()
        if not low or len(found) != 1:
            raise ambiguous_id("republish", republish_id, [row[0] for row in found], hint="pik republish list")
        return _republish(found[0])

    def newest_first(self) -> Iterator[Republish]:
        return map(_republish, self.database.read().execute(f"{_SELECT} ORDER BY republish_id DESC"))

    def record(self, republish: Republish, refused: Sequence[Refusal] = (), taken: Sequence[SendingPlace] = ()) -> None:
        of_it, key = "republish_id = ?", republish.republish_id
        with self.database.write() as connection:
            rows = (refusal_row(key, one) for one in refused)
            connection.executemany("INSERT OR REPLACE INTO refusal VALUES (?, ?, ?, ?, ?)", rows)
            places = ((key, one.batch_id, one.seq) for one in taken)
            connection.executemany(f"DELETE FROM refusal WHERE {of_it} AND batch_id = ? AND seq = ?", places)
            _, *columns = republish_row(republish)
            connection.execute(f"UPDATE republish SET body = ?, digest = ? WHERE {of_it}", (*columns, key))

    def refusals(self, republish_id: str) -> Iterator[Refusal]:
        rows = self.database.read().execute(
            f"{_REFUSALS} WHERE republish_id = ? ORDER BY batch_id, seq", (republish_id,)
        )
        return (_refusal(row)[1] for row in rows)

    def sending(self, republish_id: str) -> AbstractContextManager[None]:
        return holding(self.locks, _lock(republish_id))

    def is_sending(self, republish_id: str) -> bool:
        return held(self.locks, _lock(republish_id))


def _lock(republish_id: str) -> str:
    return f"republish {republish_id}"


def all_republishes(connection: sqlite3.Connection) -> Iterator[Republish]:
    """Yield every republish, the oldest first. Raises Damaged."""
    return map(_republish, connection.execute(f"{_SELECT} ORDER BY republish_id"))


def all_refusals(connection: sqlite3.Connection) -> Iterator[tuple[str, Refusal]]:
    """Yield every refusal, and the id of its republish. Raises Damaged."""
    return map(_refusal, connection.execute(f"{_REFUSALS} ORDER BY republish_id, batch_id, seq"))


def republish_row(republish: Republish) -> tuple[str, bytes, bytes]:
    """Return the row of a republish."""
    body = msgspec.json.encode(republish)
    return republish.republish_id, body, row_digest("republish", republish.republish_id, body)


def refusal_row(republish_id: str, refusal: Refusal) -> tuple[str, str, int, bytes, bytes]:
    """Return the row of a refusal."""
    key, body = (republish_id, refusal.place.batch_id, refusal.place.seq), msgspec.json.encode(refusal)
    return *key, body, row_digest("refusal", *key, body)


def _republish(row: tuple[Any, ...]) -> Republish:
    republish_id, body, sound = row
    if not sound:
        raise damaged_row(f"republish {republish_id}")
    return read_republish(body)


def _refusal(row: tuple[Any, ...]) -> tuple[str, Refusal]:
    republish_id, body, sound = row
    if not sound:
        raise damaged_row(f"refusal of republish {republish_id}")
    return republish_id, read_refusal(body)

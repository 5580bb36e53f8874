"""Which batch records a buffered request, in state.db."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pik.model.ids import TIME_DIGITS
from pik.stores.local.sqlite import Database


@dataclass(frozen=True, slots=True)
class LocalAssignments:
    """Implements the port."""

    database: Database

    def assign(self, requests: Sequence[str], batch_id: str, until: int) -> list[str]:
        rows = [(request[TIME_DIGITS:], batch_id, until) for request in requests]
        with self.database.write() as connection:
            connection.executemany("INSERT OR IGNORE INTO buffered_request VALUES (?, ?, ?)", rows)
            query = "SELECT batch FROM buffered_request WHERE request = ?"
            return [connection.execute(query, (digits,)).fetchone()[0] for digits, _, _ in rows]

    def move(self, request: str, before: str, after: str) -> bool:
        digits = request[TIME_DIGITS:]
        with self.database.write() as connection:
            change = "UPDATE buffered_request SET batch = ? WHERE request = ? AND batch = ?"
            connection.execute(change, (after, digits, before))
        return self.batch_of(digits) == after

    def batch_of(self, digits: str) -> str | None:
        query = "SELECT batch FROM buffered_request WHERE request = ?"
        row = self.database.read().execute(query, (digits,)).fetchone()
        return None if row is None else row[0]

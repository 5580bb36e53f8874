"""Idempotency keys in state.db."""

from __future__ import annotations

from dataclasses import dataclass

from pik.ports.state import KeyClaim
from pik.stores.local.sqlite import Database


@dataclass(frozen=True, slots=True)
class LocalIdempotencyKeys:
    """Implements the port."""

    database: Database

    def claim(self, key: str, claim: KeyClaim, at: int, until: int) -> KeyClaim:
        with self.database.write() as connection:
            connection.execute("DELETE FROM idempotency_key WHERE expires <= ?", (at,))
            row = key, claim.request, claim.run_id, until
            connection.execute("INSERT OR IGNORE INTO idempotency_key VALUES (?, ?, ?, ?)", row)
            query = "SELECT request, run_id FROM idempotency_key WHERE key = ?"
            return KeyClaim(*connection.execute(query, (key,)).fetchone())

"""The corrections that index.db follows."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap

from pik.errors import Damaged, StoreError
from pik.model.correction import Correction, log_order
from pik.rawlog.corrections import pack_header, unpack_header
from pik.stores.local.sqlite import Database


@dataclass(frozen=True, slots=True)
class LocalCorrections:
    """Reads and writes the table `correction`."""

    database: Database

    def recorded(self) -> Sequence[Correction]:
        rows = self.database.read().execute("SELECT correction_id, header FROM correction")
        try:
            return sorted(starmap(unpack_header, rows), key=log_order)
        except (Damaged, TypeError) as error:
            raise StoreError(f"{self.database.path.name} is damaged: {error}", hint=self.database.repair) from None

    def follow(self, corrections: Sequence[Correction]) -> None:
        with self.database.write() as connection:
            insert_corrections(connection, corrections)


def insert_corrections(connection: sqlite3.Connection, corrections: Sequence[Correction]) -> None:
    """Insert the rows of these corrections that have none."""
    connection.executemany(
        "INSERT OR IGNORE INTO correction VALUES (?, ?)",
        [(one.correction_id, pack_header(one)) for one in corrections],
    )

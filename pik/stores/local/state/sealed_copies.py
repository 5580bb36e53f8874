"""Files that keep each definition and each promotion a second time, so that one which state.db has lost shows.

They lie in `state/` of the store and are created once, right after the row was committed; the row then says so. A
crash in between leaves a row without its file, which the next one who writes creates.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pik.errors import AlreadyExists, StoreError
from pik.stores.local.raw import LocalRaw
from pik.stores.local.sqlite import Database
from pik.stores.state_digest import row_digest

DIRECTORY = "state"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A kind of row that has files: its table, the columns that the file repeats, and how the file is called."""

    table: str
    columns: tuple[str, ...]
    name: str

    def key(self, values: dict[str, Any]) -> str:
        """The path of the file, relative to the store."""
        return f"{DIRECTORY}/{self.table}/{self.name.format_map(values)}.json"

    def rows(self, connection: sqlite3.Connection, where: str = "true") -> Iterator[dict[str, Any]]:
        """The rows as their files have them."""
        rows = connection.execute(f"SELECT {', '.join(self.columns)} FROM {self.table} WHERE {where}")
        for row in rows.fetchall():
            yield dict(zip(self.columns, _plain(row), strict=True))

    def digest(self, values: dict[str, Any]) -> str:
        """The digest that the row and its file have, in hex."""
        return row_digest(self.table, *(values[name] for name in self.columns)).hex()


METRIC = Sealed("metric", ("name", "version", "definition", "applied_at", "scale"), "{name}-{version}")
PROMOTION = Sealed(
    "promotion",
    ("number", "promotion_id", "run_id", "kind", "at", "reason", "moved", "conflicts", "pointers", "pointers_xor"),
    "{promotion_id}",
)
KINDS = (METRIC, PROMOTION)


def seal(database: Database) -> None:
    """Create the files that are not there yet. Raises StoreError."""
    files = LocalRaw(database.path.parent)
    with database.translated():
        connection = database.writer()
        open_rows = {kind: list(kind.rows(connection, "NOT sealed")) for kind in KINDS}
    for kind, rows in open_rows.items():
        for values in rows:
            _create(files, kind, values)
    if any(open_rows.values()):
        with database.write() as connection:
            for kind, rows in open_rows.items():
                keys = [(values[kind.columns[0]], values[kind.columns[1]]) for values in rows]
                where = " AND ".join(f"{name} = ?" for name in kind.columns[:2])
                connection.executemany(f"UPDATE {kind.table} SET sealed = 1 WHERE {where}", keys)


def set_aside(database: Database) -> tuple[str, ...]:
    """Move the files that say something else than the rows, and those of no row, to state/replaced, and name them:
    definitions and promotions that a restored state lacks."""
    root, named = database.path.parent, []
    with database.translated():
        connection = database.writer()
        rows = {kind: {kind.key(values): values for values in kind.rows(connection)} for kind in KINDS}
    for kind in KINDS:
        for found in list(LocalRaw(root).objects(f"{DIRECTORY}/{kind.table}/")):
            if (said := read_sealed(root, found.key, kind)) is None or said != rows[kind].get(found.key):
                place = root / DIRECTORY / "replaced" / found.key.removeprefix(f"{DIRECTORY}/")
                place.parent.mkdir(parents=True, exist_ok=True)
                (root / found.key).replace(place)
                if said is not None or found.key not in rows[kind]:  # an altered copy of a row is written again
                    named.append(_name(kind, said, found.key))
    return tuple(named)


def _name(kind: Sealed, said: dict[str, Any] | None, key: str) -> str:
    if said is None:
        return key
    if kind is METRIC:
        return f"metric {said['name']} version {said['version']}"
    return f"{said['kind']} {said['promotion_id']} of run {said['run_id']}"


def read_sealed(root: Path, key: str, kind: Sealed) -> dict[str, Any] | None:
    """What a file says; None if it is not there, or not as it was written."""
    files = LocalRaw(root)
    if files.size(key) is None:
        return None
    try:
        found = msgspec.json.decode(files.read(key), type=dict[str, Any])
        digest = found.pop("digest")
        sound = set(found) == set(kind.columns) and kind.digest(found) == digest and kind.key(found) == key
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
        return None
    return found if sound else None


def _create(files: LocalRaw, kind: Sealed, values: dict[str, Any]) -> None:
    key = kind.key(values)
    data = msgspec.json.encode({**values, "digest": kind.digest(values)}) + b"\n"
    try:
        files.create(key, data)
    except AlreadyExists:  # by somebody who died before the row could say so
        if files.read(key) != data:
            raise StoreError(
                f"{files.root / key} says something else than state.db",
                hint="restore either from a backup; what is damaged: pik verify",
            ) from None


def _plain(row: tuple[Any, ...]) -> Iterator[Any]:
    return (column.hex() if isinstance(column, bytes) else column for column in row)

"""Promotion and rollback in state.db: one transaction, after a look at the rows that it touches."""

from __future__ import annotations

import sqlite3
from typing import Any

from pik.errors import Damaged
from pik.model.state_digest import row_digest, xor_of
from pik.ports.state import Promoted
from pik.stores.common import damaged_row
from pik.stores.local.sealing import seal
from pik.stores.local.sqlite import Database
from pik.stores.local.state import POINTER_DIGEST, VERSION_DIGEST, WRITER_DIGEST, expect_sound

_MINE = "version v LEFT JOIN current c USING (metric, bucket, entity) WHERE v.writer = ?"


def move(database: Database, kind: str, run_id: str, at: int, reason: str, *, dry_run: bool) -> Promoted:
    """Make the run's versions current where their bases are (`kind` promote), or the other way round. Raises Damaged
    where the run's versions, or the pointers to what is current beside them, are not as they were written."""
    promoted = _move(database, kind, run_id, at, reason, dry_run=dry_run)
    if not dry_run:
        seal(database)
    return promoted


def _move(database: Database, kind: str, run_id: str, at: int, reason: str, *, dry_run: bool) -> Promoted:
    old, new = ("base", "writer") if kind == "promote" else ("writer", "base")
    with database.write() as connection:
        row = connection.execute("SELECT number FROM writer WHERE run_id = ?", (run_id,)).fetchone()
        if row is None:
            return Promoted(0, 0, 0)
        _expect_sound(connection, run_id, row)
        counts = connection.execute(
            f"SELECT coalesce(sum(c.writer IS v.{old}), 0), coalesce(sum(c.writer IS v.{new}), 0), count(*)"
            f" FROM {_MINE}",
            row,
        ).fetchone()
        promoted = Promoted(counts[0], counts[1], counts[2] - counts[0] - counts[1])
        if dry_run or not (promoted.moved or promoted.conflicts):
            return promoted
        from ulid import ULID  # here, because it takes 20 ms that no other command should pay

        pointers, changed = _point(connection, row, old, new)
        what = (str(ULID()), run_id, kind, at, reason, promoted.moved, promoted.conflicts, pointers, changed)
        insert_promotion(connection, what)
    return promoted


def insert_promotion(connection: sqlite3.Connection, columns: tuple[Any, ...]) -> None:
    """Insert the row of a promotion."""
    (last,) = connection.execute("SELECT coalesce(max(number), 0) FROM promotion").fetchone()
    row = (last + 1, *columns)
    connection.execute(
        "INSERT INTO promotion (number, promotion_id, run_id, kind, at, reason, moved, conflicts, pointers,"
        " pointers_xor, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*row, row_digest("promotion", *row)),
    )


def _expect_sound(connection: sqlite3.Connection, run_id: str, writer: tuple[int]) -> None:
    """Raises Damaged unless the run's versions are all there and as they were written, and so are the pointers."""
    expect_sound(connection, f"run {run_id}", WRITER_DIGEST, "writer WHERE number = ?", writer)
    versions, total = connection.execute(
        "SELECT versions, versions_xor FROM writer WHERE number = ?", writer
    ).fetchone()
    bad = connection.execute(
        f"SELECT v.metric, v.entity, v.digest IS {VERSION_DIGEST} FROM {_MINE}"
        f" AND NOT (v.digest IS {VERSION_DIGEST} AND (c.writer IS NULL OR c.digest IS {POINTER_DIGEST})) LIMIT 1",
        writer,
    ).fetchone()
    if bad:
        what = f"the version of {bad[0]} of {bad[1]} by run {run_id}"
        raise damaged_row(f"the pointer to the current {bad[0]} of {bad[1]}" if bad[2] else what)
    digests = [digest for (digest,) in connection.execute(f"SELECT v.digest FROM {_MINE}", writer)]
    if (len(digests), xor_of(digests)) != (versions, total):
        raise Damaged(
            f"run {run_id} wrote {versions:,} versions, and {len(digests):,} of its versions are there",
            hint="pik verify names what is damaged; replay again to compute it anew",
        )


def _point(connection: sqlite3.Connection, writer: tuple[int], old: str, new: str) -> tuple[int, bytes]:
    """Move the pointers that can be moved: how many more there are now, and the XOR of the old and new digests."""
    connection.execute(
        "CREATE TEMP TABLE moving (metric TEXT, bucket INTEGER, entity TEXT, writer INTEGER, digest BLOB, was BLOB)"
    )
    connection.execute(
        "INSERT INTO temp.moving SELECT c.metric, c.bucket, c.entity, c.writer,"
        f" iif(c.writer IS NULL, NULL, {POINTER_DIGEST}), c.was FROM ("
        f"SELECT v.metric, v.bucket, v.entity, v.{new} AS writer, c.digest AS was FROM {_MINE} AND c.writer IS v.{old}"
        ") c",
        writer,
    )
    connection.execute(
        "INSERT OR REPLACE INTO current SELECT metric, bucket, entity, writer, digest FROM temp.moving"
        " WHERE writer IS NOT NULL"
    )
    connection.execute(
        "DELETE FROM current WHERE (metric, bucket, entity) IN"
        " (SELECT metric, bucket, entity FROM temp.moving WHERE writer IS NULL)"
    )
    more, changed = 0, bytes(16)
    for now, was in connection.execute("SELECT digest, was FROM temp.moving"):
        more += (now is not None) - (was is not None)
        changed = xor_of((digest for digest in (now, was) if digest is not None), changed)
    connection.execute("DROP TABLE temp.moving")
    return more, changed

"""Promotion and rollback in state.db: one transaction, after a look at the rows that it touches."""

from __future__ import annotations

import sqlite3
from typing import Any

from pik.errors import Damaged
from pik.model.state_digest import NO_ROWS, row_digest, xor_of
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
    written = connection.execute("SELECT versions, versions_xor FROM writer WHERE number = ?", writer).fetchone()
    there, total = 0, 0
    rows = connection.execute(
        f"SELECT v.digest, v.digest IS {VERSION_DIGEST}, iif(c.writer IS NULL, 1, c.digest IS {POINTER_DIGEST}),"
        f" v.metric, v.entity FROM {_MINE}",
        writer,
    )
    for digest, version_is_sound, pointer_is_sound, metric, entity in rows:
        if not version_is_sound:
            raise damaged_row(f"the version of {metric} of {entity} by run {run_id}")
        if not pointer_is_sound:
            raise damaged_row(f"the pointer to the current {metric} of {entity}")
        there += 1
        total ^= int.from_bytes(digest)
    if (there, total.to_bytes(len(NO_ROWS))) != written:
        raise Damaged(
            f"run {run_id} wrote {written[0]:,} versions, and {there:,} of its versions are there",
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
    (more,) = connection.execute("SELECT count(digest) - count(was) FROM temp.moving").fetchone()
    digests = connection.execute("SELECT digest FROM temp.moving UNION ALL SELECT was FROM temp.moving")
    changed = xor_of(digest for (digest,) in digests)
    connection.execute("DROP TABLE temp.moving")
    return more, changed

"""Promotion and rollback in state.db: one transaction, after a look at the rows that it touches."""

from __future__ import annotations

import sqlite3
from typing import Any

from pik.errors import Damaged
from pik.model.run import PromotionKind
from pik.ports.state import Promoted
from pik.stores.local.sqlite import Database
from pik.stores.local.state.database import POINTER_DIGEST, VERSION_DIGEST, WRITER_DIGEST, copy_rows, expect_sound
from pik.stores.state_rows import NO_ROWS, damaged_row, row_digest, xor_of

_FETCHED = 10_000  # digests at a time

_BASE_LOST = (
    "SELECT v.metric, v.entity FROM version v WHERE v.writer = ? AND v.base IS NOT NULL AND NOT EXISTS (SELECT 1 FROM"
    " version b WHERE (b.metric, b.bucket, b.entity, b.writer) = (v.metric, v.bucket, v.entity, v.base)) LIMIT 1"
)
_MINE = "version v LEFT JOIN current c USING (metric, bucket, entity) WHERE v.writer = ?"


def move(database: Database, kind: PromotionKind, run_id: str, at: int, reason: str, *, dry_run: bool) -> Promoted:
    """Make the run's versions current where their bases are (`kind` promote), or the other way round. Raises Damaged
    where the run's versions, or the pointers to what is current beside them, are not as they were written."""
    promoted = _move(database, kind, run_id, at, reason, dry_run=dry_run)
    if not dry_run:
        copy_rows(database)
    return promoted


def _move(database: Database, kind: PromotionKind, run_id: str, at: int, reason: str, *, dry_run: bool) -> Promoted:
    old, new = ("base", "writer") if kind == PromotionKind.PROMOTE else ("writer", "base")
    with database.write() as connection:
        row = connection.execute("SELECT number FROM writer WHERE run_id = ?", (run_id,)).fetchone()
        if row is None:
            return Promoted(0, 0, 0)
        promoted = _counted(connection, run_id, row, old, new)
        if kind == PromotionKind.ROLLBACK and (lost := connection.execute(_BASE_LOST, row).fetchone()):
            raise Damaged(
                f"the version of {lost[0]} of {lost[1]} that was current before run {run_id} is not there",
                hint="replay that bucket with `pik replay`, then `pik promote RUN`: that computes it anew",
            )
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


def _counted(connection: sqlite3.Connection, run_id: str, writer: tuple[int], old: str, new: str) -> Promoted:
    """What there is to move. Raises Damaged unless the run's versions are all there and as they were written, and so
    are the pointers."""
    expect_sound(connection, f"run {run_id}", WRITER_DIGEST, "writer WHERE number = ?", writer)
    written = connection.execute("SELECT versions, versions_xor FROM writer WHERE number = ?", writer).fetchone()
    sound = f"v.digest IS {VERSION_DIGEST} AND (c.writer IS NULL OR c.digest IS {POINTER_DIGEST})"
    rows = connection.execute(
        f"SELECT iif({sound}, v.digest, NULL), c.writer IS v.{old}, c.writer IS v.{new} FROM {_MINE}", writer
    )
    there, total, moved, already = 0, NO_ROWS, 0, 0
    while some := rows.fetchmany(_FETCHED):
        digests, are_old, are_new = zip(*some, strict=True)
        if None in digests:
            raise _altered(connection, run_id, writer, sound)
        there, total = there + len(some), xor_of(digests, total)
        moved, already = moved + sum(are_old), already + sum(are_new)
    if (there, total) != written:
        raise Damaged(
            f"run {run_id} wrote {written[0]:,} versions, and {there:,} of its versions are there",
            hint="replay again to compute it anew; what is damaged: pik verify",
        )
    return Promoted(moved, already, there - moved - already)


def _altered(connection: sqlite3.Connection, run_id: str, writer: tuple[int], sound: str) -> Damaged:
    """Which version, or which pointer, is the first that is not as it was written."""
    version_is_sound, metric, entity = connection.execute(
        f"SELECT v.digest IS {VERSION_DIGEST}, v.metric, v.entity FROM {_MINE} AND NOT ({sound}) LIMIT 1", writer
    ).fetchone()
    pointer, version = f"the pointer to the current {metric} of {entity}", f"the version of {metric} of {entity}"
    return damaged_row(pointer if version_is_sound else f"{version} by run {run_id}")


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
    digests = connection.execute(
        "SELECT digest FROM temp.moving WHERE digest IS NOT NULL UNION ALL"
        " SELECT was FROM temp.moving WHERE was IS NOT NULL"
    )
    changed = xor_of(digest for (digest,) in digests)
    connection.execute("DROP TABLE temp.moving")
    return more, changed

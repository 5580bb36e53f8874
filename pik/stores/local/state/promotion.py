"""Promotion and rollback in state.db: one transaction, after a check of the rows that it touches."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pik.errors import Damaged
from pik.model.metric import PromotionKind
from pik.ports.state import Promoted, Promotion
from pik.stores.local.sqlite import Database
from pik.stores.local.state.database import (
    POINTER_DIGEST,
    PROMOTION_DIGEST,
    VERSION_DIGEST,
    WRITER_DIGEST,
    copy_rows,
    expect_sound,
)
from pik.stores.state_rows import NO_ROWS, damaged_row, row_digest, xor_of

_FETCHED = 10_000  # digests at a time

_BASE_LOST = (
    "SELECT v.metric, v.entity FROM version v WHERE v.writer = ? AND v.base IS NOT NULL AND NOT EXISTS (SELECT 1 FROM"
    " version b WHERE (b.metric, b.bucket, b.entity, b.writer) = (v.metric, v.bucket, v.entity, v.base)) LIMIT 1"
)
_MINE = "version v LEFT JOIN current c USING (metric, bucket, entity) WHERE v.writer = ?"


@dataclass(slots=True)
class LocalPromotions:
    """Implements the port on the tables promotion and current."""

    database: Database

    def promote(self, run_id: str, at: int, reason: str, *, dry_run: bool = False) -> Promoted:
        return self._move(PromotionKind.PROMOTE, run_id, at, reason, dry_run=dry_run)

    def rollback(self, run_id: str, at: int, reason: str, *, dry_run: bool = False) -> Promoted:
        return self._move(PromotionKind.ROLLBACK, run_id, at, reason, dry_run=dry_run)

    def newest_first(self) -> Iterator[Promotion]:
        rows = self.database.read().execute(
            "SELECT run_id, kind, at, reason, moved, conflicts, promotion_id, "
            f"digest IS {PROMOTION_DIGEST} FROM promotion ORDER BY number DESC"
        )
        for *columns, promotion_id, sound in rows:
            if not sound:
                raise damaged_row(f"promotion {promotion_id} of run {columns[0]}")
            yield Promotion(*columns)

    def _move(self, kind: PromotionKind, run_id: str, at: int, reason: str, *, dry_run: bool) -> Promoted:
        """Make the run's versions current where their bases are (promote), or the other way round. Raises Damaged where
        the run's versions, or the pointers that they would replace, are not as they were written."""
        old, new = ("base", "writer") if kind == PromotionKind.PROMOTE else ("writer", "base")
        with self.database.write() as connection:
            writer = connection.execute("SELECT number FROM writer WHERE run_id = ?", (run_id,)).fetchone()
            if writer is None:
                return Promoted(0, 0, 0)
            promoted = _count(connection, run_id, writer, old, new)
            if kind == PromotionKind.ROLLBACK and (lost := connection.execute(_BASE_LOST, writer).fetchone()):
                raise Damaged(
                    f"the version of {lost[0]} of {lost[1]} that was current before run {run_id} is not there",
                    hint="replay that bucket with `pik replay`, then `pik promote RUN`: that computes it anew",
                )
            if not dry_run and (promoted.moved or promoted.conflicts):
                from ulid import ULID  # here, because it takes 20 ms that no other command should pay

                moved = promoted.moved, promoted.conflicts, *_point(connection, writer, old, new)
                insert_promotion(connection, (str(ULID()), run_id, kind, at, reason, *moved))
        if not dry_run:
            copy_rows(self.database)
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


def _count(connection: sqlite3.Connection, run_id: str, writer: tuple[int], old: str, new: str) -> Promoted:
    """Count what there is to move. Raises Damaged unless the run's versions are all there and as they were written, and
    so are the pointers."""
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
            first = f"SELECT v.digest IS {VERSION_DIGEST}, v.metric, v.entity FROM {_MINE} AND NOT ({sound}) LIMIT 1"
            version_is_sound, metric, entity = connection.execute(first, writer).fetchone()
            pointer = f"the pointer to the current {metric} of {entity}"
            raise damaged_row(pointer if version_is_sound else f"the version of {metric} of {entity} by run {run_id}")
        there, total = there + len(some), xor_of(digests, total)
        moved, already = moved + sum(are_old), already + sum(are_new)
    if (there, total) != written:
        raise Damaged(
            f"run {run_id} wrote {written[0]:,} versions, and {there:,} of its versions are there",
            hint="replay again to compute it anew; what is damaged: pik verify",
        )
    return Promoted(moved, already, there - moved - already)


def _point(connection: sqlite3.Connection, writer: tuple[int], old: str, new: str) -> tuple[int, bytes]:
    """Move the pointers that can be moved; return how many more there are now, and the XOR of the old and new
    digests."""
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

"""Aggregate versions in state.db, which of them is current, and moving that: promotion and rollback.

A version's key leads with its metric and bucket, as the pointers to current ones do, so that both are read in the same
order. All that touches many of them is one statement over sets.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from typing import Any

import msgspec
from msgspec import structs

from pik.errors import Damaged
from pik.model.aggregate import Aggregate, BucketDigest, Computed, DigestLines, bucket_digests, decimal_text, joinable
from pik.model.entity_range import AFTER_ALL, EVERY_ENTITY, EntityRange
from pik.model.ids import new_id
from pik.model.run import PromotionKind, RunState, Task
from pik.model.window import Window
from pik.ports.backup import Written
from pik.ports.state import Change, PointerCounts, Promotion, Standing
from pik.stores.local.sqlite import Database
from pik.stores.local.state.tables import (
    POINTER_DIGEST,
    PROMOTION,
    VERSION_DIGEST,
    WRITER_DIGEST,
    copy_rows,
    expect_sound,
)
from pik.stores.state_rows import NO_ROWS, damaged_row, row_digest, versions_missing, xor_of

_VERSION = (
    "v.metric, v.bucket, v.entity, v.value, v.inputs, v.input_ids, v.input_contents,"
    " w.run_id, v.metric_version, v.known_until, v.reason, v.actor"
)
_COLUMNS = 14  # those, whether the version is current, and whether it is sound

_INCOMING = (
    "CREATE TEMP TABLE IF NOT EXISTS incoming ("
    "metric TEXT, bucket INTEGER, entity TEXT, value TEXT, inputs INTEGER, input_ids BLOB, input_contents BLOB,"
    " metric_version INTEGER)"
)

# Rows that this run has not written yet, beside the version that is current now; a null stands for no value at all.
_TALLY = """
SELECT
    coalesce(sum(i.value IS NOT NULL AND b.value IS NULL), 0),
    coalesce(sum(b.value IS NOT NULL AND i.value <> b.value), 0),
    coalesce(sum(i.value IS NOT NULL AND i.value IS b.value), 0),
    coalesce(sum(b.value IS NOT NULL AND i.value IS NULL), 0)
FROM temp.incoming i
LEFT JOIN current c USING (metric, bucket, entity)
LEFT JOIN version b ON (b.metric, b.bucket, b.entity, b.writer) = (i.metric, i.bucket, i.entity, c.writer)
LEFT JOIN version mine ON (mine.metric, mine.bucket, mine.entity, mine.writer) = (i.metric, i.bucket, i.entity, :writer)
WHERE mine.writer IS NULL
"""

# Versions that are there already stay. A part at a time: SQLite holds all that a statement returns in memory.
_KEEP = f"""
INSERT OR IGNORE INTO version
SELECT v.*, {VERSION_DIGEST} FROM (
    SELECT i.metric, i.bucket, i.entity, :writer AS writer, i.value, i.inputs, i.input_ids, i.input_contents,
        c.writer AS base, i.metric_version, :known_until AS known_until, :reason AS reason,
        :actor AS actor
    FROM temp.incoming i LEFT JOIN current c USING (metric, bucket, entity)
    WHERE i.rowid > :after AND i.rowid <= :after + :part
) v
RETURNING digest
"""
_PART = 50_000

_ALL_KEYS = "SELECT * FROM {table} WHERE metric = :metric AND bucket >= :start AND bucket < :end"

# Each bucket that there is, found by seeking the next one, and in it the entities: the others' keys are never read.
_EACH = """
WITH RECURSIVE each(bucket) AS (
    SELECT min(bucket) FROM {table} WHERE metric = :metric AND bucket >= :start
    UNION ALL
    SELECT (SELECT min(bucket) FROM {table} WHERE metric = :metric AND bucket > each.bucket)
    FROM each WHERE each.bucket < :end
)
SELECT k.* FROM each {names}
CROSS JOIN {table} k ON k.metric = :metric AND k.bucket = each.bucket AND {condition}
WHERE each.bucket < :end
"""
_SOME_KEYS = _EACH.replace("{names}", "CROSS JOIN json_each(:entities) named").replace(
    "{condition}", "k.entity = named.value"
)
_RANGE_KEYS = _EACH.replace("{names}", "").replace("{condition}", "k.entity >= :first AND k.entity < :last")

_CURRENT = f"""
SELECT {_VERSION.replace("v.", "k.", 3)}, 1, {{sound}}
FROM ({{keys}}) k {{join}} version v USING (metric, bucket, entity, writer)
{{join}} writer w ON w.number = v.writer
ORDER BY k.bucket, k.entity
"""

_DIGEST_LINE = (
    "v.entity || x'1f' || v.value || x'1f' || coalesce(v.inputs, '-') || x'1f' || hex(v.input_ids) || CASE"
    " WHEN v.input_contents IS v.input_ids THEN x'0a' ELSE x'1f' || hex(v.input_contents) || x'0a' END"
)  # NULL where the value is
_DIGEST_LINES = f"""
SELECT bucket, {_DIGEST_LINE}, v.value IS NULL, v.metric_version, v.metric_version
FROM ({{keys}}) k CROSS JOIN version v USING (metric, bucket, entity, writer)
ORDER BY k.bucket, k.entity
"""
_JOINED_LINES = f"""
SELECT bucket, group_concat({_DIGEST_LINE}, ''), sum(v.value IS NULL), min(v.metric_version), max(v.metric_version)
FROM ({{keys}}) k CROSS JOIN version v USING (metric, bucket, entity, writer)
GROUP BY k.bucket
"""
_BUCKETS = "SELECT bucket, count(*) FROM ({keys}) GROUP BY bucket"

_HISTORY = f"""
SELECT {_VERSION}, c.writer IS v.writer, {{sound}}, (SELECT run_id FROM writer WHERE number = v.base)
FROM ({{keys}}) v CROSS JOIN writer w ON w.number = v.writer
LEFT JOIN current c ON (c.metric, c.bucket, c.entity) = (v.metric, v.bucket, v.entity)
ORDER BY v.bucket, v.entity, w.run_id
"""

_CHANGES = f"""
SELECT {_VERSION}, c.writer IS v.writer, 1,
    b.metric, b.bucket, b.entity, b.value, b.inputs, b.input_ids, b.input_contents,
    bw.run_id, b.metric_version, b.known_until, b.reason, b.actor, c.writer IS b.writer, 1
FROM version v INDEXED BY version_writer JOIN writer w ON w.number = v.writer
LEFT JOIN current c ON (c.metric, c.bucket, c.entity) = (v.metric, v.bucket, v.entity)
LEFT JOIN version b ON (b.metric, b.bucket, b.entity, b.writer) = (v.metric, v.bucket, v.entity, v.base)
LEFT JOIN writer bw ON bw.number = b.writer
WHERE v.writer = (SELECT number FROM writer WHERE run_id = ?) ORDER BY v.metric, v.bucket, v.entity
"""

_STANDING = """
SELECT count(*), coalesce(sum(c.writer IS v.writer), 0), coalesce(sum(c.writer IS v.base), 0),
    coalesce(max(v.known_until), 0)
FROM version v INDEXED BY version_writer LEFT JOIN current c USING (metric, bucket, entity)
WHERE v.writer = (SELECT number FROM writer WHERE run_id = ?)
"""

_FETCHED = 10_000  # digests at a time

_BASE_LOST = (
    "SELECT v.metric, v.entity FROM version v WHERE v.writer = ? AND v.base IS NOT NULL AND NOT EXISTS (SELECT 1 FROM"
    " version b WHERE (b.metric, b.bucket, b.entity, b.writer) = (v.metric, v.bucket, v.entity, v.base)) LIMIT 1"
)
_MINE = "version v LEFT JOIN current c USING (metric, bucket, entity) WHERE v.writer = ?"


@dataclass(slots=True)
class LocalAggregates:
    """Implements the ports Aggregates and Promotions on the tables version, current, writer and promotion."""

    database: Database

    def write(
        self,
        task: Task,
        rows: Iterable[Computed],
        *,
        versions: Mapping[str, int],
        known_until: int,
        reason: str,
        actor: str = "",
        computed_by: Sequence[str] = (),
    ) -> None:
        # Rows are computed while they are staged: before anything is locked, and in bounded memory.
        with self.database.staging() as connection:
            connection.execute(_INCOMING)
            connection.execute("DELETE FROM temp.incoming")
            staged = ((*version_columns(row), versions[row.metric]) for row in rows)
            connection.executemany("INSERT INTO temp.incoming VALUES (?, ?, ?, ?, ?, ?, ?, ?)", staged)
        run_id = task.run_id
        with self.database.write() as connection:
            run = connection.execute("SELECT state FROM run WHERE run_id = ?", (run_id,)).fetchone()
            if run == (RunState.CANCELLED,):
                return
            connection.execute("INSERT OR IGNORE INTO writer (run_id) VALUES (?)", (run_id,))
            (writer,) = connection.execute("SELECT number FROM writer WHERE run_id = ?", (run_id,)).fetchone()
            digested = "writer WHERE number = ? AND digest NOT NULL"
            expect_sound(connection, f"run {run_id}", WRITER_DIGEST, digested, (writer,))
            tally = connection.execute(_TALLY, {"writer": writer}).fetchone()
            (last,) = connection.execute("SELECT coalesce(max(rowid), 0) FROM temp.incoming").fetchone()
            count, total = 0, NO_ROWS
            values = {"writer": writer, "known_until": known_until, "reason": reason, "actor": actor, "part": _PART}
            for after in range(0, last, _PART):
                kept = connection.execute(_KEEP, {**values, "after": after}).fetchall()
                count, total = count + len(kept), xor_of((digest for (digest,) in kept), total)
            note_written(connection, writer, Written(*(*tally, count, total.hex(), tuple(computed_by))))

    def current(
        self,
        metric: str,
        window: Window,
        entities: Sequence[str] = (),
        *,
        entity_range: EntityRange = EVERY_ENTITY,
        checked: bool = False,
    ) -> Iterator[Aggregate]:
        return self._select(_CURRENT, metric, window, entities, checked, entity_range)

    def versions(
        self, metric: str, window: Window, entities: Sequence[str] = (), *, checked: bool = False
    ) -> Iterator[Aggregate]:
        return self._select(_HISTORY, metric, window, entities, checked)

    def _select(
        self,
        query: str,
        metric: str,
        window: Window,
        entities: Sequence[str],
        checked: bool,
        entity_range: EntityRange = EVERY_ENTITY,
    ) -> Iterator[Aggregate]:
        named = msgspec.json.encode(sorted(set(entities))).decode()
        first, last = entity_range.first, entity_range.end or AFTER_ALL
        values = {"metric": metric, "start": window.start, "end": window.end, "entities": named}
        values |= {"first": first, "last": last}
        table, pointer = ("version", "c") if query is _HISTORY else ("current", "k")
        keys = (_SOME_KEYS if entities else _ALL_KEYS if entity_range.is_all else _RANGE_KEYS).format(table=table)
        sound, join = "1", "CROSS JOIN"
        if entities or checked:  # few enough, or worth it
            is_pointer = f"{pointer}.digest IS {POINTER_DIGEST.replace('c.', f'{pointer}.')}"
            sound = f"v.digest IS {VERSION_DIGEST} AND ({pointer}.writer IS NULL OR {is_pointer})"
            join = "LEFT JOIN"
        rows = self.database.read().execute(query.format(keys=keys, sound=sound, join=join), values)
        return map(_aggregate, rows)

    def digests(self, metric: str, window: Window) -> Iterator[BucketDigest]:
        try:
            yield from bucket_digests(metric, self.lines(metric, window))
        except (TypeError, ValueError) as error:  # damage: a column of another type
            raise damaged_row(f"a version of {metric}") from error

    def lines(self, metric: str, window: Window) -> Iterator[DigestLines]:
        keys = _ALL_KEYS.format(table="current")
        with self.database.snapshot() as connection:
            values = {"metric": metric, "start": window.start, "end": window.end}
            counts = connection.execute(_BUCKETS.format(keys=keys), values)
            for start, last, few in joinable(counts):
                query = (_JOINED_LINES if few else _DIGEST_LINES).format(keys=keys)
                yield from connection.execute(query, {"metric": metric, "start": start, "end": last + 1})

    def changes(self, run_id: str) -> Iterator[Change]:
        rows = self.database.read().execute(_CHANGES, (run_id,))
        return (
            Change(_aggregate(row[:_COLUMNS]), None if row[_COLUMNS] is None else _aggregate(row[_COLUMNS:]))
            for row in rows
        )

    def standing(self, run_id: str) -> Standing:
        return Standing(*self.database.read().execute(_STANDING, (run_id,)).fetchone())

    def promote(self, run_id: str, at: int, reason: str, actor: str = "", *, dry_run: bool = False) -> PointerCounts:
        return self._move(PromotionKind.PROMOTE, run_id, (at, reason, actor), dry_run=dry_run)

    def rollback(self, run_id: str, at: int, reason: str, actor: str = "", *, dry_run: bool = False) -> PointerCounts:
        return self._move(PromotionKind.ROLLBACK, run_id, (at, reason, actor), dry_run=dry_run)

    def newest_first(self) -> Iterator[Promotion]:
        rows = self.database.read().execute(
            "SELECT promotion_id, run_id, kind, at, reason, actor, moved, conflicts, pointers,"
            f" lower(hex(pointers_xor)), digest IS {PROMOTION.digest} FROM promotion ORDER BY number DESC"
        )
        for *columns, sound in rows:
            if not sound:
                raise damaged_row(f"promotion {columns[0]} of run {columns[1]}")
            yield Promotion(*columns)

    def _move(self, kind: PromotionKind, run_id: str, why: tuple[int, str, str], *, dry_run: bool) -> PointerCounts:
        """Make the run's versions current where their bases are (promote), or the other way round. Raises Damaged where
        the run's versions, or the pointers that they would replace, are not as they were written."""
        old, new = ("base", "writer") if kind == PromotionKind.PROMOTE else ("writer", "base")
        with self.database.write() as connection:
            writer = connection.execute("SELECT number FROM writer WHERE run_id = ?", (run_id,)).fetchone()
            if writer is None:
                return PointerCounts(0, 0, 0)
            promoted = _count(connection, run_id, writer, old, new)
            if kind == PromotionKind.ROLLBACK and (lost := connection.execute(_BASE_LOST, writer).fetchone()):
                raise Damaged(
                    f"the version of {lost[0]} of {lost[1]} that was current before run {run_id} is not there",
                    hint="replay that bucket with `pik replay`, then `pik promote RUN`: that computes it anew",
                )
            if not dry_run and (promoted.moved or promoted.conflicts):
                moved = promoted.moved, promoted.conflicts, *_point(connection, writer, old, new)
                insert_promotion(connection, (new_id(), run_id, kind, *why, *moved))
        if not dry_run:
            copy_rows(self.database)
        return promoted


def note_written(connection: sqlite3.Connection, writer: int, written: Written) -> None:
    """Record that a writer has also added these versions."""
    *counts, digests, programs = structs.astuple(written)
    before, known = connection.execute(
        "SELECT versions_xor, computed_by FROM writer WHERE number = ?", (writer,)
    ).fetchone()
    xor, computed_by = xor_of([bytes.fromhex(digests)], before), sorted({*msgspec.json.decode(known), *programs})
    connection.execute(
        "UPDATE writer SET new = new + ?, changed = changed + ?, unchanged = unchanged + ?, removed = removed + ?,"
        " versions = versions + ?, versions_xor = ?, computed_by = ? WHERE number = ?",
        (*counts, xor, msgspec.json.encode(computed_by).decode(), writer),
    )
    connection.execute(f"UPDATE writer SET digest = {WRITER_DIGEST} WHERE number = ?", (writer,))


def version_columns(row: Computed) -> tuple[object, ...]:
    """Return the first columns of a version, those that were computed, but for its writer."""
    value = None if row.value is None else decimal_text(row.value)
    hashes = bytes.fromhex(row.input_ids), bytes.fromhex(row.input_contents)
    return row.metric, row.bucket, row.entity_id, value, row.inputs, *hashes


def _aggregate(row: tuple[Any, ...]) -> Aggregate:
    metric, bucket, entity, value, inputs, ids, contents, run_id, *rest = row
    metric_version, known_until, reason, actor, current, sound, *base = rest
    if run_id is None:  # a pointer without its version
        raise damaged_row(f"the pointer to the current {metric} of {entity}")
    try:
        exact = None if value is None else Decimal(value)
        computed = Computed(metric, bucket, entity, exact, inputs, ids.hex(), contents.hex())
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise damaged_row(f"the version of {metric} of {entity} by run {run_id}") from error
    return Aggregate(computed, run_id, metric_version, known_until, reason, bool(current), bool(sound), actor, *base)


def insert_promotion(connection: sqlite3.Connection, columns: tuple[Any, ...]) -> None:
    """Insert the row of a promotion."""
    (last,) = connection.execute("SELECT coalesce(max(number), 0) FROM promotion").fetchone()
    row = (last + 1, *columns)
    connection.execute(
        f"INSERT INTO promotion ({', '.join(PROMOTION.columns)}, digest) VALUES (?{', ?' * len(row)})",
        (*row, row_digest("promotion", *row)),
    )


def _count(connection: sqlite3.Connection, run_id: str, writer: tuple[int], old: str, new: str) -> PointerCounts:
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
        raise versions_missing(run_id, written[0], there)
    return PointerCounts(moved, already, there - moved - already)


def _point(connection: sqlite3.Connection, writer: tuple[int], old: str, new: str) -> tuple[int, bytes]:
    """Move the pointers that can be moved; return how many more there are now, and the XOR of the old and new
    digests."""
    connection.execute(
        "CREATE TEMP TABLE moving AS SELECT c.metric, c.bucket, c.entity, c.writer,"
        f" iif(c.writer IS NULL, NULL, {POINTER_DIGEST}) AS digest, c.was FROM ("
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
    changed = xor_of(chain.from_iterable(connection.execute("SELECT digest, was FROM temp.moving")))
    connection.execute("DROP TABLE temp.moving")
    return more, changed

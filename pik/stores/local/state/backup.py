"""Backup and restore of state.db, as rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from pik.errors import StoreError
from pik.ports.state import (
    LetterRow,
    MetricRow,
    Omitted,
    PointerRow,
    PromotionRow,
    Row,
    RunRow,
    TaskRow,
    VersionRow,
    Written,
)
from pik.stores.local.sqlite import Database
from pik.stores.local.state.database import (
    LETTER_DIGEST,
    METRIC,
    POINTER_DIGEST,
    PROMOTION,
    TASK_DIGEST,
    VERSION_DIGEST,
    WRITER_DIGEST,
    Copied,
    copy_rows,
    insert_metric,
    set_aside_copies,
)
from pik.stores.local.state.promotion import insert_promotion
from pik.stores.local.state.runs import all_runs, insert_run, insert_tasks, letter_row, task_columns
from pik.stores.state_rows import (
    damaged_row,
    failures_of,
    lost_version,
    metric_of,
    pointer_digest,
    read_letter,
    read_task,
    xor_of,
)

_TABLES = ("metric", "run", "task", "letter", "writer", "version", "current", "promotion", "message")

_IS_CURRENT = (
    "EXISTS (SELECT 1 FROM current c WHERE (c.metric, c.bucket, c.entity, c.writer) = (v.metric, v.bucket, v.entity,"
    " v.writer))"
)
# How a version compares with the one that was current is not stored, but follows from the two.
_VERSIONS = f"""
SELECT v.metric, v.bucket, v.entity, w.run_id, v.value, v.inputs, lower(hex(v.input_ids)), lower(hex(v.input_contents)),
    bw.run_id, v.metric_version, v.known_until, v.reason,
    CASE WHEN b.value IS NULL THEN iif(v.value IS NULL, '', 'new') WHEN v.value IS NULL THEN 'removed'
        WHEN v.value = b.value THEN 'unchanged' ELSE 'changed' END,
    lower(hex(v.digest)), v.digest IS {VERSION_DIGEST}
FROM version v JOIN writer w ON w.number = v.writer LEFT JOIN writer bw ON bw.number = v.base
LEFT JOIN version b ON (b.metric, b.bucket, b.entity, b.writer) = (v.metric, v.bucket, v.entity, v.base)
"""
_POINTERS = (
    f"SELECT c.metric, c.bucket, c.entity, w.run_id, c.digest IS {POINTER_DIGEST}"
    " FROM current c LEFT JOIN writer w ON w.number = c.writer"
)


@dataclass(slots=True)
class LocalBackup:
    """Implements the port."""

    database: Database

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row | Omitted]]:
        with self.database.snapshot() as connection:
            yield _rows(connection, self.database.path.parent)

    def has_state(self, resuming: str = "") -> bool:  # noqa: ARG002 - an interrupted restore leaves nothing
        return self.database.path.exists() and _has_rows(self.database.read())

    def restore(self, rows: Iterable[Row], name: str) -> tuple[str, ...]:  # noqa: ARG002
        self.database.create()
        with self.database.write() as connection:
            if _has_rows(connection):
                raise StoreError(f"{self.database.path} holds state already")
            restoring = _Restoring(connection)
            for row in rows:
                restoring.insert(row)
            restoring.finish()
        lacking = set_aside_copies(self.database)
        copy_rows(self.database)
        return lacking


def _has_rows(connection: sqlite3.Connection) -> bool:
    return any(connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in _TABLES)


def _rows(connection: sqlite3.Connection, root: Path) -> Iterator[Row | Omitted]:
    # Versions that are not as they were written, and not current: nothing shows them but history.
    omitted = [
        Omitted(*row)
        for row in connection.execute(
            "SELECT v.metric, v.bucket, v.entity, w.run_id FROM version v JOIN writer w ON w.number = v.writer"
            f" WHERE v.digest IS NOT {VERSION_DIGEST} AND NOT {_IS_CURRENT}"
        )
    ]
    for values in _kept_twice(connection, root, METRIC):
        yield MetricRow(metric_of(*(values[name] for name in ("version", "definition", "applied_at", "scale"))))
    yield from map(RunRow, all_runs(connection))
    yield from _tasks(connection, {one.run_id for one in omitted})
    yield from omitted
    left_out = {(one.metric, one.bucket, one.entity, one.run_id) for one in omitted}
    versions = (row for row in connection.execute(_VERSIONS) if row[:4] not in left_out)
    yield from (VersionRow(*row) for row in _sound(versions, "a version of"))
    for values in _kept_twice(connection, root, PROMOTION):
        yield PromotionRow(*(values[name] for name in PROMOTION.columns[1:]))
    yield from (PointerRow(*row) for row in _sound(connection.execute(_POINTERS), "a pointer of"))
    letters = f"SELECT letter_id, body, digest IS {LETTER_DIGEST} FROM letter ORDER BY letter_id"
    for _, body in _sound(connection.execute(letters), "dead letter"):
        yield LetterRow(read_letter(body))


def _sound(rows: Iterable[tuple[Any, ...]], what: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows without their last column, which is whether they are as they were written. Raises Damaged."""
    for *columns, sound in rows:
        if not sound:
            raise damaged_row(f"{what} {columns[0]}")
        yield tuple(columns)


def _kept_twice(connection: sqlite3.Connection, root: Path, kind: Copied) -> list[dict[str, Any]]:
    """Return the rows of a kind that has files, in order; a damaged one as its file has it. Raises Damaged if that is
    not whole either."""
    rows = kind.sound(connection)
    for values in kind.altered(connection):
        copy = kind.read(root, kind.key(values))
        if copy is None:
            raise damaged_row(f"{kind.table} {values[kind.columns[0]]}")
        rows.append(copy)
    return sorted(rows, key=lambda values: [values[name] for name in kind.columns[:2]])


def _tasks(connection: sqlite3.Connection, incomplete: Collection[str]) -> Iterator[Row]:
    """Yield the tasks, the first of each run with all that the run wrote; of `incomplete` runs some versions are left
    out."""
    columns = f"run_id, number, body, state, failing, failures, digest IS {TASK_DIGEST}"
    tasks = _sound(connection.execute(f"SELECT {columns} FROM task ORDER BY run_id, number"), "a task of run")
    for run_id, of_run in groupby(tasks, key=itemgetter(0)):
        written = _written(connection, run_id)
        if written is not None and run_id in incomplete:
            written = _without_omitted(connection, run_id, written)
        for _, _, body, state, failing, kept in of_run:
            yield TaskRow(read_task(body), state, written=written, failures=failures_of(failing, kept))
            written = None


def _written(connection: sqlite3.Connection, run_id: str) -> Written | None:
    rows = connection.execute(
        "SELECT run_id, new, changed, unchanged, removed, versions, lower(hex(versions_xor)), computed_by,"
        f" digest IS {WRITER_DIGEST} FROM writer WHERE run_id = ?",
        (run_id,),
    )
    for _, *columns in _sound(rows.fetchall(), "run"):
        columns[-1] = tuple(msgspec.json.decode(columns[-1]))
        return Written(*columns)
    return None


def _without_omitted(connection: sqlite3.Connection, run_id: str, written: Written) -> Written:
    """Return what a run wrote, without its versions that are left out. One that is lost besides remains missing."""
    rows = connection.execute(
        f"SELECT v.digest, v.digest IS {VERSION_DIGEST} OR {_IS_CURRENT} FROM version v"
        " WHERE v.writer = (SELECT number FROM writer WHERE run_id = ?)",
        (run_id,),
    ).fetchall()
    if len(rows) != written.versions:
        return written
    kept = [digest for digest, is_kept in rows if is_kept]
    return msgspec.structs.replace(written, versions=len(kept), versions_xor=xor_of(kept).hex())


@dataclass(slots=True)
class _Restoring:
    """Inserts rows, and what follows from them."""

    connection: sqlite3.Connection
    writers: dict[str, int] = field(default_factory=dict)
    written: dict[str, Written] = field(default_factory=dict)

    def insert(self, row: Row) -> None:
        match row:
            case MetricRow():
                insert_metric(self.connection, row.metric)
            case RunRow():
                insert_run(self.connection, row.run)
            case TaskRow():
                self._insert_task(row)
            case VersionRow():
                base = None if row.base is None else self._writer(row.base)
                self._insert(
                    "version",
                    *(row.metric, row.bucket, row.entity, self._writer(row.run_id), row.value, row.inputs),
                    *(bytes.fromhex(row.input_ids), bytes.fromhex(row.input_contents), base),
                    *(row.metric_version, row.known_until, row.reason, bytes.fromhex(row.digest)),
                )
            case PromotionRow():
                *columns, pointers_xor = msgspec.structs.astuple(row)
                insert_promotion(self.connection, (*columns, bytes.fromhex(pointers_xor)))
            case PointerRow():
                key = row.metric, row.bucket, row.entity
                self._insert("current", *key, self._writer(row.run_id), pointer_digest(*key, row.run_id))
            case LetterRow():
                self._insert("letter", *letter_row(row.letter))

    def _insert_task(self, row: TaskRow) -> None:
        run_id = row.task.run_id
        insert_tasks(self.connection, [task_columns(row.task, row.state, row.failures)])
        if row.written is not None:
            before = self.written.get(run_id)
            self.written[run_id] = row.written if before is None else _sum(before, row.written)

    def _insert(self, table: str, *columns: object) -> None:
        self.connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", columns)

    def _writer(self, run_id: str) -> int:
        if run_id not in self.writers:
            self.writers[run_id] = len(self.writers) + 1
            self.connection.execute("INSERT INTO writer (number, run_id) VALUES (?, ?)", (self.writers[run_id], run_id))
        return self.writers[run_id]

    def finish(self) -> None:
        """Record what runs wrote, and check what became of the versions. Raises Damaged."""
        for run_id, written in self.written.items():
            self.connection.execute(
                "UPDATE writer SET new = ?, changed = ?, unchanged = ?, removed = ?, versions = ?, versions_xor = ?,"
                " computed_by = ? WHERE number = ?",
                (
                    *(written.new, written.changed, written.unchanged, written.removed, written.versions),
                    bytes.fromhex(written.versions_xor),
                    msgspec.json.encode(sorted(set(written.computed_by))).decode(),
                    self._writer(run_id),
                ),
            )
        self.connection.execute(f"UPDATE writer SET digest = {WRITER_DIGEST}")
        damaged = f"SELECT v.metric, v.entity FROM version v WHERE v.digest IS NOT {VERSION_DIGEST} LIMIT 1"
        if bad := self.connection.execute(damaged).fetchone():
            raise damaged_row(f"the version of {bad[0]} of {bad[1]} in the backup")
        lost = self.connection.execute(
            "SELECT c.metric, c.entity FROM current c LEFT JOIN version v USING (metric, bucket, entity, writer)"
            " WHERE v.writer IS NULL LIMIT 1"
        ).fetchone()
        if lost:
            raise lost_version(*lost)


def _sum(one: Written, other: Written) -> Written:
    both = xor_of(bytes.fromhex(each.versions_xor) for each in (one, other))
    return Written(
        one.new + other.new,
        one.changed + other.changed,
        one.unchanged + other.unchanged,
        one.removed + other.removed,
        one.versions + other.versions,
        both.hex(),
        (*one.computed_by, *other.computed_by),
    )

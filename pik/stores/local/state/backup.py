"""The rows of state.db: backup and restore."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from pik.errors import StoreError
from pik.ports.backup import (
    LetterRow,
    MetricRow,
    OmittedVersion,
    PointerRow,
    RefusalRow,
    RepublishRow,
    Row,
    RunRow,
    TaskRow,
    VersionRow,
    Written,
)
from pik.ports.state import Promotion
from pik.runtime.new_file import created_whole
from pik.runtime.storage import sync_directory
from pik.stores.local.access import make_directory
from pik.stores.local.lock import holding
from pik.stores.local.sqlite import Database, EmptyDatabase
from pik.stores.local.state.aggregates import insert_promotion, note_written
from pik.stores.local.state.metrics import insert_metric
from pik.stores.local.state.republishes import all_refusals, all_republishes, refusal_row, republish_row
from pik.stores.local.state.runs import all_letters, all_runs, insert_run, insert_tasks, letter_row, task_columns
from pik.stores.local.state.tables import (
    COPIES,
    METRIC,
    POINTER_DIGEST,
    PROMOTION,
    TASK_DIGEST,
    VERSION_DIGEST,
    WRITER_DIGEST,
    FiledRow,
    copy_rows,
    foreign_copies,
    set_aside,
)
from pik.stores.state_rows import damaged_row, failures_of, lost_version, metric_of, pointer_digest, read_task, xor_of

_TABLES = ("metric", "run", "task", "letter", "writer", "version", "current", "promotion", "message", "republish")

_IS_CURRENT = (
    "EXISTS (SELECT 1 FROM current c WHERE (c.metric, c.bucket, c.entity, c.writer) = (v.metric, v.bucket, v.entity,"
    " v.writer))"
)
# How a version compares with the one that was current is not stored, but follows from the two.
_VERSIONS = f"""
SELECT v.metric, v.bucket, v.entity, w.run_id, v.value, v.inputs, lower(hex(v.input_ids)), lower(hex(v.input_contents)),
    bw.run_id, v.metric_version, v.known_until, v.reason, v.actor,
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
    locks: Path

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row | OmittedVersion]]:
        with self.database.snapshot() as connection:
            yield _rows(connection, self.database.path.parent)

    def has_state(self, resuming: str = "") -> bool:
        under_way = self._under_way()
        if under_way is not None and under_way.name == resuming:
            return False
        try:
            return self.database.path.exists() and _has_rows(self.database.read())
        except EmptyDatabase:
            return False

    def restore(self, rows: Iterable[Row], name: str) -> tuple[str, ...]:
        """Restore the rows in one transaction. From before it until the copies agree with the rows a mark says that the
        same call goes on."""
        with holding(self.locks, "a restore"):
            return self._restore(rows, name)

    def _restore(self, rows: Iterable[Row], name: str) -> tuple[str, ...]:
        self.database.create()
        resumed = self._under_way()
        under_way = resumed if resumed is not None and resumed.name == name else UnderWay(name)
        with self.database.write() as connection:
            if not _has_rows(connection):
                self._mark(under_way)
                restoring = _Restoring(connection)
                for row in rows:
                    restoring.insert(row)
                restoring.finish()
            elif under_way is not resumed or not _has_all(connection, rows):
                self._marked.unlink(missing_ok=True)
                raise StoreError(
                    f"{self.database.path} holds state already", hint="restore into a new store: pik init --store DIR"
                )
        foreign = foreign_copies(self.database)
        lacking = {*under_way.lacking, *filter(None, foreign.values())}
        under_way = UnderWay(name, tuple(sorted(lacking)))
        self._mark(under_way)  # before the files that say so are moved
        set_aside(self.database.path.parent, foreign)
        copy_rows(self.database)
        self._marked.unlink()
        sync_directory(self._marked.parent)
        return under_way.lacking

    @property
    def _marked(self) -> Path:
        return self.database.path.parent / COPIES / "restoring.json"

    def _under_way(self) -> UnderWay | None:
        """Return the restore that was interrupted, if there is one."""
        try:
            return msgspec.json.decode(self._marked.read_bytes(), type=UnderWay)
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def _mark(self, under_way: UnderWay) -> None:
        make_directory(self._marked.parent)
        with created_whole(self._marked, replace=True) as file:
            file.write(msgspec.json.encode(under_way) + b"\n")


class UnderWay(msgspec.Struct, frozen=True):
    """A restore that has not ended: its name, and what the store had copies of that its rows lack."""

    name: str
    lacking: tuple[str, ...] = ()


def _has_rows(connection: sqlite3.Connection) -> bool:
    return any(connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in _TABLES)


def _has_all(connection: sqlite3.Connection, rows: Iterable[Row]) -> bool:
    """Return whether there are as many definitions, runs and promotions as in the rows: nothing came after them."""
    tables = {MetricRow: "metric", RunRow: "run", Promotion: "promotion"}
    counts = Counter(tables[type(row)] for row in rows if type(row) in tables)
    return all(
        connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (counts[table],) for table in tables.values()
    )


def _rows(connection: sqlite3.Connection, root: Path) -> Iterator[Row | OmittedVersion]:
    # Versions that are not as they were written, and not current: nothing shows them but history.
    omitted = [
        OmittedVersion(*row)
        for row in connection.execute(
            "SELECT v.metric, v.bucket, v.entity, w.run_id FROM version v JOIN writer w ON w.number = v.writer"
            f" WHERE v.digest IS NOT {VERSION_DIGEST} AND NOT {_IS_CURRENT}"
        )
    ]
    for values in _written_rows(connection, root, METRIC):
        yield MetricRow(metric_of(*(values[name] for name in METRIC.columns[1:])))
    yield from map(RunRow, all_runs(connection))
    yield from _tasks(connection, {one.run_id for one in omitted})
    yield from omitted
    left_out = {(one.metric, one.bucket, one.entity, one.run_id) for one in omitted}
    versions = (row for row in connection.execute(_VERSIONS) if row[:4] not in left_out)
    yield from (VersionRow(*row) for row in _sound(versions, "a version of"))
    for values in _written_rows(connection, root, PROMOTION):
        yield Promotion(*(values[name] for name in PROMOTION.columns[1:]))
    yield from (PointerRow(*row) for row in _sound(connection.execute(_POINTERS), "a pointer of"))
    yield from map(LetterRow, all_letters(connection))
    yield from map(RepublishRow, all_republishes(connection))
    yield from (RefusalRow(*row) for row in all_refusals(connection))


def _sound(rows: Iterable[tuple[Any, ...]], what: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows without their last column, which is whether they are as they were written. Raises Damaged."""
    for *columns, sound in rows:
        if not sound:
            raise damaged_row(f"{what} {columns[0]}")
        yield tuple(columns)


def _written_rows(connection: sqlite3.Connection, root: Path, kind: FiledRow) -> Iterator[dict[str, Any]]:
    for row, whole in kind.with_content(connection, root):
        if whole is None:
            raise damaged_row(f"{kind.table} {row[kind.columns[0]]}")
        yield whole


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

    def insert(self, row: Row) -> None:
        match row:
            case MetricRow():
                insert_metric(self.connection, row.metric)
            case RunRow():
                insert_run(self.connection, row.run)
            case TaskRow():
                insert_tasks(self.connection, [task_columns(row.task, row.state, row.failures)])
                if row.written is not None:
                    note_written(self.connection, self._writer(row.task.run_id), row.written)
            case VersionRow():
                base = None if row.base is None else self._writer(row.base)
                self._insert(
                    "version",
                    *(row.metric, row.bucket, row.entity, self._writer(row.run_id), row.value, row.inputs),
                    *(bytes.fromhex(row.input_ids), bytes.fromhex(row.input_contents), base),
                    *(row.metric_version, row.known_until, row.reason, row.actor, bytes.fromhex(row.digest)),
                )
            case Promotion():
                *columns, pointers_xor = msgspec.structs.astuple(row)
                insert_promotion(self.connection, (*columns, bytes.fromhex(pointers_xor)))
            case PointerRow():
                key = row.metric, row.bucket, row.entity
                self._insert("current", *key, self._writer(row.run_id), pointer_digest(*key, row.run_id))
            case LetterRow():
                self._insert("letter", *letter_row(row.letter))
            case RepublishRow():
                self._insert("republish", *republish_row(row.republish))
            case RefusalRow():
                self._insert("refusal", *refusal_row(row.republish_id, row.refusal))

    def _insert(self, table: str, *columns: object) -> None:
        self.connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", columns)

    def _writer(self, run_id: str) -> int:
        if run_id not in self.writers:
            self.writers[run_id] = len(self.writers) + 1
            self.connection.execute("INSERT INTO writer (number, run_id) VALUES (?, ?)", (self.writers[run_id], run_id))
        return self.writers[run_id]

    def finish(self) -> None:
        """Check what became of the versions. Raises Damaged."""
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

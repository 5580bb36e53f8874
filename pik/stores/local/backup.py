"""The rows of state.db: backup, restore, and taking over those of the store that this one is a copy of."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from pik.errors import Damaged, StoreError
from pik.model.instant import Window
from pik.model.metric import EVENT_COUNT, Aggregate, Metric
from pik.ports.backup import (
    LetterRow,
    MetricRow,
    Omitted,
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
from pik.ports.store import TakenOver
from pik.stores.local.aggregates import insert_promotion, note_written, version_columns
from pik.stores.local.lock import holding
from pik.stores.local.republishes import all_refusals, all_republishes, refusal_row, republish_row
from pik.stores.local.runs import all_letters, all_runs, insert_run, insert_tasks, letter_row, task_columns
from pik.stores.local.sqlite import Database
from pik.stores.local.state import (
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
from pik.stores.state_rows import (
    RowTally,
    damaged_row,
    failures_of,
    lost_version,
    metric_columns,
    metric_of,
    pointer_digest,
    read_task,
    xor_of,
)

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


def _written_rows(connection: sqlite3.Connection, root: Path, kind: Copied) -> Iterator[dict[str, Any]]:
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


_TAKING = """
CREATE TEMP TABLE IF NOT EXISTS taking (
    run_id TEXT, metric TEXT, bucket INTEGER, entity TEXT, value TEXT, inputs INTEGER,
    input_ids BLOB, input_contents BLOB,
    metric_version INTEGER, known_until INTEGER, reason TEXT, actor TEXT, current INTEGER
)
"""

_IN_SCOPE = """
current c JOIN temp.scope s ON c.metric = s.metric AND c.bucket >= s.start AND c.bucket < s.end
WHERE (:entities IS NULL OR c.entity IN (SELECT value FROM json_each(:entities)))
"""

# What is current in scope and will be no more, and how much of that a run of this store's own had written.
_LEAVING = f"""
SELECT count(*), count(r.run_id) FROM (SELECT c.* FROM {_IN_SCOPE}) c
JOIN writer w ON w.number = c.writer LEFT JOIN run r USING (run_id)
WHERE NOT EXISTS (
    SELECT 1 FROM temp.taking t
    WHERE t.current AND (t.metric, t.bucket, t.entity, t.run_id) = (c.metric, c.bucket, c.entity, w.run_id)
)
"""

_COMING = """
SELECT count(*), coalesce(sum(c.writer IS NULL), 0) FROM temp.taking t
LEFT JOIN current c ON (c.metric, c.bucket, c.entity) = (t.metric, t.bucket, t.entity)
WHERE t.current
"""

_KEEP = f"""
INSERT OR IGNORE INTO version
SELECT v.*, {VERSION_DIGEST} FROM (
    SELECT t.metric, t.bucket, t.entity, w.number AS writer, t.value, t.inputs, t.input_ids, t.input_contents,
        NULL AS base, t.metric_version, t.known_until, t.reason, t.actor
    FROM temp.taking t JOIN writer w USING (run_id)
) v
RETURNING writer, digest
"""


@dataclass(slots=True)
class LocalCopy:
    """`source` is the URL of the store that this one is a copy of; `locks` is the store's lock file."""

    source: str
    database: Database
    locks: Path

    def pulling(self) -> AbstractContextManager[None]:
        return holding(self.locks, "a pull")

    def take_metrics(self, metrics: Iterable[Metric]) -> int:
        with self.database.write() as connection:
            new = sum(_take_metric(connection, metric) for metric in metrics if metric != EVENT_COUNT)
        copy_rows(self.database)
        return new

    def take_aggregates(
        self, scopes: Mapping[str, Window], entities: Sequence[str], rows: Iterable[Aggregate]
    ) -> TakenOver:
        # Rows are read from the source while they are staged: before anything is locked, and in bounded memory.
        with self.database.staging() as connection:
            connection.execute(_TAKING)
            connection.execute("CREATE TEMP TABLE IF NOT EXISTS scope (metric TEXT, start INTEGER, end INTEGER)")
            connection.execute("DELETE FROM temp.taking")
            connection.execute("DELETE FROM temp.scope")
            windows = [(name, window.start, window.end) for name, window in scopes.items()]
            connection.executemany("INSERT INTO temp.scope VALUES (?, ?, ?)", windows)
            connection.executemany(
                "INSERT INTO temp.taking VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_columns, rows)
            )
        named = {"entities": msgspec.json.encode(sorted(set(entities))).decode() if entities else None}
        with self.database.write() as connection:
            leaving, replaced = connection.execute(_LEAVING, named).fetchone()
            current, added = connection.execute(_COMING).fetchone()
            connection.execute("INSERT OR IGNORE INTO writer (run_id) SELECT DISTINCT run_id FROM temp.taking")
            kept: defaultdict[int, RowTally] = defaultdict(RowTally)
            for writer, digest in connection.execute(_KEEP):
                kept[writer].add(digest)
            for writer, tally in kept.items():
                note_written(connection, writer, Written(0, 0, 0, 0, tally.count, tally.xor.hex()))
            connection.execute(
                "DELETE FROM current WHERE (metric, bucket, entity) IN"
                f" (SELECT c.metric, c.bucket, c.entity FROM {_IN_SCOPE})",
                named,
            )
            try:
                connection.execute(
                    f"INSERT INTO current SELECT c.*, {POINTER_DIGEST} FROM ("
                    "SELECT t.metric, t.bucket, t.entity, w.number AS writer"
                    " FROM temp.taking t JOIN writer w USING (run_id) WHERE t.current) c"
                )
            except sqlite3.IntegrityError:
                raise Damaged("of one value, two versions are said to be current", hint="use another copy") from None
        return TakenOver(current, sum(tally.count for tally in kept.values()), leaving + added, replaced)


def _take_metric(connection: sqlite3.Connection, metric: Metric) -> bool:
    """Keep a version; return whether it is new."""
    *_, definition, _, _, _, _, retired = metric_columns(metric)
    added = insert_metric(connection, metric)
    found = connection.execute(
        "SELECT definition, retired FROM metric WHERE name = ? AND version = ?", (metric.name, metric.version)
    ).fetchone()
    if found != (definition, retired):
        raise StoreError(
            f"{metric.name} has another version {metric.version} in this copy, applied here, than in its source",
            hint="pull into a new directory",
        )
    return added


def _columns(aggregate: Aggregate) -> tuple[object, ...]:
    why = aggregate.metric_version, aggregate.known_until, aggregate.reason, aggregate.actor
    return aggregate.run_id, *version_columns(aggregate.computed), *why, aggregate.current

"""State.db as rows, and rows as state.db."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import singledispatchmethod
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
    METRIC_DIGEST,
    POINTER_DIGEST,
    PROMOTION,
    PROMOTION_DIGEST,
    RUN_DIGEST,
    TASK_DIGEST,
    VERSION_DIGEST,
    WRITER_DIGEST,
    Sealed,
    insert_metric,
    read_sealed,
    seal,
    set_aside,
)
from pik.stores.local.state.promotion import insert_promotion
from pik.stores.local.state.runs import all_runs, letter_row, run_row
from pik.stores.state_rows import (
    damaged_row,
    failures_of,
    lost_version,
    metric_of,
    pointer_digest,
    read_letter,
    read_task,
    row_digest,
    xor_of,
)

_TABLES = ("metric", "run", "task", "letter", "writer", "version", "current", "promotion", "message")

# The comparison of a version with the one that was current is not kept with it, but told by the two.
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

    def has_state(self, resuming: str = "") -> bool:  # noqa: ARG002 - nothing is left of one that was interrupted
        if not self.database.path.exists():
            return False
        read = self.database.read()
        return any(read.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in _TABLES)

    def restore(self, rows: Iterable[Row], name: str) -> tuple[str, ...]:  # noqa: ARG002
        self.database.create()
        with self.database.write() as connection:
            if any(connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in _TABLES):
                raise StoreError(f"{self.database.path} holds state already")
            taking = _Restoring(connection)
            for row in rows:
                taking.take(row)
            taking.finish()
        lacking = set_aside(self.database)
        seal(self.database)
        return lacking


def _sound(rows: Iterable[tuple[Any, ...]], what: str) -> Iterator[tuple[Any, ...]]:
    """The rows without their last column, which says whether they are as they were written."""
    for *columns, sound in rows:
        if not sound:
            raise damaged_row(f"{what} {columns[0]}")
        yield tuple(columns)


def _rows(connection: sqlite3.Connection, root: Path) -> Iterator[Row | Omitted]:
    omitted = list(_omitted(connection))
    for values in _kept_twice(connection, root, METRIC, METRIC_DIGEST):
        columns = (values[name] for name in ("version", "definition", "applied_at", "scale"))
        yield MetricRow(metric_of(*columns))
    yield from map(RunRow, all_runs(connection))
    yield from _tasks(connection, {one.run_id for one in omitted})
    yield from omitted
    left_out = {(one.metric, one.bucket, one.entity, one.run_id) for one in omitted}
    versions = (row for row in connection.execute(_VERSIONS) if row[:4] not in left_out)
    yield from (VersionRow(*row) for row in _sound(versions, "a version of"))
    for values in _kept_twice(connection, root, PROMOTION, PROMOTION_DIGEST):
        yield PromotionRow(*(values[name] for name in PROMOTION.columns[1:]))
    yield from (PointerRow(*row) for row in _sound(connection.execute(_POINTERS), "a pointer of"))
    letters = f"SELECT letter_id, body, digest IS {LETTER_DIGEST} FROM letter ORDER BY letter_id"
    for _, body in _sound(connection.execute(letters), "dead letter"):
        yield LetterRow(read_letter(body))


def _omitted(connection: sqlite3.Connection) -> Iterator[Omitted]:
    """The versions that are not as they were written, and not current: nothing shows them but history."""
    for metric, bucket, entity, run_id in connection.execute(
        "SELECT v.metric, v.bucket, v.entity, w.run_id FROM version v JOIN writer w ON w.number = v.writer"
        f" WHERE v.digest IS NOT {VERSION_DIGEST} AND NOT EXISTS (SELECT 1 FROM current c"
        " WHERE (c.metric, c.bucket, c.entity, c.writer) = (v.metric, v.bucket, v.entity, v.writer))"
    ):
        yield Omitted(metric, bucket, entity, run_id)


def _kept_twice(connection: sqlite3.Connection, root: Path, kind: Sealed, digest: str) -> Iterator[dict[str, Any]]:
    """The rows of a kind that has files, in order; one that is not as it was written from its file, if that is
    whole."""
    rows = list(kind.rows(connection, f"digest IS {digest}"))
    for values in kind.rows(connection, f"digest IS NOT {digest}"):
        said = read_sealed(root, kind.key(values), kind)
        if said is None:
            raise damaged_row(f"{kind.table} {values[kind.columns[0]]}")
        rows.append(said)
    yield from sorted(rows, key=lambda values: [values[name] for name in kind.columns[:2]])


def _tasks(connection: sqlite3.Connection, less: Collection[str]) -> Iterator[Row]:
    """The tasks; with the first of each run all that the run wrote."""
    columns = f"run_id, number, body, state, failing, failures, digest IS {TASK_DIGEST}"
    tasks = f"SELECT {columns} FROM task ORDER BY run_id, number"
    told = None
    for run_id, _, body, state, failing, kept in _sound(connection.execute(tasks), "a task of run"):
        written = _written(connection, run_id) if run_id != told else None
        if written is not None and run_id in less:
            written = _without_omitted(connection, run_id, written)
        told = run_id
        yield TaskRow(read_task(body), state, written=written, failures=failures_of(failing, kept))


def _written(connection: sqlite3.Connection, run_id: str) -> Written | None:
    found = connection.execute(
        "SELECT run_id, new, changed, unchanged, removed, versions, lower(hex(versions_xor)), computed_by,"
        f" digest IS {WRITER_DIGEST} FROM writer WHERE run_id = ?",
        (run_id,),
    )
    for _, new, changed, unchanged, removed, versions, total, programs in _sound(found.fetchall(), "run"):
        return Written(new, changed, unchanged, removed, versions, total, tuple(msgspec.json.decode(programs)))
    return None


def _without_omitted(connection: sqlite3.Connection, run_id: str, written: Written) -> Written:
    """What a run wrote, without its versions that are left out. One that is lost besides stays missed."""
    number = "(SELECT number FROM writer WHERE run_id = ?)"
    rows = connection.execute(
        f"SELECT v.digest, v.digest IS {VERSION_DIGEST}, EXISTS (SELECT 1 FROM current c WHERE (c.metric, c.bucket,"
        f" c.entity, c.writer) = (v.metric, v.bucket, v.entity, v.writer)) FROM version v WHERE v.writer = {number}",
        (run_id,),
    ).fetchall()
    if len(rows) != written.versions:
        return written
    kept = [digest for digest, sound, current in rows if sound or current]
    return msgspec.structs.replace(written, versions=len(kept), versions_xor=xor_of(kept).hex())


@dataclass(slots=True)
class _Restoring:
    """Inserts rows, and what follows from them."""

    connection: sqlite3.Connection
    writers: dict[str, int] = field(default_factory=dict)
    written: dict[str, Written] = field(default_factory=dict)

    @singledispatchmethod
    def take(self, row: object) -> None:
        """Insert a row."""
        raise TypeError(row)

    @take.register
    def _(self, row: MetricRow) -> None:
        insert_metric(self.connection, row.metric)

    @take.register
    def _(self, row: RunRow) -> None:
        self.connection.execute("INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", run_row(row.run))
        self.connection.execute(f"UPDATE run SET digest = {RUN_DIGEST} WHERE run_id = ?", (row.run.run_id,))

    @take.register
    def _(self, row: TaskRow) -> None:
        key, body = (row.task.run_id, row.task.number), msgspec.json.encode(row.task)
        failures = (row.failures.count, msgspec.json.encode(row.failures.kept) if row.failures.count else None)
        digest = row_digest("task", *key, body, row.state, *failures)
        self.connection.execute(
            "INSERT INTO task (run_id, number, body, state, failing, failures, digest) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*key, body, row.state, *failures, digest),
        )
        if row.written is not None:
            before = self.written.get(row.task.run_id)
            self.written[row.task.run_id] = row.written if before is None else _sum(before, row.written)

    @take.register
    def _(self, row: VersionRow) -> None:
        base = None if row.base is None else self._writer(row.base)
        columns = (
            *(row.metric, row.bucket, row.entity, self._writer(row.run_id), row.value, row.inputs),
            *(bytes.fromhex(row.input_ids), bytes.fromhex(row.input_contents), base),
            *(row.metric_version, row.known_until, row.reason, bytes.fromhex(row.digest)),
        )
        self.connection.execute(f"INSERT INTO version VALUES ({', '.join('?' * len(columns))})", columns)

    @take.register
    def _(self, row: PromotionRow) -> None:
        *columns, pointers_xor = msgspec.structs.astuple(row)
        insert_promotion(self.connection, (*columns, bytes.fromhex(pointers_xor)))

    @take.register
    def _(self, row: PointerRow) -> None:
        key = row.metric, row.bucket, row.entity
        digest = pointer_digest(*key, row.run_id)
        self.connection.execute("INSERT INTO current VALUES (?, ?, ?, ?, ?)", (*key, self._writer(row.run_id), digest))

    @take.register
    def _(self, row: LetterRow) -> None:
        self.connection.execute("INSERT INTO letter VALUES (?, ?, ?)", letter_row(row.letter))

    def _writer(self, run_id: str) -> int:
        if run_id not in self.writers:
            self.writers[run_id] = len(self.writers) + 1
            self.connection.execute("INSERT INTO writer (number, run_id) VALUES (?, ?)", (self.writers[run_id], run_id))
        return self.writers[run_id]

    def finish(self) -> None:
        """Note what runs wrote, and look at what became of the versions. Raises Damaged."""
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
        bad = self.connection.execute(
            f"SELECT v.metric, v.entity FROM version v WHERE v.digest IS NOT {VERSION_DIGEST} LIMIT 1"
        ).fetchone()
        if bad:
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

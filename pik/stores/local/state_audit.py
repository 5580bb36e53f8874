"""Holding state.db against itself and against the files of its definitions and promotions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pik.errors import StoreError
from pik.model.state_digest import NO_ROWS, xor_of
from pik.ports.state_audit import StateProblem
from pik.stores import state_problems as found
from pik.stores.local.raw import LocalRaw
from pik.stores.local.sealing import DIRECTORY, KINDS, METRIC, Sealed, read_sealed
from pik.stores.local.sqlite import Database
from pik.stores.local.state import (
    LETTER_DIGEST,
    METRIC_DIGEST,
    POINTER_DIGEST,
    PROMOTION_DIGEST,
    RUN_DIGEST,
    SCHEMA,
    TASK_DIGEST,
    VERSION_DIGEST,
    WRITER_DIGEST,
)
from pik.stores.state_problems import Place

_ROWS = (
    ("metric", METRIC_DIGEST, "'metric ' || name || ' version ' || version"),
    ("run", RUN_DIGEST, "'run ' || run_id"),
    ("writer", WRITER_DIGEST, "'what run ' || run_id || ' wrote'"),
    ("task", TASK_DIGEST, "'task ' || number || ' of run ' || run_id"),
    ("letter", LETTER_DIGEST, "'dead letter ' || letter_id"),
    ("promotion", PROMOTION_DIGEST, "'promotion ' || promotion_id"),
)
_MESSAGES = (
    "SELECT 'message of task ' || m.task || ' of run ' || m.run_id FROM message m"
    " JOIN task t ON (t.run_id, t.number) = (m.run_id, m.task) WHERE m.body IS NOT t.body"
)
_VERSIONS = f"SELECT v.writer, v.digest, v.digest IS {VERSION_DIGEST}, v.metric, v.bucket, v.entity FROM version v"
_POINTERS = (
    f"SELECT c.metric, c.bucket, c.entity, c.digest, c.digest IS {POINTER_DIGEST}, w.run_id, v.writer IS NOT NULL"
    " FROM current c LEFT JOIN writer w ON w.number = c.writer"
    " LEFT JOIN version v ON (v.metric, v.bucket, v.entity, v.writer) = (c.metric, c.bucket, c.entity, c.writer)"
)
_HISTORY = (
    "SELECT v.metric, v.bucket, v.entity, w.run_id, b.run_id, cw.run_id FROM version v"
    " JOIN writer w ON w.number = v.writer LEFT JOIN writer b ON b.number = v.base"
    " LEFT JOIN current c ON (c.metric, c.bucket, c.entity) = (v.metric, v.bucket, v.entity)"
    " LEFT JOIN writer cw ON cw.number = c.writer ORDER BY v.metric, v.bucket, v.entity"
)


@dataclass(slots=True)
class LocalStateAudit:
    """Implements the port. In a copy (`copied`) runs are elsewhere, and pointers are the source's."""

    database: Database
    copied: bool = False

    def problems(self) -> Iterator[StateProblem]:
        try:
            with self.database.snapshot() as connection:
                broken = list(_structure(connection))
                yield from broken
                if not broken:
                    yield from self._rows(connection)
        except StoreError as error:
            yield StateProblem(self.database.path.name, error.message, found.RESTORE)

    def _rows(self, connection: sqlite3.Connection) -> Iterator[StateProblem]:
        for table, digest, what in _ROWS:
            for (name,) in connection.execute(f"SELECT {what} FROM {table} WHERE digest IS NOT {digest}"):
                yield found.row_altered(str(name))
        for (name,) in connection.execute(_MESSAGES):
            yield found.row_altered(str(name))
        yield from self._runs(connection)
        yield from self._pointers(connection)
        for kind in KINDS:
            yield from self._files(connection, kind)

    def _runs(self, connection: sqlite3.Connection) -> Iterator[StateProblem]:
        """Runs against their versions and their tasks."""
        counted: dict[int, tuple[int, bytes]] = {}
        names = dict(connection.execute("SELECT number, run_id FROM writer"))
        for writer, digest, sound, *place in connection.execute(_VERSIONS):
            versions, total = counted.get(writer, (0, NO_ROWS))
            counted[writer] = versions + 1, xor_of([digest], total)
            if not sound:
                yield found.version_altered(Place(*place), names.get(writer, "that is lost"))
        for number, run_id, written, total in connection.execute(
            "SELECT number, run_id, versions, versions_xor FROM writer"
        ):
            there, there_total = counted.pop(number, (0, NO_ROWS))
            if (there, there_total) != (written, total):
                yield found.versions_lost(run_id, written, there)
        for number in counted:
            yield found.run_lost(f"number {number}")
        for run_id, planned, there in connection.execute(
            "SELECT run_id, tasks, (SELECT count(*) FROM task WHERE task.run_id = run.run_id) AS there FROM run"
            " WHERE tasks <> there"
        ):
            yield found.tasks_lost(run_id, planned, there)
        if not self.copied:
            for (run_id,) in connection.execute(
                "SELECT run_id FROM writer WHERE run_id NOT IN (SELECT run_id FROM run) UNION"
                " SELECT run_id FROM task WHERE run_id NOT IN (SELECT run_id FROM run)"
            ):
                yield found.run_lost(run_id)

    def _pointers(self, connection: sqlite3.Connection) -> Iterator[StateProblem]:
        """Pointers against their versions, and all of them against what promotions moved."""
        there, total = 0, NO_ROWS
        for metric, bucket, entity, digest, sound, run_id, has_version in connection.execute(_POINTERS):
            there, total = there + 1, xor_of([digest], total)
            if not sound:
                yield found.pointer_altered(Place(metric, bucket, entity))
            elif not has_version:
                yield found.pointer_without_version(Place(metric, bucket, entity), run_id)
        promotions = "SELECT pointers, pointers_xor, kind, run_id FROM promotion ORDER BY number"
        moved = connection.execute(promotions).fetchall()
        expected = sum(row[0] for row in moved), xor_of(row[1] for row in moved)
        if not self.copied and (there, total) != expected:
            yield from _misplaced(connection, [(row[2], row[3]) for row in moved])

    def _files(self, connection: sqlite3.Connection, kind: Sealed) -> Iterator[StateProblem]:
        root = self.database.path.parent
        rows = {kind.key(values): values for values in kind.rows(connection)}
        waiting = {kind.key(values) for values in kind.rows(connection, "NOT sealed")}
        there = {each.key for each in LocalRaw(root).objects(f"{DIRECTORY}/{kind.table}/")}
        for key in sorted(there | (rows.keys() - waiting)):
            said = read_sealed(root, key, kind) if key in there else None
            if key not in rows:
                now = list(kind.rows(self.database.read()))  # somebody may have written it since
                if not any(kind.key(values) == key for values in now):
                    yield found.row_lost(_name(kind, said, key), key)
            elif said != rows[key]:
                yield found.copy_lost(_name(kind, rows[key], key), key)


def _structure(connection: sqlite3.Connection) -> Iterator[StateProblem]:
    """Damage of the file itself: what tables say means nothing then."""
    for (line,) in connection.execute("PRAGMA integrity_check(10)"):
        if line != "ok":
            yield StateProblem("state.db", str(line), found.RESTORE)
    tables = "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name"
    with_schema = sqlite3.connect(":memory:")
    try:
        with_schema.executescript(SCHEMA)
        wanted = with_schema.execute(tables).fetchall(), ("UTF-8",), (1,)
    finally:
        with_schema.close()
    version = connection.execute("PRAGMA user_version").fetchone()
    encoding = connection.execute("PRAGMA encoding").fetchone()
    if (connection.execute(tables).fetchall(), encoding, version) != wanted:
        yield StateProblem("state.db", "its tables are not declared as they were", found.RESTORE)


def _misplaced(connection: sqlite3.Connection, moves: list[tuple[str, str]]) -> Iterator[StateProblem]:
    """The pointers that are not where promotions left them."""
    for key, rows in groupby(connection.execute(_HISTORY), key=lambda row: row[:3]):
        versions = list(rows)
        bases: dict[str, Any] = {row[3]: row[4] for row in versions}
        now = versions[0][5]
        if not found.is_explained(now, bases, moves):
            yield found.pointer_differs(Place(*key), now, found.expected_pointer(bases, moves)[0])


def _name(kind: Sealed, values: dict[str, Any] | None, key: str) -> str:
    if values is None:
        return f"{kind.table} {key.rpartition('/')[2]}"
    if kind is METRIC:
        return f"metric {values['name']} version {values['version']}"
    return f"{values['kind']} {values['promotion_id']} of run {values['run_id']}"

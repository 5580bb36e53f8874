"""Checking state.db against itself and against the files of its definitions and promotions."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from pik.errors import StoreError
from pik.ports.state import StateProblem
from pik.stores import state_rows
from pik.stores.local.raw import LocalRaw
from pik.stores.local.sqlite import Database
from pik.stores.local.state.tables import (
    COPIES,
    KINDS,
    LETTER_DIGEST,
    PROMOTION,
    REFUSAL_DIGEST,
    REPUBLISH_DIGEST,
    RUN_DIGEST,
    SCHEMA,
    TASK_DIGEST,
    WRITER_DIGEST,
    FiledRow,
)
from pik.stores.state_rows import AggregatePlace, RowTally, row_digest, xor_of

# What is not as it was written. Definitions and promotions are compared with their files.
_ALTERED = (
    f"SELECT 'run ' || run_id FROM run WHERE digest IS NOT {RUN_DIGEST}",
    f"SELECT 'what run ' || run_id || ' wrote' FROM writer WHERE digest IS NOT {WRITER_DIGEST}",
    f"SELECT 'task ' || number || ' of run ' || run_id FROM task WHERE digest IS NOT {TASK_DIGEST}",
    f"SELECT 'dead letter ' || letter_id FROM letter WHERE digest IS NOT {LETTER_DIGEST}",
    f"SELECT 'republish ' || republish_id FROM republish WHERE digest IS NOT {REPUBLISH_DIGEST}",
    f"SELECT DISTINCT 'refusal of republish ' || republish_id FROM refusal WHERE digest IS NOT {REFUSAL_DIGEST}",
    """SELECT 'message of task ' || m.task || ' of run ' || m.run_id FROM message m
    JOIN task t ON (t.run_id, t.number) = (m.run_id, m.task) WHERE m.body IS NOT t.body""",
)
# Digests of these are computed in Python from what is read: SQLite calling Python for each takes half as long again.
_VERSIONS = (
    "SELECT digest, writer, base, metric, bucket, entity, value, inputs, input_ids, input_contents, metric_version,"
    " known_until, reason, actor FROM version"
)
_POINTERS = (
    "SELECT c.digest, c.writer, c.metric, c.bucket, c.entity, v.writer IS NOT NULL FROM current c"
    " LEFT JOIN version v ON (v.metric, v.bucket, v.entity, v.writer) = (c.metric, c.bucket, c.entity, c.writer)"
)
_IS_CURRENT = "SELECT 1 FROM current WHERE (metric, bucket, entity, writer) = (?, ?, ?, ?)"
_HISTORY = (
    "SELECT v.metric, v.bucket, v.entity, w.run_id, b.run_id, cw.run_id FROM version v"
    " JOIN writer w ON w.number = v.writer LEFT JOIN writer b ON b.number = v.base"
    " LEFT JOIN current c ON (c.metric, c.bucket, c.entity) = (v.metric, v.bucket, v.entity)"
    " LEFT JOIN writer cw ON cw.number = c.writer ORDER BY v.metric, v.bucket, v.entity"
)


@dataclass(slots=True)
class LocalStateAudit:
    """Checks state.db. That of a copy (`copied`) has no runs, and its pointers are those of the source."""

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
            yield StateProblem(self.database.path.name, error.message, state_rows.RESTORE)

    def _rows(self, connection: sqlite3.Connection) -> Iterator[StateProblem]:
        for query in _ALTERED:
            for (name,) in connection.execute(query):
                yield state_rows.row_altered(str(name))
        yield from self._runs(connection)
        yield from self._pointers(connection)
        for kind in KINDS:
            yield from self._copies(connection, kind)
        yield from _refusals(connection)

    def _runs(self, connection: sqlite3.Connection) -> Iterator[StateProblem]:
        """Compare runs with their versions and their tasks."""
        counts: defaultdict[int, RowTally] = defaultdict(RowTally)
        altered: set[int] = set()
        names = dict(connection.execute("SELECT number, run_id FROM writer"))
        for digest, writer, base, *columns in connection.execute(_VERSIONS):
            counts[writer].add(digest)
            place, before = AggregatePlace(*columns[:3]), None if base is None else names.get(base, "?")
            if digest != row_digest("version", *place, names.get(writer), *columns[3:7], before, *columns[7:]):
                altered.add(writer)
                is_current = connection.execute(_IS_CURRENT, (*place, writer)).fetchone()
                problem = state_rows.version_altered if is_current else state_rows.past_version_altered
                yield problem(place, names.get(writer, "that is lost"))
        for number, run_id, written, total in connection.execute(
            "SELECT number, run_id, versions, versions_xor FROM writer"
        ):
            there = counts.pop(number, RowTally())
            if there.count != written or (there.xor != total and number not in altered):
                yield state_rows.versions_lost(run_id, written, there.count)
        for number in counts:
            yield state_rows.run_lost(f"number {number}")
        for run_id, planned, there in connection.execute(
            "SELECT run_id, tasks, (SELECT count(*) FROM task WHERE task.run_id = run.run_id) AS there FROM run"
            " WHERE tasks <> there"
        ):
            yield state_rows.tasks_lost(run_id, planned, there)
        if not self.copied:
            for (run_id,) in connection.execute(
                "SELECT run_id FROM writer WHERE run_id NOT IN (SELECT run_id FROM run) UNION"
                " SELECT run_id FROM task WHERE run_id NOT IN (SELECT run_id FROM run)"
            ):
                yield state_rows.run_lost(run_id)

    def _pointers(self, connection: sqlite3.Connection) -> Iterator[StateProblem]:
        """Compare pointers with their versions, and all of them with what promotions moved."""
        rows = RowTally()
        names = dict(connection.execute("SELECT number, run_id FROM writer"))
        for digest, writer, metric, bucket, entity, has_version in connection.execute(_POINTERS):
            rows.add(digest)
            run_id = names.get(writer)
            if digest != row_digest("current", metric, bucket, entity, run_id):
                yield state_rows.pointer_altered(AggregatePlace(metric, bucket, entity))
            elif not has_version:
                yield state_rows.pointer_without_version(
                    AggregatePlace(metric, bucket, entity), run_id or "that is lost"
                )
        # A damaged promotion counts as its file has it, so that no pointer is blamed for it.
        moved = [whole or row for row, whole in PROMOTION.with_content(connection, self.database.path.parent)]
        expected = sum(one["pointers"] for one in moved), xor_of(bytes.fromhex(one["pointers_xor"]) for one in moved)
        if not self.copied and (rows.count, rows.xor) != expected:
            yield from _misplaced(connection, [(one["kind"], one["run_id"]) for one in moved])

    def _copies(self, connection: sqlite3.Connection, kind: FiledRow) -> Iterator[StateProblem]:
        root = self.database.path.parent
        rows = {kind.key(values): values for values in kind.rows(connection)}
        altered = set(map(kind.key, kind.altered(connection)))
        waiting = set(map(kind.key, kind.rows(connection, "NOT sealed")))
        files = {each.key for each in LocalRaw(root).objects(f"{COPIES}/{kind.table}/")}
        for key in sorted(files | altered | (rows.keys() - waiting)):
            copy = kind.read(root, key)
            if key in altered:
                name = kind.describe(rows[key], key)
                yield state_rows.row_altered(name) if copy is None else state_rows.row_has_copy(name, key)
            elif key not in rows:
                now = kind.rows(self.database.read())  # it may have been written since
                if not any(kind.key(values) == key for values in now):
                    yield state_rows.row_lost(kind.describe(copy, key), key)
            elif copy != rows[key]:
                yield state_rows.copy_lost(kind.describe(rows[key], key), key)


def _refusals(connection: sqlite3.Connection) -> Iterator[StateProblem]:
    """Compare republishes with their refusals."""
    there = dict(connection.execute("SELECT republish_id, count(*) FROM refusal GROUP BY republish_id"))
    for republish_id, body in connection.execute(
        f"SELECT republish_id, body FROM republish WHERE digest IS {REPUBLISH_DIGEST}"
    ):
        counted = state_rows.read_republish(body).refused
        if counted != (found := there.pop(republish_id, 0)):
            yield state_rows.refusals_lost(republish_id, counted, found)
    for republish_id in sorted(there):
        if not connection.execute("SELECT 1 FROM republish WHERE republish_id = ?", (republish_id,)).fetchone():
            yield state_rows.republish_lost(republish_id)


def _structure(connection: sqlite3.Connection) -> Iterator[StateProblem]:
    """Yield damage of the file itself: its tables mean nothing then."""
    for (line,) in connection.execute("PRAGMA integrity_check(10)"):
        if line != "ok":
            yield StateProblem("state.db", str(line), state_rows.RESTORE)
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
        yield StateProblem("state.db", "its tables are not declared as they were", state_rows.RESTORE)


def _misplaced(connection: sqlite3.Connection, moves: list[tuple[str, str]]) -> Iterator[StateProblem]:
    """Yield the pointers that are not where promotions left them."""
    for key, rows in groupby(connection.execute(_HISTORY), key=lambda row: row[:3]):
        versions = list(rows)
        bases = {row[3]: row[4] for row in versions}
        if problem := state_rows.pointer_differs(AggregatePlace(*key), versions[0][5], bases, moves):
            yield problem

"""state.db: what raw does not hold, and so nothing can rebuild. Metric definitions, runs, the queue, aggregates."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from pik.errors import CANDIDATES, not_one
from pik.stores.common import damaged_row
from pik.stores.local.sqlite import Database

SCHEMA = """
CREATE TABLE metric (
    name TEXT NOT NULL, version INTEGER NOT NULL,
    definition TEXT NOT NULL, applied_at INTEGER NOT NULL,
    scale INTEGER NOT NULL, -- digits after the point of its values
    digest BLOB NOT NULL,
    sealed INTEGER NOT NULL DEFAULT 0, -- whether its file is there
    PRIMARY KEY (name, version)
) WITHOUT ROWID;
CREATE TABLE run (
    run_id TEXT PRIMARY KEY,
    request TEXT NOT NULL, state TEXT NOT NULL,
    created_at INTEGER NOT NULL, finished_at INTEGER,
    effective_start INTEGER NOT NULL, effective_end INTEGER NOT NULL,
    events_matched INTEGER, buckets INTEGER, tasks INTEGER NOT NULL,
    digest BLOB
) WITHOUT ROWID;
CREATE INDEX run_request ON run (request);
CREATE TABLE task (
    run_id TEXT NOT NULL, number INTEGER NOT NULL,
    body BLOB NOT NULL,
    state TEXT NOT NULL DEFAULT 'OPEN',
    digest BLOB,
    failing INTEGER NOT NULL DEFAULT 0, failures BLOB, -- aggregates that failed: how many, and the first of them
    PRIMARY KEY (run_id, number)
) WITHOUT ROWID;
CREATE TABLE message (
    run_id TEXT NOT NULL, task INTEGER NOT NULL,
    body BLOB NOT NULL,
    visible_at REAL NOT NULL, -- seconds since the epoch
    receives INTEGER NOT NULL DEFAULT 0,
    receipt TEXT, -- of the latest receiving
    PRIMARY KEY (run_id, task)
) WITHOUT ROWID;
CREATE INDEX message_visible ON message (run_id, visible_at, task);
CREATE INDEX message_receipt ON message (receipt) WHERE receipt IS NOT NULL;
CREATE TABLE letter (
    letter_id TEXT PRIMARY KEY,
    body BLOB NOT NULL,
    digest BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE writer ( -- a run that wrote versions, and how they compare with what was current
    number INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    new INTEGER NOT NULL DEFAULT 0, changed INTEGER NOT NULL DEFAULT 0, unchanged INTEGER NOT NULL DEFAULT 0,
    removed INTEGER NOT NULL DEFAULT 0,
    versions INTEGER NOT NULL DEFAULT 0, versions_xor BLOB NOT NULL DEFAULT (zeroblob(16)), -- of the rows of `version`
    computed_by TEXT NOT NULL DEFAULT '[]', -- programs, as a JSON array
    digest BLOB
);
CREATE TABLE version (
    metric TEXT NOT NULL, bucket INTEGER NOT NULL, entity TEXT NOT NULL, writer INTEGER NOT NULL,
    value TEXT, -- exact decimal in its shortest form, so that equal values are equal texts
    inputs INTEGER NOT NULL, input_ids BLOB NOT NULL, input_contents BLOB NOT NULL,
    base INTEGER, -- the writer of the version that was current
    metric_version INTEGER NOT NULL, known_until INTEGER NOT NULL, reason TEXT NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (metric, bucket, entity, writer)
) WITHOUT ROWID;
CREATE INDEX version_writer ON version (writer, metric, bucket, entity);
CREATE TABLE current (
    metric TEXT NOT NULL, bucket INTEGER NOT NULL, entity TEXT NOT NULL, writer INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (metric, bucket, entity)
) WITHOUT ROWID;
CREATE TABLE promotion (
    number INTEGER PRIMARY KEY,
    promotion_id TEXT NOT NULL UNIQUE,
    run_id TEXT NOT NULL, kind TEXT NOT NULL, at INTEGER NOT NULL, reason TEXT NOT NULL,
    moved INTEGER NOT NULL, conflicts INTEGER NOT NULL,
    pointers INTEGER NOT NULL, pointers_xor BLOB NOT NULL, -- rows of `current`: how many more, and what changed in them
    digest BLOB NOT NULL,
    sealed INTEGER NOT NULL DEFAULT 0 -- whether its file is there
);
CREATE INDEX promotion_run ON promotion (run_id);
"""


def state_database(directory: Path) -> Database:
    """The state of the store in this directory."""
    return Database(
        directory / "state.db",
        SCHEMA,
        repair="move what is left of it aside, then `pik restore BACKUP`; without one, docs/format.md tells more",
    )


RUN_DIGEST = (
    "row_digest('run', run_id, request, state, created_at, finished_at, effective_start, effective_end,"
    " events_matched, buckets, tasks)"
)
TASK_DIGEST = "row_digest('task', run_id, number, body, state, failing, failures)"
LETTER_DIGEST = "row_digest('letter', letter_id, body)"
METRIC_DIGEST = "row_digest('metric', name, version, definition, applied_at, scale)"
WRITER_DIGEST = "row_digest('writer', run_id, new, changed, unchanged, removed, versions, versions_xor, computed_by)"
VERSION_DIGEST = (
    "row_digest('version', v.metric, v.bucket, v.entity, (SELECT run_id FROM writer WHERE number = v.writer), v.value,"
    " v.inputs, v.input_ids, v.input_contents,"
    " iif(v.base IS NULL, NULL, (SELECT coalesce(max(run_id), '?') FROM writer WHERE number = v.base)),"
    " v.metric_version, v.known_until, v.reason)"
)
POINTER_DIGEST = (
    "row_digest('current', c.metric, c.bucket, c.entity, (SELECT run_id FROM writer WHERE number = c.writer))"
)
PROMOTION_DIGEST = (
    "row_digest('promotion', number, promotion_id, run_id, kind, at, reason, moved, conflicts, pointers, pointers_xor)"
)
"""SQL of the digests of rows (pik.stores.state_digest); `v` is a version, `c` a pointer."""


def expect_sound(connection: sqlite3.Connection, what: str, digest: str, rows: str, values: tuple[Any, ...]) -> None:
    """Raises Damaged if a row is there that is not as it was written; `rows` is a table and a condition."""
    if connection.execute(f"SELECT 1 FROM {rows} AND digest IS NOT {digest} LIMIT 1", values).fetchone():
        raise damaged_row(what)


def found(database: Database, table: str, column: str, prefix: str, *, kind: str, hint: str) -> tuple[Any, ...]:
    """The row of `table` whose id is or unambiguously begins with `prefix`. Raises NotFound."""
    low = prefix.upper()  # ULIDs
    rows = (
        database.read()
        .execute(
            f"SELECT {column}, t.* FROM {table} t WHERE {column} >= ? AND {column} < ? || '~'"
            f" ORDER BY {column} DESC LIMIT {CANDIDATES + 1:d}",
            (low, low),
        )
        .fetchall()
    )
    if not low or len(rows) != 1:
        raise not_one(kind, prefix, [row[0] for row in rows], hint=hint)
    return tuple(rows[0][1:])

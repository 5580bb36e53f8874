"""The tables of state.db, with what raw does not hold and nothing can rebuild, and the digests of their rows.

Definitions and promotions are kept a second time, as files in `state/` of the store, so that one which state.db has
lost is noticed. A file is created once, right after its row was committed; the row then records that it exists. A crash
in between leaves a row without its file, which the next writer creates.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pik.errors import AlreadyExists, StoreError
from pik.ports.index import unheard
from pik.stores.local.access import make_directory
from pik.stores.local.raw import LocalRaw
from pik.stores.local.sqlite import Database
from pik.stores.state_rows import damaged_row, row_digest

SCHEMA = """
CREATE TABLE metric (
    name TEXT NOT NULL, version INTEGER NOT NULL,
    definition TEXT NOT NULL, applied_at INTEGER NOT NULL,
    scale INTEGER NOT NULL, -- digits after the point of its values
    actor TEXT NOT NULL, reason TEXT NOT NULL,
    retired INTEGER NOT NULL, -- 1: nothing computes the metric from then on
    digest BLOB NOT NULL,
    sealed INTEGER NOT NULL DEFAULT 0, -- whether its file is there
    PRIMARY KEY (name, version)
) WITHOUT ROWID;
CREATE TABLE run (
    run_id TEXT PRIMARY KEY,
    request TEXT NOT NULL, actor TEXT NOT NULL, state TEXT NOT NULL,
    created_at INTEGER NOT NULL, finished_at INTEGER,
    effective_start INTEGER NOT NULL, effective_end INTEGER NOT NULL,
    events_matched INTEGER, buckets INTEGER, tasks INTEGER NOT NULL,
    corrections_until INTEGER NOT NULL, -- the recorded_at of the last correction that holds in its versions; 0: none
    planning_failure TEXT NOT NULL, -- why it could not be planned; empty: it was, or may still be
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
CREATE TABLE idempotency_key (
    key TEXT PRIMARY KEY,
    request TEXT NOT NULL, run_id TEXT NOT NULL,
    expires INTEGER NOT NULL -- seconds since the epoch
) WITHOUT ROWID;
CREATE TABLE buffered_request (
    request TEXT PRIMARY KEY, -- what follows the time in its id
    batch TEXT NOT NULL,
    expires INTEGER NOT NULL -- seconds since the epoch
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
    inputs INTEGER, -- NULL: imported; both hashes together are then the SHA-256 of the file
    input_ids BLOB NOT NULL, input_contents BLOB NOT NULL,
    base INTEGER, -- the writer of the version that was current
    metric_version INTEGER NOT NULL, known_until INTEGER NOT NULL, reason TEXT NOT NULL, actor TEXT NOT NULL,
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
    run_id TEXT NOT NULL, kind TEXT NOT NULL, at INTEGER NOT NULL, reason TEXT NOT NULL, actor TEXT NOT NULL,
    moved INTEGER NOT NULL, conflicts INTEGER NOT NULL,
    pointers INTEGER NOT NULL, pointers_xor BLOB NOT NULL, -- rows of `current`: how many more, and what changed in them
    digest BLOB NOT NULL,
    sealed INTEGER NOT NULL DEFAULT 0 -- whether its file is there
);
CREATE INDEX promotion_run ON promotion (run_id);
CREATE TABLE republish (
    republish_id TEXT PRIMARY KEY,
    body BLOB NOT NULL,
    digest BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE refusal ( -- a delivery that a target did not take
    republish_id TEXT NOT NULL, batch_id TEXT NOT NULL, seq INTEGER NOT NULL,
    body BLOB NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (republish_id, batch_id, seq)
) WITHOUT ROWID;
"""


def state_database(directory: Path, waiting: Callable[[str], None] = unheard) -> Database:
    """Return the state of the store in this directory."""
    return Database(
        directory / "state.db",
        SCHEMA,
        repair="move what is left of it aside, then `pik restore BACKUP`; without one, see docs/format.md",
        waiting=waiting,
    )


RUN_DIGEST = (
    "row_digest('run', run_id, request, actor, state, created_at, finished_at, effective_start, effective_end,"
    " events_matched, buckets, tasks, corrections_until, planning_failure)"
)
TASK_DIGEST = "row_digest('task', run_id, number, body, state, failing, failures)"
LETTER_DIGEST = "row_digest('letter', letter_id, body)"
REPUBLISH_DIGEST = "row_digest('republish', republish_id, body)"
REFUSAL_DIGEST = "row_digest('refusal', republish_id, batch_id, seq, body)"
WRITER_DIGEST = "row_digest('writer', run_id, new, changed, unchanged, removed, versions, versions_xor, computed_by)"
VERSION_DIGEST = (
    "row_digest('version', v.metric, v.bucket, v.entity, (SELECT run_id FROM writer WHERE number = v.writer), v.value,"
    " v.inputs, v.input_ids, v.input_contents,"
    " iif(v.base IS NULL, NULL, (SELECT coalesce(max(run_id), '?') FROM writer WHERE number = v.base)),"
    " v.metric_version, v.known_until, v.reason, v.actor)"
)
POINTER_DIGEST = (
    "row_digest('current', c.metric, c.bucket, c.entity, (SELECT run_id FROM writer WHERE number = c.writer))"
)
"""SQL of the digests of rows (pik.stores.state_rows); `v` is a version, `c` a pointer."""


def expect_sound(connection: sqlite3.Connection, what: str, digest: str, rows: str, values: tuple[Any, ...]) -> None:
    """Raise Damaged if there is a row that is not as it was written; `rows` is a table and a condition."""
    if connection.execute(f"SELECT 1 FROM {rows} AND digest IS NOT {digest} LIMIT 1", values).fetchone():
        raise damaged_row(what)


COPIES = "state"
"""The directory of the copies."""

_Values = dict[str, Any]
"""A row by column, bytes as hex digits."""


@dataclass(frozen=True, slots=True)
class FiledRow:
    """A kind of row that is also kept as a file: its table, the columns in the file, which are those of its digest, and
    the file's name."""

    table: str
    columns: tuple[str, ...]
    name: str

    @property
    def digest(self) -> str:
        """SQL of the digest of a row."""
        return f"row_digest('{self.table}', {', '.join(self.columns)})"

    def key(self, values: Mapping[str, Any]) -> str:
        """Return the path of the file, relative to the store."""
        return f"{COPIES}/{self.table}/{self.name.format_map(values)}.json"

    def rows(self, connection: sqlite3.Connection, where: str = "true") -> list[_Values]:
        """Return rows as their files have them."""
        rows = connection.execute(f"SELECT {', '.join(self.columns)} FROM {self.table} WHERE {where}")
        plain = ([one.hex() if isinstance(one, bytes) else one for one in row] for row in rows)
        return [dict(zip(self.columns, row, strict=True)) for row in plain]

    def altered(self, connection: sqlite3.Connection) -> list[_Values]:
        """Return the rows that are not as they were written."""
        return self.rows(connection, f"digest IS NOT {self.digest}")

    def with_content(self, connection: sqlite3.Connection, root: Path) -> list[tuple[_Values, _Values | None]]:
        """Return all rows, in order, each with what was written: by itself or, if it is altered, by its file; None if
        neither tells."""
        rows: list[tuple[_Values, _Values | None]]
        rows = [(values, values) for values in self.rows(connection, f"digest IS {self.digest}")]
        rows += [(values, self.read(root, self.key(values))) for values in self.altered(connection)]

        def place(row: tuple[_Values, _Values | None]) -> list[tuple[str, Any]]:
            columns = [(row[1] or row[0])[name] for name in self.columns[:2]]
            return [(type(one).__name__, one) for one in columns]  # damage may have made a text of a number

        return sorted(rows, key=place)

    def read(self, root: Path, key: str) -> _Values | None:
        """Return the content of a file; None if it is missing, or not as it was written."""
        files = LocalRaw(root)
        if files.size(key) is None:
            return None
        try:
            values = msgspec.json.decode(files.read(key), type=_Values)
            digest = values.pop("digest")
            sound = set(values) == set(self.columns) and self._digest(values) == digest and self.key(values) == key
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
            return None
        return values if sound else None

    def create(self, root: Path, values: Mapping[str, Any]) -> None:
        """Create the file of a row, unless it is there. Raises StoreError if that one has another content."""
        files, key = LocalRaw(root), self.key(values)
        data = msgspec.json.encode({**values, "digest": self._digest(values)}) + b"\n"
        try:
            files.create(key, data)
        except AlreadyExists:  # by a process that died before the row could record it
            if files.read(key) != data:
                raise StoreError(
                    f"{root / key} differs from state.db",
                    hint="restore either from a backup; what is damaged: pik verify",
                ) from None

    def describe(self, values: Mapping[str, Any] | None, key: str) -> str:
        """Return what to call a row or file in messages."""
        if values is None:
            return f"{self.table} {key.rpartition('/')[2]}"
        if self.table == "metric":
            return f"metric {values['name']} version {values['version']}"
        return f"{values['kind']} {values['promotion_id']} of run {values['run_id']}"

    def _digest(self, values: Mapping[str, Any]) -> str:
        return row_digest(self.table, *(values[name] for name in self.columns)).hex()


METRIC = FiledRow(
    "metric", ("name", "version", "definition", "applied_at", "scale", "actor", "reason", "retired"), "{name}-{version}"
)
PROMOTION = FiledRow(
    "promotion",
    (
        *("number", "promotion_id", "run_id", "kind", "at", "reason", "actor"),
        *("moved", "conflicts", "pointers", "pointers_xor"),
    ),
    "{promotion_id}",
)
KINDS = (METRIC, PROMOTION)


def copy_rows(database: Database) -> None:
    """Create the files of rows that have none yet. Raises StoreError."""
    with database.translated():
        new = [(kind, values) for kind in KINDS for values in kind.rows(database.writer(), "NOT sealed")]
    for kind, values in new:
        kind.create(database.path.parent, values)
    if new:
        with database.write() as connection:
            for kind, values in new:
                first, second = kind.columns[:2]
                connection.execute(
                    f"UPDATE {kind.table} SET sealed = 1 WHERE {first} = ? AND {second} = ?",
                    (values[first], values[second]),
                )


def foreign_copies(database: Database) -> dict[str, str | None]:
    """Return the files that differ from the rows, or have no row: their paths relative to the store, with what they are
    of (None: an altered copy of a row, which is written again)."""
    root, found = database.path.parent, dict[str, str | None]()
    for kind in KINDS:
        with database.translated():
            rows = {kind.key(values): values for values in kind.rows(database.writer())}
        for file in LocalRaw(root).objects(f"{COPIES}/{kind.table}/"):
            copy = kind.read(root, file.key)
            if copy is None or copy != rows.get(file.key):
                is_altered = copy is None and file.key in rows
                found[file.key] = None if is_altered else kind.describe(copy, file.key)
    return found


def set_aside(root: Path, keys: Iterable[str]) -> None:
    """Move these files to state/replaced."""
    for key in keys:
        place = root / COPIES / "replaced" / key.removeprefix(f"{COPIES}/")
        make_directory(place.parent)
        (root / key).replace(place)

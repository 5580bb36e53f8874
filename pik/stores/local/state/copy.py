"""Taking over the rows of state.db from the store that this one is a copy of."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pik.errors import Damaged, StoreError
from pik.model.aggregate import Aggregate
from pik.model.metric import EVENT_COUNT, Metric
from pik.model.window import Window
from pik.ports.backup import Written
from pik.ports.store import TakenOver
from pik.stores.local.lock import holding
from pik.stores.local.sqlite import Database
from pik.stores.local.state.aggregates import note_written, version_columns
from pik.stores.local.state.metrics import insert_metric
from pik.stores.local.state.tables import POINTER_DIGEST, VERSION_DIGEST, copy_rows
from pik.stores.state_rows import RowTally, metric_columns

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

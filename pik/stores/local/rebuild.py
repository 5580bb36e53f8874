"""Rebuilding index.db from raw, beside the old one, which it replaces when it is whole."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pik.model.batch import ACCEPTED, Arrivals, Batch, Location, RejectFile
from pik.stores.local.claims import Claims, add_lags, add_names, add_rejects
from pik.stores.local.index import KEYED_DAY, SCHEMA, completeness, origin_key
from pik.stores.local.lock import holding
from pik.stores.local.sqlite import Database

REBUILDING = "rebuild"
"""The lock that keeps a rebuild and writers apart."""


@contextmanager
def rebuilding(path: Path, locks: Path) -> Iterator[LocalRebuild]:
    """An empty index that takes the place of the one at `path`. Raises Busy while anything writes to that."""
    beside = path.with_name(path.name + ".rebuild")
    with holding(locks, REBUILDING):
        _remove(beside)
        database = Database(beside, SCHEMA)
        database.create()
        rebuild = LocalRebuild(database)
        yield rebuild
        with database.write() as connection:
            _count_batches(connection, rebuild.unread)
        database.close()  # the last connection to close moves the write-ahead log into the file
        _replace(path, beside)


def _replace(path: Path, beside: Path) -> None:
    """An index must never be read without its log, nor with another's. So the old one goes first; whoever is killed
    before the new one is there leaves none, which every command says."""
    old = path.with_name(path.name + ".old")
    if path.exists():
        os.replace(path, old)
    _remove(path)
    os.replace(beside, path)
    _remove(old)


def _remove(path: Path) -> None:
    for name in (path, f"{path}-wal", f"{path}-shm"):
        Path(name).unlink(missing_ok=True)


@dataclass(slots=True)
class LocalRebuild:
    """Fills the new index.db. `unread` are the batches with a segment that cannot be read: their counts are those of
    their records."""

    database: Database
    unread: set[str] = field(default_factory=set)

    def add_batch(self, batch: Batch) -> None:
        with self.database.write() as connection:
            connection.execute(
                "INSERT INTO batch (batch_id, name, content, options, again, origin, complete, attempt, read, accepted,"
                " exact, conflict, rejected, started_at, finished_at, next_seq, offset, prefix_digest, reasons, lags,"
                " sources)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    batch.batch_id,
                    batch.origin.name,
                    batch.origin.content,
                    msgspec.json.encode(batch.origin.options).decode(),
                    batch.origin.again,
                    origin_key(batch.origin),
                    completeness(batch.state),
                    batch.attempt,
                    *batch.counts.astuple(),
                    batch.started_at,
                    batch.finished_at,
                    batch.next_seq,
                    batch.offset,
                    batch.prefix_digest,
                    add_names("{}", batch.reasons),
                    add_lags("{}", batch.lags),
                    add_names("{}", batch.sources),
                ),
            )

    def add_segments(self, arrivals: Sequence[Arrivals], verdicts: Mapping[int, str] | None) -> None:
        self.unread |= {arrived.segment.batch_id for arrived in arrivals if not arrived.plain and not arrived.keyed}
        with self.database.write() as connection:
            Claims(connection).add(arrivals, verdicts)

    def add_rejects(self, batch_id: str, rejects: RejectFile) -> None:
        with self.database.write() as connection:
            add_rejects(connection, batch_id, rejects)

    def settle(self) -> Iterator[Location]:
        """Where raw was lost, an event may be left with duplicates only: then the first of them counts."""
        with self.database.write() as connection:
            for table, kind, same_day in (("event", "<>", "AND e.day = d.day"), ("keyed_event", "=", "")):
                query = _ORPHANS.format(table=table, kind=kind, keyed_day=KEYED_DAY, same_day=same_day)
                orphans = connection.execute(query).fetchall()
                for segment, seq, day, event_id, frame, content in orphans:
                    _promote(connection, segment, seq, day, event_id, frame, content)
                    own_day, key, batch = connection.execute(
                        "SELECT day, key, batch FROM segment WHERE number = ?", (segment,)
                    ).fetchone()
                    yield Location(event_id.hex(), own_day, key, batch, frame, seq, ACCEPTED)


_ORPHANS = """
SELECT segment, seq, day, event_id, frame, content_hash FROM (
    SELECT d.*, row_number() OVER (PARTITION BY d.day, d.event_id ORDER BY s.ingest_time, s.batch, d.seq) AS place
    FROM duplicate d JOIN segment s ON s.number = d.segment
    WHERE d.day {kind} {keyed_day} AND NOT EXISTS (
        SELECT 1 FROM {table} e WHERE e.event_id = d.event_id {same_day}
    )
) WHERE place = 1
"""


def _promote(
    connection: sqlite3.Connection, segment: int, seq: int, day: int, event_id: bytes, frame: int, content: bytes | None
) -> None:
    connection.execute("DELETE FROM duplicate WHERE segment = ? AND seq = ?", (segment, seq))
    if content is None:
        connection.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?)", (day, event_id, segment, frame, seq))
    else:
        connection.execute("INSERT INTO keyed_event VALUES (?, ?, ?, ?, ?)", (event_id, content, segment, frame, seq))
        connection.execute(
            "UPDATE duplicate SET conflict = content_hash <> ? WHERE day = ? AND event_id = ?", (content, day, event_id)
        )
    connection.execute("UPDATE segment SET accepted = accepted + 1 WHERE number = ?", (segment,))


def _count_batches(connection: sqlite3.Connection, unread: set[str]) -> None:
    """The batches' verdicts, counted from what their segments hold now; those of complete batches only where all of
    their segments could be read."""
    connection.execute(
        "UPDATE batch SET (accepted, exact, conflict) = ("
        "SELECT coalesce(sum(s.accepted), 0), coalesce(sum(d.exact), 0), coalesce(sum(d.conflict), 0) FROM segment s"
        " LEFT JOIN (SELECT segment, sum(1 - conflict) AS exact, sum(conflict) AS conflict"
        " FROM duplicate GROUP BY segment) d ON d.segment = s.number WHERE s.batch = batch_id)"
        " WHERE complete <> 1 OR batch_id NOT IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode(sorted(unread)).decode(),),
    )
    connection.execute("UPDATE batch SET read = accepted + exact + conflict + rejected WHERE complete <> 1")

"""Recording batches in index.db: the first delivery of an event claims it, each later one is a duplicate."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from pik.model.batch import (
    KEYED,
    PLAIN,
    Arrivals,
    Batch,
    BatchState,
    Chunk,
    Counts,
    Origin,
    RejectFile,
    Segment,
    Verdict,
)
from pik.ports.catalog import Rebuild
from pik.runtime.interaction import called_from_c
from pik.stores.common import conflicting
from pik.stores.local.catalog.index import (
    CONFLICT,
    KEYED_DAY,
    LocalIndex,
    batch_of,
    batch_without_events,
    find_batch,
    insert_batch,
    update_batch,
)
from pik.stores.local.lock import holding
from pik.stores.local.sqlite import Database

REBUILDING = "rebuild"
"""The lock that keeps a rebuild and writers apart."""


@dataclass(slots=True)
class LocalBatches:
    """Writes index.db."""

    database: Database
    locks: Path

    def find(self, origin: Origin) -> Batch | None:
        return find_batch(self.database.read(), self.locks, origin)

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        with holding(self.locks, REBUILDING, shared=True), holding(self.locks, name):
            self.database.reconnect()  # a rebuild may have replaced the file
            yield

    def open(self, origin: Origin, batch_id: str, started_at: int) -> Batch:
        with self.database.write() as connection:
            batch = Batch(batch_id=batch_id, origin=origin, state=BatchState.INTERRUPTED, started_at=started_at)
            insert_batch(connection, batch, "ON CONFLICT (batch_id) DO UPDATE SET attempt = attempt + 1")
            return batch_of(connection, self.locks, batch_id)

    def record(self, chunk: Chunk, *, refuse_conflicts: bool = False) -> Counts:
        with self.database.write() as connection:
            batch = batch_without_events(connection, self.locks, chunk.batch_id)
            if chunk.last_seq < batch.next_seq:
                return Counts()  # recorded already
            claims = Claims(connection)
            recorded_at = claims.add(chunk.arrivals)
            if refuse_conflicts and claims.counts["conflict"]:
                raise conflicting(chunk.first_seq, chunk.last_seq, claims.counts["conflict"])
            if chunk.rejects:
                add_rejects(connection, chunk.batch_id, chunk.rejects)
            rejected = chunk.rejects.records if chunk.rejects else 0
            counts = Counts(read=chunk.read, rejected=rejected, **claims.counts)
            update_batch(connection, batch.advanced(chunk, counts, recorded_at if chunk.arrivals else 0))
            return counts

    def expect_ready(self) -> None:
        with holding(self.locks, REBUILDING, shared=True):
            pass

    def take(self, batch: Batch, chunk: Chunk, copies: Mapping[str, bytes]) -> dict[int, Verdict]:  # noqa: ARG002 - no detour
        self.open(batch.origin, batch.batch_id, batch.started_at)
        self.record(chunk)
        self.finish(batch.batch_id, batch.finished_at or batch.started_at)
        index = LocalIndex(self.database, self.locks)
        return {seq: kind for arrived in chunk.arrivals for seq, kind in index.skipped(arrived.segment).items()}

    def finish(self, batch_id: str, finished_at: int) -> Batch:
        with self.database.write() as connection:
            connection.execute(
                "UPDATE batch SET complete = 1, finished_at = coalesce(finished_at, ?) WHERE batch_id = ?",
                (finished_at, batch_id),
            )
            return batch_of(connection, self.locks, batch_id)

    @contextmanager
    def together(self) -> Iterator[None]:
        with self.database.write():
            yield

    @contextmanager
    def rebuild(self) -> Iterator[Rebuild]:
        from pik.stores.local.catalog.rebuild import rebuilding  # late: it is built on this module, and rarely used

        with holding(self.locks, REBUILDING), rebuilding(self.database.path) as rebuild:
            self.database.reconnect()  # another rebuild may have replaced the file, or somebody removed it
            yield rebuild
        self.database.reconnect()


class Claims:
    """Claims deliveries inside of one transaction: the first of an event_id is accepted, the others are duplicates."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.counts = {"accepted": 0, "exact": 0, "conflict": 0}
        self._again: list[_Duplicate] = []
        # SQLite calls this for each row that meets one already there; its answer, false, leaves that one as it is. So
        # the inserts run as a single call, and only duplicates cost a call back into Python.
        connection.create_function("claimed_before", 7, called_from_c(self._note))

    def _note(self, *duplicate: int | bytes | None) -> bool:
        self._again.append(duplicate)  # type: ignore[arg-type]  # seven values, as the SQL below gives them
        return False

    def add(self, arrivals: Iterable[Arrivals], verdicts: Mapping[int, Verdict] | None = None) -> int:
        """Claim every delivery of a chunk, in the order of the seqs where one id comes more than once. Its segments are
        recorded at one moment, after everything before, unless they say when they were. Returns that moment.

        `verdicts`, known from a batch's record, tells by seq which are duplicates; those claim nothing.
        """
        deliveries: dict[int, int] = {}
        recorded_at = _next_moment(self.connection)
        keyed: list[tuple[int, bytes, bytes, int, int]] = []
        for arrived in arrivals:
            number = add_segment(self.connection, arrived.segment, recorded_at)
            deliveries[number] = len(arrived.plain) // PLAIN.size + len(arrived.keyed) // KEYED.size
            plain: Iterable[tuple[bytes, int, int]] = PLAIN.iter_unpack(arrived.plain)
            with_key: Iterable[tuple[int, bytes, bytes, int]] = KEYED.iter_unpack(arrived.keyed)
            if verdicts:
                plain = self._without(verdicts, number, arrived.segment.day, plain)
                with_key = self._keyed_without(verdicts, number, with_key)
            self._claim_plain(number, arrived.segment.day, plain)
            keyed += [(seq, event_id, content, number, frame) for seq, event_id, content, frame in with_key]
        self._claim_keyed(sorted(keyed))
        self._write_duplicates(deliveries)
        return recorded_at

    def _claim_plain(self, segment: int, day: int, rows: Iterable[tuple[bytes, int, int]]) -> None:
        """Their order makes neighbours of them in the table, so that many a statement are faster than one by one.

        A bytearray is taken as it is; for every single `bytes` sqlite3 searches an adapter first: a sixth of the time.
        """
        values: list[int | bytearray] = []
        for event_id, seq, frame in rows:
            values += (bytearray(event_id), seq, frame)
        done = 0
        for size in _ROWS:
            while len(values) - done >= 3 * size:
                part = values[done : done + 3 * size]
                self.connection.execute(_claiming(size), (day, segment, *part))
                done += len(part)

    def _claim_keyed(self, rows: list[tuple[int, bytes, bytes, int, int]]) -> None:
        self.connection.executemany(
            "INSERT INTO keyed_event (seq, event_id, content_hash, segment, frame) VALUES (?, ?, ?, ?, ?)"
            f" ON CONFLICT DO UPDATE SET seq = seq WHERE claimed_before(excluded.segment, excluded.seq, {KEYED_DAY:d},"
            f" excluded.event_id, excluded.frame, {_IS_CONFLICT}, excluded.content_hash)",
            rows,
        )

    def _without(
        self, verdicts: Mapping[int, Verdict], segment: int, day: int, rows: Iterable[tuple[bytes, int, int]]
    ) -> Iterator[tuple[bytes, int, int]]:
        for event_id, seq, frame in rows:
            if seq in verdicts:
                self._again.append((segment, seq, day, event_id, frame, 0, None))
            else:
                yield event_id, seq, frame

    def _keyed_without(
        self, verdicts: Mapping[int, Verdict], segment: int, rows: Iterable[tuple[int, bytes, bytes, int]]
    ) -> Iterator[tuple[int, bytes, bytes, int]]:
        for seq, event_id, content, frame in rows:
            if verdict := verdicts.get(seq):
                self._again.append(
                    (segment, seq, KEYED_DAY, event_id, frame, int(verdict == Verdict.CONFLICT), content)
                )
            else:
                yield seq, event_id, content, frame

    def _write_duplicates(self, deliveries: Mapping[int, int]) -> None:
        """Write down the duplicates, and each segment's number of accepted deliveries."""
        self.connection.executemany("INSERT INTO duplicate VALUES (?, ?, ?, ?, ?, ?, ?)", sorted(self._again))
        lost = Counter(duplicate[0] for duplicate in self._again)
        self.connection.executemany(
            "UPDATE segment SET accepted = ? WHERE number = ?",
            [(count - lost[number], number) for number, count in deliveries.items()],
        )
        conflicts = sum(duplicate[5] for duplicate in self._again)
        self.counts["accepted"] += sum(deliveries.values()) - len(self._again)
        self.counts["conflict"] += conflicts
        self.counts["exact"] += len(self._again) - conflicts
        self._again.clear()


_IS_CONFLICT = CONFLICT.format(content="excluded.content_hash", accepted="keyed_event.content_hash")

_Duplicate = tuple[int, int, int, bytes, int, int, bytes | None]
"""A row of the table duplicate."""


_ROWS = (256, 64, 16, 4, 1)
"""Rows of a statement. A few sizes, because preparing a statement takes as long as inserting most of its rows, and
sqlite3 keeps those that come again."""


@cache
def _claiming(rows: int) -> str:
    """SQL that claims so many deliveries of one day and segment."""
    return (
        f"INSERT INTO event (day, segment, event_id, seq, frame) VALUES {', '.join(['(?1, ?2, ?, ?, ?)'] * rows)}"
        " ON CONFLICT DO UPDATE SET seq = seq WHERE"
        " claimed_before(?2, excluded.seq, ?1, excluded.event_id, excluded.frame, 0, NULL)"
    )


def _next_moment(connection: sqlite3.Connection) -> int:
    """Now, or just after the latest `recorded_at` where the clock went back. To be asked inside of the transaction that
    records, so that a greater one is a later one."""
    (latest,) = connection.execute("SELECT max(recorded_at) FROM segment").fetchone()
    return max(time.time_ns(), (latest or 0) + 1)


def add_segment(connection: sqlite3.Connection, segment: Segment, recorded_at: int) -> int:
    """Insert a segment and return its number. It is recorded at this moment unless it says when it was."""
    cursor = connection.execute(
        "INSERT INTO segment (day, key, batch, size, digest, deliveries, accepted, ingest_time, first_event,"
        " last_event, frames, recorded_at, guessed) VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?)",
        (
            segment.day,
            segment.key,
            segment.batch_id,
            segment.size,
            segment.digest,
            segment.deliveries,
            segment.ingest_time,
            segment.first_event,
            segment.last_event,
            msgspec.json.encode(segment.frames),
            segment.recorded_at or recorded_at,
            segment.guessed,
        ),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def add_rejects(connection: sqlite3.Connection, batch_id: str, rejects: RejectFile) -> None:
    """Insert a file of rejects behind those of its batch."""
    connection.execute(
        "INSERT INTO reject_file SELECT ?, count(*), ?, ?, ?, ? FROM reject_file WHERE batch = ?",
        (batch_id, rejects.key, rejects.size, rejects.digest, rejects.records, batch_id),
    )

"""Recording batches in index.db: the first delivery of an event claims it, each later one is a duplicate."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pik.errors import Busy
from pik.model.batch import KEYED, PLAIN, Arrivals, Batch, BatchState, Chunk, Counts, Origin, RejectFile, Verdict
from pik.ports.index import Rebuild, being_rebuilt, unheard
from pik.runtime import called_from_c
from pik.stores import conflicting
from pik.stores.local.catalog.tables import (
    CONFLICT,
    KEYED_DAY,
    REBUILDING,
    batch_of,
    batch_without_events,
    batches_of_content,
    duplicates_of,
    find_batch,
    insert_batch,
    insert_segment,
    update_batch,
)
from pik.stores.local.lock import held, holding
from pik.stores.local.sqlite import Database


@dataclass(slots=True)
class LocalBatches:
    """Writes index.db."""

    database: Database
    locks: Path

    def find(self, origin: Origin) -> Batch | None:
        return find_batch(self.database.read(), self.locks, origin)

    def of_content(self, content: str) -> Iterator[Batch]:
        return batches_of_content(self.database.read(), self.locks, content)

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        with self._holding(shared=True), holding(self.locks, name):
            self.database.reconnect()  # a rebuild may have replaced the file
            yield

    def open(self, origin: Origin, batch_id: str, started_at: int, actor: str = "") -> Batch:
        state = BatchState.INTERRUPTED
        with self.database.write() as connection:
            batch = Batch(batch_id=batch_id, origin=origin, state=state, started_at=started_at, actor=actor)
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
        with self._holding(shared=True):
            pass

    def record_request(self, batch: Batch, chunk: Chunk, copies: Mapping[str, bytes]) -> dict[int, Verdict]:  # noqa: ARG002
        self.open(batch.origin, batch.batch_id, batch.started_at, batch.actor)
        self.record(chunk)
        self.finish(batch.batch_id, batch.finished_at or batch.started_at)
        found = (duplicates_of(self.database.read(), arrived.segment) for arrived in chunk.arrivals)
        return {seq: kind for duplicates in found for seq, kind in duplicates.items()}

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
    def rebuild(self, waiting: Callable[[str], None] = unheard) -> Iterator[Rebuild]:  # noqa: ARG002 - nothing waits
        from pik.stores.local.catalog.rebuild import rebuilding  # late: it is built on this module, and rarely used

        with self._holding(shared=False), rebuilding(self.database.path) as rebuild:
            self.database.reconnect()  # the file may have been replaced by another rebuild, or removed
            yield rebuild
        self.database.reconnect()

    @contextmanager
    def _holding(self, *, shared: bool) -> Iterator[None]:
        """Keep rebuilds away and, unless `shared`, writers. Raises Busy, BeingRebuilt."""
        with ExitStack() as stack:
            try:
                stack.enter_context(holding(self.locks, REBUILDING, shared=shared))
            except Busy:
                if shared or held(self.locks, REBUILDING, shared=True):
                    raise being_rebuilt(None) from None
                raise
            yield


class Claims:
    """Claims deliveries inside one transaction: the first of an event_id is accepted, the others are duplicates."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.counts = {"accepted": 0, "exact": 0, "conflict": 0}
        self._duplicates: list[_Duplicate] = []
        # SQLite calls this for each row that meets one already there; its answer, false, leaves that one as it is. So
        # the inserts run as a single call, and only duplicates cost a call back into Python.
        connection.create_function("claimed_before", 7, called_from_c(self._note))

    def _note(self, *duplicate: int | bytes | None) -> bool:
        self._duplicates.append(duplicate)  # type: ignore[arg-type]  # seven values, as the SQL below gives them
        return False

    def add(self, arrivals: Iterable[Arrivals], verdicts: Mapping[int, Verdict] | None = None) -> int:
        """Claim every delivery of a chunk, in the order of the seqs where one id comes more than once. All segments
        without a `recorded_at` get the same, later than any before; return it.

        `verdicts`, known from a batch's record, has the duplicates by seq; those claim nothing.
        """
        known = verdicts or {}
        deliveries: dict[int, int] = {}
        # Inside the transaction, so that a greater moment is a later one even if the clock went back.
        (latest,) = self.connection.execute("SELECT max(recorded_at) FROM segment").fetchone()
        recorded_at = max(time.time_ns(), (latest or 0) + 1)
        keyed: list[tuple[int, bytes, bytes, int, int]] = []
        for arrived in arrivals:
            day, number = arrived.segment.day, insert_segment(self.connection, arrived.segment, recorded_at)
            deliveries[number] = arrived.count
            plain: Iterable[tuple[bytes, int, int]] = PLAIN.iter_unpack(arrived.plain)
            if known:
                rows = list(plain)
                self._duplicates += [
                    (number, seq, day, name, frame, 0, None) for name, seq, frame in rows if seq in known
                ]
                plain = [row for row in rows if row[1] not in known]
            self._claim_plain(number, day, plain)
            for seq, event_id, content, frame in KEYED.iter_unpack(arrived.keyed):
                if verdict := known.get(seq):
                    is_conflict = verdict == Verdict.CONFLICT
                    self._duplicates.append((number, seq, KEYED_DAY, event_id, frame, int(is_conflict), content))
                else:
                    keyed.append((seq, event_id, content, number, frame))
        self._claim_keyed(sorted(keyed))
        self._write_duplicates(deliveries)
        return recorded_at

    def _claim_plain(self, segment: int, day: int, rows: Iterable[tuple[bytes, int, int]]) -> None:
        """Sorted ids are adjacent in the table, so statements of many rows are faster than one for each.

        A bytearray is bound as it is; for each `bytes` sqlite3 first looks for an adapter: a sixth of the time.
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

    def _write_duplicates(self, deliveries: Mapping[int, int]) -> None:
        """Write the duplicates, and each segment's number of accepted deliveries."""
        self.connection.executemany("INSERT INTO duplicate VALUES (?, ?, ?, ?, ?, ?, ?)", sorted(self._duplicates))
        lost = Counter(duplicate[0] for duplicate in self._duplicates)
        self.connection.executemany(
            "UPDATE segment SET accepted = ? WHERE number = ?",
            [(count - lost[number], number) for number, count in deliveries.items()],
        )
        conflicts = sum(duplicate[5] for duplicate in self._duplicates)
        self.counts["accepted"] += sum(deliveries.values()) - len(self._duplicates)
        self.counts["conflict"] += conflicts
        self.counts["exact"] += len(self._duplicates) - conflicts
        self._duplicates.clear()


_IS_CONFLICT = CONFLICT.format(content="excluded.content_hash", accepted="keyed_event.content_hash")

_Duplicate = tuple[int, int, int, bytes, int, int, bytes | None]
"""A row of the table duplicate."""

_ROWS = (256, 64, 16, 4, 1)
"""Rows of a statement. A few sizes, because preparing a statement takes as long as inserting most of its rows, and
sqlite3 caches prepared ones."""


@cache
def _claiming(rows: int) -> str:
    """Return SQL that claims so many deliveries of one day and segment."""
    return (
        f"INSERT INTO event (day, segment, event_id, seq, frame) VALUES {', '.join(['(?1, ?2, ?, ?, ?)'] * rows)}"
        " ON CONFLICT DO UPDATE SET seq = seq WHERE"
        " claimed_before(?2, excluded.seq, ?1, excluded.event_id, excluded.frame, 0, NULL)"
    )


def add_rejects(connection: sqlite3.Connection, batch_id: str, rejects: RejectFile) -> None:
    """Insert a file of rejects after those of its batch."""
    connection.execute(
        "INSERT INTO reject_file SELECT ?, count(*), ?, ?, ?, ? FROM reject_file WHERE batch = ?",
        (batch_id, rejects.key, rejects.size, rejects.digest, rejects.records, batch_id),
    )

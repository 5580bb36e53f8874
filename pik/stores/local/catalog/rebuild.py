"""index.db and raw: comparing them row by row, and rebuilding the index from raw.

A new index is made beside the old one, which it replaces when it is whole.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import msgspec

from pik.errors import StoreError
from pik.model.batch import KEYED, PLAIN, Arrivals, Batch, Location, RejectFile, Segment, Verdict, duplicate_kind
from pik.model.share import WHOLE, Share
from pik.ports.index import SegmentCopies, Winner
from pik.stores.local.access import expect_files
from pik.stores.local.catalog.batches import Claims, add_rejects
from pik.stores.local.catalog.corrections import LocalCorrections
from pik.stores.local.catalog.tables import CONFLICT, KEYED_DAY, SCHEMA, duplicates_of, index_database, insert_batch
from pik.stores.local.sqlite import Database


@contextmanager
def rebuilding(path: Path) -> Iterator[LocalRebuild]:
    """Provide an empty index that takes the place of the one at `path`, which nothing may write to meanwhile."""
    expect_files(path)
    beside = path.with_name(path.name + ".rebuild")
    _remove(beside)
    database = Database(beside, SCHEMA)
    database.create()
    rebuild = LocalRebuild(database, index_database(path.parent))
    yield rebuild
    with database.write() as connection:
        _count_batches(connection, rebuild.unread)
    database.close()  # the last connection to close moves the write-ahead log into the file
    _replace(path, beside)


def _replace(path: Path, beside: Path) -> None:
    """Put the file `beside` in the place of the one at `path`.

    An index must never be read without its log, nor with another one's. So the old one goes first; a process that is
    killed before the new one is there leaves none, which every command reports.
    """
    old = path.with_name(path.name + ".old")
    if path.exists():
        os.replace(path, old)
    _remove(path)
    os.replace(beside, path)
    _remove(old)


def _remove(path: Path) -> None:
    for name in (path, f"{path}-wal", f"{path}-shm"):
        Path(name).unlink(missing_ok=True)


class NothingBeside:
    """Nothing is recorded beside a rebuild, which has the store's lock."""

    def await_writers(self) -> None:
        pass

    def batches(self, _: Sequence[str]) -> tuple[set[str], set[str]]:
        return set(), set()


@dataclass(slots=True)
class LocalRebuild:
    """Fills the new index.db; `replaced` is the one that is there. `unread` are the batches with deliveries that are
    lost: their counts are those of their records."""

    database: Database
    replaced: Database
    unread: set[str] = field(default_factory=set)

    @property
    def corrections(self) -> LocalCorrections:
        return LocalCorrections(self.database)

    @property
    def beside(self) -> NothingBeside:
        return NothingBeside()

    def add_batch(self, batch: Batch) -> None:
        with self.database.write() as connection:
            connection.execute("DELETE FROM batch WHERE batch_id = ?", (batch.batch_id,))
            insert_batch(connection, batch)

    def add_segments(self, arrivals: Sequence[Arrivals], verdicts: Mapping[int, Verdict] | None) -> None:
        self.unread |= {one.segment.batch_id for one in arrivals if one.count != one.segment.deliveries}
        with self.database.write() as connection:
            Claims(connection).add(arrivals, verdicts)

    def add_rejects(self, batch_id: str, rejects: RejectFile) -> None:
        with self.database.write() as connection:
            add_rejects(connection, batch_id, rejects)

    def rows(self, segment: Segment, frames: Collection[int]) -> Arrivals:
        return _rows_in(self.replaced, segment, frames)

    def skipped(self, segments: Sequence[Segment]) -> list[dict[int, Verdict]]:
        return [duplicates_of(self.database.writer(), segment) for segment in segments]

    def winners(self, arrivals: Arrivals, seqs: Collection[int]) -> dict[int, Winner]:
        winners: dict[int, Winner] = {}
        connection = self.database.writer()
        for seq, event_id, content, _ in _deliveries(arrivals):
            if seq in seqs and (row := _accepted(connection, arrivals.segment, event_id, content)):
                _, _, of_seq, accepted, batch_id, key = row
                winners[seq] = Winner((batch_id, of_seq), key, accepted)
        return winners

    def prefer(self, arrivals: Arrivals, seq: int) -> None:
        segment = arrivals.segment
        _, event_id, content, frame = next(row for row in _deliveries(arrivals) if row[0] == seq)
        with self.database.write() as connection:
            mine = connection.execute("SELECT number FROM segment WHERE key = ?", (segment.key,)).fetchone()
            current = _accepted(connection, segment, event_id, content)
            if mine is None or (current is not None and current[:3] == (mine[0], frame, seq)):
                return
            day = segment.day if content is None else KEYED_DAY
            if current is not None:  # a duplicate now, whose kind follows from the one that is promoted
                number, place, of_seq, accepted, *_ = current
                row = number, of_seq, day, event_id, place, accepted
                connection.execute("INSERT INTO duplicate VALUES (?, ?, ?, ?, ?, 0, ?)", row)
                connection.execute("UPDATE segment SET accepted = accepted - 1 WHERE number = ?", (number,))
            _promote(connection, mine[0], seq, day, event_id, frame, content)

    def settle(self) -> Iterator[Location]:
        with self.database.write() as connection:
            for table, kind, same_day in (("event", "<>", "AND e.day = d.day"), ("keyed_event", "=", "")):
                query = _ORPHANS.format(table=table, kind=kind, keyed_day=KEYED_DAY, same_day=same_day)
                for *row, own_day, key, batch, conflict in connection.execute(query).fetchall():
                    _, seq, _, event_id, frame, _ = row
                    _promote(connection, *row)
                    kind = Verdict.CONFLICT if conflict else Verdict.EXACT
                    yield Location(event_id.hex(), own_day, key, batch, frame, seq, kind)


def _deliveries(arrivals: Arrivals) -> Iterator[tuple[int, bytes, bytes | None, int]]:
    """Yield seq, event_id, content_hash where the event has an idempotency key, and frame."""
    for event_id, seq, frame in PLAIN.iter_unpack(arrivals.plain):
        yield seq, event_id, None, frame
    yield from KEYED.iter_unpack(arrivals.keyed)


def _rows_in(database: Database, segment: Segment, frames: Collection[int]) -> Arrivals:
    """Return the rows of the deliveries in these frames of a segment, as far as the index can be read."""
    plain: list[bytes] = []
    keyed: list[bytes] = []
    if frames:
        with suppress(StoreError, sqlite3.Error, struct.error):
            for event_id, seq, frame, content in _rows_of(database, segment):
                if frame not in frames:
                    continue
                if content is None:
                    plain.append(PLAIN.pack(event_id, seq, frame))
                else:
                    keyed.append(KEYED.pack(seq, event_id, content, frame))
    unknown = "\n" * max(0, len(plain) + len(keyed) - 1)  # rows have no entities
    return Arrivals(segment, b"".join(sorted(plain)), b"".join(sorted(keyed)), unknown)


def _rows_of(database: Database, segment: Segment) -> Iterator[tuple[bytes, int, int, bytes | None]]:
    """Yield the rows of a segment: event_id, seq, frame, content_hash."""
    found = database.read().execute("SELECT number FROM segment WHERE key = ?", (segment.key,)).fetchone()
    if found is None:
        return
    of_segment = {"number": found[0], "day": segment.day}
    for query in (
        "SELECT event_id, seq, frame, NULL FROM event WHERE day = :day AND segment = :number",
        "SELECT event_id, seq, frame, content_hash FROM keyed_event WHERE segment = :number",
        "SELECT event_id, seq, frame, content_hash FROM duplicate WHERE segment = :number",
    ):
        yield from database.read().execute(query, of_segment)


_Accepted = tuple[int, int, int, bytes | None, str, str]


def _accepted(
    connection: sqlite3.Connection, segment: Segment, event_id: bytes, content: bytes | None
) -> _Accepted | None:
    """Return the accepted delivery of an event of which a delivery in this segment has this content: segment, frame,
    seq, content_hash, batch_id and segment key."""
    content_hash, table = ("NULL", "event") if content is None else ("content_hash", "keyed_event")
    row: _Accepted | None = connection.execute(
        f"SELECT e.segment, e.frame, e.seq, {content_hash}, s.batch, s.key FROM {table} e"
        f" JOIN segment s ON s.number = e.segment WHERE e.event_id = :id{' AND e.day = :day' * (content is None)}",
        {"id": event_id, "day": segment.day},
    ).fetchone()
    return row


_ORPHANS = """
SELECT segment, seq, day, event_id, frame, content_hash, own_day, key, batch, conflict FROM (
    SELECT *, row_number() OVER (PARTITION BY day, event_id ORDER BY came, batch, seq) AS place FROM (
    SELECT d.*, s.day AS own_day, s.key, s.batch,
        min(s.ingest_time) OVER (PARTITION BY d.day, d.event_id, s.batch) AS came
    FROM duplicate d JOIN segment s ON s.number = d.segment
    WHERE d.day {kind} {keyed_day} AND NOT EXISTS (
        SELECT 1 FROM {table} e WHERE e.event_id = d.event_id {same_day}
    ))
) WHERE place = 1
"""


def _promote(
    connection: sqlite3.Connection, segment: int, seq: int, day: int, event_id: bytes, frame: int, content: bytes | None
) -> None:
    connection.execute("DELETE FROM duplicate WHERE segment = ? AND seq = ?", (segment, seq))
    if content is None:
        connection.execute("INSERT OR REPLACE INTO event VALUES (?, ?, ?, ?, ?)", (day, event_id, segment, frame, seq))
    else:
        connection.execute(
            "INSERT OR REPLACE INTO keyed_event VALUES (?, ?, ?, ?, ?)", (event_id, content, segment, frame, seq)
        )
        is_conflict = CONFLICT.format(content="content_hash", accepted="?")
        connection.execute(
            f"UPDATE duplicate SET conflict = {is_conflict} WHERE day = ? AND event_id = ?", (content, day, event_id)
        )
    connection.execute("UPDATE segment SET accepted = accepted + 1 WHERE number = ?", (segment,))


def _count_batches(connection: sqlite3.Connection, unread: set[str]) -> None:
    """Count the verdicts of batches from what their segments hold now; those of complete batches only where all of
    their segments could be read."""
    connection.execute(
        "UPDATE batch SET (accepted, exact, conflict) = ("
        "SELECT coalesce(sum(s.accepted), 0), coalesce(sum(d.exact), 0), coalesce(sum(d.conflict), 0) FROM segment s"
        " LEFT JOIN (SELECT segment, sum(1 - conflict) AS exact, sum(conflict) AS conflict"
        " FROM duplicate GROUP BY segment) d ON d.segment = s.number WHERE s.batch = batch_id)"
        " WHERE complete <> 1 OR batch_id NOT IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode(sorted(unread)).decode(),),
    )
    connection.execute(
        "UPDATE batch SET recorded_at = (SELECT coalesce(max(recorded_at), 0) FROM segment WHERE batch = batch_id)"
    )
    connection.execute("UPDATE batch SET read = accepted + exact + conflict + rejected WHERE complete <> 1")


_AT_ONCE = 500
"""Events that one statement looks up."""


@dataclass(slots=True)
class LocalAudit:
    """Reads index.db."""

    database: Database

    def anew(self) -> LocalAudit:
        return self

    def differing(self, arrivals: Sequence[Arrivals]) -> dict[str, str]:
        wrong: dict[str, str] = {}
        for day, of_day in groupby(arrivals, key=lambda arrived: arrived.segment.day):
            wrong.update(self._of_day(day, list(of_day)))
        return wrong

    def rows(self, share: Share = WHOLE) -> Iterator[tuple[str, int | None]]:
        if share.number:  # one query counts them all
            return
        yield from self.database.read().execute(
            "SELECT s.key, (SELECT count(*) FROM duplicate d WHERE d.segment = s.number) + coalesce(n, 0)"
            " FROM segment s LEFT JOIN (SELECT segment, count(*) AS n FROM"
            " (SELECT segment FROM event UNION ALL SELECT segment FROM keyed_event) GROUP BY segment)"
            " ON segment = s.number"
        )

    def arrivals(self, segments: Sequence[Segment]) -> Iterator[Arrivals]:
        return (self.deliveries(segment, range(len(segment.frames))) for segment in segments)

    def deliveries(self, segment: Segment, frames: Collection[int]) -> Arrivals:
        return _rows_in(self.database, segment, frames)

    def knows(self, batch_id: str) -> bool:
        query = "SELECT 1 FROM batch WHERE batch_id = ?1 UNION ALL SELECT 1 FROM segment WHERE batch = ?1 LIMIT 1"
        return self.database.read().execute(query, (batch_id,)).fetchone() is not None

    def damage(self, *, quick: bool = False) -> Iterator[tuple[str, str]]:
        if quick:
            return
        for (line,) in self.database.read().execute("PRAGMA integrity_check(10)"):
            if line != "ok":
                yield self.database.path.name, line

    def copies(self) -> Iterator[SegmentCopies]:
        return iter(())

    def _of_day(self, day: int, arrivals: Sequence[Arrivals]) -> Iterator[tuple[str, str]]:
        duplicates = "(SELECT count(*) FROM duplicate WHERE segment = number)"
        query = f"SELECT number, accepted + {duplicates} FROM segment WHERE key = ?"
        read = self.database.read()
        rows = [read.execute(query, (arrived.segment.key,)).fetchone() for arrived in arrivals]
        sums = self._sums(day, [row[0] for row in rows if row is not None])
        for arrived, row in zip(arrivals, rows, strict=True):
            key = arrived.segment.key
            if row is None:
                yield key, "the index does not list it any more"
                continue
            number, counted = row
            if counted != arrived.count:
                yield key, "the index has another number of accepted deliveries than rows of them"
                continue
            plain = PLAIN.iter_unpack(arrived.plain)
            sound = sums[number] == sum(hash((frame, event_id, seq)) for event_id, seq, frame in plain)
            wrong = [] if sound else list(self._wrong_plain(day, number, arrived))
            wrong += self._wrong_keyed(number, arrived)
            if wrong:
                several = f"{len(wrong)} deliveries, the first of them record {min(wrong)}"
                yield key, f"{several}, are not in the index as in raw"
            elif not sound:
                yield key, "the index has rows of it that are not in raw"

    def _sums(self, day: int, numbers: Sequence[int]) -> dict[int, int]:
        """Return, by segment, the sum of the hashes of its rows without an idempotency key. The rows of a day are read
        once for all segments; looking each one up takes several times as long."""
        sums = dict.fromkeys(numbers, 0)
        for table, only in (("event", ""), ("duplicate", " AND content_hash IS NULL AND conflict = 0")):
            rows = self.database.read().execute(
                f"SELECT segment, frame, event_id, seq FROM {table} WHERE day = ? AND segment BETWEEN ? AND ?{only}",
                (day, min(numbers, default=0), max(numbers, default=0)),
            )
            for segment, frame, event_id, seq in rows:
                if segment in sums:
                    sums[segment] += hash((frame, event_id, seq))
        return sums

    def _wrong_plain(self, day: int, number: int, arrived: Arrivals) -> Iterator[int]:
        """Yield the seqs of deliveries without an idempotency key that are not in the index exactly once."""
        read = self.database.read()
        there = set(
            read.execute(
                "SELECT frame, event_id, seq FROM duplicate WHERE segment = ? AND day = ? AND conflict = 0",
                (number, day),
            )
        )
        for event_id, seq, frame in PLAIN.iter_unpack(arrived.plain):
            row = read.execute(
                "SELECT segment, frame, seq FROM event WHERE day = ? AND event_id = ?", (day, event_id)
            ).fetchone()
            if (row == (number, frame, seq)) == ((frame, event_id, seq) in there):
                yield seq

    def _wrong_keyed(self, number: int, arrived: Arrivals) -> Iterator[int]:
        """Yield the seqs of deliveries with an idempotency key that are not in the index, or not with their kind."""
        if not arrived.keyed:
            return
        read = self.database.read()
        rows = read.execute(
            "SELECT seq, frame, event_id, content_hash, conflict FROM duplicate WHERE segment = ? AND day = ?",
            (number, KEYED_DAY),
        )
        there = {seq: row for seq, *row in rows}
        winners = self._winners({event_id for _, event_id, _, _ in KEYED.iter_unpack(arrived.keyed)})
        for seq, event_id, content, frame in KEYED.iter_unpack(arrived.keyed):
            accepted = winners.get(event_id)
            if accepted is not None and accepted[:3] == (number, frame, seq):
                right = accepted[3] == content and seq not in there
            else:  # in a copy, the accepted delivery may be elsewhere
                *place, conflict = there.get(seq, (None,))
                right = place == [frame, event_id, content]
                kind = None if accepted is None else duplicate_kind(content, accepted[3])
                right &= kind is None or conflict == (kind == Verdict.CONFLICT)
            if not right:
                yield seq

    def _winners(self, event_ids: set[bytes]) -> dict[bytes, tuple[int, int, int, bytes]]:
        """Return segment, frame, seq and content hash of the accepted deliveries of these events."""
        winners = {}
        ordered = sorted(event_ids)
        for begin in range(0, len(ordered), _AT_ONCE):
            some = ordered[begin : begin + _AT_ONCE]
            rows = self.database.read().execute(
                "SELECT event_id, segment, frame, seq, content_hash FROM keyed_event"
                f" WHERE event_id IN ({', '.join('?' * len(some))})",
                some,
            )
            winners.update({event_id: tuple(rest) for event_id, *rest in rows})
        return winners

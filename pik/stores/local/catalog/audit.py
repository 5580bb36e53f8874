"""Comparing index.db with raw, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from pik.model.batch import KEYED, PLAIN, Arrivals, Verdict, duplicate_kind
from pik.stores.local.catalog.index import KEYED_DAY
from pik.stores.local.sqlite import Database

_AT_ONCE = 500
"""Events that one statement looks up."""


@dataclass(slots=True)
class LocalAudit:
    """Reads index.db."""

    database: Database

    def differing(self, arrivals: Sequence[Arrivals]) -> dict[str, str]:
        wrong: dict[str, str] = {}
        for day, of_day in groupby(arrivals, key=lambda arrived: arrived.segment.day):
            wrong.update(self._of_day(day, list(of_day)))
        return wrong

    def rows(self) -> Iterator[tuple[str, int | None]]:
        yield from self.database.read().execute(
            "SELECT s.key, (SELECT count(*) FROM duplicate d WHERE d.segment = s.number) + coalesce(n, 0)"
            " FROM segment s LEFT JOIN (SELECT segment, count(*) AS n FROM"
            " (SELECT segment FROM event UNION ALL SELECT segment FROM keyed_event) GROUP BY segment)"
            " ON segment = s.number"
        )

    def knows(self, batch_id: str) -> bool:
        query = "SELECT 1 FROM batch WHERE batch_id = ?1 UNION ALL SELECT 1 FROM segment WHERE batch = ?1 LIMIT 1"
        return self.database.read().execute(query, (batch_id,)).fetchone() is not None

    def damage(self) -> Iterator[tuple[str, str]]:
        for (line,) in self.database.read().execute("PRAGMA integrity_check(10)"):
            if line != "ok":
                yield self.database.path.name, line

    def corrections(self) -> set[str]:
        return {key for (key,) in self.database.read().execute("SELECT key FROM correction")}

    def follow(self, corrections: Sequence[str]) -> None:
        with self.database.write() as connection:
            connection.executemany("INSERT OR IGNORE INTO correction VALUES (?)", [(key,) for key in corrections])

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
            if counted != len(arrived.plain) // PLAIN.size + len(arrived.keyed) // KEYED.size:
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

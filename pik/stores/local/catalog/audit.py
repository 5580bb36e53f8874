"""Holding index.db against raw, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from pik.model.batch import KEYED, PLAIN, Arrivals, Verdict, duplicate_kind
from pik.stores.local.catalog.index import KEYED_DAY
from pik.stores.local.sqlite import Database

_ASKED = 500
"""Events that one statement asks for."""


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
        query = (
            "SELECT EXISTS (SELECT 1 FROM batch WHERE batch_id = ?1) OR EXISTS (SELECT 1 FROM segment WHERE batch = ?1)"
        )
        known: int = self.database.read().execute(query, (batch_id,)).fetchone()[0]
        return bool(known)

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
        numbers = [self._number(arrived.segment.key) for arrived in arrivals]
        sums = self._sums(day, [number for number in numbers if number is not None])
        for arrived, number in zip(arrivals, numbers, strict=True):
            if number is None:
                yield arrived.segment.key, "the index does not list it any more"
                continue
            plain = PLAIN.iter_unpack(arrived.plain)
            sound = sums[number] == sum(hash((frame, event_id, seq)) for event_id, seq, frame in plain)
            if not self._counted(number, len(arrived.plain) // PLAIN.size + len(arrived.keyed) // KEYED.size):
                yield arrived.segment.key, "the index has another number of accepted deliveries than rows of them"
                continue
            wrong = [] if sound else list(self._other_plain(day, number, arrived))
            wrong += self._other_keyed(number, arrived)
            if wrong:
                several = f"{len(wrong)} deliveries, the first of them record {min(wrong)}"
                yield arrived.segment.key, f"{several}, are not in the index as in raw"
            elif not sound:
                yield arrived.segment.key, "the index has rows of it that are not in raw"

    def _number(self, key: str) -> int | None:
        row = self.database.read().execute("SELECT number FROM segment WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def _counted(self, number: int, deliveries: int) -> bool:
        """Whether the segment's number of accepted deliveries is right."""
        query = (
            "SELECT accepted + (SELECT count(*) FROM duplicate WHERE segment = number) FROM segment WHERE number = ?"
        )
        counted: int = self.database.read().execute(query, (number,)).fetchone()[0]
        return counted == deliveries

    def _sums(self, day: int, numbers: Sequence[int]) -> dict[int, int]:
        """By segment, the sum of the hashes of its rows without an idempotency key. The rows of a day are read once for
        all segments; looking each one up takes several times as long."""
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

    def _other_plain(self, day: int, number: int, arrived: Arrivals) -> Iterator[int]:
        """The seqs of deliveries without an idempotency key that are not in the index exactly once."""
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

    def _other_keyed(self, number: int, arrived: Arrivals) -> Iterator[int]:
        """The seqs of those with one, of which a duplicate is a conflict if its content is not the accepted one's."""
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
        """Where the accepted deliveries of these events are, and the hashes of their contents."""
        winners = {}
        ordered = sorted(event_ids)
        for begin in range(0, len(ordered), _ASKED):
            some = ordered[begin : begin + _ASKED]
            rows = self.database.read().execute(
                "SELECT event_id, segment, frame, seq, content_hash FROM keyed_event"
                f" WHERE event_id IN ({', '.join('?' * len(some))})",
                some,
            )
            winners.update({event_id: tuple(rest) for event_id, *rest in rows})
        return winners

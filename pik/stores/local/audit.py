"""Holding index.db against raw, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pik.model.batch import KEYED, PLAIN, Arrivals
from pik.stores.local.sqlite import Database

_Place = tuple[int, bytes, int]
"""frame, event_id, seq"""


@dataclass(slots=True)
class LocalAudit:
    """Reads index.db."""

    database: Database

    def differing(self, arrivals: Arrivals) -> list[int]:
        found = (
            self.database.read().execute("SELECT number FROM segment WHERE key = ?", (arrivals.segment.key,)).fetchone()
        )
        there = dict.fromkeys(self._duplicates(found[0])) if found else {}
        differing: list[int] = []
        for table, of_day, frame, event_id, seq in _places(arrivals):
            row = (
                self.database.read()
                .execute(f"SELECT segment, frame, seq FROM {table} WHERE {of_day} event_id = ?", (event_id,))
                .fetchone()
            )
            accepted = row is not None and found is not None and row == (found[0], frame, seq)
            if accepted == ((frame, event_id, seq) in there):  # once: neither missing nor both
                differing.append(seq)
        return sorted(differing)

    def _duplicates(self, segment: int) -> Iterator[_Place]:
        yield from self.database.read().execute(
            "SELECT frame, event_id, seq FROM duplicate WHERE segment = ?", (segment,)
        )

    def rows(self) -> dict[str, int]:
        return dict(
            self.database.read().execute(
                "SELECT s.key, (SELECT count(*) FROM duplicate d WHERE d.segment = s.number) + coalesce(n, 0)"
                " FROM segment s LEFT JOIN (SELECT segment, count(*) AS n FROM"
                " (SELECT segment FROM event UNION ALL SELECT segment FROM keyed_event) GROUP BY segment)"
                " ON segment = s.number"
            )
        )


def _places(arrivals: Arrivals) -> Iterator[tuple[str, str, int, bytes, int]]:
    """Each delivery of the segment: table, condition on the day, frame, event_id, seq."""
    of_day = f"day = {arrivals.segment.day:d} AND"
    for event_id, seq, frame in PLAIN.iter_unpack(arrivals.plain):
        yield "event", of_day, frame, event_id, seq
    for seq, event_id, _, frame in KEYED.iter_unpack(arrivals.keyed):
        yield "keyed_event", "", frame, event_id, seq

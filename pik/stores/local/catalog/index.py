"""Reading index.db."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pik.errors import StoreError
from pik.model.batch import (
    KEYED,
    PLAIN,
    Arrivals,
    Batch,
    BatchState,
    Location,
    RejectFile,
    Segment,
    Verdict,
    duplicate_kind,
    with_names,
)
from pik.model.window import Window
from pik.ports.index import RebuildUnderWay, Summary, Totals
from pik.stores.local.catalog.tables import (
    BATCH_QUERY,
    KEYED_DAY,
    KINDS,
    REBUILDING,
    SEGMENT_COLUMNS,
    duplicates_of,
    location_of,
    read_batch,
    read_segment,
)
from pik.stores.local.lock import held
from pik.stores.local.sqlite import Database

_Row = TypeVar("_Row")


@dataclass(slots=True)
class LocalIndex:
    """Reads index.db. `locks` is the store's lock file, which shows whether a batch's writer lives."""

    database: Database
    locks: Path

    def segments(
        self,
        window: Window,
        *,
        batch_id: str | None = None,
        entities: Sequence[str] = (),  # noqa: ARG002 - frames have them
    ) -> Iterator[Segment]:
        first, last = window.days
        where, values = ("", ()) if batch_id is None else (" AND batch = ?", (batch_id,))
        rows = self.database.read().execute(
            f"SELECT {', '.join(SEGMENT_COLUMNS)} FROM segment WHERE day BETWEEN ? AND ?{where}"
            " ORDER BY day, recorded_at, key",
            (first, last, *values),
        )
        return self._read(read_segment, rows)

    def skipped(self, segment: Segment) -> dict[int, Verdict]:
        return duplicates_of(self.database.read(), segment)

    def locate(self, event_id_prefix: str, limit: int = 10) -> list[str]:
        return [one.event_id for one in self._accepted(event_id_prefix, limit)]

    def _accepted(self, event_id_prefix: str, limit: int) -> list[Location]:
        """Return the accepted deliveries of the first events whose id starts so."""
        low = bytes.fromhex(event_id_prefix.ljust(32, "0"))
        high = bytes.fromhex(event_id_prefix.ljust(32, "f"))
        rows = self.database.read().execute(
            "SELECT * FROM (SELECT e.event_id, s.day, s.key, s.batch, e.frame, e.seq, s.recorded_at"
            " FROM (SELECT DISTINCT day FROM segment) d CROSS JOIN event e"
            " ON e.day = d.day AND e.event_id BETWEEN :low AND :high JOIN segment s ON s.number = e.segment"
            " UNION ALL SELECT k.event_id, s.day, s.key, s.batch, k.frame, k.seq, s.recorded_at"
            " FROM keyed_event k JOIN segment s ON s.number = k.segment WHERE k.event_id BETWEEN :low AND :high)"
            " ORDER BY 1 LIMIT :limit",
            {"low": low, "high": high, "limit": limit},
        )
        return [location_of(*row, Verdict.ACCEPTED, recorded_at) for *row, recorded_at in rows]

    def deliveries(self, event_id: str, limit: int | None = None) -> list[Location]:
        accepted = self._accepted(event_id, limit=1)
        if not accepted:
            return []
        identity = bytes.fromhex(event_id)
        keyed = self.database.read().execute("SELECT 1 FROM keyed_event WHERE event_id = ?", (identity,)).fetchone()
        rows = self.database.read().execute(
            "SELECT d.event_id, s.day, s.key, s.batch, d.frame, d.seq, d.conflict, s.recorded_at"
            " FROM duplicate d JOIN segment s ON s.number = d.segment WHERE d.day = ? AND d.event_id = ?"
            " ORDER BY s.batch, d.seq LIMIT ?",
            (KEYED_DAY if keyed else accepted[0].day, identity, -1 if limit is None else limit - 1),
        )
        return accepted + [
            location_of(*row, KINDS[bool(conflict)], recorded_at) for *row, conflict, recorded_at in rows
        ]

    def repeated_from(self, batch_id: str, days: tuple[int, int] | None = None) -> Iterator[list[Location]]:
        if days is None:
            return self._groups("accepted.batch = :batch", {"batch": batch_id})
        values = {"batch": batch_id, "first": days[0], "last": days[1]}
        return self._groups("accepted.batch = :batch AND (d.day = :keyed OR d.day BETWEEN :first AND :last)", values)

    def conflicting(self) -> Iterator[list[Location]]:
        return self._groups("d.event_id IN (SELECT event_id FROM duplicate WHERE conflict)")

    def verdicts(self, arrivals: Sequence[Arrivals]) -> dict[int, Verdict]:
        connection, found = self.database.read(), dict[int, Verdict]()
        for arrived in arrivals:
            day, plain = arrived.segment.day, list(PLAIN.iter_unpack(arrived.plain))
            for some in _some(plain):
                ids = [event_id for event_id, _, _ in some]
                query = f"SELECT event_id FROM event WHERE day = ? AND event_id IN ({', '.join('?' * len(ids))})"
                known = {event_id for (event_id,) in connection.execute(query, (day, *ids))}
                found |= {seq: Verdict.EXACT for event_id, seq, _ in some if event_id in known}
            for rows in _some(list(KEYED.iter_unpack(arrived.keyed))):
                ids = [event_id for _, event_id, _, _ in rows]
                query = (
                    f"SELECT event_id, content_hash FROM keyed_event WHERE event_id IN ({', '.join('?' * len(ids))})"
                )
                accepted = dict(connection.execute(query, ids))
                found |= {
                    seq: duplicate_kind(content, accepted[event_id])
                    for seq, event_id, content, _ in rows
                    if event_id in accepted
                }
        return found

    def _groups(self, condition: str, values: Mapping[str, object] | None = None) -> Iterator[list[Location]]:
        """Yield the deliveries, in recording order, of each event of which there are several and one meets the
        condition."""
        rows = self.database.read().execute(
            "WITH d AS (SELECT d.*, coalesce(e.segment, k.segment) AS a_segment, coalesce(e.frame, k.frame) AS a_frame,"
            " coalesce(e.seq, k.seq) AS a_seq FROM duplicate d"
            " LEFT JOIN event e ON e.day = d.day AND e.event_id = d.event_id"
            " LEFT JOIN keyed_event k ON d.day = :keyed AND k.event_id = d.event_id)"
            " SELECT d.event_id, accepted.day, accepted.key, accepted.batch, d.a_frame, d.a_seq, accepted.recorded_at,"
            " s.day, s.key, s.batch, d.frame, d.seq, s.recorded_at, d.conflict"
            " FROM d JOIN segment accepted ON accepted.number = d.a_segment JOIN segment s ON s.number = d.segment"
            f" WHERE {condition} ORDER BY d.event_id",
            {"keyed": KEYED_DAY, **(values or {})},
        )
        for event_id, group in groupby(rows, key=itemgetter(0)):
            found = list(group)
            *first, recorded_at = found[0][1:7]
            places = [location_of(event_id, *first, Verdict.ACCEPTED, recorded_at)]
            for row in found:
                *place, recorded_at, conflict = row[7:]
                places.append(location_of(event_id, *place, KINDS[bool(conflict)], recorded_at))
            yield sorted(places, key=lambda one: one.order)

    def segments_of(self, deliveries: Collection[Location]) -> dict[str, Segment]:
        connection, found = self.database.read(), dict[str, Segment]()
        for some in _some(list({one.segment_key for one in deliveries})):
            rows = connection.execute(
                f"SELECT {', '.join(SEGMENT_COLUMNS)} FROM segment WHERE key IN ({', '.join('?' * len(some))})", some
            )
            found |= {segment.key: segment for segment in self._read(read_segment, rows)}
        return found

    def counts(self, events: Sequence[tuple[int | None, str]]) -> list[int]:
        connection = self.database.read()
        query = "SELECT count(*) FROM duplicate WHERE day = ? AND event_id = ?"
        keys = ((KEYED_DAY if day is None else day, bytes.fromhex(event_id)) for day, event_id in events)
        return [connection.execute(query, key).fetchone()[0] for key in keys]

    def conflicted(self, event_ids: Collection[str]) -> set[str]:
        connection, found = self.database.read(), set[str]()
        for some in _some([bytes.fromhex(event_id) for event_id in event_ids]):
            marks = ", ".join("?" * len(some))
            query = f"SELECT event_id FROM duplicate WHERE day = ? AND conflict AND event_id IN ({marks})"
            found |= {event_id.hex() for (event_id,) in connection.execute(query, (KEYED_DAY, *some))}
        return found

    def batches(self, prefix: str = "") -> Iterator[Batch]:
        rows = self.database.read().execute(
            f"{BATCH_QUERY} WHERE batch_id BETWEEN :first AND :last ORDER BY batch_id DESC",
            {"first": prefix, "last": f"{prefix}~"},
        )
        return self._read(partial(read_batch, locks=self.locks), rows)

    def _read(self, decode: Callable[[tuple[Any, ...]], _Row], rows: Iterable[tuple[Any, ...]]) -> Iterator[_Row]:
        """Yield the decoded rows. Raises StoreError for a damaged one."""
        for row in rows:
            try:
                decoded = decode(row)
            except (msgspec.MsgspecError, ValueError, LookupError, TypeError) as error:
                raise StoreError(f"{self.database.path.name} is damaged: {error}", hint=self.database.repair) from None
            yield decoded

    def rejects(self, batch_id: str) -> list[RejectFile]:
        rows = self.database.read().execute(
            "SELECT key, size, digest, records FROM reject_file WHERE batch = ? ORDER BY number", (batch_id,)
        )
        return [RejectFile(key=key, size=size, digest=digest, records=records) for key, size, digest, records in rows]

    def totals(self) -> Totals:
        query = (
            "SELECT coalesce(sum(accepted), 0), coalesce(sum(deliveries), 0), count(*), (SELECT count(*) FROM batch),"
            " coalesce(sum(size), 0), min(first_event), max(last_event) FROM segment"
        )
        return Totals(*self.database.read().execute(query).fetchone())

    def rebuilding(self) -> RebuildUnderWay | None:
        return RebuildUnderWay(None) if held(self.locks, REBUILDING, shared=True) else None

    def summary(self) -> Summary:
        newest: Batch | None = None
        unfinished, sources = [], dict[str, int]()
        for batch in self.batches():
            newest = newest or batch
            sources = with_names(sources, batch.sources)
            if batch.state in (BatchState.RUNNING, BatchState.INTERRUPTED):
                unfinished.append(batch)
        return Summary(self.totals(), sources, tuple(unfinished), newest)


def _some(rows: list[_Row]) -> Iterator[list[_Row]]:
    """Yield the rows, as many at a time as a statement asks for."""
    for start in range(0, len(rows), _ASKED):
        yield rows[start : start + _ASKED]


_ASKED = 256

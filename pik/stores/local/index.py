"""The index in SQLite: one row per event, under a key that leads with the day.

Ids are random; the day in front keeps those of one stretch of input close together, so that inserting does not slow
down as the store grows. Events with an idempotency key may come again with another time, so those have a table of their
own, keyed by event_id alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from pik.errors import StoreError
from pik.model.batch import (
    KEYED,
    PLAIN,
    Arrivals,
    Batch,
    BatchState,
    Counts,
    Frame,
    Location,
    Origin,
    RejectFile,
    Segment,
    Verdict,
    duplicate_kind,
    with_names,
)
from pik.model.window import Window
from pik.ports.index import RebuildUnderWay, Summary, Totals
from pik.stores.local.lock import held
from pik.stores.local.sqlite import Database

REBUILDING = "rebuild"
"""The lock that keeps a rebuild and writers apart."""

SCHEMA = """
CREATE TABLE batch (
    number INTEGER PRIMARY KEY,
    batch_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL, content TEXT NOT NULL, options TEXT NOT NULL, again INTEGER NOT NULL,
    origin TEXT NOT NULL, -- all of them but the name
    complete INTEGER NOT NULL, -- 0: no, 1: yes, 2: a part of one, pulled into this copy
    attempt INTEGER NOT NULL,
    read INTEGER NOT NULL, accepted INTEGER NOT NULL, exact INTEGER NOT NULL, conflict INTEGER NOT NULL,
    rejected INTEGER NOT NULL,
    started_at INTEGER NOT NULL, actor TEXT NOT NULL, finished_at INTEGER,
    next_seq INTEGER NOT NULL, offset INTEGER NOT NULL, prefix_digest TEXT NOT NULL,
    reasons TEXT NOT NULL, lags TEXT NOT NULL, sources TEXT NOT NULL, times TEXT NOT NULL,
    recorded_at INTEGER NOT NULL DEFAULT 0 -- when its last block was
);
CREATE INDEX batch_origin ON batch (origin);
CREATE TABLE segment (
    number INTEGER PRIMARY KEY,
    day INTEGER NOT NULL,
    key TEXT NOT NULL UNIQUE,
    batch TEXT NOT NULL,
    size INTEGER NOT NULL, digest TEXT NOT NULL, deliveries INTEGER NOT NULL, accepted INTEGER NOT NULL,
    ingest_time INTEGER NOT NULL, first_event INTEGER NOT NULL, last_event INTEGER NOT NULL,
    frames BLOB NOT NULL,
    recorded_at INTEGER NOT NULL, guessed INTEGER NOT NULL
);
CREATE INDEX segment_recorded ON segment (recorded_at);
CREATE INDEX segment_day ON segment (day, recorded_at, key);
CREATE INDEX segment_batch ON segment (batch, day);
CREATE TABLE event (
    day INTEGER NOT NULL, event_id BLOB NOT NULL,
    segment INTEGER NOT NULL, frame INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (day, event_id)
) WITHOUT ROWID;
CREATE TABLE keyed_event (
    event_id BLOB PRIMARY KEY, content_hash BLOB NOT NULL,
    segment INTEGER NOT NULL, frame INTEGER NOT NULL, seq INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE duplicate (
    segment INTEGER NOT NULL, seq INTEGER NOT NULL,
    day INTEGER NOT NULL, event_id BLOB NOT NULL, frame INTEGER NOT NULL, conflict INTEGER NOT NULL,
    content_hash BLOB, -- with an idempotency key only
    PRIMARY KEY (segment, seq)
) WITHOUT ROWID;
CREATE INDEX duplicate_event ON duplicate (day, event_id);
CREATE TABLE reject_file (
    batch TEXT NOT NULL, number INTEGER NOT NULL,
    key TEXT NOT NULL, size INTEGER NOT NULL, digest TEXT NOT NULL, records INTEGER NOT NULL,
    PRIMARY KEY (batch, number)
) WITHOUT ROWID;
CREATE TABLE correction (
    correction_id TEXT PRIMARY KEY,
    header BLOB NOT NULL -- as in raw, without the frames of its lists
) WITHOUT ROWID;
"""

_Row = TypeVar("_Row")

_STATES = (None, BatchState.COMPLETE, BatchState.PULLED)

_KINDS = (Verdict.EXACT, Verdict.CONFLICT)

CONFLICT = "{content} <> {accepted}"
"""`duplicate_kind` in SQL, as the column `conflict` has it, of events with an idempotency key."""

KEYED_DAY = -(2**31)
"""Stands for the day in `duplicate` if the event has an idempotency key: its deliveries may be of several days."""

_PROGRESS = (
    *(
        *Counts.__struct_fields__,
        "next_seq",
        "offset",
        "prefix_digest",
        "reasons",
        "lags",
        "sources",
        "times",
        "recorded_at",
    ),
)
_BATCH_COLUMNS = (
    *("batch_id", "complete", "attempt", "started_at", "actor", "finished_at", *Origin.__struct_fields__, *_PROGRESS),
)
_BATCH = (
    f"SELECT {', '.join(_BATCH_COLUMNS)}, (SELECT min(first_event) FROM segment WHERE batch = batch_id),"
    " (SELECT max(last_event) FROM segment WHERE batch = batch_id) FROM batch"
)
_BATCH_WITHOUT_EVENTS = f"SELECT {', '.join(_BATCH_COLUMNS)}, NULL, NULL FROM batch"
_SEGMENT_COLUMNS = (
    *("day", "key", "batch", "size", "digest", "deliveries", "ingest_time", "first_event", "last_event"),
    *("frames", "recorded_at", "guessed"),
)


def index_database(directory: Path) -> Database:
    """Return the index of the store in this directory."""
    return Database(directory / "index.db", SCHEMA, repair="to make it again from raw: pik verify --rebuild-index")


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
            f"SELECT {', '.join(_SEGMENT_COLUMNS)} FROM segment WHERE day BETWEEN ? AND ?{where}"
            " ORDER BY day, recorded_at, key",
            (first, last, *values),
        )
        return self._read(_segment, rows)

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
        return [_location(*row, Verdict.ACCEPTED, recorded_at) for *row, recorded_at in rows]

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
        return accepted + [_location(*row, _KINDS[bool(conflict)], recorded_at) for *row, conflict, recorded_at in rows]

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
            places = [_location(event_id, *first, Verdict.ACCEPTED, recorded_at)]
            for row in found:
                *place, recorded_at, conflict = row[7:]
                places.append(_location(event_id, *place, _KINDS[bool(conflict)], recorded_at))
            yield sorted(places, key=lambda one: one.order)

    def segments_of(self, deliveries: Collection[Location]) -> dict[str, Segment]:
        connection, found = self.database.read(), dict[str, Segment]()
        for some in _some(list({one.segment_key for one in deliveries})):
            rows = connection.execute(
                f"SELECT {', '.join(_SEGMENT_COLUMNS)} FROM segment WHERE key IN ({', '.join('?' * len(some))})", some
            )
            found |= {segment.key: segment for segment in self._read(_segment, rows)}
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
            f"{_BATCH} WHERE batch_id BETWEEN :first AND :last ORDER BY batch_id DESC",
            {"first": prefix, "last": f"{prefix}~"},
        )
        return self._read(partial(_batch, locks=self.locks), rows)

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


def duplicates_of(connection: sqlite3.Connection, segment: Segment) -> dict[int, Verdict]:
    """Return the segment's duplicates: seq → exact or conflict."""
    rows = connection.execute(
        "SELECT seq, conflict FROM duplicate WHERE segment = (SELECT number FROM segment WHERE key = ?)",
        (segment.key,),
    )
    return {seq: _KINDS[bool(conflict)] for seq, conflict in rows}


def find_batch(connection: sqlite3.Connection, locks: Path, origin: Origin) -> Batch | None:
    """Return the newest batch of this origin."""
    row = connection.execute(
        f"{_BATCH} WHERE origin = ? ORDER BY number DESC LIMIT 1", (origin.identity.decode(),)
    ).fetchone()
    return _batch(row, locks) if row else None


def batches_of_content(connection: sqlite3.Connection, locks: Path, content: str) -> Iterator[Batch]:
    """Yield the batches of this content, newest first. Their origins, `["CONTENT",…`, are a range of the index."""
    begin = msgspec.json.encode([content]).decode().removesuffix("]")
    rows = connection.execute(
        f"{_BATCH} WHERE origin > ? AND origin < ? ORDER BY number DESC", (f"{begin},", f"{begin}-")
    )
    return (_batch(row, locks) for row in rows)


def batch_of(connection: sqlite3.Connection, locks: Path, batch_id: str) -> Batch:
    """Return the batch of exactly this id, which must be there."""
    return _batch(connection.execute(f"{_BATCH} WHERE batch_id = ?", (batch_id,)).fetchone(), locks)


def batch_without_events(connection: sqlite3.Connection, locks: Path, batch_id: str) -> Batch:
    """Return the batch of this id, which must be there, without the times of its first and last event: these take a
    look at all of its segments."""
    return _batch(connection.execute(f"{_BATCH_WITHOUT_EVENTS} WHERE batch_id = ?", (batch_id,)).fetchone(), locks)


def insert_batch(connection: sqlite3.Connection, batch: Batch, on_conflict: str = "") -> None:
    """Insert the row of a batch."""
    row = _batch_row(batch)
    names, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    connection.execute(f"INSERT INTO batch ({names}) VALUES ({values}) {on_conflict}", row)


def update_batch(connection: sqlite3.Connection, batch: Batch) -> None:
    """Record how far a batch has come."""
    changes = ", ".join(f"{name} = :{name}" for name in _PROGRESS)
    connection.execute(f"UPDATE batch SET {changes} WHERE batch_id = :batch_id", _batch_row(batch))


def _batch_row(batch: Batch) -> dict[str, Any]:
    own = {name: getattr(batch, name, None) for name in _BATCH_COLUMNS}
    row = own | structs.asdict(batch.counts) | structs.asdict(batch.origin)
    row |= {name: msgspec.json.encode(row[name]).decode() for name in _DECODERS}
    row["complete"] = _STATES.index(batch.state) if batch.state in _STATES else 0
    return {**row, "origin": batch.origin.identity.decode()}


def insert_segment(connection: sqlite3.Connection, segment: Segment, recorded_at: int) -> int:
    """Insert a segment and return its number. It was recorded at this moment unless it has another one."""
    row = structs.asdict(segment) | {
        "batch": segment.batch_id,
        "frames": msgspec.json.encode(segment.frames),
        "recorded_at": segment.recorded_at or recorded_at,
    }
    names, values = ", ".join(_SEGMENT_COLUMNS), ", ".join(f":{name}" for name in _SEGMENT_COLUMNS)
    cursor = connection.execute(f"INSERT INTO segment (accepted, {names}) VALUES (0, {values})", row)
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _segment(row: tuple[Any, ...]) -> Segment:
    values = dict(zip(_SEGMENT_COLUMNS, row, strict=True))
    values["batch_id"] = values.pop("batch")
    values["frames"], values["guessed"] = _decode_frames(values["frames"]), bool(values["guessed"])
    return Segment(**values)


_decode_frames = msgspec.json.Decoder(tuple[Frame, ...]).decode
_DECODERS: dict[str, Callable[[str], Any]] = {
    "options": msgspec.json.Decoder(tuple[tuple[str, str], ...]).decode,
    "reasons": msgspec.json.Decoder(dict[str, int]).decode,
    "lags": msgspec.json.Decoder(dict[int, int]).decode,
    "sources": msgspec.json.Decoder(dict[str, int]).decode,
    "times": msgspec.json.Decoder(dict[str, int]).decode,
}
"""The decoders of those columns of a batch that are JSON."""


def _batch(values: tuple[Any, ...], locks: Path) -> Batch:
    row = dict(zip((*_BATCH_COLUMNS, "first_event", "last_event"), values, strict=True))
    row |= {name: decode(row[name]) for name, decode in _DECODERS.items()} | {"again": bool(row["again"])}
    state = _STATES[row.pop("complete")]
    if state is None:
        state = BatchState.RUNNING if held(locks, row["content"]) else BatchState.INTERRUPTED
    counts = Counts(*(row.pop(name) for name in Counts.__struct_fields__))
    origin = Origin(**{name: row.pop(name) for name in Origin.__struct_fields__})
    return Batch(origin=origin, state=state, counts=counts, **row)


def _location(event_id: bytes, *rest: Any) -> Location:
    return Location(event_id.hex(), *rest)

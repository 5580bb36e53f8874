"""The tables of index.db, with one row per event under a key that leads with the day; rows of batches and segments.

Ids are random; the day in front keeps those of one stretch of input close together, so that inserting does not slow
down as the store grows. Events with an idempotency key may come again with another time, so those have a separate
table, keyed by event_id alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from pik.model.batch import Batch, BatchState, Counts, Frame, Location, Origin, Segment, Verdict
from pik.ports.index import unheard
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

_STATES = (None, BatchState.COMPLETE, BatchState.PULLED)

KINDS = (Verdict.EXACT, Verdict.CONFLICT)

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

BATCH_QUERY = (
    f"SELECT {', '.join(_BATCH_COLUMNS)}, (SELECT min(first_event) FROM segment WHERE batch = batch_id),"
    " (SELECT max(last_event) FROM segment WHERE batch = batch_id) FROM batch"
)

_BATCH_WITHOUT_EVENTS = f"SELECT {', '.join(_BATCH_COLUMNS)}, NULL, NULL FROM batch"

SEGMENT_COLUMNS = (
    *("day", "key", "batch", "size", "digest", "deliveries", "ingest_time", "first_event", "last_event"),
    *("frames", "recorded_at", "guessed"),
)


def index_database(directory: Path, waiting: Callable[[str], None] = unheard) -> Database:
    """Return the index of the store in this directory."""
    repair = "to make it again from raw: pik verify --rebuild-index"
    return Database(directory / "index.db", SCHEMA, repair=repair, waiting=waiting)


def duplicates_of(connection: sqlite3.Connection, segment: Segment) -> dict[int, Verdict]:
    """Return the segment's duplicates: seq → exact or conflict."""
    rows = connection.execute(
        "SELECT seq, conflict FROM duplicate WHERE segment = (SELECT number FROM segment WHERE key = ?)",
        (segment.key,),
    )
    return {seq: KINDS[bool(conflict)] for seq, conflict in rows}


def find_batch(connection: sqlite3.Connection, locks: Path, origin: Origin) -> Batch | None:
    """Return the newest batch of this origin."""
    row = connection.execute(
        f"{BATCH_QUERY} WHERE origin = ? ORDER BY number DESC LIMIT 1", (origin.identity.decode(),)
    ).fetchone()
    return read_batch(row, locks) if row else None


def batches_of_content(connection: sqlite3.Connection, locks: Path, content: str) -> Iterator[Batch]:
    """Yield the batches of this content, newest first. Their origins, `["CONTENT",…`, are a range of the index."""
    begin = msgspec.json.encode([content]).decode().removesuffix("]")
    rows = connection.execute(
        f"{BATCH_QUERY} WHERE origin > ? AND origin < ? ORDER BY number DESC", (f"{begin},", f"{begin}-")
    )
    return (read_batch(row, locks) for row in rows)


def batch_of(connection: sqlite3.Connection, locks: Path, batch_id: str) -> Batch:
    """Return the batch of exactly this id, which must be there."""
    return read_batch(connection.execute(f"{BATCH_QUERY} WHERE batch_id = ?", (batch_id,)).fetchone(), locks)


def batch_without_events(connection: sqlite3.Connection, locks: Path, batch_id: str) -> Batch:
    """Return the batch of this id, which must be there, without the times of its first and last event: these take a
    look at all of its segments."""
    return read_batch(connection.execute(f"{_BATCH_WITHOUT_EVENTS} WHERE batch_id = ?", (batch_id,)).fetchone(), locks)


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
    names, values = ", ".join(SEGMENT_COLUMNS), ", ".join(f":{name}" for name in SEGMENT_COLUMNS)
    cursor = connection.execute(f"INSERT INTO segment (accepted, {names}) VALUES (0, {values})", row)
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def read_segment(row: tuple[Any, ...]) -> Segment:
    """Return the segment of a row of SEGMENT_COLUMNS."""
    values = dict(zip(SEGMENT_COLUMNS, row, strict=True))
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


def read_batch(values: tuple[Any, ...], locks: Path) -> Batch:
    """Return the batch of a row of BATCH_QUERY; `locks` shows whether its writer lives."""
    row = dict(zip((*_BATCH_COLUMNS, "first_event", "last_event"), values, strict=True))
    row |= {name: decode(row[name]) for name, decode in _DECODERS.items()} | {"again": bool(row["again"])}
    state = _STATES[row.pop("complete")]
    if state is None:
        state = BatchState.RUNNING if held(locks, row["content"]) else BatchState.INTERRUPTED
    counts = Counts(*(row.pop(name) for name in Counts.__struct_fields__))
    origin = Origin(**{name: row.pop(name) for name in Origin.__struct_fields__})
    return Batch(origin=origin, state=state, counts=counts, **row)


def location_of(event_id: bytes, *rest: Any) -> Location:
    """Return the place of a delivery of an event."""
    return Location(event_id.hex(), *rest)

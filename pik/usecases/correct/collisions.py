"""Moved events that are then equal to another one: the producer may have sent them again with the right time."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

from pik.model.identity import read_payload
from pik.model.window import Window
from pik.ports.engine import Engine, Tables
from pik.ports.store import Store
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.selection import Selection
from pik.runtime.storage import Spool


class Meeting(NamedTuple):
    """An event that counts at the same time as others of its source, type and entity, if the `moved` ones among them
    move. They have the number `place`. Its time is `event_ns` before that."""

    event_id: str
    place: int
    moved: bool
    event_ns: int


class _Content(NamedTuple):
    """An event, and the digest of its payload."""

    event_id: str
    digest: str


def meeting_events(tables: Tables) -> Spool[Meeting]:
    """Return the events that meet at a time to which one of them moves, according to the table `hit`."""
    tables.define(
        "happening",
        "SELECT events.event_id, events.source, events.event_type, events.entity_id, events.event_ns,"
        " coalesce(hit.time_ns, events.event_ns) AS happened, hit.time_ns IS NOT NULL AS moved"
        " FROM events LEFT JOIN hit USING (batch_id, seq)",
    )
    key = "source, event_type, entity_id, happened"
    tables.keep(
        "place",
        f"SELECT {key}, CAST(row_number() OVER () AS BIGINT) AS number FROM (SELECT {key} FROM happening"
        f" GROUP BY {key} HAVING count(*) > 1 AND bool_or(moved))",
    )
    rows = tables.rows(f"SELECT event_id, number, moved, event_ns FROM happening JOIN place USING ({key})")
    return Spool(Meeting, (Meeting(*row) for row in rows))


def count_collisions(store: Store, engine: Engine, meeting: Spool[Meeting]) -> int:
    """Return how many moved events meet another one with the same payload. Raises Damaged and EngineError."""
    if not len(meeting):
        return 0
    window = Window(min(one.event_ns for one in meeting), max(one.event_ns for one in meeting) + 1)
    with (
        gather_deliveries(Selection(store, window)) as files,
        engine.tables(files, ("event_id", "payload"), window) as tables,
    ):
        columns = {"event_id": "VARCHAR", "place": "BIGINT", "moved": "BOOLEAN"}
        tables.add("meeting", columns, (one[:3] for one in meeting))
        tables.add("content", {"event_id": "VARCHAR", "digest": "VARCHAR"}, Spool(_Content, _contents(tables)))
        alike = "SELECT count(*) FILTER (moved) AS moved FROM meeting JOIN content USING (event_id)"
        [[count]] = tables.rows(
            f"SELECT coalesce(sum(moved), 0) FROM ({alike} GROUP BY place, digest HAVING count(*) > 1)"
        )
    return int(count)


def _contents(tables: Tables) -> Iterator[_Content]:
    """Yield the digests of the canonical payloads of the events that meet."""
    rows = tables.rows("SELECT event_id, CAST(payload AS VARCHAR) FROM events SEMI JOIN meeting USING (event_id)")
    for event_id, payload in rows:
        yield _Content(event_id, sha256(read_payload(payload.encode())[0]).hexdigest())

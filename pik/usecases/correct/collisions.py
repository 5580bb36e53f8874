"""Moved events that are then equal to another one: the producer may have sent them again with the right time."""

from __future__ import annotations

from collections.abc import Iterator

from pik.model.identity import read_payload
from pik.model.instant import Window
from pik.ports.engine import Engine, Tables
from pik.ports.store import Store
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.selection import Selection


def count_collisions(store: Store, engine: Engine, tables: Tables) -> int:
    """Return how many events of the table `hit` that count meet, at the time to which they move, another one that
    counts there, with the same source, type, entity and payload. Raises Damaged and EngineError."""
    tables.keep(
        "meeting",
        "SELECT hit.event_id, other.event_id AS other_id, hit.event_ns, other.event_ns AS other_ns FROM hit"
        " SEMI JOIN events USING (batch_id, seq)"
        " JOIN (SELECT events.*, coalesce(hit.time_ns, events.event_ns) AS happened FROM events"
        " LEFT JOIN hit USING (batch_id, seq)) AS other"
        " ON other.source = hit.source AND other.event_type = hit.event_type AND other.entity_id = hit.entity_id"
        " AND other.happened = hit.time_ns AND other.event_id <> hit.event_id",
    )
    [[count, first, last]] = tables.rows(
        "SELECT count(*), least(min(event_ns), min(other_ns)), greatest(max(event_ns), max(other_ns)) FROM meeting"
    )
    if not count:
        return 0
    ids = [event_id for [event_id] in tables.rows("SELECT event_id FROM meeting UNION SELECT other_id FROM meeting")]
    payloads = dict(_payloads(store, engine, Window(first, last + 1), ids))
    pairs = tables.rows("SELECT DISTINCT event_id, other_id FROM meeting")
    return len({one for one, other in pairs if one in payloads and payloads[one] == payloads.get(other)})


def _payloads(store: Store, engine: Engine, window: Window, event_ids: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the canonical payload of each of these events as it counts."""
    with (
        gather_deliveries(Selection(store, window)) as files,
        engine.tables(files, ("event_id", "payload"), window) as tables,
    ):
        tables.add("wanted", {"event_id": "VARCHAR"}, ([one] for one in event_ids))
        rows = tables.rows("SELECT event_id, CAST(payload AS VARCHAR) FROM events SEMI JOIN wanted USING (event_id)")
        for event_id, payload in rows:
            yield event_id, read_payload(payload.encode())[0]

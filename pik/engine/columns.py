"""The columns that a definition may name: those of the view `event`, a row a delivery."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """A column's SQL type, the raw fields that it is made of, and how."""

    type: str
    raw: tuple[str, ...]
    sql: str


def _time(name: str) -> Column:
    return Column("TIMESTAMP", (name,), f"CAST(line.{name} AS TIMESTAMP)")  # cut to microseconds, not rounded


def _plain(name: str, sql_type: str = "VARCHAR") -> Column:
    return Column(sql_type, (name,), f"line.{name}")


COLUMNS = {
    "event_id": _plain("event_id"),
    "content_hash": _plain("content_hash"),
    "source": _plain("source"),
    "event_type": _plain("event_type"),
    "entity_id": _plain("entity_id"),
    "event_time": _time("event_time"),
    "received_time": _time("received_time"),
    "ingest_time": _time("ingest_time"),
    "batch_id": _plain("batch_id"),
    "seq": _plain("seq", "BIGINT"),
    "idempotency_key": _plain("idempotency_key"),
    "extra": _plain("extra", "JSON"),
    "payload": Column("JSON", ("payload_text", "payload"), "coalesce(line.payload_text, line.payload)"),
}

RAW_TYPES = {"seq": "BIGINT", "extra": "JSON", "payload": "JSON", "payload_text": "JSON"}
"""SQL types of raw fields; the others are VARCHAR."""

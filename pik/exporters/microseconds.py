"""Times in microseconds, for readers of Parquet that know no nanoseconds, Spark among them.

A time that microseconds do not hold is an error. Only pik's own ingest_time nearly always is one, so it is written as
its text.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pik.errors import UsageError
from pik.exporters.envelope import TIMESTAMP
from pik.model.instant import full_instant

MICROSECONDS = pa.timestamp("us", tz="UTC")

_AS_TEXT = "ingest_time"


def in_microseconds(schema: pa.Schema) -> pa.Schema:
    """The schema with microseconds where it has nanoseconds."""
    return pa.schema([pa.field(field.name, _type(field)) for field in schema])


def with_microseconds(table: pa.Table) -> pa.Table:
    """The table with microseconds where it has nanoseconds. Raises UsageError naming event, column and value."""
    for number, field in enumerate(table.schema):
        if field.type == TIMESTAMP:
            column = table.column(number)
            if field.name == _AS_TEXT:
                texts = [full_instant(one) for one in column.cast(pa.int64()).to_pylist()]
                made = pa.chunked_array([pa.array(texts, pa.string())])
            else:
                made = _exactly(table, field.name, column)
            table = table.set_column(number, pa.field(field.name, _type(field)), made)
    return table


def _type(field: pa.Field) -> Any:
    if field.type != TIMESTAMP:
        return field.type
    return pa.string() if field.name == _AS_TEXT else MICROSECONDS


def _exactly(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return pc.cast(column, MICROSECONDS, safe=True)
    except pa.ArrowInvalid:
        events = table.column("event_id").to_pylist()
        times = column.cast(pa.int64()).to_pylist()
        event, time = next((event, time) for event, time in zip(events, times, strict=True) if time and time % 1000)
    raise UsageError(
        f"event {event}: {name} {full_instant(time)} is not a whole number of microseconds",
        hint="leave --microseconds out, or --as jsonl, which has times as text",
    )

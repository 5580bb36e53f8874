"""Results on standard output: what a command found, as a table, JSON, JSON lines, CSV or Markdown."""

from pik.cli.render.document import NEXT, NOTE, TRUNCATED, Column, Document, Field, Object, Rows, Schema, Table, or_null
from pik.cli.render.values import Bucket, Count, EventId, Instant, Json, Lag, Moment, Shown

__all__ = [
    "NEXT",
    "NOTE",
    "TRUNCATED",
    "Bucket",
    "Column",
    "Count",
    "Document",
    "EventId",
    "Field",
    "Instant",
    "Json",
    "Lag",
    "Moment",
    "Object",
    "Rows",
    "Schema",
    "Shown",
    "Table",
    "or_null",
]

"""Results on standard output: what a command found, as a table, JSON, JSON lines, CSV or Markdown."""

from pik.cli.render.document import Column, Document, Table
from pik.cli.render.values import Bucket, Count, EventId, Instant, Json, Lag, Moment, Shown

__all__ = ["Bucket", "Column", "Count", "Document", "EventId", "Instant", "Json", "Lag", "Moment", "Shown", "Table"]

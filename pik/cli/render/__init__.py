"""Results on standard output: what a command found, as a table, JSON, JSON lines, CSV or Markdown."""

from pik.cli.render.document import Column, Document, Table
from pik.cli.render.values import Count, Instant, Json, Lag, Shown

__all__ = ["Column", "Count", "Document", "Instant", "Json", "Lag", "Shown", "Table"]

"""Exporters of the formats: Parquet, which is imported when it is needed, JSON lines and CSV."""

from __future__ import annotations

from pik.exporters.text import TextExporter
from pik.ports.exporter import Exporter, Layout


def exporter(layout: Layout) -> Exporter:
    """Return the exporter that writes this layout."""
    if layout.format == "parquet":
        from pik.exporters.parquet import ParquetExporter

        return ParquetExporter(layout)
    return TextExporter(layout)

"""Exporters. Each format is imported when it is needed."""

from __future__ import annotations

from pik.ports.engine import Exporter, Layout


def exporter(layout: Layout) -> Exporter:
    """Return the exporter that writes this layout."""
    if layout.format == "parquet":
        from pik.exporters.parquet import ParquetExporter

        return ParquetExporter(layout)
    from pik.exporters.text import text_exporter

    return text_exporter(layout)

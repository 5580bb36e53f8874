"""Exporters. Each format is imported when it is asked for."""

from __future__ import annotations

from pik.ports.engine import Exporter, Layout


def exporter(layout: Layout) -> Exporter:
    """What writes this layout."""
    if layout.format == "parquet":
        from pik.exporters.parquet import ParquetExporter

        return ParquetExporter(layout)
    from pik.exporters.text import CsvExporter, JsonlExporter

    return CsvExporter(layout) if layout.format == "csv" else JsonlExporter(layout)

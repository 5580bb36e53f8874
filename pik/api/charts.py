"""Charts in notebooks, where what draws them is installed (the extra `report`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pik.ports.report import Chart

_COLOURS = (
    "--ink:currentColor;--line:#88888866;--accepted:#2f6db3;--late:#a85f00;--exact:#73737f;--conflict:#bd1f2d;"
    "--current:#73737f;--recomputed:#2f6db3;--more:#2f6db3;--less:#bd1f2d"
)


def drawn(chart: Chart) -> str:
    """Return the chart as HTML with an SVG in it, whose texts are escaped; nothing where it cannot be drawn: the tables
    have its figures."""
    try:
        from pik.reports.charts import svg
    except ImportError:
        return ""
    found = svg(chart, "wide")
    return "" if found is None else f'<div style="{_COLOURS}">{found}</div>'

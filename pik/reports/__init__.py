"""Adapters that draw a report as one file."""

from __future__ import annotations

from pik.errors import UsageError
from pik.ports.report import Renderer


def html_renderer() -> Renderer:
    """Return what draws a page as one HTML file. Raises UsageError where what draws its charts is not installed."""
    try:
        from pik.reports.page import html
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a report as HTML needs the package {error.name}, which is not installed (.md and .json need none)",
            hint="in a copy of pik's repository: pip install '.[report]'",
        ) from None
    return html

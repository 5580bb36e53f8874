"""A report as Markdown, for the page of an incident in a wiki or a repository."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pik.cli.table import markdown_text
from pik.ports.report import Grid, Page, Section


def markdown(page: Page) -> bytes:
    """Return the page as Markdown; a chart is its description and its numbers."""
    return "\n".join(_lines(page)).encode(errors="backslashreplace") + b"\n"


def _lines(page: Page) -> Iterator[str]:
    yield f"# {markdown_text(page.title)}"
    yield f"\n{markdown_text(page.subtitle)}\n"
    for label, value, is_finding in page.summary:
        shown = markdown_text(value)
        yield f"- {markdown_text(label)}: {f'**{shown}**' if is_finding else shown}"
    for section in page.sections:
        yield from _section(section)


def _section(section: Section) -> Iterator[str]:
    yield f"\n## {markdown_text(section.title)}"
    for text in section.text:
        yield f"\n{markdown_text(text)}"
    if section.facts:
        yield ""
    for label, value in section.facts:
        yield f"- **{markdown_text(label)}**: {markdown_text(value)}"
    for figure in section.figures:
        yield f"\n### {markdown_text(figure.title)}\n\n{markdown_text(figure.alternative)}\n"
        yield from _grid(figure.data)
    for title, grid in section.tables:
        yield f"\n### {markdown_text(title)}\n"
        yield from _grid(grid)
    if section.command:
        longest = max(map(len, re.findall("`+", section.command)), default=0)
        fence = "`" * max(3, longest + 1)
        yield f"\n{fence}sh\n{section.command}\n{fence}"


def _grid(grid: Grid) -> Iterator[str]:
    if grid.rows:
        yield f"| {' | '.join(markdown_text(heading.label) for heading in grid.headings)} |"
        yield f"| {' | '.join('--:' if heading.numeric else '---' for heading in grid.headings)} |"
        for row in grid.rows:
            yield f"| {' | '.join(map(markdown_text, row))} |"
    else:
        yield markdown_text(grid.empty or "none")
    if grid.left_out:
        yield f"\n{markdown_text(grid.left_out)}"

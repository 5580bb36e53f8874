"""A report as one HTML file that needs nothing else: no network, no other file, no browser newer than its reader's."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files

import jinja2
from markupsafe import Markup

from pik.model.visible import visible_lines
from pik.ports.report import Figure, Page
from pik.reports.charts import WIDTHS, svg


def html(page: Page) -> bytes:
    """Return the page as HTML: UTF-8, the same bytes for the same page.

    Texts of the page are escaped. Its Content-Security-Policy allows its own style and script, known by their SHA-256,
    and nothing else: what gets past the escaping is not run either.
    """
    style, script = _part("page.css"), _part("page.js")
    sources = f"style-src {_hash(style)}; script-src {_hash(script)}"
    policy = f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"
    text = _template().render(page=page, style=style, script=script, policy=policy, draw=_drawings)
    return text.encode()


def _part(name: str) -> str:
    return (files("pik.reports") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the source expression of an inline element (https://www.w3.org/TR/CSP3/#grammardef-hash-source)."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=_visible)
    return environment.from_string(_part("page.html"))


def _visible(value: object) -> object:
    """Return a text of the page with what would hide or reorder others shown as escapes."""
    return visible_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _drawings(figure: Figure) -> dict[str, Markup]:
    """Return the chart by its width, escaped by what drew it; nothing where it cannot be drawn."""
    drawn = {width: svg(figure.chart, width) for width in WIDTHS}
    return {width: Markup(drawing) for width, drawing in drawn.items() if drawing is not None}

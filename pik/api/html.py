"""Tables as HTML, for notebooks. Everything in them may come from events, and is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import compress

from pik.model.duration import format_duration
from pik.model.visible import visible_value

LONGEST = 200
"""Characters of a value that are shown."""


def escaped(value: object) -> str:
    """Return a value as HTML: what would be obeyed is shown, and so is what would be hidden."""
    text = _text(value)
    return html.escape(visible_value(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"))


def _text(value: object) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case Decimal():
            return format(value, "f")
        case tuple() | list():
            return ", ".join(map(str, value)) or "–"
    return str(value)


def table(
    names: Sequence[str],
    numeric: Sequence[bool],
    rows: Iterable[Sequence[object]],
    notes: Iterable[str] = (),
    empty: str = "no rows",
) -> str:
    """Return a table, numbers aligned to the right, with notes after it. Nanoseconds, of columns that end in `_ns`, are
    durations in words, and columns without any value are left out."""
    kept = [list(row) for row in rows]
    if kept:
        filled = [any(row[place] not in (None, ()) for row in kept) for place in range(len(names))]
        names, numeric = list(compress(names, filled)), list(compress(numeric, filled))
        kept = [list(compress(row, filled)) for row in kept]
    style = ['style="text-align:right"' if is_number else 'style="text-align:left"' for is_number in numeric]
    head = "".join(f"<th {one}>{escaped(name)}</th>" for name, one in zip(names, style, strict=True))
    lines = [f"<tr>{''.join(map(_cell, names, style, row))}</tr>" for row in kept]
    body = "".join(lines) or f'<tr><td colspan="{len(names)}">{escaped(empty)}</td></tr>'
    after = "".join(f"<p>{escaped(note)}</p>" for note in notes)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{after}"


def _cell(name: str, style: str, value: object) -> str:
    return f"<td {style}>{escaped(_read(name, value))}</td>"


def _read(name: str, value: object) -> object:
    """Return a value as people read it."""
    return format_duration(value) if name.endswith("_ns") and isinstance(value, int) else value


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Return names and values as a table."""
    lines = (
        f'<tr><th scope="row" style="text-align:left">{escaped(name)}</th>'
        f'<td style="text-align:left">{escaped(_read(name, value))}</td></tr>'
        for name, value in pairs
    )
    return f"<table><tbody>{''.join(lines)}</tbody></table>"

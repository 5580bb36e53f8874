"""How a table fits a terminal: values in short, what all rows share said once, columns left out where there is no room.

Through a pipe nothing of this happens: there every column is written, and every value whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec

from pik.cli.render.document import Column
from pik.cli.render.text import broken, cells, shortened
from pik.cli.render.values import Bucket, EventId, Moment, is_number, words
from pik.model.instant import DAY, SECOND, format_instant
from pik.model.window import Window

GAP = "  "

_NARROWEST = 20
"""Columns of a terminal below which free text is not worth breaking."""

_SHORT_ID = 16


def terse(value: object, *, days: bool) -> str:
    """The value for people on a terminal; `days`: all buckets of its column begin at midnight."""
    if isinstance(value, EventId):
        return words(value.text[:_SHORT_ID])
    if isinstance(value, Bucket):
        text = format_instant(value.nanos)
        if days and value.nanos % DAY == 0:
            return text[:10]
        return text.removesuffix(":00Z") + "Z" if text.endswith(":00Z") else text
    if isinstance(value, Moment):
        return format_instant(value.nanos - value.nanos % SECOND)
    if isinstance(value, Window) and value.start % DAY == value.end % DAY == 0:
        return str(value).replace("T00:00:00Z", "")
    return words(value)


class Layout(msgspec.Struct, frozen=True):
    """The columns that are shown, by number, with their widths; what all rows share, and what there is no room for.

    `narrowed` tells of each shown column whether texts must be broken or cut to fit.
    """

    shown: Sequence[int]
    widths: Sequence[int]
    narrowed: Sequence[bool]
    right: Sequence[bool]
    shared: Sequence[int]
    left_out: Sequence[int]


def laid_out(
    columns: Sequence[Column],
    labels: Sequence[str],
    values: Sequence[Sequence[object]],
    texts: Sequence[Sequence[str]],
    *,
    whole: bool,
    limit: int,
) -> Layout:
    """The layout for a terminal of `limit` columns, by a sample of the rows, which are all of them if `whole`."""
    natural = [
        max(chain([cells(labels[number])], (_widest(row[number]) for row in texts))) for number in range(len(columns))
    ]
    shared = _shared([list(map(words, row)) for row in values]) if whole else []
    shown = [number for number in range(len(columns)) if number not in shared]
    left_out: list[int] = []
    while (widths := _fitted(shown, columns, natural, limit)) is None and len(shown) > 1:
        worst = max(shown[1:], key=lambda number: (columns[number].drop, number))
        shown.remove(worst)
        left_out.append(worst)
    widths = widths or [min(natural[shown[0]], limit)]
    return Layout(
        shown=shown,
        widths=widths,
        narrowed=[width < natural[number] for number, width in zip(shown, widths, strict=True)],
        right=[_is_right(values, number) for number in shown],
        shared=shared,
        left_out=sorted(left_out),
    )


def _widest(text: str) -> int:
    return max(map(cells, text.split("\n")))


def _shared(texts: Sequence[Sequence[str]]) -> list[int]:
    """The columns that have one value in all of several rows; not all columns."""
    if len(texts) < 2:
        return []
    first = texts[0]
    found = [number for number in range(len(first)) if all(row[number] == first[number] for row in texts)]
    return found if len(found) < len(first) else found[1:]


def _is_right(values: Sequence[Sequence[Any]], number: int) -> bool:
    known = [row[number] for row in values if row[number] is not None]
    return bool(known) and all(map(is_number, known))


def _fitted(shown: Sequence[int], columns: Sequence[Column], natural: Sequence[int], limit: int) -> list[int] | None:
    """Widths with which a row fits the terminal, texts cut or broken if need be; None if it cannot."""
    widths = [natural[number] for number in shown]
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - limit
    for place in reversed(range(len(shown))):
        if excess > 0 and columns[shown[place]].cut:
            given = min(excess, max(0, widths[place] - columns[shown[place]].cut))
            widths[place] -= given
            excess -= given
    if excess <= 0:
        return widths
    free = [place for place, number in enumerate(shown) if columns[number].wrap and widths[place] > _NARROWEST]
    left = sum(widths[place] for place in free) - excess
    if not free or left < _NARROWEST * len(free):
        return None
    return _shared_out(widths, free, left)


def _shared_out(widths: list[int], free: Sequence[int], room: int) -> list[int]:
    """The widths with `room` shared by those that are free: none gets more than it needs."""
    fitting = list(widths)
    for done, place in enumerate(sorted(free, key=lambda place: widths[place])):
        fitting[place] = min(widths[place], room // (len(free) - done))
        room -= fitting[place]
    return fitting


def lines_of(column: Column, text: str, width: int | None) -> list[str]:
    """The text of a cell in lines that fit; None where there is room for it as it is."""
    lines = text.split("\n")
    if width is None:
        return lines
    if column.wrap:
        return [part for line in lines for part in broken(line, width)]
    return [shortened(line, width) for line in lines]

"""Charts as SVG: drawn by Altair and vl-convert, without a browser, a network or a clock.

Colours are CSS variables of the page, so that one drawing serves light, dark and print. A chart is drawn through
floats; the exact figures are in the table under it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import singledispatch
from itertools import accumulate, pairwise
from math import isfinite
from typing import Any

import altair as alt
import vl_convert

from pik.model.duration import parse_duration
from pik.model.visible import visible
from pik.ports.report import Bars, Chart, Histogram, Timeline, Values, Waterfall

WIDTHS = {"wide": 760, "narrow": 350}
"""Pixels that a chart is wide: on a desktop or paper, and on a phone."""

_HEIGHT = 220
_ROW = 26
_LONGEST = {"wide": 30, "narrow": 14}
"""Characters of a name beside a bar."""
_FEW = 50
"""Values of a line that are marked, each."""
_CHARACTER = 8
"""Pixels that are enough for one of most."""

_VERSION = "6.4"
"""Of Vega-Lite: what Altair writes, and vl-convert has."""

_FONT = "Arial, Helvetica, 'Liberation Sans', sans-serif"
_INK, _LINE = "var(--ink)", "var(--line)"
_KINDS = {
    "accepted": "var(--accepted)",
    "late": "var(--late)",
    "exact duplicate": "var(--exact)",
    "conflict": "var(--conflict)",
}
_CHANGES = {"more": "var(--more)", "less": "var(--less)", "inferred": "var(--late)"}
_LABEL: dict[str, Any] = {"align": "left", "dx": 5, "fontSize": 12, "color": _INK}
_SIDES = {"current": "var(--current)", "recomputed": "var(--recomputed)"}


def svg(chart: Chart, width: str) -> str | None:
    """Return the chart in one of WIDTHS as an `svg` element; None where a figure is too large to be drawn."""
    if not all(map(isfinite, _figures(chart))):
        return None
    drawing = vl_convert.vegalite_to_svg(_visible(_finished(_draw(chart, width), width)), vl_version=_VERSION)
    return _TAG.sub(lambda tag: _DIGITS.sub(r"\1", tag[0]), drawing)


_TAG = re.compile("<[^>]*>")
_DIGITS = re.compile(r"(\d\.\d\d)\d+")
"""More digits of a coordinate than are seen: half of what a drawing takes. Texts are between the tags."""


def _visible(part: Any) -> Any:
    """Return the specification with every text made visible: one control character would end the process in
    vl-convert."""
    if isinstance(part, dict):
        return {name: _visible(one) for name, one in part.items()}
    if isinstance(part, list):
        return [_visible(one) for one in part]
    return visible(part) if isinstance(part, str) else part


def _figures(chart: Chart) -> list[float]:
    if isinstance(chart, Values):
        return [float(value) for _, *sides in chart.points for value in sides if value is not None]
    if isinstance(chart, Waterfall):
        return [float(value) for value in (chart.left, chart.right, *(share for _, share, _ in chart.steps))]
    return []


def _finished(chart: Any, width: str) -> dict[str, Any]:
    """Return the specification with what all charts share."""
    text: dict[str, Any] = {"labelColor": _INK, "titleColor": _INK, "labelFontSize": 12, "titleFontSize": 12}
    lines = {"gridColor": _LINE, "domainColor": _LINE, "tickColor": _LINE}
    spec: dict[str, Any] = (
        chart.properties(width=WIDTHS[width], autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
        .configure(font=_FONT, aria=False, background="transparent", padding=2)
        .configure_view(stroke=None)
        .configure_axis(**text, **lines, titleFontWeight="normal")
        .configure_legend(
            **text, orient="top", title=None, columns=4 if width == "wide" else 2, columnPadding=24, symbolType="square"
        )
        .to_dict()
    )
    return spec


@singledispatch
def _draw(chart: Chart, width: str) -> Any:
    raise NotImplementedError(type(chart))


@_draw.register
def _timeline(chart: Timeline, width: str) -> Any:
    size = parse_duration(chart.bucket)
    values = []
    for volume in chart.volumes:
        counts = (volume.accepted, volume.late, volume.exact, volume.conflicts)
        ends = list(accumulate(counts))
        values += [
            {"from": _ms(volume.start), "to": _ms(volume.start + size), "kind": kind, "low": end - count, "high": end}
            for kind, count, end in zip(_KINDS, counts, ends, strict=True)
            if count
        ]
    kinds = [kind for kind in _KINDS if any(value["kind"] == kind for value in values)]
    return (
        alt.Chart(alt.InlineData(values=values))
        .mark_rect()
        .encode(
            x=_time("from:T", width),
            x2="to:T",
            y=alt.Y("low:Q", title=f"deliveries per {_unit(chart.bucket)}", axis=_counts()),
            y2="high:Q",
            color=alt.Color("kind:N", scale=alt.Scale(domain=kinds, range=[_KINDS[kind] for kind in kinds])),
        )
        .properties(height=_HEIGHT)
    )


@_draw.register
def _values(chart: Values, width: str) -> Any:
    values = [
        {"side": side, **point}
        for place, side in enumerate(_SIDES, 1)
        for point in _course([(each[0], each[place]) for each in chart.points])
    ]
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=_time("start:T", width),
        y=alt.Y("value:Q", title=_shortened(chart.metric, width), scale=alt.Scale(zero=False)),
        color=alt.Color("side:N", scale=alt.Scale(domain=list(_SIDES), range=list(_SIDES.values()))),
    )
    line = base.mark_line(strokeWidth=2).encode(
        strokeDash=alt.StrokeDash("side:N", scale=alt.Scale(domain=list(_SIDES), range=[[5, 3], [1, 0]]))
    )
    points = base.mark_point(filled=True, size=30).transform_filter("datum.alone")
    return alt.layer(line, points).properties(height=_HEIGHT)


def _course(values: Sequence[tuple[int, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the values over time. `alone` are those that get a mark: all of a few, and of many those between two that
    are missing, which no line shows."""
    known = [False, *(value is not None for _, value in values), False]
    for number, (start, value) in enumerate(values):
        alone = value is not None and (len(values) <= _FEW or not (known[number] or known[number + 2]))
        yield {"start": _ms(start), "value": None if value is None else float(value), "alone": alone}


@_draw.register
def _waterfall(chart: Waterfall, width: str) -> Any:
    """The totals are marks, not bars: the axis need not begin at 0, where a small difference could not be seen."""
    levels = list(accumulate((share for _, share, _ in chart.steps), initial=chart.left))
    steps = [
        {
            "row": row,
            "low": float(min(ends)),
            "high": float(max(ends)),
            "kind": ("more" if share > 0 else "less") if proven else "inferred",
            "text": f"{share:+,f}",
        }
        for row, ((_, share, proven), ends) in enumerate(zip(chart.steps, pairwise(levels), strict=True), 1)
    ]
    names = ["current", *(label for label, _, _ in chart.steps), "recomputed"]
    totals = [
        {"row": row, "at": float(value), "text": f"{value:,f}"}
        for row, value in ((0, chart.left), (len(steps) + 1, chart.right))
    ]
    y = _named(names, width)
    colour = alt.Color("kind:N", scale=alt.Scale(domain=list(_CHANGES), range=list(_CHANGES.values())), legend=None)
    x = {"title": _shortened(chart.metric, width), "axis": _few(width)}
    marks = [float(level) for level in (*levels, chart.right)]
    scale = _roomy(min(marks), max(marks), width)
    total = alt.Chart(alt.InlineData(values=totals)).encode(x=alt.X("at:Q", scale=scale, **x), y=y)
    step = alt.Chart(alt.InlineData(values=steps)).encode(x=alt.X("high:Q", scale=scale, **x), y=y)
    return alt.layer(
        step.mark_bar().encode(x=alt.X("low:Q", scale=scale, **x), x2="high:Q", color=colour),
        total.mark_tick(thickness=4, color=_INK),
        total.mark_text(**_LABEL).encode(text="text:N"),
        step.mark_text(**_LABEL).encode(text="text:N"),
    ).properties(height=_ROW * len(names))


def _roomy(low: float, high: float, width: str) -> Any:
    """Return a scale with room for the labels on the right."""
    extent = (high - low) or abs(high) or 1.0
    room = extent * (0.25 if width == "wide" else 0.6)
    return alt.Scale(domain=[low - extent * 0.05, high + room], nice=False, zero=False)


@_draw.register
def _histogram(chart: Histogram, width: str) -> Any:
    return _rows(chart.bars, chart.unit, width)


@_draw.register
def _bars(chart: Bars, width: str) -> Any:
    return _rows(chart.bars, chart.unit, width)


def _rows(bars: Sequence[tuple[str, int]], unit: str, width: str) -> Any:
    rows = [{"row": row, "count": count, "text": f"{count:,}"} for row, (_, count) in enumerate(bars)]
    room = 1.15 * max((count for _, count in bars), default=1)
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("count:Q", title=unit, axis=_counts(width), scale=alt.Scale(domain=[0, room], nice=False)),
        y=_named([label for label, _ in bars], width),
    )
    labels = base.mark_text(**_LABEL).encode(text="text:N")
    return alt.layer(base.mark_bar(color="var(--accepted)"), labels).properties(height=_ROW * len(rows))


def _named(names: Sequence[str], width: str) -> Any:
    """Return a vertical axis of names, which may be equal, by their positions in `row`."""
    labels = [_shortened(name, width) for name in names]
    # The width must not depend on fonts: those of the reader are not known here.
    extent = _CHARACTER * max(map(len, labels), default=0)
    expression = f"{json.dumps(labels)}[datum.value]"
    axis = alt.Axis(labelExpr=expression, labelLimit=0, minExtent=extent, maxExtent=extent, ticks=False, domain=False)
    return alt.Y("row:O", title=None, axis=axis, scale=alt.Scale(paddingInner=0.25))


def _shortened(name: str, width: str) -> str:
    """Return the name, cut where there is no room. vl-convert fails where it cuts a character in half by itself."""
    text = visible(name)
    return text if len(text) <= _LONGEST[width] else text[: _LONGEST[width] - 1] + "…"


def _time(field: str, width: str) -> Any:
    """Return a horizontal axis of time: dates, and hours between them."""
    label = "utchours(datum.value) == 0 ? utcFormat(datum.value, '%Y-%m-%d') : utcFormat(datum.value, '%H:%M')"
    axis = alt.Axis(
        tickCount=8 if width == "wide" else 2, labelExpr=label, labelOverlap="greedy", labelSeparation=12, grid=False
    )
    return alt.X(field, title="event time (UTC)", scale=alt.Scale(type="utc"), axis=axis)


def _counts(width: str = "wide") -> Any:
    """Return an axis of whole numbers."""
    return alt.Axis(format=",d", tickMinStep=1, tickCount=5 if width == "wide" else 3)


def _few(width: str) -> Any:
    return alt.Axis(tickCount=6 if width == "wide" else 2)


def _unit(bucket: str) -> str:
    return {"1h": "hour", "1d": "day", "1w": "week"}.get(bucket, bucket)


def _ms(instant: int) -> int:
    return instant // 1_000_000

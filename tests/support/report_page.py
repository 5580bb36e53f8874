"""A page with every kind of chart, and texts of which none may act."""

from __future__ import annotations

from decimal import Decimal

from pik.model.instant import DAY, HOUR, parse_instant
from pik.ports.report import Bars, Chart, Figure, Grid, Heading, Histogram, Page, Section, Timeline, Values, Volume
from pik.ports.report import Waterfall as Steps

HOSTILE = "</script></style><script>window.hit=1</script><img src=x onerror=window.hit=1>\"'&{{ 'ow' ~ 'ned' }}"
HOSTILE += " \u202e\x1b[31m\ufffe\ud800" + "\U0001f600" * 40
"""Markup, a template, what turns the writing around, what colours a terminal, no character, half of one, long ones."""

START = parse_instant("2026-03-01T00:00:00Z")

CHARTS: dict[str, Chart] = {
    "timeline": Timeline(
        "1h", [Volume(START + i * HOUR, 50 + i, 30 * (i == 26), i % 9, 3 * (i == 40)) for i in range(72) if i != 50]
    ),
    "values": Values(
        "revenue " + HOSTILE,
        [(START + i * DAY, Decimal(1000 + i) if i != 3 else None, Decimal(1000) + i * 12) for i in range(9)],
    ),
    "waterfall": Steps(
        "revenue",
        Decimal("12345.67"),
        [("duplicates", Decimal("-312.5"), True), ("late " + HOSTILE, Decimal("1204.10"), False)],
        Decimal("13237.27"),
    ),
    "histogram": Histogram("events", [("0 s – 1 s", 1203), ("1 s – 2 s", 800), ("1 h – 2 h", 4)]),
    "bars": Bars("duplicate deliveries", [("checkout-service-with-a-very-long-name", 120), (HOSTILE, 3)]),
}


def grid(rows: int) -> Grid:
    """A table in which every row has the hostile text, numbers descending."""
    headings = [Heading("bucket"), Heading("delta", numeric=True), Heading("note")]
    cells = [(f"2026-03-{1 + i % 28:02}T00:00:00Z", f"{(rows - i) * 1000:,}", HOSTILE) for i in range(rows)]
    return Grid(headings, cells, left_out=f"more rows: {HOSTILE}", empty="nothing differs")


def page() -> Page:
    """The page: one section per chart, with a table, and one without any."""
    sections = [
        Section(
            anchor=name,
            title=f"What the {name} shows {HOSTILE}",
            text=[HOSTILE],
            facts=[("window", "2026-03"), ("path", HOSTILE)],
            figures=[Figure(f"Late events moved revenue: {name}", f"alternative {HOSTILE}", chart, grid(3))],
            tables=[(f"Differences of {name}", grid(40))],
            command=f"pik diff --entity '{HOSTILE}'",
        )
        for name, chart in CHARTS.items()
    ]
    empty = Section(anchor="corrections", title="Corrections", tables=[("Corrections", grid(0))])
    summary = [("late", "90", True), ("verify", "no problem", False), (HOSTILE, HOSTILE, False)]
    return Page(f"Incident {HOSTILE}", HOSTILE, summary, [*sections, empty])

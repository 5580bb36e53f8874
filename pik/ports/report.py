"""What a report shows, apart from how it is drawn: sections of facts, figures and tables.

Every text in here may come from events, files or people: whoever draws it escapes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Heading:
    """The heading of a column; numbers are aligned to the right and sorted as numbers."""

    label: str
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """A table as people read it. `left_out` is why and how many rows are missing, with the command that lists all;
    `empty` the sentence where there are none. One that is `folded` is for reference, and opened by who wants it."""

    headings: Sequence[Heading]
    rows: Sequence[Sequence[str]]
    left_out: str = ""
    empty: str = ""
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    """Deliveries whose event time is in one bucket, which begins at `start` (nanoseconds): each is in one count."""

    start: int
    accepted: int
    late: int
    exact: int
    conflicts: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """Deliveries over time, in buckets of one size (`1h`, `1d`). Buckets without deliveries are not among them."""

    bucket: str
    volumes: Sequence[Volume]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many events fall between bounds, in order: the bounds as text, and the events."""

    unit: str
    bars: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Values:
    """A metric over time: the start of each bucket (nanoseconds), the current and the recomputed value (None: none)."""

    metric: str
    points: Sequence[tuple[int, Decimal | None, Decimal | None]]


@dataclass(frozen=True, slots=True)
class Waterfall:
    """From the value on the left to the value on the right, one cause after the other: label, share, whether proven.

    left + the sum of the shares = right.
    """

    metric: str
    left: Decimal
    steps: Sequence[tuple[str, Decimal, bool]]
    right: Decimal


@dataclass(frozen=True, slots=True)
class Bars:
    """Figures by name, the largest first."""

    unit: str
    bars: Sequence[tuple[str, int]]


Chart = Timeline | Histogram | Values | Waterfall | Bars


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart under the sentence that says what it shows. `alternative` describes it to those who do not see it, `data`
    has its numbers."""

    title: str
    alternative: str
    chart: Chart
    data: Grid


@dataclass(frozen=True, slots=True)
class Section:
    """One question and its answer. `anchor` names it in links, `command` shows the same on a terminal."""

    anchor: str
    title: str
    text: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[tuple[str, Grid]] = ()
    command: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report: its title, the figures of its summary (label, value, whether it is a finding), its sections."""

    title: str
    subtitle: str
    summary: Sequence[tuple[str, str, bool]]
    sections: Sequence[Section]


class Renderer(Protocol):
    """Draws a page."""

    def __call__(self, page: Page) -> bytes:
        """Return the page as a file: the same bytes for the same page."""
        ...

"""The page of a report as a file: complete, small, the same each time, and deaf to what events say."""

from __future__ import annotations

import re
import subprocess
import sys
from decimal import Decimal
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from pik.errors import UsageError
from pik.model.instant import HOUR
from pik.ports.report import (
    Chart,
    Figure,
    Grid,
    Heading,
    Page,
    Section,
    Timeline,
    Values,
    Volume,
    Waterfall,
)
from pik.reports import html_renderer
from pik.reports.charts import WIDTHS, svg
from pik.reports.page import html
from tests.support.report_page import CHARTS, START, grid, page


class _Elements(HTMLParser):
    """The elements of a page, and its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names, self.attributes = list[str](), list[tuple[str, str | None]]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs


@pytest.fixture(scope="module")
def drawn() -> str:
    return html(page()).decode()


def test_nothing_that_comes_from_events_becomes_an_element(drawn: str) -> None:
    found = _Elements(drawn)
    assert found.names.count("script") == 1
    assert "img" not in found.names
    assert not [name for name, _ in found.attributes if name.startswith("on") or name == "style"]
    assert "owned" not in drawn, "a template in a text was evaluated"
    assert "\u202e" not in drawn
    assert "\x1b" not in drawn


def test_it_refers_to_nothing_outside(drawn: str) -> None:
    links = [value for name, value in _Elements(drawn).attributes if name in ("href", "src", "xlink:href", "action")]
    assert links
    assert all(str(link).startswith("#") for link in links)
    assert "url(" not in drawn


def test_the_policy_allows_its_own_style_and_script_alone(drawn: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', drawn)
    assert policy
    assert policy[1].startswith("default-src &#39;none&#39;; style-src &#39;sha256-")
    assert "unsafe" not in policy[1]


def test_the_same_page_is_the_same_bytes_in_another_process(drawn: str) -> None:
    program = "import sys; from pik.reports.page import html; from tests.support.report_page import page; "
    program += "html(page()); sys.stdout.buffer.write(html(page()))"
    environment = {"TZ": "Asia/Tokyo", "LANG": "de_DE.UTF-8", "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment)
    assert done.stdout.decode() == drawn


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS)
def test_a_chart_has_text_and_one_size(chart: Chart, width: str) -> None:
    drawing = svg(chart, width)
    assert drawing
    root = ElementTree.fromstring(drawing)
    assert abs(float(root.attrib["width"]) - WIDTHS[width]) <= 4
    assert float(root.attrib["height"]) < 320, "however long a name is"
    assert list(root.iter("{http://www.w3.org/2000/svg}text"))
    assert not root.findall(".//*[@id]"), "two drawings on one page would share it"


def test_the_largest_report_is_below_two_megabytes() -> None:
    """Twelve metrics over 200 buckets, the rows of each table cut at 200."""
    hours = [START + number * HOUR for number in range(200)]
    volume = Timeline("1h", [Volume(hour, 1000 + hour % 7, 30, 20, 5) for hour in hours])
    cells = [["2026-03-01T00:00:00Z", *["1,234,567.00"] * 7] for _ in hours]

    def rows(columns: int) -> Grid:
        return Grid([Heading("n", numeric=True)] * columns, [row[:columns] for row in cells])

    steps = [("late", Decimal("5.25"), True)] * 8
    sections = [Section("volume", "Volume", figures=[Figure("Volume", "alternative", volume, rows(6))])]
    for number in range(12):
        course = Values("m", [(hour, Decimal(10**8 + at), Decimal(10**8 + 2 * at)) for at, hour in enumerate(hours)])
        figures = [
            Figure("Values", "alternative", course, rows(3)),
            Figure("Causes", "alternative", Waterfall("m", Decimal(1), steps, Decimal(43)), rows(3)),
        ]
        sections.append(Section(f"metric-{number}", "Metric", figures=figures))
    sections += [Section(f"table-{number}", "Table", tables=[("Rows", rows(8))]) for number in range(8)]
    assert len(html(Page("t", "s", [], sections))) < 2_000_000


def test_a_value_between_two_that_are_missing_is_seen() -> None:
    points = [(START + number * HOUR, Decimal(1) if number == 70 else None, None) for number in range(100)]
    drawing = svg(Values("m", points), "wide")
    assert drawing
    assert drawing.count('fill="var(--current)"') >= 2, "its mark, and the legend's"


def test_figures_too_large_to_draw_are_in_the_table() -> None:
    chart = Values("m", [(START, Decimal("1e400"), None)])
    section = Section("values", "Values", figures=[Figure("A title", "alternative", chart, grid(2))])
    drawn = html(Page("t", "s", [], [section])).decode()
    assert "too large to be drawn" in drawn
    assert "<svg" not in drawn


def test_a_waterfall_without_steps_and_of_one_value_is_drawn() -> None:
    assert svg(Waterfall("m", Decimal(0), [], Decimal(0)), "wide")
    assert svg(Waterfall("m", Decimal(5), [("late", Decimal(0), True)], Decimal(5)), "narrow")


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("pik.reports.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(UsageError, match="altair") as raised:
        html_renderer()
    assert raised.value.hint == "in a copy of pik's repository: pip install '.[report]'"

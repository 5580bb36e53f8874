"""The page of a report in a real browser: on a desktop, a phone, in the dark, on paper, by keyboard, read aloud."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pik.reports.page import html
from tests.support.report_page import page as sample

pytestmark = pytest.mark.xdist_group("browser")  # it is started once

_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


class Opened:
    """The page in a browser; what it wrote to the console, and what it asked the network for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.noises: list[str] = []
        self.page.on("console", lambda message: self.noises.append(message.text))
        self.page.on("pageerror", lambda error: self.noises.append(str(error)))
        self.page.on("request", lambda request: self.noises.append(request.url))
        self.page.goto(path.as_uri())

    def overflow(self) -> int:
        """How many pixels the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if _BROWSER is None:
        pytest.skip("no chromium was found: the page was not looked at in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=_BROWSER, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("report") / "report.html"
    found.write_bytes(html(sample()))
    return found


@pytest.fixture
def desktop(browser: Any, path: Path) -> Iterator[Opened]:
    opened = Opened(browser, path, viewport=DESKTOP)
    yield opened
    opened.context.close()


@pytest.mark.parametrize(
    "options",
    [
        {"viewport": DESKTOP},
        {"viewport": PHONE},
        {"viewport": DESKTOP, "color_scheme": "dark"},
        {"viewport": DESKTOP, "java_script_enabled": False},
    ],
    ids=["desktop", "phone", "dark", "without script"],
)
def test_it_opens_from_a_file_and_asks_for_nothing(browser: Any, path: Path, options: dict[str, Any]) -> None:
    opened = Opened(browser, path, **options)
    assert opened.noises == [path.as_uri()], "a request, or something on the console"
    assert opened.overflow() <= 0
    shown = opened.page.locator("figure .chart >> visible=true")
    assert shown.count() == opened.page.locator("figure").count(), "one drawing of each chart"
    if options.get("java_script_enabled", True):
        assert opened.page.evaluate("window.hit") is None
    opened.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_no_violation(browser: Any, path: Path, size: dict[str, int], scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    opened = Opened(browser, path, viewport=size, color_scheme=scheme)
    opened.page.evaluate("document.querySelectorAll('details').forEach((box) => { box.open = true })")
    found = Axe().run(opened.page)
    assert found.response["passes"], "axe looked at nothing"
    assert found.violations_count == 0, found.generate_report()
    opened.context.close()


def test_a_table_sorts_as_numbers_and_filters_by_text(desktop: Opened) -> None:
    table = desktop.page.locator(".table:not(figure .table) table").first
    column = table.locator("tbody td:nth-child(2)")
    assert column.all_text_contents()[0] == "40,000"
    table.get_by_role("button", name="delta").click()
    figures = [int(text.replace(",", "")) for text in column.all_text_contents()]
    assert figures == sorted(figures)
    assert table.locator("th[aria-sort=ascending]").count() == 1
    table.get_by_role("button", name="delta").click()
    assert column.all_text_contents()[0] == "40,000"
    desktop.page.get_by_label("Rows with").first.fill("2026-03-28")
    assert table.locator("tbody tr >> visible=true").count() == 1


def test_the_keyboard_reaches_contents_tables_and_buttons(desktop: Opened) -> None:
    keyboard = desktop.page.keyboard
    focused = "document.activeElement.className || document.activeElement.tagName"
    keyboard.press("Tab")
    assert desktop.page.evaluate(focused) == "skip"
    keyboard.press("Enter")
    assert desktop.page.evaluate("document.activeElement.id") == "content"
    seen = set()
    for _ in range(12):
        keyboard.press("Tab")
        seen.add(desktop.page.evaluate(focused))
    assert {"SUMMARY", "table", "BUTTON", "INPUT"} <= seen


def test_paper_has_all_rows_under_headings_on_every_sheet(desktop: Opened, tmp_path: Path) -> None:
    desktop.page.emulate_media(media="print")
    assert desktop.overflow() <= 0
    desktop.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert desktop.page.locator("details:not([open])").count() == 0
    assert desktop.page.locator("th button").count() == 0
    heights = desktop.page.evaluate(
        "[...document.querySelectorAll('.table')].map((one) => one.scrollHeight - one.clientHeight)"
    )
    assert max(heights) <= 1, "a box that scrolls cuts its table on paper"
    desktop.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert desktop.page.locator("th button").count() > 0
    printed = desktop.page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") >= 5

"""Makes the report that the site shows, and the README's picture of it: `python -m tools.pictures`.

Needs chromium. The report is that of `pik demo --incident late-events`; what was recorded when differs each time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import ViewportSize, sync_playwright

PICTURE = Path("docs/images/report.png")
EXAMPLE = Path("docs/examples/report.html")
_SIZE: ViewportSize = {"width": 1000, "height": 1400}
_WINDOW = "--from 2026-03-02 --to 2026-03-03"


def make_example(path: Path) -> None:
    """Write the report of a demo incident to the path. Nothing of this machine is in it."""
    pik = [sys.executable, "-m", "pik"]
    settings = {**os.environ, "PYTHONPATH": str(Path.cwd()), "PIK_ACTOR": "on-call"}
    with TemporaryDirectory() as directory:
        place = Path(directory) / "incident"
        subprocess.run([*pik, "demo", "--incident", "late-events", "--dir", str(place)], check=True, env=settings)
        report = [
            *pik,
            "report",
            "--incident",
            "late-events",
            *_WINDOW.split(),
            "--force",
            "--out",
            str(path.absolute()),
        ]
        subprocess.run(report, cwd=place, check=False, env=settings)  # ends with 1: it finds something


def take_picture(page: Path, picture: Path) -> None:
    """Take a picture of the top of the page, as on a desktop."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        opened = running.new_page(viewport=_SIZE)
        opened.goto(page.absolute().as_uri())
        opened.screenshot(path=picture)
        running.close()


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    make_example(EXAMPLE)
    take_picture(EXAMPLE, PICTURE)

"""docs/runbooks/*.md: what they tell one to type at 03:00 works, and prints what they say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.docs.console import REPOSITORY, play

RUNBOOKS = sorted((REPOSITORY / "docs" / "runbooks").glob("*.md"))
PARTS = ("Decide", "Repair", "Proof", "For the incident document")


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_runbook(page: Path, incident: Path, tmp_path: Path) -> None:
    directory = tmp_path / "incident"
    shutil.copytree(incident, directory)
    assert play(page, directory) >= 7


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_it_has_every_part(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "\n**Symptom.** " in text
    headings = [line.lstrip("# 0123456789.") for line in text.splitlines() if line.startswith("## ")]
    assert [heading for heading in headings if heading in PARTS] == list(PARTS)


def test_there_are_three() -> None:
    assert [page.stem for page in RUNBOOKS] == ["duplicate-storm", "late-events", "wrong-metric"]

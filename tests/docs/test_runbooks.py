"""docs/runbooks/*.md: what they tell one to type at 03:00 works on the incident of that name, and prints what they say
in a terminal of 80 columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from pik.cli.demo.incidents import INCIDENTS
from tests.docs.conftest import expect
from tests.support.docs.console import REPOSITORY, play, steps

STACK = REPOSITORY / "docs" / "runbooks" / "busy-stack.md"
"""That of the stack: `tests/docs/test_busy_stack.py` plays it."""

RUNBOOKS = sorted({*(REPOSITORY / "docs" / "runbooks").glob("*.md")} - {STACK})
PARTS = ("Decide", "Repair", "Proof", "For the incident document")


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_runbook(page: Path, tmp_path: Path) -> None:
    expect(tmp_path, 0, "demo", "--incident", page.stem, "--dir", "incident")
    assert play(page, tmp_path / "incident", columns=80) >= 7


@pytest.mark.parametrize("page", [*RUNBOOKS, STACK], ids=lambda page: page.stem)
def test_it_has_every_part(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "\n**Symptom.** " in text
    headings = [line.lstrip("# 0123456789.") for line in text.splitlines() if line.startswith("## ")]
    assert [heading for heading in headings if heading in PARTS] == list(PARTS)


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_it_begins_with_the_command_that_the_incident_prints(page: Path) -> None:
    assert f"`pik demo --incident {page.stem} --dir incident`" in page.read_text(encoding="utf-8")
    assert steps(page)[0].command == INCIDENTS[page.stem].first
    assert steps(page)[0].command.startswith("pik triage ")


@pytest.mark.parametrize("page", [*RUNBOOKS, STACK], ids=lambda page: page.stem)
def test_its_text_and_its_commands_fit_into_80_columns(page: Path) -> None:
    prose = page.read_text(encoding="utf-8").split("```")[::2]
    wide = [line for part in prose for line in part.splitlines() if len(line) > 80 and not line.startswith("|")]
    wide += [line for step in steps(page) for line in step.command.splitlines() if len(line) > 80]
    assert wide == []


def test_each_incident_has_one() -> None:
    assert [page.stem for page in RUNBOOKS] == sorted(INCIDENTS)

"""docs/getting-data-in.md: its commands can be copied as they are, and print what it says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pik.model.jmes import Expression
from tests.docs.test_troubleshooting import is_said, symptoms
from tests.support.docs.console import REPOSITORY, play, steps

PAGE = REPOSITORY / "docs/getting-data-in.md"
FILES = REPOSITORY / "docs/examples/data-in"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_page(tmp_path: Path) -> None:
    shutil.copytree(FILES, tmp_path / "data-in")
    assert play(PAGE, tmp_path / "data-in", columns=80) >= 20


def test_each_example_file_is_ingested_and_every_command_fits_into_80_columns() -> None:
    commands = [step.command for step in steps(PAGE)]
    ingested = " ".join(one for one in commands if one.startswith("pik ingest"))
    assert [path.name for path in FILES.iterdir() if path.name not in ingested] == []
    assert [line for command in commands for line in f"$ {command}".splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("symptom", symptoms(TEXT.partition("\n## Messages\n")[2]))
def test_each_message_is_one_of_piks(symptom: str) -> None:
    assert is_said(symptom)


def test_each_expression_can_be_evaluated() -> None:
    shown = re.findall(r"--map (\w+)=(?:\"([^`]+)\"|'([^`]+)'|(\S+?))`", TEXT)
    assert len(shown) > 5
    for field, double, single, bare in shown:
        Expression((double or single or bare).replace("\\|", "|"), field, of_record=True)

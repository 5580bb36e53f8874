"""docs/sql.md: its example prints what it says, and its tables are those that a statement can read."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pik.usecases.inspect.sql import TABLES
from tests.support.docs.console import REPOSITORY, play

PAGE = REPOSITORY / "docs" / "sql.md"


def test_the_page(incident: Path, tmp_path: Path) -> None:
    directory = tmp_path / "incident"
    shutil.copytree(incident, directory)
    assert play(PAGE, directory) == 1


@pytest.mark.parametrize("name", TABLES)
def test_the_page_lists_every_column(name: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    [section] = [one for one in text.split("\n### ") if name in one.partition("\n")[0].split(", ")]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", section.partition("\n## ")[0], re.MULTILINE)
    assert rows == [(column, *declared) for column, declared in TABLES[name].items()]

"""docs/tutorial.md: its commands can be copied as they are, and print what it says."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

from tests.support.docs.console import REPOSITORY, play, steps

PAGE = REPOSITORY / "docs/tutorial.md"
FILES = REPOSITORY / "docs/examples/tutorial"


def test_the_page(tmp_path: Path) -> None:
    shutil.copytree(FILES, tmp_path / "tutorial")
    assert play(PAGE, tmp_path / "tutorial", columns=80) >= 25


def test_its_commands_fit_into_80_columns() -> None:
    assert [line for step in steps(PAGE) for line in f"$ {step.command}".splitlines() if len(line) > 80] == []


def test_its_data_is_as_its_page_says() -> None:
    said = (FILES / "README.md").read_text(encoding="utf-8")
    with gzip.open(FILES / "hooks.jsonl.gz") as file:
        deliveries = [json.loads(line) for line in file]
    assert f"has {len(deliveries)} deliveries" in said
    for kind in {one["event"] for one in deliveries}:
        assert f"`{kind}`" in said

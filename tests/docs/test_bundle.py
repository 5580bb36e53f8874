"""docs/bundle.md: what it says to type works, and prints what it says."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.docs.console import REPOSITORY, play


def test_the_page(incident: Path, tmp_path: Path) -> None:
    directory = tmp_path / "incident"
    shutil.copytree(incident, directory)
    assert play(REPOSITORY / "docs" / "bundle.md", directory) == 11

"""CONTRIBUTING.md names files that exist and names that they declare."""

from __future__ import annotations

import re

import pytest

from tests.support.docs.console import REPOSITORY

PAGE = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
CHANGES = PAGE.partition("## Where a change is made\n")[2].partition("\n## ")[0]

PATH = re.compile(r"`((?:pik|docs|tests|tools|packaging)/[\w./-]*|[\w-]+\.(?:toml|yaml|lock|md))`")
NAMES_IN = re.compile(r"((?:`\w+`(?:, | and ))*`\w+`) in `((?:pik|tests)/[\w/]+\.py)`")


def test_every_path_exists() -> None:
    paths = PATH.findall(PAGE)
    assert len(paths) > 40
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []


def test_every_change_names_where_it_is_made_and_what_notices_a_mistake() -> None:
    rows = [row.strip("|").split(" | ") for row in CHANGES.splitlines() if row.startswith("| ")][2:]
    assert len(rows) == 14
    for change, where, notices in rows:
        assert PATH.search(where), change
        assert "`tests/" in notices, change


@pytest.mark.parametrize(("names", "path"), NAMES_IN.findall(CHANGES))
def test_every_name_is_declared_in_its_file(names: str, path: str) -> None:
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    for name in re.findall(r"`(\w+)`", names):
        assert re.search(rf"^\s*(class |def )?{name}\b( =|:|\(|$)", text, re.MULTILINE), f"{name} in {path}"

"""docs/man: a page for each command, which man formats without complaint and from which examples can be copied."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache

import pytest

from tools.gen_man import FOLDER, pages
from tools.reference import Command, chapters

CHECKS = {
    "mandoc": ("mandoc", "-T", "lint", "-W", "warning"),
    "groff": ("groff", "-man", "-ww", "-z", "-T", "utf8"),
}
RENDER = {
    "mandoc": ("mandoc", "-T", "utf8", "-O", "width=200"),
    "groff": ("groff", "-man", "-T", "utf8", "-rLL=200n", "-P-cbou"),
}
NO_DATE = 'WARNING: missing date, using "": TH'
"""They have none on purpose."""

COMMANDS = {name: command for chapter in chapters() for name, command in chapter.commands.items()}


def test_they_are_what_the_commands_say() -> None:
    written = pages()
    assert set(FOLDER.iterdir()) == written.keys()
    stale = [path.name for path, text in written.items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "`make docs` writes them again"


@pytest.mark.parametrize("program", CHECKS)
def test_no_formatter_complains(program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [*CHECKS[program], *sorted(FOLDER.glob("*.1"))], capture_output=True, encoding="utf-8", check=False
    )
    assert [line for line in (done.stdout + done.stderr).splitlines() if NO_DATE not in line] == []


@pytest.mark.parametrize("name", ["ingest", "diff", "correct", "sql", "runs"])
def test_every_option_is_explained_and_every_example_can_be_copied(name: str) -> None:
    shown = _rendered(f"pik-{name}")
    for command in _all(COMMANDS[name]):
        for one in command.parameters:
            assert one.usage in shown
        for line in command.examples.splitlines():
            assert line.strip() in shown


def test_the_page_of_pik_lists_commands_exit_codes_and_variables() -> None:
    shown = _rendered("pik")
    for name in COMMANDS:
        assert f"pik-{name}(1)" in shown
    section = shown.partition("EXIT STATUS")[2].partition("ENVIRONMENT")[0]
    assert re.findall(r"^ +(\d+) ", section, re.MULTILINE) == ["0", "1", "2", "3", "4", "130", "141"]
    assert "PIK_ACTOR" in shown
    assert "NO_COLOR" in shown


def _all(command: Command) -> list[Command]:
    return [command, *(each for inner in command.commands for each in _all(inner))]


@cache
def _rendered(page: str) -> str:
    program = next(filter(shutil.which, RENDER), None)
    if program is None:
        pytest.skip("neither mandoc nor groff is installed")
    done = subprocess.run([*RENDER[program], FOLDER / f"{page}.1"], capture_output=True, encoding="utf-8", check=True)
    return re.sub(r".\x08", "", done.stdout)

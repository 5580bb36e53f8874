"""What each command shows on a terminal is kept in tests/screens/; `python -m tools.gen_screens` writes it anew."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from pik.cli.app import COMMANDS
from pik.cli.text import cells
from tools.gen_screens import CHANGES, LOOKS, WIDTHS, Clock, screen, screens, written
from tools.reference import Command, chapters

_TO_PASTE = re.compile(r"\bpik [a-z]|^(error|hint): |^republish \w+: ")
"""A command, or a note or error on standard error, which the terminal breaks itself."""

NOT_SHOWN = {"completion", "demo", "cluster"}
"""Commands without a screen: a script for a shell, what others show, and versions of packages."""


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The screens, made from the incident."""
    return screens(tmp_path_factory.mktemp("screens").resolve())


def test_each_screen_is_as_it_is_kept(now: dict[str, str]) -> None:
    kept = written()
    assert now.keys() == kept.keys()
    for name, text in now.items():
        assert text == kept[name], f"tests/screens/{name}: `python -m tools.gen_screens` writes it anew"


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal_but_what_is_pasted(width: int) -> None:
    for name, text in written().items():
        if name.endswith(f"-{width}.txt") and not name.startswith("help-"):
            wide = [line for line in text.splitlines()[1:] if cells(line) > width and not _TO_PASTE.search(line)]
            assert not wide, name


def test_errors_are_only_where_they_are_meant() -> None:
    """So that a screen does not go on showing that its command has lost an option."""
    assert not [name for name, text in written().items() if "\nerror: " in text and not name.startswith("error")]


def test_no_help_is_wider_than_80_columns_but_its_examples(tmp_path: Path) -> None:
    def paths(commands: Iterable[Command]) -> Iterator[str]:
        for one in commands:
            yield one.path
            yield from paths(one.commands)

    for path in paths(one for chapter in chapters() for one in chapter.commands.values()):
        text, *_ = screen([*path.split()[1:], "--help"], 80, tmp_path, Clock()).partition("\nExamples:\n")
        assert text.startswith(f"Usage: {path} ")
        assert not [line for line in text.splitlines() if cells(line) > 80], path


def test_each_command_has_a_screen() -> None:
    shown = {one.command.removeprefix("--store nowhere ").split()[0] for one in (*LOOKS, *CHANGES)}
    assert set(COMMANDS) - shown <= NOT_SHOWN


def test_the_files_are_those_of_the_commands() -> None:
    names = {f"{one.name}-{width}.txt" for one in (*LOOKS, *CHANGES) for width in WIDTHS}
    assert {path.name for path in (Path(__file__).parent.parent / "screens").iterdir()} == names

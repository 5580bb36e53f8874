"""Long results on a terminal go through a pager, which changes neither what is shown nor the exit code."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pik.cli.document import Column, Document, Table
from pik.cli.output import Output
from pik.cli.pager import pager_command
from pik.cli.text import note
from pik.config import Format

from .test_render import Terminal

LONG = 800
"""Rows; more than a table looks at before it writes anything."""


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str, str]]:
    """Shows rows on a terminal of ten lines; returns what the pager, pik itself and its notes wrote."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "10")
    monkeypatch.setenv("NO_COLOR", "1")

    def shown(pager: str, rows: int, during: Callable[[int], object] = lambda _: None) -> tuple[str, str, str]:
        terminal = Terminal()
        monkeypatch.setattr("sys.stdout", terminal)

        def numbers() -> Iterator[dict[str, int]]:
            for number in range(rows):
                during(number)
                yield {"n": number}

        Output(Format.TABLE, pager=pager).show(Document(tables=[Table("t", [Column("n")], numbers())]))
        by_pager, notes = capfd.readouterr()
        return by_pager, terminal.getvalue(), notes

    return shown


Show = Callable[..., tuple[str, str, str]]


def test_only_what_is_longer_than_the_terminal_goes_through_it(show: Show) -> None:
    assert show("sed s/^/paged/", 8) == ("", "n\n" + "".join(f"{n}\n" for n in range(8)), "")
    by_pager, by_pik, notes = show("sed s/^/paged/", LONG)
    assert by_pager == "paged  n\n" + "".join(f"paged{n:3}\n" for n in range(LONG))
    assert (by_pik, notes) == ("", "")


def test_one_that_is_left_early_lets_the_command_read_all_of_its_rows(show: Show) -> None:
    """So the exit code, which depends on what they hold, stays what it is."""
    read: list[int] = []
    by_pager, by_pik, notes = show("head -n 1", 50_000, read.append)
    assert len(read) == 50_000
    assert by_pager.split() == ["n"]
    assert (by_pik, notes) == ("", "")


@pytest.mark.parametrize(
    "pager",
    [
        "no-such-pager -R",
        "no-such-pager | cat",
        "less 'open",
        "less |",
        "cat | no-such-pager 2>/dev/null",
        "LESS=R no-such-pager",
        "{ exit 127; }",
        "(exit 126)",
    ],
)
@pytest.mark.parametrize("rows", [LONG, 30_000])
def test_one_that_cannot_be_run_hides_nothing(show: Show, pager: str, rows: int) -> None:
    """Also where the shell finds it out or what comes after it reads nothing and succeeds."""
    by_pager, by_pik, notes = show(pager, rows)
    assert by_pager == ""
    assert by_pik.split() == ["n", *map(str, range(rows))]
    assert notes == f"cannot run the pager {pager}; PIK_PAGER or PAGER names another one, or cat for none\n"


@pytest.mark.parametrize(
    "pager", ["cut -d '|' -f 1 | cat", "A=1 cat 2>&1 | cat", "no-such-pager 2>/dev/null || cat", "{ cat; }"]
)
def test_what_a_shell_can_run_is_run(show: Show, pager: str) -> None:
    by_pager, by_pik, notes = show(pager, LONG)
    assert by_pager.split() == ["n", *map(str, range(LONG))]
    assert (by_pik, notes) == ("", "")


def _script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_ctrl_c_while_it_runs_is_for_the_pager(show: Show, tmp_path: Path) -> None:
    """It reads everything, and is interrupted together with the program that waits for it."""
    pager = _script(tmp_path / "pager", "wc -l; kill -INT $PPID; echo left")
    by_pager, _, _ = show(pager, LONG)
    assert by_pager.split() == [str(LONG + 1), "left"]


def test_ctrl_c_before_the_end_waits_for_the_pager(show: Show, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupted(number: int) -> None:
        if number == LONG - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        show("sed -n $=", LONG, interrupted)
    assert int(capfd.readouterr().out) == LONG  # the heading and all rows but the last one


def test_notes_wait_until_it_has_ended(show: Show, tmp_path: Path) -> None:
    def noted(number: int) -> None:
        if number == LONG - 1:
            note("one has no amount")

    by_pager, _, notes = show(_script(tmp_path / "pager", "wc -l; echo left >&2"), LONG, noted)
    assert by_pager.strip() == str(LONG + 1)
    assert notes == "left\none has no amount\n"


@pytest.mark.parametrize(
    ("environment", "command"),
    [
        ({}, "less"),
        ({"PAGER": "more"}, "more"),
        ({"PAGER": "more", "PIK_PAGER": "less -S"}, "less -S"),
        ({"PAGER": "more", "PIK_PAGER": ""}, None),
        ({"PAGER": "cat"}, None),
        ({"TERM": "dumb"}, None),
    ],
)
def test_which_one_it_is(environment: dict[str, str], command: str | None) -> None:
    assert pager_command(environment) == command

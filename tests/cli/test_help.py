"""`pik help COMMAND` is `pik COMMAND --help`, and says what a word is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli.conftest import Result

Pik = Callable[..., Result]


@pytest.mark.parametrize("path", [[], ["events"], ["runs"], ["diff", "aggregates"]])
def test_help_of_a_command_is_what_its_option_shows(pik: Pik, path: list[str]) -> None:
    assert pik("help", *path) == pik(*path, "--help")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evnts"], "error: pik has no command evnts\nhint: did you mean events? `pik --help` lists them\n"),
        (
            ["runs", "lst"],
            "error: pik runs has no command lst\nhint: did you mean list? `pik runs --help` lists them\n",
        ),
        (["events", "lag"], "error: pik events has no commands, so no lag\nhint: pik events --help\n"),
    ],
)
def test_help_for_what_is_not_a_command(pik: Pik, words: list[str], said: str) -> None:
    assert pik("help", *words) == Result(2, "", said)

"""The framework: global options anywhere, help, complaints about the command line, exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pik import __version__
from pik.cli.app import COMMANDS, Root
from tests.cli.conftest import Result
from tests.support.cli.entries import ENTRIES

Pik = Callable[..., Result]

FULL = """\
error: /data/x: No space left on device
hint: make room (df shows which disk is full), then run the same command again
"""


@pytest.fixture(autouse=True)
def _fake_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Root, "entries", ENTRIES)


@pytest.mark.parametrize(
    "line",
    [
        ["--store", "here", "--format", "json", "things"],
        ["things", "--store", "here", "--format=json"],
        ["--store=elsewhere", "things", "--format", "json", "--store", "here"],
        ["-q", "--format", "csv", "things", "--store=here", "--format", "json"],
    ],
)
def test_global_options_stand_anywhere_and_the_last_wins(pik: Pik, line: list[str]) -> None:
    result = pik(*line)
    assert (result.code, result.json()["store"]) == (0, "here")
    assert result.err == ("" if "-q" in line else "that was all\n")


def test_a_value_that_looks_like_a_global_option_is_a_value_after_its_equals_sign(pik: Pik) -> None:
    result = pik("things", "--entity=--quiet", "--format", "json", "--", "--store", "-q")
    assert result.json()["entity"] == ["--quiet"]
    assert result.json()["files"] == ["--store", "-q"]
    assert result.err == "that was all\n"


def test_a_group_takes_global_options_at_each_of_its_places(pik: Pik) -> None:
    for line in (["-q", "fail", "how", "bug"], ["fail", "-q", "how", "bug"], ["fail", "how", "bug", "-q"]):
        assert pik(*line).code == 4


def test_help_lists_commands_by_purpose_without_importing_them(pik: Pik, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Root, "entries", {name: one._replace(module="nowhere") for name, one in COMMANDS.items()})
    for line in (["--help"], ["-h"]):
        result = pik(*line)
        assert result.code == 0
        assert all(f"\n  {name} " in result.out and one.help[:30] in result.out for name, one in COMMANDS.items())
        assert "See what arrived:\n  events " in result.out
        assert "\n  pik demo " in result.out
        assert max(map(len, result.out.splitlines())) <= 90


def test_without_a_command_the_help_goes_to_stderr(pik: Pik) -> None:
    for line in ([], ["fail"]):
        result = pik(*line)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith("Usage: pik")


def test_help_of_a_command_shows_its_examples_as_written(pik: Pik) -> None:
    out = pik("things", "--help").out
    assert "Show things.\n\n  As many as you like." in out
    assert "Examples:\n  # two of them\n  pik things --limit 2   # as written,  spaces too\n" in out
    assert "Usage: pik things [OPTIONS] [FILE...]\n" in out
    assert "  FILE  Where they are.\n" in out
    assert out.index("Options:") < out.index("--limit N") < out.index("Global options:") < out.index("--store STORE")


def test_version_anywhere(pik: Pik) -> None:
    for line in (["--version"], ["-q", "--version"], ["things", "--version"], ["fail", "how", "--version"]):
        result = pik(*line)
        assert (result.code, result.out) == (0, f"pik {__version__}\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["thing"], "error: pik has no command thing\nhint: did you mean things? `pik --help` lists them\n"),
        (["xyz"], "error: pik has no command xyz\nhint: `pik --help` lists them\n"),
        (["version"], "error: pik has no command version\nhint: `pik --version`\n"),
        (["help", "things"], "error: pik has no command help\nhint: `pik --help`\n"),
        (["fail", "help"], "error: pik fail has no command help\nhint: `pik fail --help`\n"),
        (
            ["fail", "hwo", "x"],
            "error: pik fail has no command hwo\nhint: did you mean how? `pik fail --help` lists them\n",
        ),
        (
            ["--fromat", "json", "things"],
            "error: pik has no option --fromat\nhint: did you mean --format? `pik --help`",
        ),
        (["things", "--lmit", "1"], "error: pik things has no option --lmit\nhint: did you mean --limit? `pik things "),
        (["things", "-z"], "error: pik things has no option -z\n"),
        (["things", "--limit"], "error: option '--limit' requires an argument\nhint: `pik things --help`"),
        (["things", "--limit", "x"], "error: --limit: 'x' is not a whole number\nhint: `pik things --help` shows how"),
        (["--store", "--format=csv", "things"], "error: --store has no value: --format, which follows, is an option\n"),
        (
            ["things", "--class", "exact", "--limit=1", "--class=conflict", "--limit", "2"],
            "error: --class is given twice, as 'exact' and 'conflict'; it takes one\nhint: run the command once",
        ),
        (["things", "--limit", "0"], "error: --limit: 0 is less than 1\n"),
        (["things", "--share", "nan"], "error: --share: 'nan' is not a number\n"),
        (["things", "--class", "x"], "error: --class: invalid choice 'x' (choose from exact, conflict)\n"),
        (["--format", "xml", "things"], "error: --format: invalid choice 'xml' (choose from table, json, "),
        (["fail", "--format", "csv"], "error: missing command\nhint: `pik fail --help` shows how it is used\n"),
        (["--format", "csv"], "error: missing command\nhint: `pik --help` shows how it is used\n"),
        (["fail", "how"], "error: WAY is missing\nhint: `pik fail how --help` shows how it is used\n"),
        (["fail", "how", "bug", "more"], "error: pik fail how: unexpected argument 'more'; it takes WAY\n"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_a_hint(pik: Pik, line: list[str], said: str) -> None:
    result = pik(*line)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(said)


@pytest.mark.parametrize(
    ("way", "code", "said"),
    [
        ("absent", 4, "error: there is no store ./x\nhint: pik ingest FILE makes one\n"),
        ("full", 4, FULL),
        ("memory", 4, "error: there is not enough memory\n"),
        ("interrupt", 130, "interrupted; run the same command again\n"),
        (
            "bug",
            4,
            """error: this is a bug in pik: ZeroDivisionError: by nothing
hint: run it again with PIK_DEBUG=1 to see where, and please report that
""",
        ),
    ],
)
def test_failures_have_their_exit_code_and_no_traceback(
    pik: Pik, monkeypatch: pytest.MonkeyPatch, way: str, code: int, said: str
) -> None:
    result = pik("fail", "how", way)
    assert (result.code, result.out, result.err) == (code, "", said)
    monkeypatch.setenv("PIK_DEBUG", "1")
    assert "Traceback (most recent call last)" in pik("fail", "how", way).err


def test_what_a_command_returns_is_the_exit_code(pik: Pik) -> None:
    assert pik("things").code == 0
    assert pik("things", "--class", "conflict").code == 1


def test_settings_from_environment_and_file(pik: Pik, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("pik.toml").write_text('format = "json"\nstore = "raw"\n[stores]\nprod = "aws://prod"\n')
    assert pik("things").json()["store"] == f"{tmp_path}/raw"
    assert pik("things", "--store", "prod").json()["store"] == "aws://prod"
    monkeypatch.setenv("PIK_FORMAT", "jsonl")
    assert pik("things").out.startswith('{"id"')
    assert pik("things", "--format", "csv").out.startswith("id,at,lag_ms\r\n")
    Path("pik.toml").write_text("stroe = 1")
    result = pik("things", "--format", "csv")
    assert (result.code, result.err.splitlines()[0]) == (2, f"error: {tmp_path}/pik.toml: there is no key stroe")

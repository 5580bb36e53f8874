"""With --format json an error is one object on standard error, however early it comes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pik.cli.app import Root
from tests.cli.conftest import Result
from tests.support.cli.entries import ENTRIES

Pik = Callable[..., Result]


@pytest.fixture(autouse=True)
def _fake_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Root, "entries", ENTRIES)


def _error(result: Result) -> Any:
    assert result.out == ""
    [line] = result.err.splitlines()
    found = json.loads(line)
    assert list(found) == ["error", "hint", "kind", "exit_code"]
    assert found["exit_code"] == result.code
    return found


@pytest.mark.parametrize(
    ("line", "code", "kind", "said"),
    [
        ("fail how absent --format json", 4, "not_found", "there is no store ./x"),
        ("--format json fail how full", 4, "store_error", "/data/x: No space left on device"),
        ("fail how bug --format=jsonl", 4, "pik_error", "this is a bug in pik: ZeroDivisionError: by nothing"),
        ("fail how interrupt --format json", 130, "interrupted", "interrupted; run the same command again"),
        ("things --lmit 1 --format json", 2, "usage_error", "pik things has no option --lmit"),
        ("--format csv thing --format json", 2, "usage_error", "pik has no command thing"),
        ("--format json fail", 2, "usage_error", "pik fail needs a command"),
        ("things --limit x --format json", 2, "usage_error", "--limit: 'x' is not a whole number"),
    ],
)
def test_an_error_is_one_object(pik: Pik, line: str, code: int, kind: str, said: str) -> None:
    result = pik(*line.split())
    found = _error(result)
    assert (result.code, found["kind"], found["error"]) == (code, kind, said)
    assert found["hint"] == _hint(pik(*_as_table(line)).err)


def _as_table(line: str) -> list[str]:
    return [word for word in line.replace("=", " ").split() if word not in ("--format", "json", "jsonl", "csv")]


def _hint(text: str) -> str | None:
    """The hint that people read; None where there is none, or the help in its place."""
    if text.startswith("Usage: "):
        return f"`{text.split(' [')[0].removeprefix('Usage: ')} --help` lists them"
    return text.partition("\nhint: ")[2].rstrip("\n") or None


@pytest.mark.parametrize("line", ["--format table thing", "--format xml thing", "thing -- --format json"])
def test_in_other_formats_it_is_a_sentence(pik: Pik, line: str) -> None:
    assert pik(*line.split()).err.startswith("error: ")


def test_the_format_of_the_environment_and_of_the_file_hold_for_errors_too(
    pik: Pik, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("pik.toml").write_text('format = "json"\n')
    assert _error(pik("thing"))["error"] == "pik has no command thing"
    assert pik("thing", "--format", "table").err.startswith("error: ")
    monkeypatch.setenv("PIK_FORMAT", "csv")
    assert pik("thing").err.startswith("error: ")
    monkeypatch.delenv("PIK_FORMAT")
    Path("pik.toml").write_text("format = ")
    assert "is not TOML" in pik("things").err


def test_what_would_move_a_terminal_or_is_not_utf8_is_escaped(pik: Pik) -> None:
    result = pik("thing\x1b[2J\u202e\udcff", "--format", "json")
    assert _error(result)["error"] == "pik has no command thing\x1b[2J\u202e\\udcff"
    assert not {"\x1b", "\u202e"} & set(result.err)

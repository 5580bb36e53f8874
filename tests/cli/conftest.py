"""`pik(…)` runs a command line in this process, in a temporary directory, as a user without settings would."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pik.__main__ import main
from tests.support.cli.pasting import expect_line, suggested_lines


@dataclass(frozen=True)
class Result:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output as JSON, numbers as written."""
        return json.loads(self.out, parse_float=str)


def _document(text: str) -> Any:
    """The JSON object that the text is, or nothing."""
    try:
        return json.loads(text) if text.startswith("{") else None
    except ValueError:
        return None


@pytest.fixture
def pik(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs `pik ARGUMENTS…` and returns its Result. Whatever it suggests as `next` can be pasted into a shell."""
    monkeypatch.chdir(tmp_path)
    for name in ("PIK_STORE", "PIK_FORMAT", "PIK_ACTOR", "PIK_DEBUG", "PIK_DISPLAY_TIMEZONE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["pik", *map(str, arguments)])
        capsys.readouterr()
        handler = signal.getsignal(signal.SIGTERM)
        code = main()
        signal.signal(signal.SIGTERM, handler)
        said = capsys.readouterr()
        for line in suggested_lines(_document(said.out)):
            expect_line(line)
        return Result(code, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def _first_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("once") / "made"


@pytest.fixture
def once(pik: Callable[..., Result], tmp_path: Path, _first_made: Path) -> Callable[[Callable[[], object]], None]:
    """Makes what the directory holds for the first test of a module, and copies it for the others."""

    def make(build: Callable[[], object]) -> None:
        if not _first_made.exists():
            build()
            shutil.copytree(tmp_path, _first_made)
        else:
            shutil.copytree(_first_made, tmp_path, dirs_exist_ok=True)

    return make

"""The page about Python: each of its examples runs, and passes mypy --strict as a user's program does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

from tests.support.docs.warm import REPOSITORY

PAGE = REPOSITORY / "docs" / "python.md"


def program() -> str:
    """All examples of the page, one after the other."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))


def test_the_examples_run(incident, tmp_path, monkeypatch, capsys):
    shutil.copytree(incident, tmp_path / "incident")
    monkeypatch.chdir(tmp_path / "incident")
    exec(compile(program(), "python.md", "exec"), {})
    said = capsys.readouterr().out
    assert "~ revenue" in said
    assert "late 491.69 4" in said
    assert "Promotion(moved=80, already=0, conflicts=0)" in said
    assert "'revenu'" in said


def test_the_examples_pass_mypy_as_a_users_program(tmp_path):
    """py.typed lets mypy read pik's own types: they name what users get, not Any."""
    example = tmp_path / "example.py"
    example.write_text(program() + "\nreveal_type(next(iter(events)))\nreveal_type(store.diff())\nreveal_type(other)\n")
    words = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={REPOSITORY}/.mypy_cache"]
    found = subprocess.run([*words, str(example)], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert found.returncode == 0, found.stdout
    revealed = re.findall(r'Revealed type is "(.*)"', found.stdout)
    assert revealed == ["pik.api.rows.Event", "pik.api.numbers.Diff", "polars.dataframe.frame.DataFrame"]

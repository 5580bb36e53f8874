"""A package that was built for another machine says so when a function imports it, before anything compiled fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pik
from pik.lambdas.machine import architecture, expect_machine


def test_a_package_for_this_machine_or_none_at_all_is_right(tmp_path) -> None:
    expect_machine(tmp_path / "ARCHITECTURE")
    (tmp_path / "ARCHITECTURE").write_text(f"{architecture()}\n")
    expect_machine(tmp_path / "ARCHITECTURE")


@pytest.mark.parametrize("handler", ["ingest", "recorder", "replay", "processor"])
def test_one_for_another_machine_is_named_first(tmp_path, handler) -> None:
    """Without any dependency, whose wheels would be for the other machine, too."""
    package = tmp_path / "pik" / "lambdas"
    package.mkdir(parents=True)
    sources = Path(pik.__file__).parent
    for name in ("__init__.py", "lambdas/__init__.py", "lambdas/machine.py", f"lambdas/{handler}.py"):
        (tmp_path / "pik" / name).write_text((sources / name).read_text())
    here = architecture()
    other = "x86_64" if here != "x86_64" else "arm64"
    (package / "ARCHITECTURE").write_text(f"{other}\n")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import pik.lambdas.{handler}"
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False
    ).stderr
    assert said.splitlines()[-1].startswith(f"ImportError: this package was built for {other}, and"), said
    assert f"the function runs on {here}" in said

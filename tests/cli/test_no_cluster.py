"""Commands that do not run on a cluster refuse `--on` with the reason."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from pik.cli.app import root_command
from pik.cli.clusters import _REASONS
from pik.fleets.session import _is_not_of_py4j


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that is not a group, by its words."""
    if not hasattr(command, "list_commands"):
        yield path, command
        return
    ctx = typer.Context(command)
    for name in command.list_commands(ctx):
        yield from commands(command.get_command(ctx, name), (*path, name))


def test_each_command_without_it_says_why(pik: Callable[..., Any]) -> None:
    having = {path for path, one in commands(root_command()) if any("--on" in param.opts for param in one.params)}
    assert ("diff", "aggregates") in having
    for path, _ in commands(root_command()):
        if path in having:
            assert path[0] not in _REASONS
            continue
        done = pik(*path, "--on", "spark://host:7077")
        assert done.code == 2
        assert done.err.startswith(f"error: --on: pik {' '.join(path)} ")
        assert "hint: it goes with ingest, " in done.err
        assert "diff aggregates" in done.err


def test_before_the_command_it_has_no_meaning(pik: Callable[..., Any]) -> None:
    assert "error: --on: it stands after a command that has it" in pik("--on", "local", "status").err


def test_ctrl_c_prints_no_traceback_of_what_speaks_to_java(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.Logger("root")
    logger.addHandler(logging.StreamHandler(sys.stderr))
    logger.addFilter(_is_not_of_py4j)
    for place in ("/site-packages/py4j/java_gateway.py", "/site-packages/other.py"):
        logger.handle(logger.makeRecord("root", logging.ERROR, place, 1, "said in %s", (place,), None))
    assert capsys.readouterr().err == "said in /site-packages/other.py\n"

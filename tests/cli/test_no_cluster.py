"""Commands that do not run on a cluster refuse `--on` with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import typer

from pik.cli.app import root_command
from pik.cli.clusters import _REASONS


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

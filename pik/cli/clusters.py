"""Why a command does not run on a cluster, for those without `--on`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pik.errors import UsageError

_REASONS: Mapping[str, str] = {
    **dict.fromkeys(("show", "explain"), "reads what belongs to one event or bucket; it needs no cluster"),
    **dict.fromkeys(
        ("aggregates", "batches", "corrections", "history", "mappings", "metrics", "runs", "status"),
        "reads or changes what the store lists, not raw; it needs no cluster",
    ),
    **dict.fromkeys(
        ("backup", "correct", "dlq", "promote", "restore", "rollback"),
        "reads or changes the state, not raw; it needs no cluster",
    ),
    **dict.fromkeys(
        ("cluster", "compact", "demo", "help", "init", "stack"), "computes nothing from events; it needs no cluster"
    ),
    **dict.fromkeys(("bundle", "pull", "report", "republish"), "writes to one place, in order, from this process"),
}
"""By the first word of a command."""

_ELSE = "runs in this process only"


def without_cluster(path: str) -> UsageError:
    """Return the error for `--on` of a command that does not have it; `path` is that of the command, `pik show`."""
    from pik.cli.app import root_command

    _, *words = path.split()
    why = f"{path} {_REASONS.get(words[0], _ELSE)}" if words else "it stands after a command that has it"
    return UsageError(f"--on: {why}", hint=f"it goes with {', '.join(_having(root_command()))}")


def _having(command: Any, path: str = "") -> list[str]:
    """Return the commands below that have the option, such as `diff aggregates`."""
    import typer

    if not hasattr(command, "list_commands"):
        return [path] if any("--on" in param.opts for param in command.params) else []
    ctx = typer.Context(command)
    inner = ((command.get_command(ctx, name), f"{path} {name}".strip()) for name in command.list_commands(ctx))
    return [found for one, name in inner for found in _having(one, name)]

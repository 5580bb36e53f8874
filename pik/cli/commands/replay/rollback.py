"""`pik rollback`: undo a promotion."""

from __future__ import annotations

from pik.cli import options
from pik.cli.command import Commands
from pik.cli.commands.replay.promote import RunId, move
from pik.cli.context import Context

commands = Commands()


@commands.add(
    "rollback",
    examples="""
    # what would move?
    pik rollback 01J8Z3 --dry-run

    pik rollback 01J8Z3 --reason 'promoted the wrong run'
    """,
)
def rollback(
    cli: Context, run: RunId, reason: options.Reason = "", yes: options.Yes = False, dry_run: options.DryRun = False
) -> int | None:
    """Make current again what was so before a run was promoted.

    Only where the run's version is still current: one that somebody else has changed since is a conflict, is left as it
    is, and reported. Nothing is deleted; `pik promote` makes the run's versions current again.
    """
    from pik.usecases.replay.runs import rollback as go_back

    return move(cli, go_back, run, reason, yes, dry_run)

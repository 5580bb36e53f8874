"""`pik restore`: the state from a backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pik.cli import options
from pik.cli.command import PARTLY, Commands
from pik.cli.commands.care.backup import report_fields
from pik.cli.context import Context
from pik.cli.render import Document

commands = Commands()

_File = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.", show_default=False)]


@commands.add(
    "restore",
    examples="""
    # is the file whole, and what is in it?
    pik restore state-2026-03-02.backup --dry-run

    # into a store whose state was lost, or into a new one, here or in AWS
    pik restore state-2026-03-02.backup
    """,
)
def restore(cli: Context, file: _File, dry_run: options.DryRun = False) -> int | None:
    """Make a backup the state of a store that has none. Interrupted, the same command goes on.

    A store that has state is refused. The file is checked before anything is written, and the state afterwards.
    Definitions and promotions that came after the backup, as the files in `state/` tell, are listed: exit code 3.
    """
    from pik.usecases.backup import restore as take

    done = take(cli.open_store(), file, cli.progress, dry_run=dry_run)
    cli.show(Document(head=report_fields(done, "nothing, a dry run" if dry_run else "restored")))
    return PARTLY if done.lacking else None

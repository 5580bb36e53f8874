"""`pik backup`: the state, which raw does not hold, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pik.cli import options
from pik.cli.command import PARTLY, cli_command
from pik.cli.context import Context
from pik.cli.render import Count, Document, Instant, Shown
from pik.cli.render.text import number_of
from pik.model.instant import format_instant

if TYPE_CHECKING:
    from pik.ports.state import Omitted
    from pik.usecases.backup import BackupReport


_NAMES = {
    "metric": "definition",
    "run": "run",
    "task": "task",
    "version": "version",
    "promotion": "promotion",
    "current": "current value",
    "letter": "dead letter",
}

_NewFile = Annotated[Path, typer.Argument(metavar="FILE", help="The file to create.", show_default=False)]


@cli_command(
    "backup",
    examples="""
    # every night, while others write; raw is backed up as the files that it is
    pik backup state-$(date +%F).backup

    # of a deployed stack
    pik --store aws://pik-prod backup pik-prod.backup
    """,
)
def backup(cli: Context, file: _NewFile) -> int | None:
    """Write the state to a new file: metric definitions, runs, aggregates, promotions.

    Events are not in it: raw is backed up by copying its objects, and the index is made again from raw. The file is
    created whole or not at all, and never overwritten. Versions that are damaged and not current are left out: exit
    code 3.
    """
    from pik.usecases.backup import backup as write

    done = write(cli.open_store(), file, cli.progress)
    cli.show(Document(head=report_fields(done, "backed up")))
    return PARTLY if done.omitted else None


def report_fields(report: BackupReport, outcome: str) -> dict[str, object]:
    """What a backup holds."""
    holds = {_NAMES[kind]: count for kind, count in report.rows.items()}
    return {
        "file": report.path,
        "outcome": outcome,
        "source": report.source,
        "made_at": Instant(report.made_at),
        "made_by": report.made_by,
        "bytes": Count(report.size),
        "digest": report.digest,
        "omitted_versions": [_left_out(one) for one in report.omitted] or None,
        "lacking": list(report.lacking) or None,
        "holds": Shown(holds, ", ".join(number_of(count, name) for name, count in holds.items())),
    }


def _left_out(one: Omitted) -> str:
    return f"version of {one.metric} of {one.entity} in {format_instant(one.bucket)} by run {one.run_id}"


_BackupFile = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.", show_default=False)]


@cli_command(
    "restore",
    examples="""
    # is the file whole, and what is in it?
    pik restore state-2026-03-02.backup --dry-run

    # into a store whose state was lost, or into a new one, here or in AWS
    pik restore state-2026-03-02.backup
    """,
)
def restore(cli: Context, file: _BackupFile, dry_run: options.DryRun = False) -> int | None:
    """Make a backup the state of a store that has none. Interrupted, the same command goes on.

    A store that has state is refused. The file is checked before anything is written, and the state afterwards.
    Definitions and promotions that came after the backup, as the files in `state/` tell, are listed: exit code 3.
    """
    from pik.usecases.backup import restore as take

    done = take(cli.open_store(), file, cli.progress, dry_run=dry_run)
    cli.show(Document(head=report_fields(done, "nothing, a dry run" if dry_run else "restored")))
    return PARTLY if done.lacking else None

"""`pik compact`: what a stack has kept item by item, in fewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pik.cli import options
from pik.cli.command import cli_command
from pik.cli.context import Context
from pik.cli.document import Field, Schema
from pik.cli.values import Count

if TYPE_CHECKING:
    from pik.usecases.care.compact import CompactReport


@cli_command(
    "compact",
    examples="""
    # a stack that many requests went to: how much is there to do?
    pik --store aws://pik-prod compact --dry-run

    # every hour, while others read and write
    pik --store aws://pik-prod compact
    """,
)
def compact(cli: Context, dry_run: options.DryRun = False) -> None:
    """Make a large stack cheaper to read; no answer changes, and raw is left as it is.

    The counts of batches that began more than ten minutes ago are summed up, so that `pik status` reads the later ones
    only. After an interruption, the same command continues. A local store has nothing to compact.
    """
    from pik.usecases.care.compact import compact as execute

    done = execute(cli.open_store(), cli.progress, dry_run=dry_run)
    cli.show(COMPACT, done, outcome=_outcome(done, dry_run=dry_run))


def _outcome(done: CompactReport, *, dry_run: bool) -> str:
    if not done.is_compacted:
        return "nothing: the index of this store is a database, which needs no compaction"
    return "nothing, a dry run" if dry_run else "compacted"


COMPACT = Schema(
    "pik compact",
    Field("outcome", str, "`compacted`; `nothing, a dry run`; `nothing: …` where a store needs no compaction"),
    Field("batches", Count, "those that the totals now count without reading them; in a dry run: that would be"),
)

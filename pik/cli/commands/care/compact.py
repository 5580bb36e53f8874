"""`pik compact`: make a large stack cheaper to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pik.cli import options
from pik.cli.command import PARTLY, cli_command
from pik.cli.context import Context
from pik.cli.document import NEXT, Field, Schema
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
def compact(cli: Context, dry_run: options.DryRun = False, *, period: options.WindowOptions) -> int | None:
    """Make a large stack cheaper to read; no answer changes, and raw is left as it is.

    The index items of a day's API requests move from DynamoDB into a few objects in S3, together with copies of the
    requests' objects. The counts of batches are summed up, so that `pik status` reads only the later ones. What was
    recorded in the last ten minutes is left for the next time, and counted. After an interruption, the same command
    continues. A local store has nothing to compact.

    With a window, only requests with events of the days that it touches are moved: days of event times, not those on
    which the requests came. Batches are summed up whatever the window is. Objects that are not as recorded are left
    where they are, and listed: exit code 3.
    """
    from pik.usecases.care.compact import compact as execute

    done = execute(cli.open_store(), cli.progress, period.window(), dry_run=dry_run)
    cli.show(COMPACT, done, outcome=_outcome(done, dry_run=dry_run), next="pik verify" if done.packed.left else None)
    return PARTLY if done.packed.left else None


def _outcome(done: CompactReport, *, dry_run: bool) -> str:
    if not done.is_compacted:
        return "nothing: the index of this store is a database, which needs no compaction"
    if dry_run:
        return "nothing, a dry run"
    if done.batches or done.packed.segments or done.packed.left:
        return "compacted"
    return f"nothing to do{' yet' if done.packed.young else ''}"


def _bytes(done: CompactReport) -> int | None:
    return done.packed.size if done.packed.size or not done.packed.segments else None


COMPACT = Schema(
    "pik compact",
    Field(
        "outcome",
        str,
        "`compacted`; `nothing to do`, or `nothing to do yet` if all that is left is too young; `nothing, a dry run`;"
        " `nothing: …` where a store needs no compaction",
    ),
    Field("days", Count, "those of which segments were packed; this and what follows, in a dry run: would be"),
    Field("segments", Count, "of API requests, that were packed", get="packed.segments"),
    Field(
        "bytes",
        Count | None,
        "of their objects, which are now also in `compact/`; null in a dry run, or if all have expired",
        get=_bytes,
    ),
    Field("segments_left", Count, "of which the objects are not as recorded", get="packed.left"),
    Field("left_because", list[str] | None, "of the first ten", get=lambda done: list(done.packed.reasons)),
    Field(
        "segments_too_young",
        Count,
        "recorded in the last ten minutes: left for the next time",
        get="packed.young",
    ),
    Field("batches", Count, "those that the totals now count without reading them, whatever the window"),
    NEXT,
)

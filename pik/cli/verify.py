"""`pik verify`: is everything as it was written?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pik.cli import options
from pik.cli.command import FOUND, Commands
from pik.cli.context import Context
from pik.cli.render import Column, Count, Document, Shown, Table
from pik.errors import UsageError

if TYPE_CHECKING:
    from pik.usecases.verify import Verified

commands = Commands()


@commands.add(
    "verify",
    examples="""
    # read every byte and compare; exit code 1 if anything differs
    pik verify

    # sizes and presence only, of one day
    pik verify --quick --from 2026-01-31 --to 2026-02-01

    # the index is lost or differs: make it again from raw
    pik verify --rebuild-index
    """,
)
def verify(
    cli: Context,
    quick: Annotated[bool, typer.Option("--quick", help="Presence and sizes only.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Every byte, index row and aggregate (the default).")] = False,
    rebuild_index: Annotated[bool, typer.Option("--rebuild-index", help="Make the index again from raw.")] = False,
    from_: options.From = None,
    to: options.To = None,
    since: options.Since = None,
) -> int | None:
    """Check each segment's digest, each index row against raw and back, and each aggregate's inputs.

    A window limits the check to the days that it touches. Superseded objects are copies that a crash left beside what
    was recorded; nothing counts them. Expired ones are gone because the store keeps raw for some days only: no damage.
    """
    if quick and full:
        raise UsageError("--quick and --full exclude each other", hint="leave one of them out")
    window = options.window_of(from_, to, since)
    if rebuild_index:
        if quick or full or from_ or to or since:
            raise UsageError("--rebuild-index takes no other option: it rebuilds all of the index")
        return _rebuild(cli)
    from pik.usecases.verify import verify as check

    store = cli.open_store()
    found = check(store, cli.engine(), window, cli.progress, full=not quick)
    copy_of = store.copy.source if store.copy else None
    cli.show(
        Document(
            head={"window": window, "check": "quick" if quick else "full", "copy_of": copy_of},
            tables=[Table("problems", _COLUMNS, found.problems, empty="no problem found")],
            tail=lambda: _tail(found, copy_of),
        )
    )
    if found.full and found.aggregates is None:
        cli.note("aggregates were not checked: what raw or the index lacks would make them all look wrong")
    if found.full and found.expired_days:
        days = len(found.expired_days)
        cli.note(f"aggregates of {days} days were not checked: raw that they were made of has expired")
    return FOUND if found.damage else None


_COLUMNS = [
    Column("kind"),
    Column("what", wrap=True),
    Column("detail", wrap=True),
    Column("day"),
    Column("entities", get=lambda problem: problem.entities or None, wrap=True),
]


def _tail(found: Verified, copy_of: str | None) -> dict[str, object]:
    return {
        "result": f"{found.valid} of {found.segments} segments valid, {found.missing} missing,"
        f" {found.modified} modified, {found.not_indexed} not indexed"
        + (f", {found.expired} expired" if found.expired else ""),
        "segments": Count(found.segments),
        "valid": Count(found.valid),
        "missing": Count(found.missing),
        "expired": Count(found.expired),
        "modified": Count(found.modified),
        "not_indexed": Count(found.not_indexed),
        "superseded": Count(found.superseded),
        "deliveries": Count(found.deliveries),
        "aggregates": Shown(None, "not checked") if found.aggregates is None else Count(found.aggregates),
        "damage": Count(found.damage),
        "next": _next(found, copy_of),
    }


def _next(found: Verified, copy_of: str | None) -> str | None:
    from pik.usecases.verify import AGGREGATE, INDEX, MISSING, MODIFIED

    if copy_of and found.kinds & {MISSING, MODIFIED}:
        return f"pik pull --store {copy_of} again, into a new directory if objects of this one are modified"
    if found.kinds & {MISSING, MODIFIED}:
        return (
            "restore the named objects from a copy of the store (raw is immutable: any copy will do), then pik verify"
        )
    if INDEX in found.kinds:
        return "pik verify --rebuild-index, then pik verify"
    if AGGREGATE in found.kinds:
        return "pik diff aggregates tells what they should be; pik replay, then pik promote, makes them so"
    return None


def _rebuild(cli: Context) -> int | None:
    from pik.usecases.rebuild import rebuild_index

    done = rebuild_index(cli.open_store(), cli.progress)
    columns = [Column("event_id"), Column("now_accepted", get=lambda place: f"{place.batch_id} record {place.seq}")]
    cli.show(
        Document(
            head={
                "batches": Count(done.batches),
                "segments": Count(done.segments),
                "deliveries": Count(done.deliveries),
                "unfinished_batches": Count(done.unfinished),
                "superseded": Count(done.superseded),
                "expired": Count(done.expired),
                "revised_events": Count(done.revised),
                "damaged": list(done.damaged) or None,
            },
            tables=[Table("revised", columns, done.examples, empty="every event kept its accepted delivery")],
            tail={
                "cut": done.revised > len(done.examples),
                "next": "restore the damaged objects from a copy of the store, then pik verify --rebuild-index"
                if done.damaged
                else None,
            },
        )
    )
    return FOUND if done.revised or done.damaged else None

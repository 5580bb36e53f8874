"""`pik verify`: is everything as it was written?"""

from __future__ import annotations

from typing import Annotated

import typer

from pik.cli import options
from pik.cli.command import FOUND, Commands
from pik.cli.commands.care import rebuild_fields, verify_fields
from pik.cli.context import Context
from pik.cli.render.text import number_of
from pik.errors import UsageError

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

    A window limits the check to the days that it touches. It may run while others write. No damage are: superseded
    objects, copies of recorded deliveries that a crash left; unacknowledged ones, whose sender was told that they were
    not recorded; those of batches in progress; and expired ones, gone because the store keeps raw for some days only.
    """
    if quick and full:
        raise UsageError("--quick and --full exclude each other", hint="leave one of them out")
    window = options.window_of(from_, to, since)
    if rebuild_index:
        if quick or full or from_ or to or since:
            raise UsageError("--rebuild-index takes no other option: it rebuilds all of the index")
        from pik.usecases.rebuild.rebuild import rebuild_index as make_again

        done = make_again(cli.open_store(), cli.progress)
        cli.show(rebuild_fields.rebuilt(done))
        return FOUND if done.revised or done.damaged or done.undecided or done.dropped else None
    from pik.usecases.verify.verify import verify as check

    store = cli.open_store()
    under_way = check(store, cli.engine(), window, cli.progress, full=not quick)
    cli.show(verify_fields.verified(under_way, window, not quick, store.copy.source if store.copy else None))
    found = under_way.report()
    if found.full and found.aggregates is None:
        cli.note("aggregates were not checked: what raw, the index or the state lacks would make them look wrong")
    if found.full and found.expired_days:
        days = number_of(found.expired_days, "day")
        cli.note(f"aggregates of {days} were not checked: raw that they were made of has expired")
    return FOUND if found.damage else None

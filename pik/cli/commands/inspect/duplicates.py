"""`pik duplicates`: deliveries that came again."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pik.cli import options
from pik.cli.command import FOUND, Commands
from pik.cli.commands.inspect import duplicates_fields
from pik.cli.context import Context
from pik.errors import UsageError

commands = Commands()


@commands.add(
    "duplicates",
    examples="""
    # where do they come from?
    pik duplicates --since 1d --by source

    # the same idempotency key with other content, and what differs
    pik duplicates --class conflict --show-payload-diff

    # in a runbook: exit code 1 if there is any
    pik duplicates --from 2026-01-31 --fail-if-any --limit 20
    """,
)
def duplicates(
    cli: Context,
    entity: options.Entity = None,
    from_: options.From = None,
    to: options.To = None,
    since: options.Since = None,
    type_: options.Type = None,
    source: options.Source = None,
    kind: Annotated[
        Literal["exact", "conflict"] | None,
        typer.Option("--class", metavar="CLASS", help="exact: the same content. conflict: same key, other content."),
    ] = None,
    by: Annotated[
        Literal["source", "type", "entity", "batch", "hour"] | None,
        typer.Option("--by", metavar="WHAT", help="Count them by source, type, entity, batch or hour of event_time."),
    ] = None,
    min_deliveries: Annotated[
        int, typer.Option("--min-deliveries", metavar="N", min=2, help="Only events with at least N deliveries.")
    ] = 2,
    show_payload_diff: Annotated[
        bool, typer.Option("--show-payload-diff", help="For conflicts: what they say otherwise than the event.")
    ] = False,
    fail_if_any: Annotated[bool, typer.Option("--fail-if-any", help="Exit with 1 if there is any.")] = False,
    fail_if_none: options.FailIfNone = False,
    limit: options.Limit = None,
) -> int | None:
    """List each delivery that is not the first of its event, by event_time, or count them.

    On a terminal the first 50, without --limit; through a pipe and in the other formats all of them.
    """
    from pik.model.filter import Filter
    from pik.usecases.inspect.duplicates import Wanted, count_duplicates, list_duplicates
    from pik.usecases.inspect.events import nothing_matches

    window = options.window_of(from_, to, since)
    wanted = Wanted(Filter(window, (entity,) if entity else (), source, type_), kind, min_deliveries)
    if by and show_payload_diff:
        raise UsageError("--by counts, so there is nothing for --show-payload-diff", hint="leave one of them out")
    store = cli.open_store()
    limit = limit or cli.default_limit
    if by:
        groups = count_duplicates(store, wanted, by, limit=limit, progress=cli.progress)
        cli.show(duplicates_fields.counted(groups, by, entity, limit))
        any_found = groups.duplicates > 0
    else:
        found = list_duplicates(store, wanted, limit=limit, payload_diff=show_payload_diff, progress=cli.progress)
        cli.show(duplicates_fields.listed(found, entity, limit, payload_diff=show_payload_diff))
        any_found = found.matched != 0
    if not any_found:
        cli.note(nothing_matches("duplicates", store, window, (entity,) if entity else ()))
    return FOUND if (fail_if_any if any_found else fail_if_none) else None

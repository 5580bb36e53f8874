"""`pik events`: what really arrived."""

from __future__ import annotations

from pik.cli import options
from pik.cli.command import FOUND, Commands
from pik.cli.context import Context
from pik.cli.render import Column, Count, Document, EventId, Instant, Json, Lag, Shown, Table

commands = Commands()


@commands.add(
    "events",
    examples="""
    # what arrived for one customer in the last two hours
    pik events --entity customer-17 --since 2h

    # a day of refunds as JSON lines
    pik events --type refund --from 2026-01-31 --to 2026-02-01 --format jsonl
    """,
)
def events(
    cli: Context,
    entity: options.Entity = None,
    from_: options.From = None,
    to: options.To = None,
    since: options.Since = None,
    type_: options.Type = None,
    source: options.Source = None,
    limit: options.Limit = None,
    fail_if_none: options.FailIfNone = False,
) -> int | None:
    """List the events of an entity, or of a window over all, oldest first.

    On a terminal the first 50, without --limit; through a pipe and in the other formats all of them.
    Lag is received_time (or ingest_time without one) minus event_time; a negative one is clock skew. Duplicates are
    counted under deliveries, not listed.
    """
    from pik.model.filter import Filter
    from pik.usecases.inspect.events import list_events, nothing_matches

    window = options.window_of(from_, to, since)
    wanted = Filter(window, (entity,) if entity else (), source, type_)
    store = cli.open_store()
    limit = limit or cli.default_limit
    found = list_events(store, wanted, limit, progress=cli.progress)
    cli.show(
        Document(
            head={"window": window, "entity": entity},
            tables=[Table("events", _COLUMNS, found.rows, empty=f"no such events in {window}")],
            tail=lambda: {
                "matched": Shown(None, f"more than {limit:,}") if found.matched is None else Count(found.matched),
                "truncated": found.truncated,
                "note": f"--limit N shows more than the oldest {limit:,}" if found.truncated else None,
            },
        )
    )
    if found.matched != 0:
        return None
    cli.note(nothing_matches("events", store, window, wanted.entities))
    return FOUND if fail_if_none else None


_COLUMNS = [
    Column("event_id", EventId),
    Column("event_time", Instant),
    Column("source", cut=16, drop=3),
    Column("event_type", cut=20),
    Column("entity_id", cut=24),
    Column("lag", Lag, drop=1),
    Column("deliveries", drop=2),
    Column("batch_id", detail=True),
    Column("seq", detail=True),
    Column("payload", Json, detail=True),
]

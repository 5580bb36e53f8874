"""`pik events`: what really arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pik.cli import options
from pik.cli.command import FOUND, cli_command
from pik.cli.context import Context
from pik.cli.render import Bucket, Column, Count, Document, EventId, Instant, Json, Lag, Shown, Table
from pik.model.delivery import Delivery
from pik.model.instant import parse_instant

if TYPE_CHECKING:
    from pik.usecases.inspect.event_detail import EventDetail


@cli_command(
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
    from pik.model.delivery import Filter
    from pik.usecases.inspect.events import list_events, nothing_matches

    window = options.window_of(from_, to, since)
    wanted = Filter(window, (entity,) if entity else (), source, type_)
    store = cli.open_store()
    limit = limit or cli.default_limit
    found = list_events(store, wanted, limit, progress=cli.progress)

    def tail() -> dict[str, object]:
        extent = found.summary
        return {
            "matched": Shown(None, f"more than {limit:,}") if extent.matched is None else Count(extent.matched),
            "truncated": extent.truncated,
            "note": f"--limit N shows more than the oldest {limit:,}" if extent.truncated else None,
        }

    table = Table("events", _COLUMNS, found, empty=f"no such events in {window}")
    cli.show(Document(head={"window": window, "entity": entity}, tables=[table], tail=tail))
    if found.summary.matched != 0:
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


@cli_command(
    "show",
    examples="""
    # the beginning of the id is enough while no other one begins so
    pik show 841380e5
    """,
)
def show(
    cli: Context,
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="An event id, or its beginning.")],
    limit: Annotated[
        int,
        typer.Option("--limit", metavar="N", min=1, help="Show at most N deliveries (default 100)."),
    ] = 100,
) -> None:
    """Show one event: what it says, every delivery of it with its raw line, and which aggregates counted it.

    Of an event that came more than 100 times the first 100 deliveries, without --limit.
    """
    from pik.usecases.inspect.event_detail import show_event

    found = show_event(cli.open_store(), cli.engine(), event_id, limit)
    cli.show(
        Document(
            head=_fields(found.event),
            # Behind the tables: a payload may be longer than the screen.
            tables=[Table("deliveries", _DELIVERIES, found.deliveries), *_aggregates(found)],
            tail={
                **(
                    {"aggregates": Shown(None, "not known: its day was not pulled")} if found.aggregates is None else {}
                ),
                "left_out": Count(found.left_out) if found.left_out else None,
                "note": f"--limit {len(found.deliveries) + found.left_out} shows all" if found.left_out else None,
                "payload": Json(bytes(found.event.payload)),
                "raw": [Json(row.line) for row in found.deliveries],
            },
        )
    )


def _aggregates(found: EventDetail) -> list[Table]:
    if found.aggregates is None:
        return []
    return [Table("aggregates", _AGGREGATES, found.aggregates, empty="no current aggregate counts it")]


def _fields(event: Delivery) -> dict[str, object]:
    return {
        "event_id": event.event_id,
        "content_hash": event.content_hash,
        "source": event.source,
        "event_type": event.event_type,
        "entity_id": event.entity_id,
        "event_time": Instant(event.event_instant),
        "received_time": Instant(parse_instant(event.received_time)) if event.received_time else None,
        "event_time_original": event.event_time_original,
        "received_time_original": event.received_time_original,
        "idempotency_key": event.idempotency_key,
    }


_DELIVERIES = [
    Column("kind"),
    Column("batch_id"),
    Column("seq"),
    Column("ingest_time", Instant, drop=2),
    Column("lag", Lag, drop=1),
    Column("event_time_original", detail=True),
    Column("segment", drop=4),
    Column("frame", drop=3),
    Column("content_hash", detail=True),
]

_AGGREGATES = [
    Column("metric", get=lambda row: row.computed.metric),
    Column("bucket", Bucket, get=lambda row: row.computed.bucket),
    Column("value", get=lambda row: row.computed.value),
    Column("inputs", get=lambda row: row.computed.inputs),
    Column("run_id", drop=1),
    Column("reason", wrap=True),
]

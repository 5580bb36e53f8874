"""`pik show`: one event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pik.cli.command import Commands
from pik.cli.context import Context
from pik.cli.render import Bucket, Column, Count, Document, Instant, Json, Lag, Shown, Table
from pik.model.event import Delivery
from pik.model.instant import parse_instant

if TYPE_CHECKING:
    from pik.usecases.inspect.event_detail import EventDetail

commands = Commands()


@commands.add(
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

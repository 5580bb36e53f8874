"""`pik events`, `pik show`: what really arrived."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pik.cli import options
from pik.cli.command import FOUND, cli_command
from pik.cli.context import Context
from pik.cli.document import NOTE, TRUNCATED, Column, Field, Rows, Schema, or_null
from pik.cli.options import argument, option
from pik.cli.values import Bucket, Count, EventId, Instant, Json, Lag, Shown
from pik.model.instant import Window, parse_instant


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
    cli.show(
        EVENTS,
        {"window": window, "entity": entity},
        events=found,
        matched=lambda: at_most(found.summary.matched, limit),
        truncated=lambda: found.summary.truncated,
        note=lambda: f"--limit N shows more than the oldest {limit:,}" if found.summary.truncated else None,
    )
    if found.summary.matched != 0:
        return None
    cli.note(nothing_matches("events", store, window, wanted.entities))
    return FOUND if fail_if_none else None


def at_most(matched: int | None, limit: int | None) -> Shown | int:
    """Return how many rows matched, or where a limit left some uncounted, that they are more than that."""
    return Shown(None, f"more than {limit:,}") if matched is None else matched


MATCHED = Field("matched", Count | None, "how many there are; null where a limit left some out, which are not counted")

EVENTS = Schema(
    "pik events",
    Field("window", Window),
    Field("entity", str | None),
    Rows(
        "events",
        "by `event_time`, then `event_id`",
        Column("event_id", EventId),
        Column("event_time", Instant),
        Column("source", str, cut=16, drop=3),
        Column("event_type", str, cut=20),
        Column("entity_id", str, cut=24),
        Column("lag", Lag, "of the accepted delivery", drop=1),
        Column("deliveries", int, "the accepted one included", drop=2),
        Column("batch_id", str, "of the accepted delivery", detail=True),
        Column("seq", int, "likewise: its position in the input", detail=True),
        Column("payload", Json, detail=True),
        empty=lambda found: f"no such events {found['window'].within}",
    ),
    MATCHED,
    TRUNCATED,
    NOTE,
)


@cli_command(
    "show",
    examples="""
    # the beginning of the id is enough if it is unambiguous
    pik show 841380e5
    """,
)
def show(
    cli: Context,
    event_id: Annotated[str, argument("EVENT_ID", "An event id, or its beginning.")],
    limit: Annotated[int, option("--limit N", "Show at most N deliveries (default 100).", min=1)] = 100,
) -> None:
    """Show one event: its content, every delivery with its raw line, and which aggregates counted it.

    Without --limit it lists the first 100 deliveries.
    """
    from pik.usecases.inspect.deliveries import show_event

    found = show_event(cli.open_store(), cli.engine(), event_id, limit)
    more = f"--limit {len(found.deliveries) + found.left_out} shows all" if found.left_out else None
    cli.show(SHOW, found, note=more)


SHOW = Schema(
    "pik show",
    Field("event_id", str, get="event.event_id"),
    Field("content_hash", str, "of the accepted delivery, as the event's other fields", get="event.content_hash"),
    Field("source", str, get="event.source"),
    Field("event_type", str, get="event.event_type"),
    Field("entity_id", str, get="event.entity_id"),
    Field("event_time", Instant, get="event.event_instant"),
    Field(
        "received_time",
        Instant | None,
        get=lambda found: parse_instant(found.event.received_time) if found.event.received_time else None,
    ),
    Field("event_time_original", str | None, "as it came, if not RFC 3339 in UTC", get="event.event_time_original"),
    Field("received_time_original", str | None, "likewise", get="event.received_time_original"),
    Field("idempotency_key", str | None, get="event.idempotency_key"),
    Rows(
        "deliveries",
        "the accepted one first",
        Column("kind", str, "`accepted`, `exact`, `conflict`"),
        Column("batch_id", str),
        Column("seq", int),
        Column("ingest_time", Instant, drop=2),
        Column("lag", Lag, drop=1),
        Column("event_time_original", str | None, "how this delivery wrote it", detail=True),
        Column("segment", str, "the raw object", drop=4),
        Column("frame", int, "its frame, 0-based", drop=3),
        Column("content_hash", str, detail=True),
    ),
    Rows(
        "aggregates",
        "the current aggregates that counted the event; null, in a copy only: not known, as another day was not pulled",
        Column("metric", str, get="computed.metric"),
        Column("bucket", Bucket, "its start", get="computed.bucket"),
        Column("value", Decimal | None, get="computed.value"),
        Column("inputs", int, "events that were counted", get="computed.inputs"),
        Column("run_id", str, drop=1),
        Column("reason", str | None, wrap=True),
        empty="no current aggregate counts it",
        absent="not known: its day was not pulled",
    ),
    # After the tables: a payload may be longer than the screen.
    Field("left_out", Count | None, "deliveries that a limit left out; null: none", get=or_null("left_out")),
    NOTE,
    Field("payload", Json, get=lambda found: bytes(found.event.payload)),
    Field(
        "raw",
        list[Json],
        "an array: the raw line of each delivery shown ([format.md](format.md))",
        get=lambda found: [Json(row.line) for row in found.deliveries],
    ),
)

"""`pik show`: one event, its deliveries, and what happened to it."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pik.cli import options
from pik.cli.buckets import bucket_column, local_column
from pik.cli.command import cli_command
from pik.cli.commands.inspect.corrected import (
    CORRECTED_COLUMNS,
    CORRECTION,
    RECEIVED,
    correction_ids,
)
from pik.cli.context import Context
from pik.cli.document import NOTE, Column, Field, Rows, Schema, or_null
from pik.cli.options import argument, option
from pik.cli.values import Count, Entity, Instant, Json, Lag, words
from pik.config import Format
from pik.model.instant import parse_instant


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
    limit: Annotated[int, option("--limit N", "Show at most N deliveries.", min=1)] = 100,
) -> None:
    """Show one event: its content, every delivery with its raw line, and which aggregates counted it.

    Where corrections or a rebuild of the index concern it, its story is told in order: deliveries, corrections, values,
    and which delivery counted since. Without --limit the first 100 deliveries are listed.
    """
    from pik.usecases.inspect.deliveries import show_event

    found = show_event(cli.open_store(), cli.engine(), event_id, limit)
    notes = [f"--limit {len(found.deliveries) + found.left_out} shows all"] if found.left_out else []
    if found.imported:
        notes.append(f"not known whether it counts in the current {', '.join(found.imported)}, which was imported")
    is_plain = all(one.what in ("delivery", "value") for one in found.story)
    is_json = cli.settings.format in (Format.JSON, Format.JSONL)
    schema = SHOW.without("story", "counts", "deliveries.counts") if is_plain and not is_json else SHOW
    cli.show(schema, found, note="; ".join(notes) or None)


SHOW = Schema(
    "pik show",
    Field("event_id", str, get="event.event_id"),
    Field(
        "content_hash",
        str,
        "of the delivery that counts, as the event's other fields; of the accepted one if none does",
        get="event.content_hash",
    ),
    Field("source", str, get="event.source"),
    Field("event_type", str, get="event.event_type"),
    Field("entity_id", str, get="event.entity_id"),
    Field("event_time", Instant, "with corrections", get="event.event_instant"),
    Field("received_event_time", Instant | None, RECEIVED),
    Field("correction", str | None, CORRECTION, get=correction_ids),
    Field("counts", bool, "whether a delivery of it counts"),
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
        Column(
            "file", str | None, "of a batch of several files (`--one-batch`): the one that it comes from", rare=True
        ),
        Column("record", int | None, "its position in that file", rare=True),
        Column("counts", bool, "whether it is the one that counts"),
        Column("event_time", Instant, "with corrections", detail=True),
        *CORRECTED_COLUMNS,
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
        bucket_column(of="computed."),
        Column("entity_id", Entity | None, "null: over all entities", get="computed.entity_id", drop=2),
        Column("value", Decimal | None, get="computed.value"),
        Column("inputs", int, "events that were counted", get="computed.inputs"),
        Column("run_id", str, drop=1),
        Column("reason", str | None, wrap=True),
        options.VALUE_RETIRED_AT,
        local_column(of="computed."),
        empty="no current aggregate counts it",
        absent="not known: its day was not pulled",
    ),
    Rows(
        "story",
        "what happened to the event, in order",
        Column("at", Instant),
        Column(
            "what",
            str,
            "`delivery`, `correction`, `revocation`, `rebuild` of the index that accepted another delivery, `value`: a"
            " current one that counts it was computed",
        ),
        Column("id", str, "of the batch, correction or run", drop=3),
        Column("about", str, "the verdict, what was corrected, or the value", wrap=True),
        Column("actor", str | None, drop=4),
        Column("reason", str | None, drop=2, wrap=True),
        Column("batch_id", str | None, "of the delivery that counts from then on; null: none does", detail=True),
        Column("seq", int | None, "likewise", detail=True),
        Column("event_time", Instant | None, "when it happened, by what was known then", drop=1, label="counts at"),
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
        text=lambda found: "\n".join(words(Json(row.line)) for row in found.deliveries),
    ),
)

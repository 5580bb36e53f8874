"""`pik aggregates`: current values, or every version and who made it."""

from __future__ import annotations

from itertools import islice
from operator import attrgetter
from typing import Annotated

import typer

from pik.cli import options
from pik.cli.command import Commands
from pik.cli.context import Context
from pik.cli.render import Bucket, Column, Count, Document, Instant, Table

commands = Commands()


@commands.add(
    "aggregates",
    examples="""
    # one entity's numbers
    pik aggregates --entity user-123 --from 2026-01-31 --to 2026-02-01

    # where does this value come from: every version, its run, its reason
    pik aggregates --entity user-123 --metric revenue --since 7d --history
    """,
)
def aggregates(
    cli: Context,
    entity: options.Entities = None,
    metric: options.Metrics = None,
    from_: options.From = None,
    to: options.To = None,
    since: options.Since = None,
    history: Annotated[bool, typer.Option("--history", help="Every version, not only the current one.")] = False,
    limit: options.Limit = None,
) -> None:
    """List the current values of the buckets that the window touches, by metric, bucket and entity.

    Each row that is listed is checked against its digest: exit code 4 at one that is not as it was written.
    """
    from pik.usecases.metrics.definitions import list_aggregates

    listing = list_aggregates(
        cli.open_store(),
        options.window_of(from_, to, since),
        metrics=metric or (),
        entities=entity or (),
        history=history,
    )
    columns = [
        Column("metric", get=attrgetter("computed.metric")),
        Column("bucket", Bucket, get=attrgetter("computed.bucket")),
        Column("entity_id", get=attrgetter("computed.entity_id")),
        Column("value", get=attrgetter("computed.value")),
        Column("inputs", Count, get=attrgetter("computed.inputs")),
        Column("current", detail=not history),
        Column("run_id", drop=1),
        Column("reason", wrap=True, detail=not history),
        Column("metric_version", drop=3, detail=not history),
        Column("known_until", Instant, drop=2, detail=not history),
        Column("input_ids", get=attrgetter("computed.input_ids"), detail=True),
        Column("input_contents", get=attrgetter("computed.input_contents"), detail=True),
    ]
    empty = f"no {'version' if history else 'current value'} in {listing.effective}; to compute: pik replay --all"
    cli.show(
        Document(
            head={"requested": listing.window, "effective": listing.effective},
            tables=[Table("aggregates", columns, islice(listing.rows, limit), empty=empty)],
            tail=lambda: {"truncated": limit is not None and next(listing.rows, None) is not None},
        )
    )

"""`pik metrics`: definitions of what is computed."""

from __future__ import annotations

import time
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pik.cli import options
from pik.cli.command import CommandGroup, cli_command
from pik.cli.context import Context
from pik.cli.render import Bucket, Column, Count, Document, Instant, Moment, Table

if TYPE_CHECKING:
    from pik.model.metric import Metric
    from pik.usecases.metrics.definitions import AppliedMetric


metrics = CommandGroup("Define metrics: apply, list, show.")


@metrics.add(
    "apply",
    examples="""
    # metrics.toml:
    #   [[metric]]
    #   name = "revenue"
    #   where = "event_type = 'payment_captured'"
    #   value = "sum(CAST(payload->>'$.amount' AS DECIMAL(18, 2)))"
    #   bucket = "1d"
    pik metrics apply metrics.toml

    # would they be taken, and which would change?
    pik metrics apply metrics.toml --dry-run
    """,
)
def apply(
    cli: Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="TOML: one definition, or several as [[metric]] tables.")
    ],
    dry_run: options.DryRun = False,
) -> None:
    """Keep definitions, each as the next version of its name. One that has not changed stays the version it is.

    All of them are checked before any is kept. A value that order or floating point could change is refused, with the
    exact alternative. What is current stays current: replay computes the new version, promote makes it so.
    """
    from pik.usecases.metrics.definition_file import read_definitions
    from pik.usecases.metrics.definitions import apply as keep

    definitions = read_definitions(file)
    store = cli.open_store()
    applied = keep(store.metrics, cli.engine(), definitions, time.time_ns(), dry_run=dry_run)
    columns = [
        Column("name", get=lambda row: row.metric.name),
        Column("version", get=lambda row: row.metric.version),
        Column("what", get=_what),
    ]
    cli.show(Document(head={"dry_run": dry_run}, tables=[Table("metrics", columns, applied)]))


def _what(applied: AppliedMetric) -> str:
    if not applied.changed:
        return "unchanged"
    return "new" if applied.before is None else "changed"


@metrics.add("list", examples="pik metrics list")
def list_(cli: Context) -> None:
    """List the latest version of each metric."""
    columns = [Column("name"), Column("version"), *_DEFINITION]
    cli.show(Document(tables=[Table("metrics", columns, cli.open_store().metrics.latest())]))


@metrics.add("show", examples="pik metrics show event_count")
def show(cli: Context, name: Annotated[str, typer.Argument(metavar="NAME", help="The metric.")]) -> None:
    """Show every version of a metric, the oldest first."""
    from pik.usecases.metrics.definitions import versions

    columns = [Column("version"), Column("applied_at", Moment, drop=2, get=_applied_at), *_DEFINITION]
    found = versions(cli.open_store().metrics, name)
    cli.show(Document(head={"name": name}, tables=[Table("versions", columns, found)]))


def _applied_at(metric: Metric) -> int | None:
    return metric.applied_at or None  # the built-in one never was


_DEFINITION = [
    Column("bucket", get=attrgetter("definition.bucket")),
    Column("where", get=attrgetter("definition.where"), wrap=True),
    Column("value", get=attrgetter("definition.value"), wrap=True),
    Column("description", get=attrgetter("definition.description"), wrap=True, drop=1),
]


@cli_command(
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

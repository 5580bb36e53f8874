"""`pik batches`: what was ingested, and what was rejected."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from operator import attrgetter
from typing import Annotated

import typer

from pik.cli import options
from pik.cli.command import cli_command
from pik.cli.context import Context
from pik.cli.render import Column, Count, Document, Instant, Moment, Shown, Table
from pik.cli.render.values import words
from pik.errors import NotFound, UsageError, command


@cli_command(
    "batches",
    examples="""
    # the last twenty batches
    pik batches --limit 20

    # the rejected records of one, with line number and reason
    pik batches 01J8Z3 --rejects

    # and as they came, to correct and ingest them
    pik batches 01J8Z3 --rejects --format jsonl | jq -r .line > corrected.jsonl
    """,
)
def batches(
    cli: Context,
    batch: Annotated[
        str | None, typer.Argument(metavar="[BATCH]", help="Only this batch (id or its beginning).")
    ] = None,
    rejects: Annotated[bool, typer.Option("--rejects", help="List the batch's rejected records.")] = False,
    limit: options.Limit = None,
) -> None:
    """List batches, newest first, or the rejected records of one."""
    from pik.ports.catalog import batch_of
    from pik.usecases.ingest.replaced_batches import with_closing

    store = cli.open_store()
    if rejects:
        from pik.errors import UsageError
        from pik.usecases.inspect.batches import list_rejects

        if batch is None:
            raise UsageError(
                "--rejects needs a batch", hint="`pik batches` lists them; then: pik batches BATCH --rejects"
            )
        found = batch_of(store.index, batch)
        columns = [
            Column("seq"),
            Column("field", detail=True),
            Column("reason", wrap=True),
            Column("line", cut=20),
            Column("base64", get=attrgetter("bytes"), detail=True),
        ]
        rows = islice(list_rejects(store, found), limit)
        total = found.counts.rejected
        cli.show(
            Document(
                head={"batch_id": found.batch_id, "source": found.origin.name},
                tables=[Table("rejects", columns, rows, empty="no record of this batch was rejected")],
                tail={"rejected": Count(total), "truncated": limit is not None and total > limit},
            )
        )
        return
    every = [batch_of(store.index, batch)] if batch else store.index.batches()
    listed = (with_closing(store, one) for one in every)
    shown = list(islice(listed, limit)) if limit else listed
    cli.show(
        Document(
            tables=[Table("batches", _COLUMNS, shown, empty="no batch yet; to make one: pik ingest FILE")],
            tail=lambda: {"truncated": limit is not None and not batch and next(iter(listed), None) is not None},
        )
    )


_COUNTS = {"read": 3, "accepted": 1, "exact": 2, "conflict": 0, "rejected": 0}
"""Each count with its `drop`: conflicts and rejects stay on a narrow terminal, because they report a problem."""

_COLUMNS = [
    Column("batch_id"),
    Column("source", get=lambda batch: batch.origin.name, cut=8),
    Column("state"),
    Column("replaced_by", get=lambda batch: batch.replaced_by or None, detail=True),
    Column("started_at", Moment, drop=4),
    *(Column(name, Count, get=attrgetter(f"counts.{name}"), drop=drop) for name, drop in _COUNTS.items()),
    Column("finished_at", Moment, detail=True),
    Column("attempts", get=lambda batch: batch.attempt, detail=True),
    Column("first_event", Instant, detail=True),
    Column("last_event", Instant, detail=True),
    Column("content", get=lambda batch: batch.origin.content, detail=True),
    Column("again", get=lambda batch: batch.origin.again, detail=True),
]


@cli_command(
    "init",
    examples="""
    pik init
    pik init --store ~/incidents/2026-01-31
    PIK_STORE=~/incidents/2026-01-31 pik init
    """,
)
def init(cli: Context) -> None:
    """Create the store that --store, PIK_STORE or pik.toml names, or else ./.pik; leave it as it is if it exists.

    Except for ./.pik, which the first ingest creates, no other command creates a store that --store names: a typing
    error in its name is an error.
    """
    place = cli.settings.default_store or cli.settings.store
    if place.startswith("aws://"):
        raise UsageError(f"{place} is a deployed stack", hint="sam deploy creates one (docs/deploy.md)")
    created = False
    try:
        store = cli.open_store_at(place)
    except NotFound:
        store, created = cli.create_store(place), True
    named = () if cli.settings.default_store else ("--store", place)
    cli.show(
        Document(
            head={
                "store": store.url,
                "created": created,
                "store_format": store.format_version,
                "next": command(*named, *(("ingest", "FILE") if created else ("status",))),
            }
        )
    )


@cli_command(
    "status",
    examples="""
    # is there anything, up to when, and did the last ingest end well?
    pik status
    """,
)
def status(cli: Context) -> None:
    """Show what the store holds: events, deliveries, times, sources, the last batch and run, size, format."""
    from pik.usecases.inspect.batches import status as look

    found = look(cli.open_store())
    totals, batch, run = found.totals, found.last_batch, found.last_run
    cli.show(
        Document(
            head={
                "store": found.url,
                "store_format": found.format_version,
                "events": Count(totals.events),
                "deliveries": Count(totals.deliveries),
                "first_event": Instant(totals.first_event) if totals.first_event is not None else None,
                "last_event": Instant(totals.last_event) if totals.last_event is not None else None,
                "deliveries_by_source": _by_source(found.sources),
                "deliveries_of_other_sources": Count(found.other_sources) if found.other_sources else None,
                "batches": Count(totals.batches),
                "interrupted_batches": Count(found.interrupted),
                "replaced_batches": Count(found.replaced),
                "last_batch": batch and {"batch_id": batch.batch_id, "source": batch.origin.name, "state": batch.state},
                "last_run": run and {"run_id": run.run_id, "state": run.state},
                "metrics": Count(found.metrics),
                "segments": Count(totals.segments),
                "raw_bytes": Count(found.size),
                "copy_of": found.copy_of,
            },
            tables=[Table("pulled", _PULLED, found.pulled, empty="nothing was pulled into it yet")]
            if found.copy_of
            else [],
        )
    )


_MOST = 20
"""Sources that people are shown; programs get all."""


def _by_source(sources: Mapping[str, int]) -> Shown:
    most = {name: Count(n) for name, n in sorted(sources.items(), key=lambda item: -item[1])}
    text = words(dict(islice(most.items(), _MOST)))
    return Shown(most, f"{text}, and {len(most) - _MOST:,} more sources" if len(most) > _MOST else text)


_PULLED = [Column("window"), Column("entities", get=lambda part: part.entities or None, wrap=True)]

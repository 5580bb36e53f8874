"""`pik batches`: what was ingested, and what was rejected."""

from __future__ import annotations

from itertools import islice
from operator import attrgetter
from typing import Annotated

import typer

from pik.cli import options
from pik.cli.command import Commands
from pik.cli.context import Context
from pik.cli.render import Column, Count, Document, Instant, Moment, Table

commands = Commands()


@commands.add(
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
    from pik.ports.index import batch_of
    from pik.usecases.ingest.replaced_batches import as_closed

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
    listed = (as_closed(store, one) for one in every)
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

"""`pik status`: what the store holds."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from pik.cli.command import Commands
from pik.cli.context import Context
from pik.cli.render import Column, Count, Document, Instant, Shown, Table
from pik.cli.render.values import words

commands = Commands()


@commands.add(
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

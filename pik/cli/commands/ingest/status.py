"""`pik status`: what the store holds."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from pik.cli.command import cli_command
from pik.cli.context import Context
from pik.cli.document import Column, Field, Object, Rows, Schema, or_null
from pik.cli.values import Count, Instant, Shown, words
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.usecases.inspect.batches import Status as StoreStatus


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
    cli.show(STATUS if found.copy_of else STATUS.without("pulled"), found)


_MOST = 20
"""Sources that people are shown; programs get all."""


def _by_source(found: StoreStatus) -> Shown:
    most = {name: Count(n) for name, n in sorted(found.sources.items(), key=lambda item: -item[1])}
    text = words(dict(islice(most.items(), _MOST)))
    return Shown(most, f"{text}, and {len(most) - _MOST:,} more sources" if len(most) > _MOST else text)


def _rebuild(found: StoreStatus) -> str | None:
    return found.rebuild.text if found.rebuild else None


STATUS = Schema(
    "pik status",
    Field("store", str, "its path or URL", get="url"),
    Field("store_format", int, "the version of its format", get="format_version"),
    Field("events", Count, get="totals.events"),
    Field("deliveries", Count, "duplicates included", get="totals.deliveries"),
    Field("first_event", Instant | None, get="totals.first_event"),
    Field("last_event", Instant | None, get="totals.last_event"),
    Field("deliveries_by_source", dict[str, int], "at most 1,000, and of each batch the first 1,000", get=_by_source),
    Field(
        "deliveries_of_other_sources",
        Count | None,
        "of sources not counted by name; if there are any, numbers by source may be too small",
        get=or_null("other_sources"),
    ),
    Field("batches", Count, get="totals.batches"),
    Field("interrupted_batches", Count, "without the replaced and the withdrawn ones", get="interrupted"),
    Field("replaced_batches", Count, "interrupted batches whose records are all in a later one", get="replaced"),
    Field(
        "active_corrections",
        Count | None,
        "corrections that hold, whatever they change: the other counts are those of what came; null: none",
        get=or_null("active_corrections"),
    ),
    Field("withdrawn_batches", Count | None, "batches that corrections withdraw; null: none", get=or_null("withdrawn")),
    Field(
        "last_batch",
        Object(Field("batch_id", str), Field("source", str, get="origin.name"), Field("state", str), null=True),
    ),
    Field("last_run", Object(Field("run_id", str), Field("state", str), null=True)),
    Field("metrics", Count, "definitions, the built-in one included"),
    Field("segments", Count, get="totals.segments"),
    Field("raw_bytes", Count, "the size of the segments, without rejects and records", get="totals.raw_bytes"),
    Field(
        "index_rebuild",
        Object(Field("since", Instant | None, "null: not known"), null=True),
        "a rebuild of the index that is under way; null: none. The numbers are those of the index that it replaces",
        get="rebuild",
        text=_rebuild,
    ),
    Field("copy_of", str | None, "the store that this one is a copy of ([offline.md](offline.md))"),
    Rows(
        "pulled",
        "what was pulled",
        Column("window", Window, "whole days"),
        Column("entities", list[str] | None, "null: all", wrap=True),
        empty="nothing was pulled into it yet",
        only="in a copy",
    ),
)

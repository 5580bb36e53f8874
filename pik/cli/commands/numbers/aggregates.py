"""`pik aggregates`: current values, or every version of them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

from pik.cli import options
from pik.cli.buckets import bucket_column, local_column
from pik.cli.command import CommandGroup
from pik.cli.context import Context
from pik.cli.document import TRUNCATED, Column, Field, Rows, Schema, or_null
from pik.cli.options import option
from pik.cli.values import Count, Entity, Instant
from pik.errors import UsageError, command
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.model.aggregate import Aggregate
    from pik.usecases.metrics.definitions import AggregateList


aggregates = CommandGroup("List current values, or every version and who made it.")


@aggregates.alone(
    examples="""
    # one entity's numbers
    pik aggregates --entity user-123 --from 2026-01-31 --to 2026-02-01

    # where does this value come from: every version, its run, its reason
    pik aggregates --entity user-123 --metric revenue --since 7d --history

    # the revenue of each day of a month, over all entities
    pik aggregates --metric revenue --from 2026-01-01 --to 2026-02-01 --by bucket
    """,
)
def list_values(
    cli: Context,
    entity: options.Entities = None,
    metric: options.Metrics = None,
    *,
    period: options.WindowOptions,
    history: Annotated[bool, option("--history", "Every version, not only the current one.")] = False,
    total: options.Total = False,
    by: options.TotalBy = None,
    limit: options.Limit = None,
) -> None:
    """List the current values of the buckets that the window touches, by metric, bucket and entity.

    Each row that is listed is checked against its digest: exit code 4 at one that is not as it was written.

    --total and --by add up the values of all listed entities and buckets, one metric at a time: exactly, where the
    definition is a sum or a count, or + and - of such. A min or max has the least or greatest value instead. Others,
    such as a quotient or count(DISTINCT x), are refused with the reason.
    """
    from pik.usecases.metrics.definitions import list_aggregates, retirement
    from pik.usecases.metrics.totals import Combinations
    from pik.usecases.metrics.totals import total as total_of

    if history and (total or by):
        raise UsageError("--history lists versions, which have no total", hint="leave --history out")
    store = cli.open_store()
    listing = list_aggregates(
        store,
        period.window(),
        metrics=metric or (),
        entities=entity or (),
        history=history,
    )
    options.note_left_out(cli, listing.left_out)
    for one in listing.retired:
        cli.note(f"{one.name} {retirement(one)}: its values are no longer computed")
    if total or by:
        totals = total_of(listing.rows, by, Combinations(store, cli.engine()))
        shown, more = options.first_rows(iter(totals), limit)
        others = [f"totals.{column}" for name, columns in TOTAL_COLUMNS.items() if by != name for column in columns]
        cli.show(TOTALS.without(*others), listing, totals=shown, truncated=more)
        return
    rows, truncated = options.first_rows(iter(listing.rows), limit)
    cli.show(HISTORY if history else AGGREGATES, listing, aggregates=rows, truncated=truncated)


def _nothing(what: str, listing: AggregateList) -> str:
    if versions := [text for text in listing.metrics if "@" in text]:
        every = command("aggregates", "--history")
        return f"no {what} of {', '.join(versions)} {listing.effective.within}; those of all versions: {every}"
    return f"no {what} {listing.effective.within}; to compute: pik replay --all"


def _hash(name: str) -> Callable[[Aggregate], str | None]:
    """Return what finds a hash of the inputs, null where these are not known."""
    return lambda row: None if row.is_imported else getattr(row.computed, name)


def _aggregates(*, history: bool) -> Schema:
    """Return the JSON of a listing, whose table has all of the columns only in a history."""
    what = "version" if history else "current value"
    return Schema(
        "pik aggregates",
        Field("requested", Window, get="window"),
        Field("effective", Window, "the whole buckets that the requested window touches"),
        Rows(
            "aggregates",
            "by metric, bucket, entity, with `--history` also by run",
            Column("metric", str, get="computed.metric"),
            bucket_column(of="computed."),
            Column("entity_id", Entity | None, "null: over all entities", get="computed.entity_id"),
            Column("value", Decimal | None, get="computed.value"),
            Column("inputs", Count | None, "events that were counted; null: it was imported", get="computed.inputs"),
            Column("current", bool, detail=not history),
            Column("run_id", str, "the run that wrote it", drop=1),
            Column("actor", str | None, "who asked for that run; null: not known", drop=4, detail=not history),
            Column("reason", str | None, "that run's", wrap=True, detail=not history),
            Column("metric_version", int, "the definition's", drop=3, detail=not history),
            Column(
                "known_until",
                Instant | None,
                "the last recording that the run knew; null: it was imported",
                get=or_null("known_until"),
                drop=2,
                detail=not history,
            ),
            Column("input_ids", str | None, "32 hex digits: XOR of the event ids", get=_hash("input_ids"), detail=True),
            Column(
                "input_contents",
                str | None,
                "32 hex digits: XOR of their content or [delivery hashes](format.md#what-a-version-was-computed-from)",
                get=_hash("input_contents"),
                detail=True,
            ),
            Column("file_digest", str | None, "SHA-256 of the file that it was imported from", detail=True),
            options.VALUE_RETIRED_AT,
            local_column(of="computed."),
            get=lambda listing: listing.rows,
            empty=lambda listing: _nothing(what, listing),
        ),
        options.LEFT_OUT,
        TRUNCATED,
    )


AGGREGATES, HISTORY = _aggregates(history=False), _aggregates(history=True)

TOTAL_COLUMNS = {"bucket": ("bucket", "bucket_local"), "run": ("run_id",)}
"""The columns of totals that are there only with --by, which names them."""

TOTALS = Schema(
    "pik aggregates --total",
    Field("requested", Window, get="window"),
    Field("effective", Window, "the whole buckets that the requested window touches"),
    Rows(
        "totals",
        "by metric, then bucket or run",
        Column("metric", str),
        bucket_column(only="with `--by bucket`"),
        Column("run_id", str, "the run that wrote the values", only="with `--by run`"),
        Column("combination", str, "`sum`, or `min` or `max`: the least or greatest value"),
        Column("value", Decimal | None, "of all entities and buckets, exactly"),
        Column("of_values", Count, "how many there are", get="values"),
        local_column(only="with `--by bucket`"),
        empty=lambda listing: _nothing("current value", listing),
    ),
    options.LEFT_OUT,
    TRUNCATED,
)

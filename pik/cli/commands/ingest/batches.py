"""`pik batches`: what was ingested, and the records that were rejected."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated

from pik.cli import options
from pik.cli.command import cli_command
from pik.cli.commands.ingest.report import times_read
from pik.cli.context import Context
from pik.cli.document import TRUNCATED, Column, Field, Object, Rows, Schema, or_null
from pik.cli.options import argument, option
from pik.cli.values import Count, Instant, Moment
from pik.errors import UsageError
from pik.model.event import MAX_LINE
from pik.model.visible import visible_option

if TYPE_CHECKING:
    from pik.model.batch import Batch
    from pik.usecases.inspect.batch_standing import StandingBatch


@cli_command(
    "batches",
    examples="""
    # the last twenty batches
    pik batches --limit 20

    # the rejected records of one, with line number and reason
    pik batches 01J8Z3 --rejects

    # their original text, to correct and ingest it
    pik batches 01J8Z3 --rejects --format jsonl | jq -r .line > corrected.jsonl
    """,
)
def batches(
    cli: Context,
    batch: Annotated[
        str | None,
        argument(
            "[BATCH]", "Only this batch: id or its beginning, latest or -1, -2; or the whole id of a buffered request."
        ),
    ] = None,
    rejects: Annotated[bool, option("--rejects", "List the batch's rejected records.")] = False,
    limit: options.Limit = None,
) -> None:
    """List batches, newest first, or the rejected records of one.

    Counts are those of the verdicts at arrival. What corrections took away is shown beside them: which batches are
    withdrawn, and of a named one how many of its deliveries do not count, count as duplicates, or were moved. Of a
    named one the options with which it was read are shown, too, and which others have the same content.

    A buffered request is a part of a batch: its id (that of the response, or API Gateway's) lists the batch, and says
    what became of the request.
    """
    from pik.usecases.ingest.earlier import others_of_content
    from pik.usecases.inspect.batch_standing import standing_batches
    from pik.usecases.inspect.batches import with_closing
    from pik.usecases.inspect.buffered_requests import batch_with, request_outcome

    store = cli.open_store()
    batch = batch and cli.recent(store, "batch", batch)
    if rejects:
        from pik.usecases.inspect.batches import list_rejects

        if batch is None:
            raise UsageError(
                "--rejects needs a batch", hint="`pik batches` lists them; then: pik batches BATCH --rejects"
            )
        found, _ = batch_with(store, batch)
        listed = islice(list_rejects(store, found), limit)
        cli.show(REJECTS, found, rejects=listed, truncated=limit is not None and found.counts.rejected > limit)
        return
    named, digits = batch_with(store, batch) if batch else (None, "")
    every = [named] if named else store.index.batches()
    outcome = request_outcome(store, named, digits) if named and digits else None
    rows = standing_batches(store, (with_closing(store, one) for one in every), in_full=batch is not None)
    shown, truncated = options.first_rows(rows, limit)
    # A damaged closing record leaves no half of what a limit made short.
    cli.show(
        BATCHES,
        batches=list(shown) if limit else shown,
        truncated=truncated,
        read_with=named and _read_with(named),
        batches_of_same_content=named and [one.batch_id for one in others_of_content(store, named)],
        request=outcome,
    )


_NAMED = "null: none, or the batch is not named"


def _of_standing(name: str, row: StandingBatch) -> object:
    return None if row.standing is None else getattr(row.standing, name) or None


def _read_with(batch: Batch) -> str | None:
    """Return the options with which a batch was read, as people see them, without the usual longest line."""
    options = [(name, value) for name, value in batch.origin.options if (name, value) != ("max_line", str(MAX_LINE))]
    return ", ".join(f"{name.replace('_', '-')} {visible_option(value)}" for name, value in options) or None


BATCHES = Schema(
    "pik batches",
    Rows(
        "batches",
        "newest first",
        Column("batch_id", str, get="batch.batch_id"),
        Column("source", str, get="batch.origin.name", cut=8),
        Column(
            "state",
            str,
            "`RUNNING` while a process writes it, then `COMPLETE`, `INTERRUPTED` or, if a later batch has all of its "
            "records, `REPLACED`; in a copy `PULLED`: the counts are of the part that was pulled",
            get="batch.state",
        ),
        Column("replaced_by", str | None, "of a replaced batch: the later one", get="batch.replaced_by", detail=True),
        Column("started_at", Moment, get="batch.started_at", drop=4),
        Column("actor", str | None, "who began it; null: not known", get="batch.actor", drop=5),
        # Conflicts and rejects stay on a narrow terminal, because they report a problem.
        Column("read", Count, get="batch.counts.read", drop=3),
        Column("accepted", Count, get="batch.counts.accepted", drop=1),
        Column("exact", Count, get="batch.counts.exact", drop=2),
        Column("conflict", Count, get="batch.counts.conflict"),
        Column("rejected", Count, get="batch.counts.rejected"),
        *(
            Column(name, kind, about, get=partial(_of_standing, name), rare=True)
            for name, kind, about in (
                ("withdrawn_by", str | None, "the correction that withdraws it; null: none does"),
                ("taken_out", Count | None, f"accepted deliveries that do not count any more; {_NAMED}"),
                ("counted_duplicates", Count | None, f"duplicates that count; {_NAMED}"),
                ("moved", Count | None, f"deliveries that count at another time; {_NAMED}"),
            )
        ),
        Column("finished_at", Moment | None, get="batch.finished_at", detail=True),
        Column("attempts", int, "the number of processes that worked on it", get="batch.attempt", detail=True),
        Column("first_event", Instant | None, get="batch.first_event", detail=True),
        Column("last_event", Instant | None, get="batch.last_event", detail=True),
        Column("content", str, "the input: SHA-256 of a file, or `key:NAME`", get="batch.origin.content", detail=True),
        Column(
            "times_read",
            dict[str, int] | None,
            "as in `pik ingest`",
            get=lambda row: times_read(row.batch.times),
            detail=True,
        ),
        Column(
            "read_options",
            dict[str, str],
            "how it was read, as recorded: `timezone`, `time_format`, `map.FIELD` and others that change events",
            get=lambda row: dict(row.batch.origin.options),
            detail=True,
        ),
        Column("again", bool, "ingested with `--again`", get="batch.origin.again", detail=True),
        empty="no batch yet; to make one: pik ingest FILE",
    ),
    TRUNCATED,
    Field("read_with", str | None, "the options of a named batch, in words; null: none, or no batch was named"),
    Field(
        "batches_of_same_content",
        list[str] | None,
        "other batches of the same content as a named one that are not withdrawn, the newest first; null: none, or"
        " no batch was named",
    ),
    Field(
        "request",
        Object(
            Field("buffered_id", str),
            Field("read", Count, get="counts.read"),
            Field("accepted", Count, get="counts.accepted"),
            Field("exact", Count, get="counts.exact"),
            Field("conflict", Count, get="counts.conflict"),
            Field("rejected", Count, get="counts.rejected"),
            null=True,
        ),
        "of the buffered request by whose id the batch was named; null: by another one",
    ),
)

REJECTS = Schema(
    "pik batches --rejects",
    Field("batch_id", str),
    Field("source", str, get="origin.name"),
    Rows(
        "rejects",
        "in the order of the input",
        Column("seq", int, "the record's position in the input, 1-based"),
        Column(
            "file",
            str | None,
            "of a batch of several files (`--one-batch`): its file; of buffered requests: its request",
            get=or_null("file"),
            rare=True,
        ),
        Column("record", int | None, "its position in that file", get=or_null("record"), rare=True),
        Column("field", str | None, "the invalid field", detail=True),
        Column("reason", str, wrap=True),
        Column("line", str, "the record; bytes that are not UTF-8 are U+FFFD", cut=20),
        Column("base64", str | None, "the record's bytes, where they are not UTF-8", get="bytes", detail=True),
        empty="no record of this batch was rejected",
    ),
    Field("rejected", Count, "how many there are", get="counts.rejected"),
    TRUNCATED,
)

"""`pik init`, `pik status`, `pik batches`, `pik backup`, `pik restore`: the store and what it holds."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pik.cli import options
from pik.cli.command import PARTLY, cli_command
from pik.cli.commands.ingest.report import times_read
from pik.cli.context import Context
from pik.cli.document import TRUNCATED, Column, Field, Object, Rows, Schema, or_null
from pik.cli.options import argument, option
from pik.cli.values import Count, Instant, Moment, Shown, words
from pik.errors import NotFound, UsageError, command, number_of
from pik.model.instant import Window, display_instant

if TYPE_CHECKING:
    from pik.usecases.care.backup import BackupReport
    from pik.usecases.inspect.batch_standing import StandingBatch
    from pik.usecases.inspect.batches import Status as StoreStatus


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
    batch: Annotated[str | None, argument("[BATCH]", "Only this batch: id or its beginning, latest or -1, -2.")] = None,
    rejects: Annotated[bool, option("--rejects", "List the batch's rejected records.")] = False,
    limit: options.Limit = None,
) -> None:
    """List batches, newest first, or the rejected records of one.

    Counts are those of the verdicts at arrival. What corrections took away is shown beside them: which batches are
    withdrawn, and of a named one how many of its deliveries do not count, count as duplicates, or were moved.
    """
    from pik.ports.store import batch_of
    from pik.usecases.inspect.batch_standing import standing_batches
    from pik.usecases.inspect.batches import with_closing

    store = cli.open_store()
    batch = batch and cli.recent(store, "batch", batch)
    if rejects:
        from pik.usecases.inspect.batches import list_rejects

        if batch is None:
            raise UsageError(
                "--rejects needs a batch", hint="`pik batches` lists them; then: pik batches BATCH --rejects"
            )
        found = batch_of(store.index, batch)
        listed = islice(list_rejects(store, found), limit)
        cli.show(REJECTS, found, rejects=listed, truncated=limit is not None and found.counts.rejected > limit)
        return
    every = [batch_of(store.index, batch)] if batch else store.index.batches()
    rows = standing_batches(store, (with_closing(store, one) for one in every), in_full=batch is not None)
    shown, truncated = options.first_rows(rows, limit)
    # A damaged closing record leaves no half of what a limit made short.
    cli.show(BATCHES, batches=list(shown) if limit else shown, truncated=truncated)


_NAMED = "null: none, or the batch is not named"


def _of_standing(name: str, row: StandingBatch) -> object:
    return None if row.standing is None else getattr(row.standing, name) or None


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
        Column("again", bool, "ingested with `--again`", get="batch.origin.again", detail=True),
        empty="no batch yet; to make one: pik ingest FILE",
    ),
    TRUNCATED,
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
            "file", str | None, "of a batch of several files (`--one-batch`): its file", get=or_null("file"), rare=True
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

    The first ingest creates ./.pik. No other command creates a store that --store names, so that a misspelled name is
    an error.
    """
    place = cli.settings.default_store or cli.settings.store
    if place.startswith("aws://"):
        raise UsageError(f"{place} is a deployed stack", hint="sam deploy creates one (docs/deploy.md)")
    created = False
    try:
        store = cli.open_store(place)
    except NotFound:
        store, created = cli.open_store(place, create=True), True
    named = () if cli.settings.default_store else ("--store", place)
    line = command(*named, *(("ingest", "FILE") if created else ("status",)))
    cli.show(INIT, store, created=created, next=line)


INIT = Schema(
    "pik init",
    Field("store", str, "the directory", get="url"),
    Field("created", bool, "false if the store already existed; then nothing was changed"),
    Field("store_format", int, "the version of its layout", get="format_version"),
    Field("next", str),
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
    cli.show(STATUS if found.copy_of else STATUS.without("pulled"), found)


_MOST = 20
"""Sources that people are shown; programs get all."""


def _by_source(found: StoreStatus) -> Shown:
    most = {name: Count(n) for name, n in sorted(found.sources.items(), key=lambda item: -item[1])}
    text = words(dict(islice(most.items(), _MOST)))
    return Shown(most, f"{text}, and {len(most) - _MOST:,} more sources" if len(most) > _MOST else text)


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
    Field("raw_bytes", Count, "the size of raw", get="size"),
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


_NAMES = {
    "metric": "definition",
    "run": "run",
    "task": "task",
    "version": "version",
    "promotion": "promotion",
    "current": "current value",
    "letter": "dead letter",
    "republish": "republish",
    "refusal": "refusal",
}

_NewFile = Annotated[Path, argument("FILE", "The file to create.", show_default=False)]


@cli_command(
    "backup",
    examples="""
    # every night, while others write; back up raw by copying its files
    pik backup state-$(date +%F).backup

    # a stack
    pik --store aws://pik-prod backup pik-prod.backup
    """,
)
def backup(cli: Context, file: _NewFile) -> int | None:
    """Write the state to a new file: metric definitions, runs, aggregates, promotions, republishes.

    It contains no events: back up raw by copying its objects; the index can be rebuilt from raw. The file is created
    completely or not at all, and never overwritten. If damaged versions that are not current are left out, the exit
    code is 3.
    """
    from pik.usecases.care.backup import backup as write

    done = write(cli.open_store(), file, cli.progress)
    cli.show(BACKUP, done, outcome="backed up")
    return PARTLY if done.omitted else None


def _omitted(report: BackupReport) -> list[str]:
    return [
        f"version of {one.metric} of {one.entity} in {display_instant(one.bucket)} by run {one.run_id}"
        for one in report.omitted
    ]


def _holds(report: BackupReport) -> Shown:
    holds = {_NAMES[kind]: count for kind, count in report.rows.items()}
    text = ", ".join(number_of(count, name) for name, count in holds.items())
    return Shown(holds, text.replace("republishs", "republishes"))


BACKUP = Schema(
    "pik backup, pik restore",
    Field("file", str, get="path"),
    Field("outcome", str, "`backed up`, `restored`; `nothing, a dry run`"),
    Field("source", str, "the store that was backed up"),
    Field("made_at", Instant, "when"),
    Field("made_by", str, "by which program"),
    Field("bytes", Count, "of the file", get="size"),
    Field("digest", str, "SHA-256 of what it holds, as its seal has it"),
    Field("omitted_versions", list[str] | None, "damaged ones that are not current: not in the backup", get=_omitted),
    Field(
        "lacking", list[str] | None, "in files of `state/`, not in the backup; the files are now in `state/replaced/`"
    ),
    Field(
        "holds",
        dict[str, int],
        "by kind: `definition` (of metrics, each version), `run`, `task`, `version` (of aggregates), `promotion`"
        " (rollbacks too), `current value`, `dead letter` (purged ones too), `republish`, `refusal` (what a target did"
        " not take)",
        get=_holds,
    ),
)


_BackupFile = Annotated[Path, argument("FILE", "The backup.", show_default=False)]


@cli_command(
    "restore",
    examples="""
    # is the file complete, and what does it contain?
    pik restore state-2026-03-02.backup --dry-run

    # into a store whose state was lost, or into a new one, here or in AWS
    pik restore state-2026-03-02.backup
    """,
)
def restore(cli: Context, file: _BackupFile, dry_run: options.DryRun = False) -> int | None:
    """Restore a backup into a store without state. After an interruption, the same command continues.

    A store that has state is refused. The file is checked before anything is written, and the state afterwards.
    Definitions and promotions that the files in `state/` show to be newer than the backup are listed: exit code 3.
    """
    from pik.usecases.care.backup import restore as take

    done = take(cli.open_store(), file, cli.progress, dry_run=dry_run)
    cli.show(BACKUP, done, outcome="nothing, a dry run" if dry_run else "restored")
    return PARTLY if done.lacking else None

"""`pik ingest`: files and streams become batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pik.cli import options
from pik.cli.command import PARTLY, cli_command
from pik.cli.commands.ingest import report as report
from pik.cli.commands.ingest.dry_run import show_dry_run
from pik.cli.commands.ingest.guess import guess_mapping
from pik.cli.commands.ingest.on import expect_possible_on, reports_on
from pik.cli.commands.ingest.refusals import Refusals
from pik.cli.context import Context
from pik.cli.options import argument, option
from pik.cli.reading import ReadingOptions
from pik.errors import NotFound, PikError, UsageError, number_of
from pik.ports.fleet import LOCAL

if TYPE_CHECKING:
    from pik.inputs.source import Input, Source
    from pik.model.batch import Reject
    from pik.ports.store import Store
    from pik.rawlog.reading import Reading
    from pik.usecases.ingest.batch_ingest import IngestOptions, IngestReport
    from pik.usecases.ingest.via_api import SendReport


@cli_command(
    "ingest",
    examples="""
    # a file, a glob, a folder, an archive, objects in S3, standard input
    pik ingest events.jsonl 'archive/2026-01-*.jsonl.gz' logs/ export.tar.zst
    pik ingest 's3://archive/2026/01/*.jsonl.gz' --one-batch
    kcat … | pik ingest - --batch-key orders-2026-01-31

    # a file with other fields: a JMESPath expression for each
    pik ingest hooks.jsonl --map source="'github'" --map event_type=event \\
        --map entity_id=body.repository.full_name --map event_time=body.at \\
        --map payload=body --time-format auto

    # JSON inside a string of the record, as kcat -J prints it; docs/inputs.md lists the functions
    pik ingest messages.jsonl --map source=topic --map event_type="'order'" \\
        --map entity_id='lower(parse_json(payload).customer)' --map event_time=ts \\
        --map payload='parse_json(payload)' --time-format epoch_ms

    # records in a document, and a field of the document
    pik ingest logs.json --records 'logEvents[]' --map source="'app'" \\
        --map event_type="'log'" --map entity_id="parent('logGroup')" \\
        --map event_time=timestamp --map payload=@ --time-format epoch_ms

    # what a mapping could be; what an ingest would record
    pik ingest --guess orders.csv
    pik ingest events.jsonl --dry-run

    # records of a well-known producer: a shipped mapping, or one of pik.toml
    pik ingest trail.json.gz --mapping cloudtrail

    # an archive, read by a Spark cluster
    pik ingest 's3://archive/2026/**' --on spark://spark-master:7077

    # CSV, Parquet, logs, the output of kcat are records with other fields
    pik ingest orders.parquet --map source="'shop'" --map event_type="'order'" \\
        --map entity_id=customer --map event_time=ordered_at --map payload=@
    pik ingest app.log --pattern '(?P<at>\\S+) (?P<host>\\S+) (?P<text>.*)' \\
        --map source="'app'" --map event_type="'log'" --map entity_id=host \\
        --map event_time=at --map payload=@

    # through the stack's HTTP API instead of its storage
    pik ingest events.jsonl --via api --store aws://pik
    """,
)
def ingest(
    cli: Context,
    files: Annotated[list[str], argument("FILE…", "Files, folders, archives, s3:// objects, quoted globs, or -.")],
    reading_options: ReadingOptions,
    rejects: Annotated[
        Path | None, option("--rejects FILE", "Also write the rejected records to this new file.")
    ] = None,
    on_invalid: Annotated[
        Literal["reject", "stop"] | None,
        option(
            "--on-invalid ACTION",
            "Invalid records: reject (default) keeps them, with reasons; stop ends there. If reject is given, a file"
            " whose first records are all invalid is read, too.",
        ),
    ] = None,
    on_conflict: Annotated[
        Literal["record", "fail"],
        option("--on-conflict ACTION", "A known idempotency key with other content: record it, or fail."),
    ] = "record",
    again: Annotated[
        bool, option("--again", "Record content that was ingested before as one more delivery of each event.")
    ] = False,
    batch_key: Annotated[
        str | None, option("--batch-key NAME", "Name standard input, so that it can be resumed.")
    ] = None,
    one_batch: Annotated[
        bool, option("--one-batch", "Record all files as one batch; rejects and `pik show` name file and record.")
    ] = False,
    workers: Annotated[
        int | None, option("--workers N", "Processes that parse. [default: as many as processors]", min=1)
    ] = None,
    via: options.Via = None,
    on: options.On = LOCAL,
    dry_run: Annotated[
        bool, option("--dry-run", "Record nothing, and show what would be: events, duplicates, rejects, times.")
    ] = False,
    sample: Annotated[
        int | None,
        option("--sample N", "With --dry-run: show N events. [default: 3, of mapped records]", min=0, max=100),
    ] = None,
    guess: Annotated[
        bool, option("--guess", "Propose a mapping from some records of the first file, and record nothing.")
    ] = False,
) -> int | None:
    """Record every event of the files, each exactly once.

    After a crash or Ctrl-C, the same command continues where it stopped. If the content was ingested before, nothing
    is done, and the earlier batch is named. An event is a JSON object with source, event_type, entity_id, event_time,
    payload, and optionally idempotency_key and received_time.
    """
    from pik.runtime.parallel import processors
    from pik.usecases.ingest.batch_ingest import IngestOptions

    sources = sources_of(cli, files, batch_key, reading_options.max_window)
    if on != LOCAL:
        local = {"--guess": guess, "--dry-run": dry_run, "--one-batch": one_batch, "--via api": via is not None}
        expect_possible_on(cli, on, sources, local, workers)
    if guess:
        if "://" not in cli.settings.store:  # the command that is proposed looks there; a stack is not asked for it
            _existing_store(cli)
        return guess_mapping(cli, files, sources, reading_options)
    reading = reading_options.reading(cli, on_invalid=on_invalid)
    chosen = IngestOptions(
        reading,
        refuse_conflicts=on_conflict == "fail",
        again=again,
        batch_key=batch_key,
        workers=workers or processors(),
    )
    if sample is not None and not dry_run:
        raise UsageError("--sample shows events of a dry run", hint="add --dry-run")
    if rejects:
        from pik.runtime.new_file import expect_new

        expect_new(rejects, "--rejects")
    if via:
        _expect_possible(cli, chosen, one_batch=one_batch)
    inputs = [_one_batch(cli, sources, files)] if one_batch else sources
    if dry_run:
        return _check(cli, inputs, chosen, rejects, sample, via)
    if via:
        return _send(cli, inputs, reading, rejects)
    return _ingest(cli, inputs, chosen, rejects, on)


def _ingest(cli: Context, inputs: Sequence[Input], chosen: IngestOptions, rejects: Path | None, on: str) -> int | None:
    """Record the inputs, and show what became of each."""
    from pik.usecases.ingest.batch_ingest import Outcome
    from pik.usecases.inspect.batches import write_rejects

    store = _store(cli, inputs, chosen)
    interrupted = _interrupted(store, inputs)
    refusals = Refusals(cli.advice, stop=chosen.reading.stop)
    done = _record(cli, store, inputs, replace(chosen, actor=cli.actor(store)), refusals, on)
    for one in done:
        if one.outcome == Outcome.NEW and one.source in interrupted:
            cli.note(
                f"{one.source} is not what batch {interrupted[one.source]} began with: files were added, changed or"
                " removed; what that one recorded came as duplicates"
            )
    if rejects:
        write_rejects(store, [one.batch for one in done], rejects)
    report.show_ingested(cli, done, refusals.rows(), chosen.reading, partial(report.known_mapping, inputs))
    rejected = any(one.batch.counts.rejected for one in done if one.outcome != Outcome.ALREADY)
    return PARTLY if rejected or refusals.rows() else None


def _interrupted(store: Store, inputs: Sequence[Input]) -> dict[str, str]:
    """Return the interrupted batches among the newest by the names of their inputs, if several files are one input."""
    from pik.inputs.one_batch import OneBatch
    from pik.model.batch import BatchState

    if not any(isinstance(one, OneBatch) for one in inputs):
        return {}
    newest = islice(store.index.batches(), _NEWEST)
    return {one.origin.name: one.batch_id for one in newest if one.state == BatchState.INTERRUPTED}


_NOTED = 20
"""Inputs that are named one by one where the next one fails, or the command is interrupted: the last ones."""

_NEWEST = 100
"""Batches among which an interrupted one is looked for."""


def _check(
    cli: Context,
    inputs: Sequence[Input],
    chosen: IngestOptions,
    rejects: Path | None,
    sample: int | None,
    via: str | None,
) -> int | None:
    """Read the inputs, record nothing, and show what would be recorded."""
    from pik.inputs.archives import with_members
    from pik.usecases.ingest.dry_run import DryRun

    run = DryRun(None if via else _existing_store(cli), chosen, sample)
    refusals, whole = Refusals(cli.advice, stop=chosen.reading.stop), 0
    with _rejects_file(rejects) as write:
        for source in with_members(inputs, cli.note, refusals.add):
            with refusals.of(source.name):
                run.check(source, cli.progress, write)
                whole += 1
        checked = run.report()
        refusals.expect_some(whole + sum(one.cut for one in checked.inputs))
    show_dry_run(cli, checked, refusals.rows(), chosen, partial(report.known_mapping, inputs), via=via is not None)
    return PARTLY if checked.reasons or refusals.rows() else None


def _existing_store(cli: Context) -> Store | None:
    """Return the store; None if it is the default one, and absent. Raises NotFound for another that is absent."""
    try:
        return cli.open_store()
    except NotFound:
        if cli.settings.default_store is None:
            raise
        return None


def _store(cli: Context, inputs: Sequence[Input], chosen: IngestOptions) -> Store:
    """Open the store. The default one is created if it is absent, unless an input cannot be read."""
    try:
        return cli.open_store(cli.open_store().url, create=True)
    except NotFound:
        if cli.settings.default_store is None:
            raise
    _expect_readable(cli, inputs, chosen)
    store = cli.open_store(cli.settings.default_store, create=True)
    cli.note(f"created a store at {store.url}")
    return store


def _expect_readable(cli: Context, inputs: Sequence[Input], chosen: IngestOptions) -> None:
    """Raise InputError or UsageError where the beginning of no input can be read. Streams are left alone."""
    from pik.inputs.archives import with_members
    from pik.usecases.ingest.batch_ingest import probe

    refusals = Refusals(cli.advice, stop=chosen.reading.stop)
    if any(one.is_stream for one in inputs):
        return
    for source in with_members(inputs, lambda _: None, refusals.add):
        with refusals.of(source.name):
            probe(source, chosen)
            return
    refusals.expect_some(0)


def _record(
    cli: Context, store: Store, inputs: Sequence[Input], chosen: IngestOptions, refusals: Refusals, on: str
) -> list[IngestReport]:
    """Ingest one after the other; where one fails, report what became of those before it."""
    from pik.inputs.archives import with_members
    from pik.usecases.ingest.batch_ingest import PartlyRead
    from pik.usecases.ingest.many_inputs import ingest_all

    done: list[IngestReport] = []

    def refuse(name: str, error: PikError) -> None:
        if isinstance(error, PartlyRead):
            done.append(error.report)
        refusals.add(name, error)

    try:
        if on == LOCAL:
            reports = ingest_all(store, with_members(inputs, cli.note, refusals.add), chosen, cli.progress, refuse)
        else:
            reports = reports_on(cli, on, store, inputs, chosen, refuse)
        for one in reports:
            done.append(one)  # noqa: PERF402 - those before an error are reported
        refusals.expect_some(len(done))
    except BaseException:
        for one in done[-_NOTED:]:
            cli.note(f"{one.source}: {one.outcome}, batch {one.batch.batch_id}")
        if len(done) > _NOTED:
            cli.note(f"{number_of(len(done) - _NOTED, 'input')} before these: `pik batches`")
        raise
    return done


def sources_of(
    cli: Context, files: list[str], batch_key: str | None = None, max_window: int | None = None
) -> list[Source]:
    """Return the inputs that the arguments name. Raises UsageError, InputError."""
    from pik.inputs.paths import sources_of as named

    return named(files, cli.foreign, cli.note, batch_key=batch_key, max_window=max_window)


def _one_batch(cli: Context, sources: list[Source], files: list[str]) -> Input:
    """Return all inputs as one, which the arguments name. Its files are named without a folder or an archive that is
    the only argument. Raises UsageError."""
    from pik.inputs.one_batch import one_batch
    from pik.inputs.source import shown_name

    first, *others = map(shown_name, files)
    if others:
        return one_batch(sources, f"{first} and {len(others):,} more", "", cli.note)
    folder = first.rstrip("/") + "/" if os.path.isdir(files[0]) else f"{first}:"
    return one_batch(sources, first, folder, cli.note)


@contextmanager
def _rejects_file(path: Path | None) -> Iterator[Callable[[Reject], None]]:
    """Yield a function that writes rejected records to a new file, as they came, one per line; without a path nowhere.

    Raises UsageError, StoreError.
    """
    from pik.runtime.new_file import created_whole
    from pik.usecases.inspect.batches import record_bytes

    if path is None:
        yield lambda _: None
        return
    with created_whole(path, "--rejects") as file:

        def write(reject: Reject) -> None:
            file.write(record_bytes(reject) + b"\n")

        yield write


_SHOWN = 20
"""Rejected records of an input sent through the API that are shown: those that come first in it."""


def _expect_possible(cli: Context, chosen: IngestOptions, *, one_batch: bool) -> None:
    """Raises UsageError for an option that the API does not have."""
    from pik.model.event import MAX_LINE

    longest = chosen.reading.max_line != MAX_LINE
    batches = "each request is its own batch, and what comes again is recorded as a duplicate; leave it out"
    options.unknown_to_the_api(
        {
            "--batch-key": (chosen.batch_key is not None, batches),
            "--one-batch": (one_batch, batches),
            "--again": (chosen.again, batches),
            "--on-conflict fail": (chosen.refuse_conflicts, "the API records conflicts; the summary counts them"),
            "--max-line": (longest, f"the API takes records of {MAX_LINE} bytes; leave it out"),
            **options.no_actor(cli),
        }
    )


def _send(cli: Context, inputs: Sequence[Input], reading: Reading, path: Path | None) -> int | None:
    """Send the inputs, one after the other, until one fails; `path` is the new file for rejected records."""
    from pik.inputs.archives import with_members
    from pik.usecases.ingest.via_api import send as send_input

    api, refusals = cli.open_api(), Refusals(cli.advice, stop=reading.stop)
    done: list[tuple[SendReport, list[Reject]]] = []
    with _rejects_file(path) as write:
        for source in with_members(inputs, cli.note, refusals.add):
            first: list[Reject] = []

            def keep(reject: Reject, first: list[Reject] = first) -> None:
                write(reject)
                first.append(reject)
                first.sort(key=attrgetter("seq"))
                del first[_SHOWN:]

            with refusals.of(source.name):
                done.append((send_input(api, source, reading, cli.progress, keep), first))
            if done and done[-1][0].failure is not None:
                break
        refusals.expect_some(len(done))
    report.show_sent(cli, done, refusals.rows(), reading)
    return PARTLY if refusals.rows() or any(sent.failure or sent.counts.rejected for sent, _ in done) else None

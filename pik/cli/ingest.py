"""`pik ingest`: files and streams become batches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pik.cli import ingest_api, ingest_fields, ingest_inputs, options
from pik.cli.command import PARTLY, Commands
from pik.cli.context import Context
from pik.errors import NotFound

if TYPE_CHECKING:
    from pik.ports.store import Store
    from pik.usecases.ingest import Ingested, IngestOptions
    from pik.usecases.source import Source

commands = Commands()


@commands.add(
    "ingest",
    examples="""
    # a file, a glob, objects in S3, standard input; .gz and .zst of each; JSON lines or an array
    pik ingest events.jsonl 'archive/2026-01-*.jsonl.gz'
    pik ingest 's3://archive/2026/01/*.jsonl.gz'
    kafkacat … | pik ingest - --batch-key orders-2026-01-31

    # a foreign file: JMESPath says where each field is
    pik ingest hooks.jsonl --map source="'github'" --map event_type=event \\
        --map entity_id=body.repository.full_name --map event_time=body.at \\
        --map payload=body --time-format auto

    # through the stack's HTTP API instead of its storage
    pik ingest events.jsonl --via api --store aws://pik
    """,
)
def ingest(
    cli: Context,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE…", help="Files, s3:// objects, quoted globs, or - for standard input.")
    ],
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="FIELD=JMESPATH", help="Where a foreign record has this field (repeatable)."),
    ] = None,
    time_format: Annotated[
        str | None,
        typer.Option(
            "--time-format",
            metavar="FORMAT",
            help="rfc3339 (default), epoch, epoch_ms, epoch_us, epoch_ns, auto, or a strptime format.",
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            "--timezone", metavar="ZONE", help="The IANA time zone of times without an offset (Europe/Berlin, UTC)."
        ),
    ] = None,
    rejects: Annotated[
        Path | None,
        typer.Option("--rejects", metavar="FILE", help="Also write the rejected records to this new file."),
    ] = None,
    on_invalid: Annotated[
        Literal["reject", "stop"] | None,
        typer.Option(
            "--on-invalid",
            metavar="ACTION",
            help="stop: stop. reject (default): keep it apart and go on; given, even if --map fits no early record.",
        ),
    ] = None,
    on_conflict: Annotated[
        Literal["record", "fail"],
        typer.Option("--on-conflict", metavar="ACTION", help="An idempotency key with other content: record or fail."),
    ] = "record",
    again: Annotated[
        bool,
        typer.Option("--again", help="Record content that was ingested before as one more delivery of each event."),
    ] = False,
    batch_key: Annotated[
        str | None,
        typer.Option("--batch-key", metavar="NAME", help="Name standard input, so that it can be resumed."),
    ] = None,
    max_line: Annotated[
        int, typer.Option("--max-line", metavar="BYTES", min=1, help="Records longer than this are rejected.")
    ] = 1 << 20,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help="Processes that parse. [default: as many as processors]"),
    ] = None,
    via: options.Via = None,
    dry_run: options.DryRun = False,
) -> int | None:
    """Record every event of the files, each exactly once.

    Run again after a crash or Ctrl-C, it goes on where it stopped. The same content again is a no-op that names the
    earlier batch. An event is a JSON object with source, event_type, entity_id, event_time, payload, and optionally
    idempotency_key and received_time.
    """
    from pik.usecases.ingest import ALREADY, IngestOptions
    from pik.usecases.pool import processors

    sources = ingest_inputs.sources(cli, files, batch_key)
    reading = ingest_inputs.reading(cli, mapping, time_format, timezone, max_line, on_invalid)
    chosen = IngestOptions(
        reading,
        refuse_conflicts=on_conflict == "fail",
        again=again,
        batch_key=batch_key,
        workers=workers or processors(),
    )
    if rejects:
        ingest_inputs.expect_new(rejects)
    if via:
        ingest_api.expect_possible(chosen, max_line)
    if dry_run:
        return _check(cli, sources, chosen, rejects)
    if via:
        return ingest_api.send(cli, sources, reading, rejects)
    store = _store(cli, sources, chosen)
    done = _record(cli, store, sources, chosen)
    if rejects:
        from pik.usecases.batches import write_rejects

        write_rejects(store, [one.batch for one in done], rejects)
    cli.show(ingest_fields.ingested(done, mapped=reading.mapping is not None))
    return PARTLY if any(one.batch.counts.rejected for one in done if one.outcome != ALREADY) else None


def _check(cli: Context, sources: list[Source], chosen: IngestOptions, rejects: Path | None) -> int | None:
    """Read the inputs, record nothing, and show what would be recorded."""
    from pik.usecases.ingest import check

    with ingest_inputs.rejects_file(rejects) as write:
        checked = [check(source, chosen, cli.progress, write) for source in sources]
    cli.show(ingest_fields.checked(checked, mapped=chosen.reading.mapping is not None))
    return PARTLY if any(one.reasons for one in checked) else None


def _store(cli: Context, sources: list[Source], chosen: IngestOptions) -> Store:
    """Open the store. The default one is created if it is absent, unless an input cannot be read."""
    from pik.usecases.ingest import probe

    try:
        return cli.create_store(cli.open_store().url)
    except NotFound:
        if cli.settings.default_store is None:
            raise
    for source in sources:
        probe(source, chosen)
    store = cli.create_store(cli.settings.default_store)
    cli.note(f"created a store at {store.url}")
    return store


def _record(cli: Context, store: Store, sources: list[Source], chosen: IngestOptions) -> list[Ingested]:
    """Ingest one after the other; where one fails, tell what became of those before it."""
    from pik.usecases.ingest_many import ingest_all

    done: list[Ingested] = []
    try:
        for one in ingest_all(store, sources, chosen, cli.progress):
            done.append(one)  # noqa: PERF402 - those before an error are told of
    except BaseException:
        for one in done:
            cli.note(f"{one.source}: {one.outcome}, batch {one.batch.batch_id}")
        raise
    return done

"""`pik ingest`: files and streams become batches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pik.cli import options
from pik.cli.command import Commands
from pik.cli.commands.ingest import ingest_api, ingest_inputs, ingest_store
from pik.cli.context import Context

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
        typer.Option(
            "--map",
            metavar="FIELD=JMESPATH",
            help="Where a foreign record has this field (repeatable); payload=@ is all of it.",
        ),
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
    from pik.runtime.parallel import processors
    from pik.usecases.ingest.batch_ingest import IngestOptions

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
        return ingest_store.check(cli, sources, chosen, rejects)
    if via:
        return ingest_api.send(cli, sources, reading, rejects)
    return ingest_store.ingest(cli, sources, chosen, rejects)

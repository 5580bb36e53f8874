"""`pik export`: events as files that other tools open."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, cast

from pik.cli import options
from pik.cli.command import FOUND, cli_command
from pik.cli.commands.inspect.corrected import EFFECTS, effects_finder, effects_note, effects_of
from pik.cli.context import Context
from pik.cli.document import NOTE, Column, Field, Rows, Schema
from pik.cli.options import option
from pik.cli.values import Count, Instant
from pik.errors import StoreError, UsageError, number_of
from pik.model.visible import visible_lines
from pik.model.window import Window
from pik.ports.fleet import LOCAL


@cli_command(
    "export",
    examples="""
    # everything as one Parquet file, with events.parquet.manifest.json next to it
    pik export --out events.parquet

    # a data set that DuckDB, pyarrow and Athena read, with an extra column
    pik export --out events/ --partition-by event_date,source \\
        --column 'amount=amount:decimal(18,2)'

    # one customer's January as CSV, duplicates too
    pik export --out january.csv.gz --entity customer-17 --include-duplicates \\
        --from 2026-01-01 --to 2026-02-01

    # a year, by a Spark cluster whose machines have /shared
    pik export --out /shared/2026/ --partition-by event_date --from 2026-01-01 --on spark://master:7077
    """,
)
def export(
    cli: Context,
    out: Annotated[str, option("--out DIR|FILE", "What to write; must not exist. - is standard output.")],
    as_: Annotated[
        Literal["parquet", "jsonl", "csv"] | None,
        option("--as FORMAT", "parquet, jsonl or csv. Default: by the name of --out."),
    ] = None,
    partition_by: Annotated[
        str | None,
        option("--partition-by NAMES", "Directories NAME=VALUE: event_date (UTC, or --timezone), source, event_type."),
    ] = None,
    compression: Annotated[
        Literal["zstd", "snappy", "gzip", "none"] | None,
        option("--compression NAME", "zstd (default of Parquet), snappy, gzip or none."),
    ] = None,
    column: Annotated[
        list[str] | None,
        option(
            "--column NAME=JMESPATH:TYPE",
            "Also this part of the payload: string, int64, double, decimal(P,S), bool, timestamp (repeatable).",
        ),
    ] = None,
    microseconds: Annotated[
        bool,
        option(
            "--microseconds",
            "Times of Parquet in microseconds, exact or refused, as Spark needs them; ingest_time as text.",
        ),
    ] = False,
    include_duplicates: Annotated[
        bool,
        option("--include-duplicates", "Every delivery; the column delivery is accepted, exact or conflict."),
    ] = False,
    entity: options.Entities = None,
    *,
    period: options.WindowOptions,
    type_: options.Type = None,
    source: options.Source = None,
    as_received: options.AsReceived = False,
    fail_if_none: options.FailIfNone = False,
    dry_run: options.DryRun = False,
    on: options.On = LOCAL,
) -> int | None:
    """Write events to Parquet, JSON lines or CSV.

    A name with an extension is a file; a name without one, or that ends in /, is a directory. It appears when all of it
    is complete and on disk, with a manifest: query, rows, SHA-256 of each file. Numbers are exact; a value that its
    column cannot hold exactly is an error. Rows on standard output are written as they are read, without a manifest:
    they are complete only if the exit code is 0.

    What counts is written, at the times that recorded corrections give it: Parquet and CSV have the columns
    received_event_time and correction, a line of JSON has them where a correction concerns it. --as-received writes
    what came, without them.

    With --on, DIR is on a file system that all machines of the cluster share at that path: each task writes its own
    files, of about 128 MB of raw. With --partition-by a task has whole days, so that partitions are in few files.
    """
    from pik.model.calendar import CalendarBuckets
    from pik.model.delivery import Filter
    from pik.ports.exporter import Layout
    from pik.runtime import SILENT
    from pik.usecases.export.export import export as write
    from pik.usecases.export.fleet import export_on
    from pik.usecases.export.options import (
        STDOUT,
        checked_columns,
        chosen_format,
        expect_several_files,
        is_directory,
        partitions,
    )
    from pik.usecases.export.place import expect_new_target
    from pik.usecases.inspect.events import nothing_matches

    by = partitions(partition_by)
    target, directory = Path(out), is_directory(out, partitioned=bool(by))
    if on != LOCAL:
        expect_several_files(on, out, directory=directory)
    format_, packing = chosen_format(target, as_, compression, directory=directory)
    if microseconds and format_ != "parquet":
        raise UsageError(f"--microseconds is for Parquet; {format_} has times as text", hint="leave it out")
    layout = Layout(
        selection=Filter(period.window(), tuple(entity or ()), source, type_),
        format=format_,
        compression=packing,
        include_duplicates=include_duplicates,
        columns=checked_columns(column or ()),
        partition_by=by,
        microseconds=microseconds,
        as_received=as_received,
        days=CalendarBuckets("1d", period.timezone) if period.timezone else None,
    )
    store = cli.open_store()
    effects = effects_finder(cli, store, layout.selection, as_received=as_received)()
    if out == STDOUT and not dry_run:
        stream = _standard_output(packed=packing != "none")
        done = write(store, cli.exporters()(layout), stream, SILENT if sys.stdout.isatty() else cli.progress)
        cli.note(f"exported {number_of(done.rows, 'row')}")
        if effects:
            cli.note(effects_note(effects) or "")
    else:
        kind: dict[str, Any] = {"dry_run": dry_run, "even_empty": not fail_if_none, "effects": effects}
        if on == LOCAL:
            done = write(store, cli.exporters()(layout), target, cli.progress, directory=directory, **kind)
        else:
            expect_new_target(target.absolute(), directory=True)  # before a cluster is started
            done = export_on(cli.fleet(on, store), store, cli.exporters(), layout, target, cli.progress, **kind)
        given = {"format": format_, "entities": layout.selection.entities, "dry_run": dry_run or None}
        cli.show(EXPORT, done, **given, corrected=effects_of(effects), note=effects_note(effects))
    if done.rows:
        return None
    cli.note(nothing_matches("events", store, replace(layout.selection, window=done.window)))
    return FOUND if fail_if_none else None


EXPORT = Schema(
    "pik export",
    Field("dry_run", bool | None, "true, or null"),
    Field("out", str, get="target"),
    Field("format", str, "`parquet`, `jsonl`, `csv`"),
    Field("window", Window),
    Field("entities", list[str] | None),
    Field("known_until", Instant | None, "the latest time at which the index recorded a segment of the window's days"),
    Field("rows", Count),
    Field("bytes", Count | None, "null in a dry run", get=lambda done: None if done.manifest is None else done.size),
    Field(
        "manifest",
        str | None,
        "its path: `_manifest.json` in a directory, `NAME.manifest.json` next to a file; null in a dry run, and if"
        " `--fail-if-none` finds nothing",
    ),
    Rows(
        "files",
        "",
        Column("path", str, "relative to the manifest"),
        Column("rows", Count),
        Column("bytes", Count),
        Column("sha256", str, detail=True),
        empty=lambda done: "no files: " + ("a dry run" if done.rows else "nothing matches"),
    ),
    EFFECTS,
    NOTE,
)


def _standard_output(*, packed: bool) -> BinaryIO:
    """Standard output for the rows of an export. Raises UsageError for a terminal that would get compressed bytes,
    StoreError if it is closed."""
    if sys.stdout is None:
        raise StoreError("standard output is closed, so nothing can be exported to it")
    if not sys.stdout.isatty():
        return sys.stdout.buffer
    if packed:
        raise UsageError("compressed data is not written to a terminal", hint="pik export --out - … > FILE")
    return cast(BinaryIO, _Terminal())


class _Terminal:
    """Shows lines without obeying what is in them."""

    name = "<stdout>"

    def write(self, data: bytes) -> int:
        """Show the lines."""
        sys.stdout.write(visible_lines(data.decode(errors="backslashreplace")))
        return len(data)

    def flush(self) -> None:
        """Show what is waiting."""
        sys.stdout.flush()

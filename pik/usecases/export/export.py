"""Export: the deliveries of a window as files that other tools open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import time_ns
from typing import BinaryIO

import msgspec

from pik import __version__
from pik.inputs.source import shown_name
from pik.model.instant import format_instant
from pik.model.window import Window
from pik.ports.exporter import Exporter, Rows
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.runtime.progress import Progress
from pik.runtime.thread_map import in_threads
from pik.usecases.availability import expect_held
from pik.usecases.export.files import ExportedFile, Output
from pik.usecases.export.reading import Job, Reading, read_block
from pik.usecases.export.stream import StreamOutput

THREADS, FAR_THREADS = 1, 8
"""That cut rows out of raw, here and where each reading of raw waits for a network; the one that asked for the export
writes them. A second one here would wait for the interpreter's lock: measured, it costs a seventh of the time."""

AHEAD = 8
"""How many cuts may wait to be written: as many as are made while a row group is being compressed."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, or with `manifest` None would be. `size` in bytes; `known_until` is the latest time at which
    the index took a segment of the window's days, None if there is none. A stream is no `target`."""

    target: Path | None
    manifest: Path | None
    window: Window
    files: tuple[ExportedFile, ...]
    rows: int
    size: int
    known_until: int | None


def export(
    store: Store,
    exporter: Exporter,
    target: Path | BinaryIO,
    progress: Progress,
    *,
    directory: bool = False,
    dry_run: bool = False,
    even_empty: bool = True,
) -> Exported:
    """Write what the exporter's layout asks for, beside `target`, which appears when all is complete and on disk.

    A target that is open already is written to as rows come, and has no manifest. `directory`: `target` is one of
    files, else a single file with its manifest beside. A dry run does all but writing; without `even_empty` nothing is
    written where nothing matches. What killed exports have left beside it is removed. Raises UsageError if `target` or
    its manifest is there already (an empty directory aside), or appears meanwhile, or if a value does not fit its
    column, NotHeld, Damaged, StoreError; then nothing is left at `target`.
    """
    selection = exporter.layout.selection
    expect_held(store, selection.window, selection.entities)
    reading = Reading(store, selection.window, selection.entities, exporter.layout.include_duplicates)
    rows = 0
    with _output(exporter, target, directory=directory, dry_run=dry_run) as output:
        progress.start(f"exporting to {target.name}", None, "deliveries")
        try:
            threads = FAR_THREADS if store.deployed else THREADS
            for lines, groups in in_threads(partial(_cut, store.raw, exporter), reading.jobs(), threads, AHEAD):
                for key, found in groups:
                    rows += len(found)
                    output.write(key, found)
                progress.advance(lines)
        finally:
            progress.stop()
        files = output.finish()
        known_until = reading.known_until or None
        written = rows > 0 or even_empty
        manifest = output.publish(_manifest(store, exporter, files, known_until)) if written else None
    return Exported(
        target if isinstance(target, Path) else None,
        manifest,
        selection.window,
        files if written else (),
        rows,
        sum(file.bytes for file in files) if written else 0,
        known_until,
    )


def _output(exporter: Exporter, target: Path | BinaryIO, *, directory: bool, dry_run: bool) -> Output | StreamOutput:
    if isinstance(target, Path):
        return Output(target, exporter, directory=directory, dry_run=dry_run)
    return StreamOutput(target, exporter)


_Cut = tuple[int, list[tuple[tuple[str, ...], Rows]]]
"""How many lines were read, and the rows found among them."""


def _cut(raw: Raw, exporter: Exporter, job: Job) -> _Cut:
    block = read_block(raw, job)
    return len(block.ends), list(exporter.cut(block))


def _manifest(store: Store, exporter: Exporter, files: Sequence[ExportedFile], known_until: int | None) -> bytes:
    """docs/json.md describes it."""
    layout, wanted = exporter.layout, exporter.layout.selection
    content = {
        "pik": __version__,
        "store": shown_name(store.url),
        "store_format": store.format_version,
        "created_at": format_instant(time_ns()),
        "format": layout.format,
        "compression": layout.compression,
        "query": {
            "window": {"from": wanted.window.from_text, "to": wanted.window.to_text},
            "entities": wanted.entities,
            "source": wanted.source,
            "event_type": wanted.event_type,
            "include_duplicates": layout.include_duplicates,
            "columns": [
                {"name": column.name, "expression": column.expression, "type": column.type} for column in layout.columns
            ],
            "partition_by": layout.partition_by,
        },
        "known_until": format_instant(known_until) if known_until else None,
        "rows": sum(file.rows for file in files),
        "files": [msgspec.structs.replace(file, path=shown_name(file.path)) for file in files],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"

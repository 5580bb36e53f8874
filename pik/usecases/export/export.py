"""The export of a window on this machine."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pik.model.window import Window
from pik.ports.exporter import Exporter
from pik.ports.store import Store
from pik.rawlog.selection import AS_RECEIVED, NO_OVERRIDES, Selection
from pik.runtime import Progress, showing
from pik.usecases.availability import expect_held
from pik.usecases.export.manifest import manifest
from pik.usecases.export.outputs import FileOutput, StreamOutput
from pik.usecases.export.place import ExportedFile
from pik.usecases.export.rows import cut_rows
from pik.usecases.inspect.effects import Effects


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written, or with `manifest` None would be. `size` in bytes; `known_until` is the latest `recorded_at` of
    the segments of the window's days, None if there is none. A stream has no `target`."""

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
    effects: Effects | None = None,
) -> ExportReport:
    """Write what the exporter's layout selects to `target`, which appears when all of it is complete and on disk.

    `directory`: `target` becomes a directory of files, else a single file with its manifest beside it. A stream is
    written to as rows come, and has no manifest. A dry run does all but writing; without `even_empty` nothing is
    written where nothing matches. What killed exports have left beside the target is removed. The manifest has the
    `effects` of corrections.

    Raises UsageError if `target` or its manifest exists (an empty directory aside), or appears meanwhile, or if a value
    does not fit its column; NotHeld, Damaged, StoreError. Then nothing is left at `target`.
    """
    layout = exporter.layout
    window, entities = layout.selection.window, layout.selection.entities
    expect_held(store, window, entities)
    selection = Selection(store, window, entities, AS_RECEIVED if layout.as_received else NO_OVERRIDES)
    cut = cut_rows(selection, exporter)
    rows = 0
    opened: AbstractContextManager[FileOutput | StreamOutput]
    if isinstance(target, Path):
        opened = FileOutput(target, exporter, directory=directory, dry_run=dry_run)
    else:
        opened = nullcontext(StreamOutput(target, exporter))
    with opened as output:
        with showing(progress, f"exporting to {target.name}", None, "deliveries"):
            for block in cut:
                for key, found in block.groups:
                    rows += len(found)
                    output.write(key, found)
                progress.advance(block.lines)
        files = output.finish()
        known_until = cut.summary or None
        written = rows > 0 or even_empty
        path = output.publish(manifest(store, layout, files, known_until, effects)) if written else None
    return ExportReport(
        target if isinstance(target, Path) else None,
        path,
        window,
        files if written else (),
        rows,
        sum(file.bytes for file in files) if written else 0,
        known_until,
    )

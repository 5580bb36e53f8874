"""The export of a window on a fleet: each task writes the files of some days, and the manifest says which files count.

A task writes aside, and gives what is complete a name that says which task it is of and what it holds. An attempt that
is lost, or repeated, so leaves at most a file that nothing names, which is removed with the hidden directory.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from socket import gethostname
from typing import NamedTuple

from msgspec import structs

from pik.errors import StoreError
from pik.model.share import Share
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.exporter import Exporter, Layout
from pik.ports.fleet import Fleet
from pik.ports.store import Store
from pik.rawlog.selection import AS_RECEIVED, NO_OVERRIDES, Selection
from pik.runtime import Progress, showing
from pik.runtime.storage import sync_directory
from pik.usecases.availability import expect_held
from pik.usecases.export.export import ExportReport
from pik.usecases.export.manifest import manifest
from pik.usecases.export.parts import PartFile, PartWriter, writing_to
from pik.usecases.export.place import ExportedFile, ExportPlace
from pik.usecases.export.rows import cut_rows
from pik.usecases.inspect.effects import Effects

TASK_BYTES = 128 << 20
"""Stored raw that a task exports, about."""

PARTITIONED_BYTES = 1 << 30
"""Stored raw of a day, or of several days whose partitions have no date, that one task exports: it writes a file for
each partition, and small ones only where partitions are."""

ExporterOf = Callable[[Layout], Exporter]


def export_on(
    fleet: Fleet,
    store: Store,
    exporter_of: ExporterOf,
    layout: Layout,
    target: Path,
    progress: Progress,
    *,
    dry_run: bool = False,
    even_empty: bool = True,
    effects: Effects | None = None,
) -> ExportReport:
    """Write what the layout selects to a directory, as `export` does, in the files that the tasks of a fleet write.
    Files are numbered in the order of their days.

    Deliveries and corrections count as far as they are recorded when it starts. Raises as `export` does, and StoreError
    where a machine of the fleet does not have the target's directory.
    """
    window = layout.selection.window
    expect_held(store, window, layout.selection.entities)
    exporter = exporter_of(layout)
    with ExportPlace(target, layout.partition_by, directory=True, dry_run=dry_run) as place:
        overrides = AS_RECEIVED if layout.as_received else NO_OVERRIDES
        selection = Selection(store, window, layout.selection.entities, overrides).fixed()
        parts, known_until = _planned(selection, layout)
        export = _Export(layout, exporter_of, selection, place.target, None if dry_run else place.parts)
        files, rows = list[ExportedFile](), 0
        with showing(progress, f"exporting to {target.name}", None, "deliveries"):
            for done in fleet.map(partial(_export_part, export), parts):
                rows += done.rows
                for key in done.keys:
                    place.partition(key)  # which checks its name
                files += [place.take(file, _name(done.part, file, exporter)) for file in done.files]
                progress.advance(done.lines)
        if not files and not layout.partition_by and not dry_run:
            files = [place.take(file, _name(0, file, exporter)) for file in _without_rows(place, exporter)]
        files.sort(key=lambda file: file.path)
        written = rows > 0 or even_empty
        path = None
        if written and not dry_run:
            path = place.publish(manifest(store, layout, files, known_until, effects))
    of_report = tuple(files) if written else ()
    return ExportReport(target, path, window, of_report, rows, sum(file.bytes for file in of_report), known_until)


def _name(part: int, file: PartFile, exporter: Exporter) -> str:
    again = f"-{file.number}" if file.number else ""
    return f"part-{part:06}{again}{exporter.suffix}"


def _without_rows(place: ExportPlace, exporter: Exporter) -> list[PartFile]:
    with writing_to(place.target), PartWriter(place.parts, exporter) as writer:
        return writer.finish(even_empty=True)


# What is done with the window.


class ExportPart(NamedTuple):
    """What one task exports: a share of the segments of a part of the window."""

    number: int
    window: Window
    share: Share


def _planned(selection: Selection, layout: Layout) -> tuple[list[ExportPart], int | None]:
    """Return the parts, and the latest `recorded_at` of the segments that count (None: there are none)."""
    withdrawn = selection.corrected.withdrawn
    first, last = selection.window.days
    sizes, known_until = Counter[int](), 0
    for segment in selection.recorded_segments():
        if segment.batch_id not in withdrawn:
            known_until = max(known_until, segment.recorded_at)
        if first <= segment.day <= last:  # others are read where deliveries move to
            sizes[segment.day] += selection.size_of(segment)
    return list(cut_window(selection.window, sizes, layout.partition_by)), known_until or None


def cut_window(window: Window, sizes: Mapping[int, int], partition_by: Sequence[str]) -> Iterator[ExportPart]:
    """Yield the parts of a window, in order, given the bytes of raw by day. Together they are the whole
    window: deliveries may move to days without raw.

    Small days go together, a large one is shared. A partition should be in few files: the day of one that has a date is
    not shared before it is much larger, and others have many days.
    """
    has_dates = "event_date" in partition_by
    together = PARTITIONED_BYTES if partition_by and not has_dates else TASK_BYTES
    alone = PARTITIONED_BYTES if partition_by else TASK_BYTES
    groups: list[tuple[int, int]] = []  # the first day of each, and its shares
    held = 0
    for day, size in sorted(sizes.items()):
        shares = max(1, round(size / alone))
        if not groups or shares > 1 or groups[-1][1] > 1 or held + size > together:
            groups.append((day, shares))
            held = 0
        held += size
    starts = [window.start, *(Window.of_day(day).start for day, _ in groups[1:])]
    number = 0
    for start, end, shares in zip(starts, [*starts[1:], window.end], [one for _, one in groups] or [1], strict=True):
        for share in range(shares):
            yield ExportPart(number, Window(start, end), Share(share, shares))
            number += 1


# What a task does.


@dataclass(frozen=True, slots=True)
class _Export:
    """What is exported to `target`, by tasks that put complete files into `parts` (None: a dry run)."""

    layout: Layout
    exporter_of: ExporterOf
    selection: Selection
    target: Path
    parts: Path | None


class _Done(NamedTuple):
    """What a task has exported: lines that were read, rows and the partitions that have them, and the files."""

    part: int
    lines: int
    rows: int
    keys: Sequence[tuple[str, ...]]
    files: Sequence[PartFile]


def _export_part(export: _Export, _store: Store, _engine: Engine, part: ExportPart) -> Iterator[_Done]:
    wanted = replace(export.layout.selection, window=part.window)
    exporter = export.exporter_of(replace(export.layout, selection=wanted))
    selection = export.selection.within(part.window).sharing(part.share)
    lines, rows, keys = 0, 0, set[tuple[str, ...]]()
    with _attempt(export, part, exporter) as attempt:
        for block in cut_rows(selection, exporter):
            lines += block.lines
            for key, found in block.groups:
                rows += len(found)
                keys.add(key)
                if attempt is not None:
                    with writing_to(export.target):
                        attempt.writer.write(key, found)
        files = () if attempt is None else attempt.finish()
    yield _Done(part.number, lines, rows, sorted(keys), files)


class _Attempt(NamedTuple):
    """The files that a task writes aside, and the directory that complete ones go to."""

    export: _Export
    part: ExportPart
    aside: Path
    parts: Path
    writer: PartWriter

    def finish(self) -> Sequence[PartFile]:
        """Complete the files, and name them."""
        with writing_to(self.export.target):
            files = list(map(self._named, range(1 << 30), self.writer.finish(even_empty=False)))
            sync_directory(self.parts)
        return files

    def _named(self, number: int, file: PartFile) -> PartFile:
        name = f"{self.part.number}-{number}-{file.sha256}"
        (self.aside / file.name).rename(self.parts / name)  # over that of an attempt with the same result
        return structs.replace(file, name=name)


@contextmanager
def _attempt(export: _Export, part: ExportPart, exporter: Exporter) -> Iterator[_Attempt | None]:
    if export.parts is None:
        yield None
        return
    with writing_to(export.target):
        is_there = export.parts.is_dir()
    if not is_there:
        raise StoreError(
            f"{gethostname()} does not have the directory in which {export.target} is made: each machine of the cluster"
            " writes its files itself",
            hint="--out a directory on a file system that all of them share, or leave --on out",
        )
    with writing_to(export.target):
        aside = Path(tempfile.mkdtemp(prefix="aside-", dir=export.parts))
    try:
        with PartWriter(aside, exporter) as writer:
            yield _Attempt(export, part, aside, export.parts, writer)
    finally:
        shutil.rmtree(aside, ignore_errors=True)

"""Export: the deliveries of a window as files that other tools open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import time_ns

import msgspec

from pik import __version__
from pik.model.batch import Frame, Segment
from pik.model.instant import day_text, format_instant
from pik.model.window import Window
from pik.ports.exporter import Exporter, Piece, Rows
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.usecases.export_files import ExportedFile, Output
from pik.usecases.held import expect_held
from pik.usecases.progress import Progress
from pik.usecases.reading import frame_bytes, frame_text, frames_of, parse
from pik.usecases.threads import in_threads

THREADS = 2
"""That cut rows out of raw; the one that asked for the export writes them."""

FRAMES = 64
"""Frames of one day that are cut at once: about 6 MB of raw lines, where those are short."""

COMPRESSED = 1 << 20
"""Compressed bytes of frames after which no more are cut at once, where lines are long."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, or with `manifest` None would be. `size` in bytes; `known_until` is the latest time at which
    the index took a segment of the window's days, None if there is none."""

    target: Path
    manifest: Path | None
    window: Window
    files: tuple[ExportedFile, ...]
    rows: int
    size: int
    known_until: int | None


def export(
    store: Store, exporter: Exporter, target: Path, progress: Progress, *, directory: bool, dry_run: bool = False
) -> Exported:
    """Write what the exporter's layout asks for, beside `target`, which appears when all is complete and on disk.

    `directory`: `target` is one of files, else a single file with its manifest beside. A dry run does all but writing.
    What killed exports have left beside it is removed. Raises UsageError if `target` or its manifest is there already
    (an empty directory aside), or appears meanwhile, or if a value does not fit its column, NotHeld, Damaged,
    StoreError; then nothing is left at `target`.
    """
    selection = exporter.layout.selection
    expect_held(store, selection.window, selection.entities)
    reading = _Reading(store, selection.window, selection.entities, exporter.layout.include_duplicates)
    rows = 0
    with Output(target, exporter, directory=directory, dry_run=dry_run) as output:
        progress.start(f"exporting to {target.name}", None, "deliveries")
        try:
            for lines, groups in in_threads(partial(_cut, store.raw, exporter), reading.jobs(), THREADS):
                for key, found in groups:
                    rows += len(found)
                    output.write(key, found)
                progress.advance(lines)
        finally:
            progress.stop()
        files = output.finish()
        known_until = reading.known_until or None
        manifest = output.publish(_manifest(store, exporter, files, known_until))
    return Exported(target, manifest, selection.window, files, rows, sum(file.bytes for file in files), known_until)


@dataclass(frozen=True, slots=True)
class _Part:
    """Frames of a segment, next to each other where no entities were asked for, and the segment's duplicates."""

    segment: Segment
    frames: list[Frame]
    verdicts: dict[int, str]


_Job = list[_Part]
"""Parts of segments of one day."""


@dataclass(slots=True)
class _Reading:
    """What has to be read. `known_until` is final once the jobs are all asked for."""

    store: Store
    window: Window
    entities: tuple[str, ...]
    include_duplicates: bool
    known_until: int = 0

    def jobs(self) -> Iterator[_Job]:
        job: _Job = []
        frames = size = 0
        for whole in self._segments():
            for frame in whole.frames:
                full = frames >= FRAMES or size >= COMPRESSED
                if job and (full or job[0].segment.day != whole.segment.day):
                    yield job
                    job, frames, size = [], 0, 0
                if not job or job[-1].segment is not whole.segment:
                    job.append(_Part(whole.segment, [], whole.verdicts))
                job[-1].frames.append(frame)
                frames, size = frames + 1, size + frame.length
        if job:
            yield job

    def _segments(self) -> Iterator[_Part]:
        for segment in self.store.index.segments(self.window, entities=self.entities):
            self.known_until = max(self.known_until, segment.recorded_at)
            if segment.last_event < self.window.start or segment.first_event >= self.window.end:
                continue
            if frames := frames_of(segment, self.entities):
                verdicts = self.store.index.skipped(segment)
                if len(verdicts) < segment.deliveries or self.include_duplicates:
                    yield _Part(segment, frames, verdicts)


_Cut = tuple[int, list[tuple[tuple[str, ...], Rows]]]
"""How many lines were read, and the rows found among them."""


def _cut(raw: Raw, exporter: Exporter, job: _Job) -> _Cut:
    pieces = [_piece(raw, part) for part in job]
    return sum(piece.lines for piece in pieces), list(exporter.cut(day_text(job[0].segment.day), pieces))


def _piece(raw: Raw, part: _Part) -> Piece:
    lines = sum(frame.lines for frame in part.frames)
    return Piece(_text(raw, part), lines, part.verdicts, partial(parse, part.segment))


def _text(raw: Raw, part: _Part) -> bytes:
    """The lines of the frames. Frames without a gap between them are read at once."""
    segment, first, last = part.segment, part.frames[0], part.frames[-1]
    end = last.offset + last.length
    if segment.inline or sum(frame.length for frame in part.frames) < end - first.offset:
        read = [(frame, frame_bytes(raw, segment, frame)) for frame in part.frames]
        return b"".join([frame_text(segment, frame, data) for frame, data in read])
    whole = memoryview(raw.read(segment.key, first.offset, end - first.offset))
    places = [(frame, frame.offset - first.offset) for frame in part.frames]
    return b"".join([frame_text(segment, frame, whole[at : at + frame.length]) for frame, at in places])


def _manifest(store: Store, exporter: Exporter, files: Sequence[ExportedFile], known_until: int | None) -> bytes:
    """docs/json.md describes it."""
    layout, wanted = exporter.layout, exporter.layout.selection
    content = {
        "pik": __version__,
        "store": store.url,
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
        "files": files,
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"

"""Export: the deliveries of a window as files that other tools open."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, groupby, islice
from pathlib import Path
from time import time_ns
from typing import BinaryIO, Literal

import msgspec
import zstandard

from pik import __version__
from pik.errors import UsageError
from pik.inputs.source import shown_name
from pik.model.batch import Frame, Segment, Verdict
from pik.model.delivery import ExtractedColumn, parse_column
from pik.model.instant import Window, day_text, format_instant
from pik.ports.exporter import (
    COLUMNS,
    CORRECTED,
    DELIVERY,
    PARTITIONS,
    Block,
    Compression,
    Exporter,
    Format,
    Layout,
    Piece,
    Rows,
)
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.rawlog.objects import frame_text, parse, stored_frames
from pik.rawlog.selection import AS_RECEIVED, NO_OVERRIDES, Selection
from pik.runtime import Progress, showing
from pik.runtime.parallel import map_in_threads
from pik.usecases import Listing
from pik.usecases.availability import expect_held
from pik.usecases.export_files import ExportedFile, FileOutput, StreamOutput
from pik.usecases.inspect.effects import Effects

THREADS, REMOTE_THREADS = 1, 8
"""Threads that cut rows out of raw: in a local store, and where each read waits for a network. The calling thread
writes the rows. A second one would wait for the interpreter's lock: measured, it costs a seventh of the time."""

AHEAD = 8
"""Blocks of rows that may wait to be written: as many as are cut while a row group is being compressed."""

FRAMES = 32
"""Frames of one day that are read at once: about 3 MB of raw lines, where those are short."""

COMPRESSED = 1 << 20
"""Compressed bytes of frames after which no more are read at once, where lines are long."""


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
    is_corrected = selection.corrected.concerns(window, duplicates=layout.include_duplicates)
    jobs: Listing[Job | Block, int] = Listing(
        corrected_blocks(selection, layout) if is_corrected else _jobs(selection, layout.include_duplicates)
    )
    threads = REMOTE_THREADS if store.deployed else THREADS
    rows = 0
    opened: AbstractContextManager[FileOutput | StreamOutput]
    if isinstance(target, Path):
        opened = FileOutput(target, exporter, directory=directory, dry_run=dry_run)
    else:
        opened = nullcontext(StreamOutput(target, exporter))

    def cut(job: Job | Block) -> tuple[int, list[tuple[tuple[str, ...], Rows]]]:
        """Return how many lines were read, and the rows found among them, by partition."""
        block = job if isinstance(job, Block) else read_block(store.raw, job)
        return len(block.ends), list(exporter.cut(block))

    with opened as output:
        with showing(progress, f"exporting to {target.name}", None, "deliveries"):
            for lines, groups in map_in_threads(cut, jobs, threads, threads + AHEAD):
                for key, found in groups:
                    rows += len(found)
                    output.write(key, found)
                progress.advance(lines)
        files = output.finish()
        known_until = jobs.summary or None
        written = rows > 0 or even_empty
        manifest = output.publish(_manifest(store, exporter, files, known_until, effects)) if written else None
    return ExportReport(
        target if isinstance(target, Path) else None,
        manifest,
        window,
        files if written else (),
        rows,
        sum(file.bytes for file in files) if written else 0,
        known_until,
    )


def _manifest(
    store: Store,
    exporter: Exporter,
    files: Sequence[ExportedFile],
    known_until: int | None,
    effects: Effects | None,
) -> bytes:
    """Return the manifest, as docs/json.md describes it."""
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
            "as_received": layout.as_received,
            "columns": [
                {"name": column.name, "expression": column.expression, "type": column.type} for column in layout.columns
            ],
            "partition_by": layout.partition_by,
            "timezone": None if layout.days is None else layout.days.zone,
        },
        "known_until": format_instant(known_until) if known_until else None,
        "corrected": effects,
        "rows": sum(file.rows for file in files),
        "files": [msgspec.structs.replace(file, path=shown_name(file.path)) for file in files],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


_FORMATS: dict[str, Format] = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
_RESERVED = {*COLUMNS, DELIVERY, *CORRECTED, *PARTITIONS, "original", "payload_text"}


STDOUT = "-"


def is_directory(out: str, *, partitioned: bool) -> bool:
    """Return whether `out` names a directory: it is one, has no extension, or ends in /. Raises UsageError if it cannot
    be."""
    if out == STDOUT:
        if partitioned:
            raise UsageError("--partition-by makes a directory, and - is standard output", hint="--out DIR")
        return False
    if "://" in out:
        raise UsageError(f"{out}: files are written on this machine", hint=f"--out DIR; aws s3 sync DIR {out}")
    directory = out.endswith("/") or Path(out).is_dir() or not Path(out).suffix
    if partitioned and not directory:
        raise UsageError(f"--partition-by makes a directory, and {out} looks like a file", hint="--out DIR")
    return directory


def chosen_format(
    out: Path, format_: Format | None, compression: Compression | None, *, directory: bool
) -> tuple[Format, Compression]:
    """Return format and compression: as requested, else by the extension of the file. Raises UsageError where these
    differ, the extension is unknown, or the format cannot be compressed that way."""
    compressed = None if directory else _COMPRESSIONS.get(out.suffix)
    named = None if directory else _FORMATS.get(Path(out.stem).suffix if compressed else out.suffix)
    if format_ is None and named is None and not directory:
        raise UsageError(f"the name {out} does not tell the format", hint="add --as parquet, jsonl or csv")
    chosen = format_ or named or "parquet"
    if str(out) == STDOUT and chosen == "parquet":
        raise UsageError("Parquet is not written to standard output", hint="--as jsonl or csv, or --out FILE.parquet")
    if named not in (None, chosen):
        raise UsageError(f"--as {chosen} and the name {out} do not agree", hint="leave --as out, or name it otherwise")
    if compressed and (chosen == "parquet" or compression not in (None, compressed)):
        raise UsageError(
            f"the name {out} says {compressed}"
            + (f", --compression {compression}" if compression else " around Parquet"),
            hint="Parquet compresses inside: leave the ending out" if chosen == "parquet" else "leave one of them out",
        )
    if chosen != "parquet" and compression == "snappy":
        raise UsageError(f"{chosen} is not compressed with snappy", hint="--compression gzip, zstd or none")
    return chosen, compression or compressed or ("zstd" if chosen == "parquet" else "none")


def partitions(names: str | None) -> tuple[str, ...]:
    """Return the names in `--partition-by`. Raises UsageError."""
    chosen = tuple(name.strip() for name in names.split(",")) if names is not None else ()
    for name in chosen:
        if name not in PARTITIONS or chosen.count(name) > 1:
            raise UsageError(
                f"--partition-by {names}: {name!r} is not a partition column", hint=f"any of {', '.join(PARTITIONS)}"
            )
    return chosen


def checked_columns(texts: Iterable[str]) -> tuple[ExtractedColumn, ...]:
    """Return the columns of `--column`. Raises UsageError, also for a name that is used already, in whatever case."""
    columns: list[ExtractedColumn] = []
    taken = set(_RESERVED)
    for text in texts:
        column = parse_column(text)
        if column.name.lower() in taken:
            raise UsageError(f"--column {text}: there is a column {column.name} already", hint="name it otherwise")
        taken.add(column.name.lower())
        columns.append(column)
    return tuple(columns)


@dataclass(frozen=True, slots=True)
class SegmentPart:
    """Frames of a segment, adjacent unless entities were selected, and the verdicts of the segment's duplicates."""

    segment: Segment
    frames: list[Frame]
    verdicts: dict[int, Verdict]


Job = list[SegmentPart]
"""Parts of segments of one day that are read at once."""


def _jobs(selection: Selection, include_duplicates: bool) -> Generator[Job, None, int]:
    """Yield the jobs; return the latest `recorded_at` of the segments of the window's days (0: none)."""
    known_until = frames = size = 0
    job: Job = []
    for segment in selection.segments():
        known_until = max(known_until, segment.recorded_at)
        needed = selection.frames_in(segment)
        verdicts = selection.store.index.skipped(segment) if needed else {}
        if len(verdicts) >= segment.deliveries and not include_duplicates:
            continue
        for frame in needed:
            if job and (frames >= FRAMES or size >= COMPRESSED or job[0].segment.day != segment.day):
                yield job
                job, frames, size = [], 0, 0
            if not job or job[-1].segment is not segment:
                job.append(SegmentPart(segment, [], verdicts))
            job[-1].frames.append(frame)
            frames, size = frames + 1, size + frame.length
    if job:
        yield job
    return known_until


TOGETHER = 4096
"""Deliveries that are cut at once where corrections hold."""


def corrected_blocks(selection: Selection, layout: Layout) -> Generator[Block, None, int]:
    """Yield the lines of the deliveries that count, with duplicates of all, with the times that corrections give them;
    return the latest `recorded_at` of the segments of the window's days (0: none)."""
    only: Literal["accepted"] | None = None if layout.include_duplicates else "accepted"
    found = deliveries(selection.store, layout.selection, only=only)
    for day, of_day in groupby(found, key=lambda one: one.day):
        while some := list(islice(of_day, TOGETHER)):
            text, pieces = b"", list[Piece]()
            for key, together in groupby(some, key=lambda one: one.segment.key):
                lines = list(together)
                verdicts = {one.delivery.seq: one.kind for one in lines if layout.include_duplicates}
                marked = {seq: kind for seq, kind in verdicts.items() if kind != Verdict.ACCEPTED}
                corrected = {
                    one.delivery.seq: (one.received_event_time, ",".join(one.corrections))
                    for one in lines
                    if one.corrections
                }
                pieces.append(Piece(len(lines), marked, partial(parse, key), corrected))
                text += b"".join(one.corrected_line + b"\n" for one in lines)
            yield Block(day_text(day), text, _line_breaks(text, len(some)), pieces)
    return selection.known_until


def read_block(raw: Raw, job: Job) -> Block:
    """Return the lines of a job. Raises Damaged."""
    text, ends = _unpack(
        [(part.segment, *stored) for part in job for stored in stored_frames(raw, part.segment, part.frames)]
    )
    pieces = [
        Piece(sum(frame.lines for frame in part.frames), part.verdicts, partial(parse, part.segment.key))
        for part in job
    ]
    return Block(day_text(job[0].segment.day), text, ends, pieces)


_Stored = tuple[Segment, Frame, memoryview]
"""A frame as it is stored."""


def _unpack(stored: Sequence[_Stored]) -> tuple[bytes, array[int]]:
    """Return the lines of all frames, and the positions of their line breaks. Raises Damaged.

    Concatenated frames are unpacked as one, in half the time. The position of its last line break shows whether a frame
    holds the right number of lines.
    """
    try:
        borders = list(accumulate(zstandard.frame_content_size(data) for _, _, data in stored))
        compressed = b"".join([data for _, _, data in stored])
        text = zstandard.ZstdDecompressor().stream_reader(compressed, read_across_frames=True).read(borders[-1])
    except (zstandard.ZstdError, MemoryError, OverflowError, ValueError):  # a size may be what is damaged
        text, borders = b"", []
    counts = list(accumulate(frame.lines for _, frame, _ in stored))
    ends = _line_breaks(text, counts[-1])
    if [ends[count - 1] + 1 if count else 0 for count in counts] != borders:
        text = b"".join([frame_text(*one) for one in stored])  # names the damaged one
        ends = _line_breaks(text, counts[-1])
    return text, ends


def _line_breaks(text: bytes, count: int) -> array[int]:
    find, at = text.find, -1
    return array("q", [at := find(b"\n", at + 1) for _ in range(count)])

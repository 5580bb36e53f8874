"""Cutting the rows of an export out of raw, a block of lines at a time."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, groupby, islice
from typing import NamedTuple

import zstandard

from pik.model.batch import Frame, Segment, Verdict
from pik.model.instant import day_text
from pik.ports.exporter import Block, Exporter, Layout, Piece, Rows
from pik.ports.raw import Raw
from pik.rawlog.corrected_reader import corrected_deliveries
from pik.rawlog.objects import frame_text, parse, stored_frames
from pik.rawlog.selection import Bound, Selection
from pik.runtime import SILENT
from pik.runtime.parallel import map_in_threads
from pik.usecases import Listing

THREADS, REMOTE_THREADS = 1, 8
"""Threads that cut rows out of raw: in a local store, and where each read waits for a network. The calling thread
writes the rows. A second one would wait for the interpreter's lock: measured, it costs a seventh of the time."""

AHEAD = 8
"""Blocks of rows that may wait to be written: as many as are cut while a row group is being compressed."""

FRAMES = 32
"""Frames of one day that are read at once: about 3 MB of raw lines, where those are short."""

COMPRESSED = 1 << 20
"""Compressed bytes of frames after which no more are read at once, where lines are long."""


class CutBlock(NamedTuple):
    """How many lines were read, and the rows found among them, by partition."""

    lines: int
    groups: list[tuple[tuple[str, ...], Rows]]


def cut_rows(selection: Selection, exporter: Exporter) -> Listing[CutBlock, int]:
    """Cut what the exporter's layout selects, in the selection's window, out of raw, block by block; the summary is the
    latest `recorded_at` of the segments of the window's days (0: none). Raises as `Exporter.cut` does, and Damaged."""
    return Listing(_cut_rows(selection, exporter))


def _cut_rows(selection: Selection, exporter: Exporter) -> Generator[CutBlock, None, int]:
    store, layout = selection.store, exporter.layout
    is_corrected = selection.corrected.concerns(selection.window, duplicates=layout.include_duplicates)
    jobs: Listing[Job | Block, int] = Listing(
        _corrected_blocks(selection, layout) if is_corrected else _jobs(selection, layout.include_duplicates)
    )
    threads = REMOTE_THREADS if store.deployed else THREADS

    def cut(job: Job | Block) -> CutBlock:
        block = job if isinstance(job, Block) else read_block(store.raw, job)
        return CutBlock(len(block.ends), list(exporter.cut(block)))

    yield from map_in_threads(cut, jobs, threads, threads + AHEAD)
    return jobs.summary


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


def _corrected_blocks(selection: Selection, layout: Layout) -> Generator[Block, None, int]:
    """Yield the lines of the deliveries that count, with duplicates of all, with the times that corrections give them;
    return the latest `recorded_at` of the segments of the window's days (0: none)."""
    kinds = (Verdict.ACCEPTED, *((Verdict.EXACT, Verdict.CONFLICT) if layout.include_duplicates else ()))
    found = corrected_deliveries(selection, layout.selection, kinds, Bound(), SILENT)
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

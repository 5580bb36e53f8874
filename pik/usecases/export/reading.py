"""What an export reads: the frames of a window, day by day, as blocks of lines."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import zstandard

from pik.model.batch import Frame, Segment
from pik.model.instant import day_text
from pik.model.window import Window
from pik.ports.exporter import Block, Piece
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.frames import frame_bytes, frame_text, frames_of, parse

FRAMES = 32
"""Frames of one day that are read at once: about 3 MB of raw lines, where those are short."""

COMPRESSED = 1 << 20
"""Compressed bytes of frames after which no more are read at once, where lines are long."""


@dataclass(frozen=True, slots=True)
class Part:
    """Frames of a segment, next to each other where no entities were asked for, and the segment's duplicates."""

    segment: Segment
    frames: list[Frame]
    verdicts: dict[int, str]


Job = list[Part]
"""Parts of segments of one day."""


@dataclass(slots=True)
class Reading:
    """What has to be read. `known_until` is final once the jobs are all asked for."""

    store: Store
    window: Window
    entities: tuple[str, ...]
    include_duplicates: bool
    known_until: int = 0

    def jobs(self) -> Iterator[Job]:
        """What is read at once."""
        job: Job = []
        frames = size = 0
        for whole in self._segments():
            for frame in whole.frames:
                full = frames >= FRAMES or size >= COMPRESSED
                if job and (full or job[0].segment.day != whole.segment.day):
                    yield job
                    job, frames, size = [], 0, 0
                if not job or job[-1].segment is not whole.segment:
                    job.append(Part(whole.segment, [], whole.verdicts))
                job[-1].frames.append(frame)
                frames, size = frames + 1, size + frame.length
        if job:
            yield job

    def _segments(self) -> Iterator[Part]:
        for segment in self.store.index.segments(self.window, entities=self.entities):
            self.known_until = max(self.known_until, segment.recorded_at)
            if segment.last_event < self.window.start or segment.first_event >= self.window.end:
                continue
            if frames := frames_of(segment, self.entities):
                verdicts = self.store.index.skipped(segment)
                if len(verdicts) < segment.deliveries or self.include_duplicates:
                    yield Part(segment, frames, verdicts)


def read_block(raw: Raw, job: Job) -> Block:
    """The lines of a job. Raises Damaged."""
    text, ends = _unpack([stored for part in job for stored in _stored(raw, part)])
    pieces = [
        Piece(sum(frame.lines for frame in part.frames), part.verdicts, partial(parse, part.segment)) for part in job
    ]
    return Block(day_text(job[0].segment.day), text, ends, pieces)


_Stored = tuple[Segment, Frame, memoryview]
"""A frame as it is stored."""


def _stored(raw: Raw, part: Part) -> Iterator[_Stored]:
    """The frames of a part. Those without a gap between them are read at once."""
    segment, frames = part.segment, part.frames
    begin, end = frames[0].offset, frames[-1].offset + frames[-1].length
    if segment.inline or sum(frame.length for frame in frames) < end - begin:
        for frame in frames:
            yield segment, frame, memoryview(frame_bytes(raw, segment, frame))
        return
    whole = memoryview(raw.read(segment.key, begin, end - begin))
    for frame in frames:
        yield segment, frame, whole[frame.offset - begin :][: frame.length]


def _unpack(stored: Sequence[_Stored]) -> tuple[bytes, array[int]]:
    """The lines of all frames, and the places of their line breaks. Raises Damaged.

    Frames one after the other are unpacked as one, in half the time. That each holds the lines that it should shows
    in where its last line break is.
    """
    try:
        borders = list(accumulate(zstandard.frame_content_size(data) for _, _, data in stored))
        packed = b"".join([data for _, _, data in stored])
        text = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True).read(borders[-1])
    except (zstandard.ZstdError, MemoryError, OverflowError, ValueError):  # a size may be what is damaged
        text, borders = b"", []
    counts = list(accumulate(frame.lines for _, frame, _ in stored))
    ends = _line_breaks(text, counts[-1])
    if [ends[count - 1] + 1 for count in counts] != borders:
        text = b"".join([frame_text(*one) for one in stored])  # tells which of them is damaged
        ends = _line_breaks(text, counts[-1])
    return text, ends


def _line_breaks(text: bytes, count: int) -> array[int]:
    find, at = text.find, -1
    return array("q", [at := find(b"\n", at + 1) for _ in range(count)])

"""Reading raw: lines of frames, and the deliveries of a window. Damage raises; it never shortens an answer."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import zstandard

from pik.errors import Damaged, Invalid
from pik.model.batch import Frame, Segment, Verdict
from pik.model.delivery import Delivery, Filter, entity_mark, event_id_text, event_time_text, read_delivery
from pik.model.instant import full_instant
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.runtime.interaction import SILENT, Progress


def damaged(key: str, what: str) -> Damaged:
    """The error for raw that is not what was written."""
    return Damaged(f"raw object {key} is damaged: {what}", hint="what is affected: pik verify --full")


def frame_lines(raw: Raw, segment: Segment, frame: Frame) -> list[bytes]:
    """The lines of one frame. Raises Damaged."""
    return unpack_frame(segment, frame, frame_bytes(raw, segment, frame))


def frame_bytes(raw: Raw, segment: Segment, frame: Frame) -> bytes:
    """A frame as it is stored. Raises Damaged."""
    return part_bytes(raw, segment, frame.offset, frame.offset + frame.length)


def part_bytes(raw: Raw, segment: Segment, begin: int, end: int) -> bytes:
    """The bytes of a segment from `begin` to `end`. Raises Damaged."""
    return segment.inline[begin:end] if segment.inline else raw.read(segment.key, begin, end - begin)


def unpack_frame(segment: Segment, frame: Frame, data: bytes) -> list[bytes]:
    """The lines in a frame's bytes. Raises Damaged."""
    return frame_text(segment, frame, data)[:-1].split(b"\n")


def frame_text(segment: Segment, frame: Frame, data: bytes | memoryview) -> bytes:
    """The lines in a frame's bytes, each with its line break. Raises Damaged."""
    try:
        text = zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise damaged(segment.key, f"the frame at byte {frame.offset} does not decompress ({error})") from None
    except MemoryError:  # as much as its header says that it needs
        raise damaged(segment.key, f"the frame at byte {frame.offset} does not have the size that it says") from None
    if text[-1:] != b"\n" or text.count(b"\n") != frame.lines:
        raise damaged(segment.key, f"the frame at byte {frame.offset} does not hold {frame.lines} lines")
    return text


def unpacked(key: str, data: bytes) -> list[bytes]:
    """The lines of a whole small object. Raises Damaged."""
    try:
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            return reader.read().splitlines()
    except zstandard.ZstdError as error:
        raise damaged(key, str(error)) from None


def parse(segment: Segment, line: bytes) -> Delivery:
    """A raw line as a Delivery. Raises Damaged, naming the segment."""
    try:
        return read_delivery(line)
    except Invalid as error:
        raise damaged(segment.key, error.message) from None


def frames_of(segment: Segment, entities: Sequence[str]) -> list[Frame]:
    """The frames that may hold deliveries of these entities (of any, where there are none given)."""
    if not entities:
        return list(segment.frames)
    # Text compares by code point, which is the order of UTF-8 bytes, and so that of the segment.
    return [frame for frame in segment.frames if any(frame.first <= entity <= frame.last for entity in entities)]


@dataclass(frozen=True, slots=True)
class Found:
    """A delivery read back, what the index says of it (accepted, exact or conflict), and where it is."""

    delivery: Delivery
    kind: str
    segment: Segment
    line: bytes


@dataclass(slots=True)
class Bound:
    """An event's time and id; the reader that sets it needs no delivery of that day that comes after these."""

    day: int | None = None
    instant: int = 0
    texts: tuple[bytes, bytes] = (b"", b"")

    def lower(self, day: int, instant: int, event_id: str) -> None:
        """From now on this is the bound."""
        self.day, self.instant = day, instant
        self.texts = full_instant(instant).encode(), event_id.encode()

    def excludes(self, segment: Segment) -> bool:
        """Whether no delivery of the segment is needed."""
        return self.day == segment.day and segment.first_event > self.instant


_NONE = Bound()


def deliveries(
    store: Store,
    wanted: Filter,
    *,
    only: str | None = None,
    progress: Progress = SILENT,
    bound: Bound | None = None,
) -> Generator[Found, None, None]:
    """The deliveries asked for, day by day and within a day in no particular order; `only` limits to accepted ones or,
    with "duplicate", the others. Those that come after what `bound` says at the time may be left out."""
    progress.start("reading raw", None, "deliveries")
    try:
        for segment in store.index.segments(wanted.window, entities=wanted.entities):
            if segment.last_event < wanted.window.start or segment.first_event >= wanted.window.end:
                continue
            if bound is not None and bound.excludes(segment):
                continue
            frames = frames_of(segment, wanted.entities)
            verdicts = store.index.skipped(segment) if frames else {}
            if only == "duplicate" and not verdicts:
                continue
            for frame in frames:
                yield from _of_frame(store.raw, segment, frame, wanted, verdicts, only, bound or _NONE)
                progress.advance(frame.lines)
    finally:
        progress.stop()


def _of_frame(
    raw: Raw,
    segment: Segment,
    frame: Frame,
    wanted: Filter,
    verdicts: dict[int, Verdict],
    only: str | None,
    bound: Bound,
) -> Iterator[Found]:
    marks = [entity_mark(entity) for entity in wanted.entities[:8]] if len(wanted.entities) <= 8 else []
    accepted, unrecorded = Verdict.ACCEPTED, Verdict.UNRECORDED  # members are slow to look up
    for line in frame_lines(raw, segment, frame):
        if marks and not any(mark in line for mark in marks):
            continue
        if bound.day == segment.day and (event_time_text(line), event_id_text(line)) > bound.texts:
            continue
        delivery = parse(segment, line)
        kind = verdicts.get(delivery.seq, accepted)
        if kind == unrecorded:
            continue
        if (only is None or (kind == accepted) == (only == accepted)) and wanted.matches(delivery):
            yield Found(delivery, kind, segment, line)

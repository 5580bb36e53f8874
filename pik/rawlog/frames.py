"""Frames: bytes of raw to lines and deliveries. Damage raises; it never shortens an answer."""

from __future__ import annotations

from collections.abc import Sequence

import zstandard

from pik.errors import Damaged, Invalid
from pik.model.batch import Frame, Segment
from pik.model.delivery import Delivery, read_delivery
from pik.ports.raw import Raw


def damaged(key: str, what: str) -> Damaged:
    """Return the error for raw that is not what was written."""
    return Damaged(f"raw object {key} is damaged: {what}", hint="what is affected: pik verify --full")


def frames_of(segment: Segment, entities: Sequence[str]) -> list[Frame]:
    """Return the frames that may hold deliveries of these entities (none given: of any)."""
    if not entities:
        return list(segment.frames)
    # Text compares by code point, which is the order of UTF-8 bytes, and so that of the segment.
    return [frame for frame in segment.frames if any(frame.first <= entity <= frame.last for entity in entities)]


def frame_lines(raw: Raw, segment: Segment, frame: Frame) -> list[bytes]:
    """Return the lines of one frame. Raises Damaged."""
    return unpack_frame(segment, frame, frame_bytes(raw, segment, frame))


def frame_bytes(raw: Raw, segment: Segment, frame: Frame) -> bytes:
    """Return a frame as it is stored. Raises Damaged."""
    return part_bytes(raw, segment, frame.offset, frame.offset + frame.length)


def part_bytes(raw: Raw, segment: Segment, begin: int, end: int) -> bytes:
    """Return the bytes of a segment from `begin` to `end`. Raises Damaged."""
    return segment.inline[begin:end] if segment.inline else raw.read(segment.key, begin, end - begin)


def unpack_frame(segment: Segment, frame: Frame, data: bytes) -> list[bytes]:
    """Return the lines in a frame's bytes. Raises Damaged."""
    return frame_text(segment, frame, data)[:-1].split(b"\n")


def frame_text(segment: Segment, frame: Frame, data: bytes | memoryview) -> bytes:
    """Return the lines in a frame's bytes, each with its line break. Raises Damaged."""
    try:
        text = zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise damaged(segment.key, f"the frame at byte {frame.offset} does not decompress ({error})") from None
    except MemoryError:  # as much as its header asks for
        raise damaged(segment.key, f"the frame at byte {frame.offset} does not have the size in its header") from None
    if text[-1:] != b"\n" or text.count(b"\n") != frame.lines:
        raise damaged(segment.key, f"the frame at byte {frame.offset} does not hold {frame.lines} lines")
    return text


def unpacked(key: str, data: bytes) -> list[bytes]:
    """Return the lines of a whole small object. Raises Damaged."""
    text = b""
    while data:
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        try:
            text += decompressor.decompress(data)
        except zstandard.ZstdError as error:
            raise damaged(key, str(error)) from None
        if not decompressor.eof:  # its checksum may be all that is missing
            raise damaged(key, "its last frame is cut")
        data = decompressor.unused_data
    return text.splitlines()


def parse(segment: Segment, line: bytes) -> Delivery:
    """Return a raw line as a Delivery. Raises Damaged, naming the segment."""
    try:
        return read_delivery(line)
    except Invalid as error:
        raise damaged(segment.key, error.message) from None

"""Reading a whole segment from its bytes alone: what the index would hold if it were recorded now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import zstandard
from msgspec import structs

from pik.errors import Damaged
from pik.model.batch import KEYED, PLAIN, Arrivals, Frame, Segment, frame_of
from pik.model.delivery import Delivery
from pik.model.instant import DAY, parse_instant
from pik.ports.raw import ObjectReader, Raw, RawKey
from pik.rawlog.objects import damaged, parse, unpack_frame

_MAGIC = bytes.fromhex("28b52ffd")
"""Begins a zstd frame."""

UNKNOWN_DIGEST = "0" * 64
"""The digest of a damaged segment whose digest is unknown: no object has it, so verify finds it modified."""


def scan_segment(raw: ObjectReader, key: str, each: Callable[[Delivery], object] = lambda _: None) -> Arrivals:
    """Return the segment under this key and its deliveries, all read from its bytes, each given to `each` as well.
    Raises Damaged if they are not a segment.

    Memory: one segment.
    """
    rows = _Rows(key, each)
    data = raw.read(key)
    offset = 0
    frames: list[Frame] = []
    while offset < len(data):
        lines, length = _frame(key, data, offset)
        entities = rows.take(lines, len(frames))
        frames.append(frame_of(offset, length, entities))
        offset += length
    return rows.arrivals(frames, len(data), sha256(data).hexdigest())


@dataclass(frozen=True, slots=True)
class Salvage:
    """What can be read of a damaged segment: the deliveries in the frames that are whole. `lost` are the numbers of the
    others. The segment has all frames, so that reading a damaged one raises."""

    arrivals: Arrivals
    lost: tuple[int, ...]


def salvage_known(raw: Raw, segment: Segment) -> Salvage:
    """Return the whole frames of a segment whose frames are known; none, where the object is not there."""
    rows = _Rows(segment.key)
    lost: list[int] = []
    try:
        data = raw.read(segment.key)
    except Damaged:
        data = b""
    for number, frame in enumerate(segment.frames):
        try:
            rows.take(unpack_frame(segment, frame, data[frame.offset : frame.offset + frame.length]), number)
        except Damaged:
            lost.append(number)
    return Salvage(rows.packed(segment), tuple(lost))


def salvage_unknown(raw: Raw, key: str) -> Salvage:
    """Return the whole frames of a damaged segment of which nothing else is known. Raises Damaged if there is none."""
    rows = _Rows(key)
    data = raw.read(key)
    frames: list[Frame] = []
    lost: list[int] = []
    offset = 0
    while offset < len(data):
        try:
            lines, length = _frame(key, data, offset)
            entities = rows.take(lines, len(frames))
        except Damaged:
            following = _next_frame(key, data, offset + 1)
            lost.append(len(frames))
            frames.append(Frame(offset, following - offset, 0, frames[-1].last if frames else "", ""))
            offset = following
            continue
        frames.append(frame_of(offset, length, entities))
        offset += length
    for number in lost:
        entity = next((frame.first for frame in frames[number + 1 :] if frame.lines), "\U0010ffff")
        frames[number] = structs.replace(frames[number], last=entity)
    return Salvage(rows.arrivals(frames, len(data), UNKNOWN_DIGEST), tuple(lost))


def salvage(raw: Raw, segment: Segment) -> Arrivals:
    """Return those deliveries of a segment that can be read: all, or the ones in its whole frames."""
    try:
        return scan_segment(raw, segment.key)
    except Damaged:
        return salvage_known(raw, segment).arrivals


def _next_frame(key: str, data: bytes, start: int) -> int:
    """Return where the next whole frame begins, or the end."""
    while (offset := data.find(_MAGIC, start)) >= 0:
        try:
            _frame(key, data, offset)
        except Damaged:
            start = offset + 1
        else:
            return offset
    return len(data)


class _Rows:
    """Collects the deliveries of a segment, a frame at a time. Raises Damaged unless the key is that of a segment."""

    def __init__(self, key: str, each: Callable[[Delivery], object] = lambda _: None) -> None:
        parsed = RawKey.parse(key)
        if parsed is None or parsed.day is None:
            raise damaged(key, "its name is not that of a segment")
        self.key, self.batch_id, self.day, self.each = key, parsed.id, parsed.day, each
        self.plain: list[bytes] = []
        self.keyed: list[bytes] = []
        self.entity_of: dict[int, str] = {}
        self.times: list[int] = []
        self.ingest_times: set[str] = set()

    def take(self, lines: Sequence[bytes], number: int) -> list[str]:
        """Add the deliveries of a frame, all of them or none, and return their entities. Raises Damaged."""
        deliveries = [self._checked(line) for line in lines]
        for delivery in deliveries:
            self.each(delivery)
            event_id = bytes.fromhex(delivery.event_id)
            if delivery.idempotency_key is None:
                self.plain.append(PLAIN.pack(event_id, delivery.seq, number))
            else:
                self.keyed.append(KEYED.pack(delivery.seq, event_id, bytes.fromhex(delivery.content_hash), number))
            self.entity_of[delivery.seq] = delivery.entity_id
            self.times.append(delivery.event_instant)
            self.ingest_times.add(delivery.ingest_time)
        return [delivery.entity_id for delivery in deliveries]

    def _checked(self, line: bytes) -> Delivery:
        delivery = parse(self.key, line)
        if delivery.batch_id != self.batch_id or delivery.event_instant // DAY != self.day:
            raise damaged(self.key, f"delivery {delivery.seq} does not belong there")
        return delivery

    def arrivals(self, frames: Sequence[Frame], size: int, digest: str) -> Arrivals:
        """Return the deliveries as a segment with these frames. Raises Damaged unless they have one ingest_time."""
        if len(self.ingest_times) != 1:
            raise damaged(self.key, "its deliveries do not have one ingest_time")
        segment = Segment(
            key=self.key,
            batch_id=self.batch_id,
            day=self.day,
            size=size,
            digest=digest,
            deliveries=len(self.times),
            ingest_time=parse_instant(next(iter(self.ingest_times))),
            first_event=min(self.times),
            last_event=max(self.times),
            frames=tuple(frames),
        )
        return self.packed(segment)

    def packed(self, segment: Segment) -> Arrivals:
        """Return the deliveries as those of this segment."""
        in_order = "\n".join(self.entity_of[seq] for seq in sorted(self.entity_of))
        return Arrivals(segment, b"".join(sorted(self.plain)), b"".join(sorted(self.keyed)), in_order)


def merged(some: Arrivals, others: Arrivals) -> Arrivals:
    """Return the deliveries of both, which are of one segment and none in common."""
    entities = dict(_entities(some)) | dict(_entities(others))
    plain = sorted(row for each in (some, others) for row in _cut(each.plain, PLAIN.size))
    keyed = sorted(row for each in (some, others) for row in _cut(each.keyed, KEYED.size))
    in_order = "\n".join(entities[seq] for seq in sorted(entities))
    return Arrivals(some.segment, b"".join(plain), b"".join(keyed), in_order)


def _entities(arrivals: Arrivals) -> Iterator[tuple[int, str]]:
    found = sorted(seqs(arrivals))
    return zip(found, arrivals.entities.split("\n"), strict=True) if found else iter(())


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def _frame(key: str, data: bytes, offset: int) -> tuple[list[bytes], int]:
    """Return the lines of the frame at `offset`, and its compressed length."""
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    try:
        text = decompressor.decompress(memoryview(data)[offset:])
    except zstandard.ZstdError as error:
        raise damaged(key, f"the frame at byte {offset} does not decompress ({error})") from None
    lines = text.split(b"\n")
    if not decompressor.eof or lines.pop() or not lines:
        raise damaged(key, f"the frame at byte {offset} is cut")
    return lines, len(data) - offset - len(decompressor.unused_data)


def seqs(arrivals: Arrivals) -> set[int]:
    """Return the seqs of a segment's deliveries."""
    return {seq for seq, _ in ids_of(arrivals)}


def ids_of(arrivals: Arrivals) -> Iterator[tuple[int, bytes]]:
    """Yield seq and event_id of each delivery."""
    for seq, event_id, _ in places_of(arrivals):
        yield seq, event_id


def places_of(arrivals: Arrivals) -> Iterator[tuple[int, bytes, int]]:
    """Yield seq, event_id and number of the frame of each delivery."""
    for event_id, seq, frame in PLAIN.iter_unpack(arrivals.plain):
        yield seq, event_id, frame
    for seq, event_id, _, frame in KEYED.iter_unpack(arrivals.keyed):
        yield seq, event_id, frame

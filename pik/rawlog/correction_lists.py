"""Writing the lists of a correction: which deliveries it is about. docs/format.md specifies them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import NamedTuple

import zstandard

from pik.model.batch import Frame, frame_of
from pik.model.correction import CorrectionList
from pik.model.instant import MAX_INSTANT, MIN_INSTANT
from pik.ports.raw import Object, Raw, RawKind
from pik.rawlog.segment_writer import COMPRESSION_LEVEL, FRAME

MOST = 50_000
"""Deliveries that an object has at most, whose compressed lines are held in memory."""

_TOGETHER = 16 << 20
"""Bytes of objects that are created together."""


ListLine = tuple[int, str, int, bytes]
"""A line of a list: the day (since 1970-01-01) of the delivery's segment, its entity, when it happened according to the
correction (nanoseconds), and a ListedDelivery as JSON, without a line break."""


class PackedList(NamedTuple):
    """A list, and the bytes of its object."""

    listed: CorrectionList
    data: bytes


def pack_lists(correction_id: str, lines: Iterable[ListLine], most: int = MOST) -> Iterator[PackedList]:
    """Yield the lists of a correction, by day: one per day of raw, and more for a day that has more than `most`
    deliveries. The lines come by day, entity, time, batch and seq, each once."""
    for day, of_day in groupby(lines, itemgetter(0)):
        for number, some in enumerate(_pieces(of_day, most), start=1):
            yield _list(RawKind.LIST.key(correction_id, number, day), some)


def _pieces(lines: Iterator[ListLine], most: int) -> Iterator[Iterator[ListLine]]:
    """Yield the lines in pieces of at most so many, each to be read before the next one."""
    while (first := next(lines, None)) is not None:
        yield chain([first], islice(lines, most - 1))


def write_lists(raw: Raw, packed: Iterable[PackedList]) -> tuple[CorrectionList, ...]:
    """Create the objects of lists, and return the lists once they are durable. Raises StoreError."""
    made: list[CorrectionList] = []
    objects: list[Object] = []
    size = 0
    for one, data in packed:
        made.append(one)
        objects.append((one.key, data))
        size += len(data)
        if size >= _TOGETHER:
            raw.create_all(objects)
            objects, size = [], 0
    if objects:
        raw.create_all(objects)
    return tuple(made)


def _list(key: str, lines: Iterable[ListLine]) -> PackedList:
    """Return a list of these lines, of which one frame at a time is held."""
    compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True)
    parts: list[bytes] = []
    frames: list[Frame] = []
    day = offset = deliveries = 0
    first_event, last_event = MAX_INSTANT, MIN_INSTANT
    for some in _of_frames(lines):
        data = compressor.compress(b"\n".join(text for *_, text in some) + b"\n")
        parts.append(data)
        frames.append(frame_of(offset, len(data), [entity for _, entity, _, _ in some]))
        day, offset, deliveries = some[0][0], offset + len(data), deliveries + len(some)
        first_event = min(first_event, *(time for _, _, time, _ in some))
        last_event = max(last_event, *(time for _, _, time, _ in some))
    data = b"".join(parts)
    made = CorrectionList(
        key=key,
        day=day,
        first_event=first_event,
        last_event=last_event,
        deliveries=deliveries,
        size=len(data),
        digest=sha256(data).hexdigest(),
        frames=tuple(frames),
    )
    return PackedList(made, data)


def _of_frames(lines: Iterable[ListLine]) -> Iterator[list[ListLine]]:
    """Yield the lines of one frame after the other."""
    some: list[ListLine] = []
    size = 0
    for line in lines:
        some.append(line)
        size += len(line[3]) + 1
        if size >= FRAME:
            yield some
            some, size = [], 0
    if some:
        yield some

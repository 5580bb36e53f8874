"""Writing the lists of a correction: which deliveries it is about. docs/format.md specifies them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import groupby, islice
from operator import itemgetter

import zstandard

from pik.model.batch import Frame, frame_of
from pik.model.correction import CorrectionList
from pik.ports.raw import Object, Raw, RawKind
from pik.rawlog.segment_writer import COMPRESSION_LEVEL, FRAME

HELD = 50_000
"""Deliveries that an object has at most, which are held in memory."""

_TOGETHER = 16 << 20
"""Bytes of objects that are created together."""


ListLine = tuple[int, str, int, bytes]
"""A line of a list: the day (since 1970-01-01) of the delivery's segment, its entity, when it happened according to the
correction (nanoseconds), and a ListedDelivery as JSON, without a line break."""


def write_lists(
    raw: Raw, correction_id: str, lines: Iterable[ListLine], held: int = HELD
) -> tuple[CorrectionList, ...]:
    """Create the lists of a correction, and return them, by day, once they are durable: one per day of raw, and more
    for a day that has more than `held` deliveries. The lines come by day, entity, time, batch and seq, each once.
    Raises StoreError."""
    made: list[CorrectionList] = []
    objects: list[Object] = []
    numbers, size = Counter[int](), 0
    for day, of_day in groupby(lines, itemgetter(0)):
        while some := list(islice(of_day, held)):
            numbers[day] += 1
            one, data = _list(RawKind.LIST.key(correction_id, numbers[day], day), some)
            made.append(one)
            objects.append((one.key, data))
            size += len(data)
            if size >= _TOGETHER:
                raw.create_all(objects)
                objects, size = [], 0
    if objects:
        raw.create_all(objects)
    return tuple(made)


def _list(key: str, lines: Sequence[ListLine]) -> tuple[CorrectionList, bytes]:
    days, entities, times, texts = zip(*lines, strict=True)
    data, frames = _framed(entities, texts)
    made = CorrectionList(
        key=key,
        day=days[0],
        first_event=min(times),
        last_event=max(times),
        deliveries=len(lines),
        size=len(data),
        digest=sha256(data).hexdigest(),
        frames=frames,
    )
    return made, data


def _framed(entities: Sequence[str], texts: Sequence[bytes]) -> tuple[bytes, tuple[Frame, ...]]:
    """Return the bytes of a list, and its frames."""
    compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True)
    text = b"\n".join(texts) + b"\n"
    parts: list[bytes] = []
    frames: list[Frame] = []
    begin = offset = first = 0
    while begin < len(text):
        end = text.find(b"\n", begin + FRAME - 1) + 1 or len(text)
        last = first + text.count(b"\n", begin, end)
        data = compressor.compress(text[begin:end])
        parts.append(data)
        frames.append(frame_of(offset, len(data), entities[first:last]))
        begin, offset, first = end, offset + len(data), last
    return b"".join(parts), tuple(frames)

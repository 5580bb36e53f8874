"""Reading a segment whole, from its bytes alone: what the index would say of it, if it were recorded now."""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256

import zstandard

from pik.errors import Invalid
from pik.model.batch import KEYED, PLAIN, Arrivals, Frame, Segment
from pik.model.event import Delivery, read_delivery
from pik.model.instant import DAY, day_of, parse_instant
from pik.ports.raw import Raw
from pik.usecases.reading import damaged

_KEY = re.compile(r"raw/event_date=(\d{4}-\d\d-\d\d)/([0-9A-Z]{26})-\d+\.ndjson\.zst")


def scan_segment(raw: Raw, key: str, each: Callable[[Delivery], object] | None = None) -> Arrivals:
    """The segment under this key and its deliveries, all read from its bytes, each given to `each` as well. Raises
    Damaged if they are no segment.

    Memory: one segment.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise damaged(key, "its name is not that of a segment")
    data = raw.read(key)
    day = day_of(parse_instant(match[1], date_only=True))
    frames: list[Frame] = []
    plain: list[bytes] = []
    keyed: list[bytes] = []
    entity_of: dict[int, str] = {}
    times: list[int] = []
    ingest_times: set[str] = set()
    offset = 0
    while offset < len(data):
        lines, length = _frame(key, data, offset)
        entities: list[str] = []
        for line in lines:
            try:
                delivery = read_delivery(line)
            except Invalid as error:
                raise damaged(key, error.message) from None
            if each is not None:
                each(delivery)
            event_id = bytes.fromhex(delivery.event_id)
            if delivery.idempotency_key is None:
                plain.append(PLAIN.pack(event_id, delivery.seq, len(frames)))
            else:
                keyed.append(KEYED.pack(delivery.seq, event_id, bytes.fromhex(delivery.content_hash), len(frames)))
            entities.append(delivery.entity_id)
            entity_of[delivery.seq] = delivery.entity_id
            times.append(delivery.event_instant)
            ingest_times.add(delivery.ingest_time)
            if delivery.batch_id != match[2] or times[-1] // DAY != day:
                raise damaged(key, f"delivery {delivery.seq} does not belong there")
        frames.append(Frame(offset, length, len(lines), entities[0], entities[-1]))
        offset += length
    if len(ingest_times) != 1:
        raise damaged(key, "its deliveries do not have one ingest_time")
    segment = Segment(
        key=key,
        batch_id=match[2],
        day=day,
        size=len(data),
        digest=sha256(data).hexdigest(),
        deliveries=len(times),
        ingest_time=parse_instant(ingest_times.pop()),
        first_event=min(times),
        last_event=max(times),
        frames=tuple(frames),
    )
    in_order = "\n".join(entity_of[seq] for seq in sorted(entity_of))
    return Arrivals(segment, b"".join(sorted(plain)), b"".join(sorted(keyed)), in_order)


def _frame(key: str, data: bytes, offset: int) -> tuple[list[bytes], int]:
    """The lines of the frame at `offset`, and its compressed length."""
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
    """The seqs of a segment's deliveries."""
    found = {seq for _, seq, _ in PLAIN.iter_unpack(arrivals.plain)}
    return found | {seq for seq, *_ in KEYED.iter_unpack(arrivals.keyed)}

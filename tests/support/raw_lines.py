"""Raw lines for the tests of exporters, made as ingest makes them."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from pik.model.batch import Verdict
from pik.model.delivery import raw_line, read_delivery, stamp
from pik.model.event import read_event_slowly
from pik.ports.exporter import Block, Piece

BATCH = "01JGFJJZ00ABCDEFGHJKMNPQRS"
INGESTED = 1_767_225_600_123_456_789


def record(payload: str = '{"v":1}', **fields: Any) -> str:
    """An event as a producer sends it, its payload verbatim."""
    event = {"source": "web", "event_type": "paid", "entity_id": "e", "event_time": "2026-01-01T00:00:00Z", **fields}
    return json.dumps(event, ensure_ascii=False)[:-1] + f',"payload":{payload}}}'


def line(text: str, seq: int = 1, original: bytes | None = None, batch: str = BATCH) -> bytes:
    """Its raw line."""
    return raw_line(read_event_slowly(text.encode()), seq, stamp(INGESTED, batch), original)


def block(*pieces: Sequence[bytes], verdicts: Sequence[Mapping[int, Verdict]] = ()) -> Block:
    """A block of pieces, each of these lines and with these verdicts on its duplicates."""
    text = b"".join(one + b"\n" for lines in pieces for one in lines)
    ends = array("q", [at for at, byte in enumerate(text) if byte == ord("\n")])
    told = [*verdicts, *[{}] * len(pieces)]
    made = [Piece(len(lines), verdict, read_delivery) for lines, verdict in zip(pieces, told, strict=False)]
    return Block("2026-01-01", text, ends, made)

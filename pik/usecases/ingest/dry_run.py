"""What a dry run's worker does with a block of records: everything but the storing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import zstandard

from pik.model.batch import Chunk, Reject
from pik.model.event import read_delivery
from pik.ports.raw import Object
from pik.rawlog.segment_writer import Reading, SegmentBuilder, Work

_decode_reject = msgspec.json.Decoder(Reject).decode


@dataclass(frozen=True, slots=True)
class CheckedBlock:
    """The chunk that the block would be, its rejected records (a compressed file of them) and a raw line: that of its
    first event, in the first block of an input, of any event in others."""

    chunk: Chunk
    rejected: bytes
    line: bytes

    def rejects(self) -> Iterator[Reject]:
        """The rejected records, in order."""
        return map(_decode_reject, _lines(self.rejected))

    def sample(self) -> bytes | None:
        """An event of the block as JSON: what identity and metrics see of it. None if it holds none."""
        if not self.line:
            return None
        event = read_delivery(self.line)
        fields = {
            "seq": event.seq,
            "source": event.source,
            "event_type": event.event_type,
            "entity_id": event.entity_id,
            "event_time": event.event_time,
            "received_time": event.received_time,
            "idempotency_key": event.idempotency_key,
            "payload": event.payload,
        }
        return msgspec.json.encode({name: value for name, value in fields.items() if value is not None})


def checking(reading: Reading, tell: Callable[[int], None]) -> Callable[[Work], CheckedBlock]:
    """What the workers of a dry run run."""

    def check(work: Work) -> CheckedBlock:
        batch_id, block, number, ingest_time = work
        chunk, objects = SegmentBuilder(None, batch_id, reading, tell).prepare(block, number, ingest_time)
        segments = [one for one in objects if "/rejects/" not in one[0]]
        rejected = b"".join(data for key, data in objects if "/rejects/" in key)
        return CheckedBlock(chunk, rejected, _first_line(segments if number == 1 else segments[:1]))

    return check


def _first_line(segments: list[Object]) -> bytes:
    lines = [line for _, data in segments for line in _lines(data)]
    return min(lines, key=lambda line: read_delivery(line).seq, default=b"")


def _lines(data: bytes) -> list[bytes]:
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as stream:
        return stream.read().split(b"\n")[:-1]

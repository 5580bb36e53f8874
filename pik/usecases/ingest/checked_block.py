"""A block of an input as a dry run looks at it: what the workers of a dry run do."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice

import msgspec

from pik.inputs.blocks import Block
from pik.model.batch import Chunk, Reject
from pik.model.delivery import event_time_text
from pik.model.instant import format_instant
from pik.rawlog.objects import unpacked
from pik.rawlog.reading import Reading
from pik.rawlog.segment_writer import SegmentBuilder, Work, place_of
from pik.usecases.ingest.preview import Preview, preview

ID_SIZE = 16
"""Bytes of an event's id, of a content hash, and of the digest that stands for an entity."""


@dataclass(frozen=True, slots=True)
class CheckedBlock:
    """The chunk that a block would become, and what else is in it: lines of its rejects, deliveries by type, how many
    are of the future, the digests of its entities, joined, and its first events."""

    chunk: Chunk
    rejects: list[bytes]
    types: Mapping[str, int]
    future: int
    entities: bytes
    previews: list[Preview]


def checking(reading: Reading, sample: int, tell: Callable[[int], None]) -> Callable[[Work], CheckedBlock]:
    """Return the function that the workers of a dry run apply to each block."""
    mapping, zones = reading.record_mapping(), reading.times.zones()

    def previews(block: Block, rejected: Collection[int]) -> Iterator[Preview]:
        for seq, line in enumerate(io.BytesIO(block.data), block.first_seq):
            if line.strip() and seq not in rejected:
                place = place_of(block, seq, reading.file)
                yield preview(line.removesuffix(b"\n"), seq, mapping, zones, place)

    def check(work: Work) -> CheckedBlock:
        batch_id, block, number, ingest_time = work
        chunk, objects = SegmentBuilder(batch_id, reading, tell).build(block, number, ingest_time)
        data = dict(objects)
        rejects = unpacked(chunk.rejects.key, data[chunk.rejects.key]) if chunk.rejects else []
        now = format_instant(ingest_time).encode()
        types: Counter[str] = Counter()
        entities: set[str] = set()
        future = 0
        for arrived in chunk.arrivals:
            lines = unpacked(arrived.segment.key, data.pop(arrived.segment.key))
            types.update(_decode_type(line).event_type for line in lines)
            if arrived.segment.last_event > ingest_time:
                future += sum(event_time_text(line) > now for line in lines)
            entities.update(arrived.entities.split("\n"))
        rejected = {decode_reject(line).seq for line in rejects} if sample else set()
        return CheckedBlock(
            chunk,
            rejects,
            types,
            future,
            b"".join(sha256(entity.encode()).digest()[:ID_SIZE] for entity in entities),
            list(islice(previews(block, rejected), sample)),
        )

    return check


class _Typed(msgspec.Struct):
    event_type: str


_decode_type = msgspec.json.Decoder(_Typed).decode

decode_reject = msgspec.json.Decoder(Reject).decode

"""Block records: how far an unfinished batch has come, so that a rebuild knows it although the index is lost.

`raw/blocks/<batch_id>-<number>.ndjson.zst`, sealed as a batch record is; docs/format.md specifies it. Workers make
blocks durable in any order, and a block that was ahead of the others when its ingest was killed must not count before
them. So the ingest creates a block's record when all blocks before it are recorded, right before the index takes it:
what the index has recorded has a record, and what has none was never recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import msgspec

from pik.errors import Damaged
from pik.inputs.blocks import Block
from pik.model.batch import Batch, Chunk
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.batch_record import RejectLine, SegmentLine
from pik.rawlog.opening_record import opened, write_opening
from pik.rawlog.sealed_record import packed, record_lines

PREFIX = "raw/blocks/"

ATTEMPT = 1_000_000
"""Numbers of blocks that each attempt at a batch has to itself, so that it never meets what an earlier one left."""


class BlockLine(msgspec.Struct, frozen=True, kw_only=True, tag="block"):
    """The first line: which records the block covers, and where the input goes on after it."""

    format: int
    batch_id: str
    number: int
    first_seq: int
    last_seq: int
    offset: int
    prefix_digest: str

    @property
    def attempt(self) -> int:
        """Which of the batch's writers, counted from 1, made the block."""
        return attempt_of(self.number)

    @property
    def key(self) -> str:
        """The key of the record."""
        return block_key(self.batch_id, self.number)


BlockRecord = tuple[BlockLine, list[SegmentLine], list[RejectLine]]
"""A block with its objects; the verdicts of its deliveries are not known yet."""


@dataclass(slots=True)
class BlockLog:
    """Writes the opening record and the block records of a batch, if it has more than one block."""

    store: Store
    batch: Batch
    begun: bool = False

    def __post_init__(self) -> None:
        self.begun = self.batch.next_seq > 1  # then an earlier attempt has begun the log

    def opened(self, blocks: Iterator[Block], *, is_stream: bool) -> Iterator[Block]:
        """The blocks; before the first of several the opening record is created. A stream always gets one, because
        nobody knows how long it will be."""
        return opened(blocks, self._begin, always=is_stream)

    def add(self, chunk: Chunk, number: int) -> None:
        """Create the record of a block whose objects are durable, and which the index takes next."""
        if self.begun:
            self.store.raw.create(block_key(chunk.batch_id, number), packed(_lines(self.store, chunk, number)))

    def _begin(self) -> None:
        write_opening(self.store, self.batch)
        self.begun = True


def attempt_of(number: int) -> int:
    """Which of a batch's writers, counted from 1, made the objects of this number."""
    return (number - 1) // ATTEMPT + 1


def block_key(batch_id: str, number: int) -> str:
    """The key of a block's record."""
    return f"{PREFIX}{batch_id}-{number}.ndjson.zst"


def block_keys(raw: Raw, batch_id: str = "") -> Iterator[tuple[str, str]]:
    """Each block record, of one batch or of all: its key and its batch."""
    for found in raw.objects(PREFIX + (f"{batch_id}-" if batch_id else "")):
        yield found.key, found.key.removeprefix(PREFIX).partition("-")[0]


def read_block(raw: Raw, key: str) -> BlockRecord:
    """Read a block record. Raises Damaged."""
    lines = record_lines(raw, key, _decode)
    head = next(lines, None)
    if not isinstance(head, BlockLine) or head.key != key:
        raise Damaged(f"record {key} is that of another block", hint="pik verify --full")
    rest = list(lines)
    segments = [line for line in rest if isinstance(line, SegmentLine)]
    return head, segments, [line for line in rest if isinstance(line, RejectLine)]


def recorded_blocks(blocks: Iterable[BlockLine]) -> list[BlockLine]:
    """Those of a batch's blocks that the index can have recorded, in order, up to the first gap.

    A later attempt began where the index stood, so it never recorded what earlier ones have from there on.
    """
    kept: list[BlockLine] = []
    begin: int | None = None  # where the later attempts began
    newest_first = sorted(blocks, key=lambda block: (-block.attempt, block.first_seq))
    for _, of_attempt in groupby(newest_first, key=attrgetter("attempt")):
        first, *others = of_attempt
        kept += [block for block in (first, *others) if begin is None or block.last_seq < begin]
        begin = first.first_seq if begin is None else min(begin, first.first_seq)
    kept.sort(key=lambda block: block.first_seq)
    for place, block in enumerate(kept):
        if block.first_seq != (kept[place - 1].last_seq + 1 if place else 1):
            return kept[:place]
    return kept


def _lines(store: Store, chunk: Chunk, number: int) -> Iterator[BlockLine | SegmentLine | RejectLine]:
    yield BlockLine(
        format=store.format_version,
        batch_id=chunk.batch_id,
        number=number,
        first_seq=chunk.first_seq,
        last_seq=chunk.last_seq,
        offset=chunk.offset,
        prefix_digest=chunk.prefix_digest,
    )
    yield from (SegmentLine(segment=arrived.segment) for arrived in chunk.arrivals)
    if chunk.rejects:
        yield RejectLine(rejects=chunk.rejects)


_decode = msgspec.json.Decoder(BlockLine | SegmentLine | RejectLine).decode

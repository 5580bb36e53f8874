"""Filling a generation of the index: batches and blocks are gathered, and written many at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from msgspec import structs

from pik.errors import AlreadyExists, Damaged
from pik.model.batch import OF_REQUEST, Segment, Verdict
from pik.ports.raw import ObjectReader, number_of
from pik.runtime import exhaust
from pik.runtime.storage import Sorter
from pik.stores.aws.catalog import codec, layout
from pik.stores.aws.catalog.deliveries import Claims, Header, Row, claim_blocks, claims_of, ids_key, write_ids
from pik.stores.aws.catalog.layout import BatchItem
from pik.stores.aws.catalog.requests import INLINE, Requests
from pik.stores.aws.clients import Flow
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.table import Key, Table, key_of

_BLOCKS, _ROWS, _ITEMS = 500, 50_000, 2_000
"""Blocks, their deliveries, and items that are gathered before they are written."""


class Block(NamedTuple):
    """Segments of one block, their rows, and the verdicts of those that are known to be duplicates; with None the
    first to come is accepted."""

    segments: Sequence[Segment]
    rows: Sequence[Row]
    verdicts: Mapping[int, Verdict] | None


@dataclass(slots=True)
class Tally:
    """What segments of a batch hold. `unread`: some of their deliveries are lost."""

    segments: int = 0
    size: int = 0
    first: int | None = None
    last: int | None = None
    recorded_at: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    unread: bool = False

    def add(self, other: Tally) -> None:
        """Add what other segments hold."""
        self.segments += other.segments
        self.size += other.size
        self.first = min((time for time in (self.first, other.first) if time is not None), default=None)
        self.last = max((time for time in (self.last, other.last) if time is not None), default=None)
        self.recorded_at = max(self.recorded_at, other.recorded_at)
        self.kinds.update(other.kinds)
        self.unread |= other.unread


@dataclass(slots=True)
class RestoredIndex:
    """A generation that has no readers yet. Memory: a number of blocks, besides what the fields say; tallies are sorted
    on disk."""

    table: Table
    raw: AwsRaw
    objects: ObjectReader
    generation: int
    repeated: set[int] = field(default_factory=set)
    """Days with duplicates."""
    _days: set[Key[Any]] = field(default_factory=set)
    """Of the items of days that were put."""
    _tallies: Sorter[tuple[str, Tally]] = field(default_factory=lambda: Sorter(itemgetter(0)))
    _items: dict[Key[Any], Mapping[str, Any]] = field(default_factory=dict)
    _blocks: list[Block] = field(default_factory=list)
    _rows: int = 0

    def put(self, item: Mapping[str, Any]) -> None:
        """Write an item, in a while."""
        self._items[key_of({**item})] = item
        if len(self._items) >= _ITEMS:
            self._write()

    def add(self, block: Block) -> None:
        """Record a block, in a while, but after those that were added before it. Its batch has been put."""
        self._blocks.append(block)
        self._rows += len(block.rows)
        if len(self._blocks) >= _BLOCKS or self._rows >= _ROWS:
            self._record()

    def flush(self) -> None:
        """Write everything that was added."""
        self._record()
        self._write()

    def note(self, batch_id: str, tally: Tally) -> None:
        """Count more of what a batch holds."""
        self._tallies.add((batch_id, tally))

    def tallies(self) -> Iterator[tuple[str, Tally]]:
        """Yield what each batch holds, but requests with one event."""
        for batch_id, entries in groupby(self._tallies, key=itemgetter(0)):
            total = Tally()
            for _, tally in entries:
                total.add(tally)
            yield batch_id, total

    def _write(self) -> None:
        items, self._items = self._items, {}
        self.table.write_many(items.values())

    def _record(self) -> None:
        blocks, self._blocks, self._rows = self._blocks, [], 0
        if not blocks:
            return
        self._write()
        single = self._single(blocks)
        apart = [block for place, block in enumerate(blocks) if place not in single]
        exhaust(Flow().map(self._write_ids, (block for block in apart if block.rows)))
        every = [claims_of(self.table, self.generation, block.segments[0].batch_id, block.segments) for block in blocks]
        claimed = claim_blocks([(claims, *block[1:]) for claims, block in zip(every, blocks, strict=True)])
        for place, (block, claims, made) in enumerate(zip(blocks, every, claimed, strict=True)):
            for item in claims.duplicates(block.segments, block.rows, made):
                self.put(item)
            if made:
                self.repeated |= {segment.day for segment in block.segments}
            if place in single:
                self._list_request(block, single[place])
            else:
                self._list_block(block, claims, made)

    def _write_ids(self, block: Block) -> None:
        segments = tuple(structs.replace(one, inline=b"") for one in block.segments)
        header = Header(batch_id=segments[0].batch_id, segments=segments)
        with suppress(AlreadyExists):  # of a request that was to be recorded in both generations, and died
            write_ids(self.raw, ids_key(self.generation, header, block.rows), header, block.rows)

    def _list_block(self, block: Block, claims: Claims, made: Mapping[int, Verdict]) -> None:
        g, (segments, rows, _) = self.generation, block
        for item in claims.settled(segments, rows, made):
            self.put(item)
        for segment in segments:
            self.put(layout.reference(g, segment))
        for of_day in (layout.day_of_segment(g, segment) for segment in segments):
            if key_of(of_day) not in self._days:
                self.put(of_day)
                self._days.add(key_of(of_day))
        kinds = Counter[str](made.get(row.seq, Verdict.ACCEPTED) for row in rows)
        unread = len(rows) != sum(segment.deliveries for segment in segments)
        self.note(segments[0].batch_id, Tally(kinds=kinds, unread=unread))
        for one in segments:
            self.note(one.batch_id, Tally(1, one.size, one.first_event, one.last_event, one.recorded_at))

    def _list_request(self, block: Block, batch: BatchItem) -> None:
        (segment,), (row,), _ = block
        if not segment.inline and segment.size <= INLINE:
            with suppress(Damaged):
                segment = structs.replace(segment, inline=self.objects.read(segment.key))
        for item in Requests(self.table, self.generation).restored(batch, segment, row):
            self.put(item)

    def _single(self, blocks: Sequence[Block]) -> dict[int, BatchItem]:
        """Return which of the blocks are requests with one event, with the items of their batches."""
        keys = {
            place: layout.batch_key(self.generation, segments[0].batch_id)
            for place, (segments, rows, _) in enumerate(blocks)
            if len(segments) == len(rows) == 1 and number_of(segments[0].key) == OF_REQUEST
        }
        found = self.table.get_many(dict.fromkeys(keys.values()))
        items = ((place, found.get(key)) for place, key in keys.items())
        return {place: item for place, item in items if item is not None and _had_one_event(item)}


def _had_one_event(item: BatchItem) -> bool:
    batch = codec.batch_of(item)
    return batch.is_request and batch.next_seq == 2 and not batch.counts.rejected

"""Restoring batches of more than one block without the index that knew them: their block records tell how far they
came. Objects that no block record names were never recorded: whoever goes on with the batch reads their records again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from msgspec import structs

from pik.errors import Damaged
from pik.model.batch import INTERRUPTED, Arrivals, Batch, Counts, Origin, RejectFile, Segment
from pik.rawlog.block_record import BlockLine, read_block, recorded_blocks
from pik.rawlog.opening_record import OpeningLine, read_opening
from pik.rawlog.reject_file import read_rejects
from pik.usecases.ingest.api_request import made_at, told_of
from pik.usecases.rebuild.segments import Restoring

Segments = Sequence[tuple[Segment, Mapping[int, str]]]
"""Segments with their duplicates."""


@dataclass(slots=True)
class LoggedBatch:
    """A batch with an opening record or block records, given by their keys; `attempt` is its last one, `adrift` are the
    segments that the replaced index has of it, though it has lost the batch."""

    restoring: Restoring
    batch_id: str
    attempt: int
    openings: Sequence[str]
    records: Sequence[str]
    adrift: Segments
    _keys: dict[str, None] = field(default_factory=dict)
    """The segments that were recorded, in order."""

    def restore(self) -> Iterator[tuple[int, BlockLine]]:
        """Restore the batch as it was when the last of its blocks was recorded, and what the replaced index has of it.
        Yields each block with deliveries, and a time for it: that of its ingest, but later than that of the block
        before."""
        raw, blocks = self.restoring.store.raw, self._blocks()
        files: list[RejectFile] = []
        for block in blocks:
            _, segments, rejects = read_block(raw, block.key)
            self._keys.update(dict.fromkeys(line.segment.key for line in segments))
            files += [line.rejects for line in rejects]
        self._add_batch(blocks, files)
        for segment, verdicts in self.adrift:
            if segment.key in self._keys:
                self.restoring.add(segment, verdicts)
        time = 0
        for block in blocks:
            _, segments, _ = read_block(raw, block.key)
            for line in segments[:1]:
                time = max(time + 1, line.segment.ingest_time)
                yield time, block

    def _blocks(self) -> list[BlockLine]:
        found: list[BlockLine] = []
        for key in self.records:
            try:
                found.append(read_block(self.restoring.store.raw, key)[0])
            except Damaged as error:
                self.restoring.damaged.append(error.message)
        blocks = recorded_blocks(found)
        last_seq = blocks[-1].last_seq if blocks else 0
        if any(block.last_seq > last_seq for block in found):
            self.restoring.damaged.append(
                f"a block record of the interrupted batch {self.batch_id} is missing: what follows record {last_seq}"
                " does not count until its input is ingested again"
            )
        return blocks

    def _add_batch(self, blocks: Sequence[BlockLine], files: Sequence[RejectFile]) -> None:
        self.restoring.unfinished += 1
        raw = self.restoring.store.raw
        for file in files:
            try:
                read_rejects(raw, file.key)
            except Damaged as error:
                self.restoring.damaged.append(error.message)
        batch = interrupted(self.batch_id, self.attempt, self._opening(), blocks[-1].last_seq if blocks else 0)
        if blocks:
            batch = replace(batch, offset=blocks[-1].offset, prefix_digest=blocks[-1].prefix_digest)
        reasons, lags, sources = told_of(raw, self._keys, files)
        counts = Counts(rejected=sum(file.records for file in files))
        rebuild = self.restoring.rebuild
        rebuild.add_batch(replace(batch, counts=counts, reasons=reasons, lags=lags, sources=sources))
        for file in files:
            rebuild.add_rejects(self.batch_id, file)

    def _opening(self) -> OpeningLine | None:
        for key in self.openings:
            try:
                return read_opening(self.restoring.store.raw, key)
            except Damaged as error:
                self.restoring.damaged.append(error.message)
        return None


def restored_block(restoring: Restoring, key: str, time: int, listed: Collection[str]) -> list[Arrivals]:
    """Record the segments anew that a block record names, but those that are `listed`, as of this time; return what was
    read of them."""
    _, lines, _ = read_block(restoring.store.raw, key)
    segments = [line.segment for line in lines if line.segment.key not in listed]
    arrivals = [restoring.read(structs.replace(one, recorded_at=time, guessed=True)) for one in segments]
    if arrivals:
        restoring.add_block(arrivals, None)
    restoring.present += sum(restoring.store.raw.size(segment.key) is not None for segment in segments)
    return arrivals


def interrupted(batch_id: str, attempt: int, opening: OpeningLine | None, last_seq: int) -> Batch:
    """A batch that ended before it had a record, and of which the records up to this one were recorded."""
    unknown = Origin(name="(interrupted; its origin was in the lost index)", content=f"lost:{batch_id}")
    return Batch(
        batch_id=batch_id,
        origin=opening.origin if opening else unknown,
        state=INTERRUPTED,
        attempt=attempt,
        counts=Counts(),
        started_at=opening.started_at if opening else made_at(batch_id),
        next_seq=last_seq + 1,
    )

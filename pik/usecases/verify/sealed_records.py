"""Verifying opening records, block records, closings and corrections: small sealed records, on which a later rebuild
relies."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from pik.errors import Damaged
from pik.model.batch import INTERRUPTED, Batch
from pik.model.window import ALL_TIME
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.block_record import block_key, block_keys, read_block, recorded_blocks
from pik.rawlog.correction_log import correction_keys, read_winners
from pik.rawlog.opening_record import opening_key, opening_keys, read_opening
from pik.usecases.availability import has_expired
from pik.usecases.ingest.replaced_batches import PREFIX as CLOSINGS
from pik.usecases.ingest.replaced_batches import read_closing
from pik.usecases.verify.findings import INDEX, MISSING, MODIFIED, Problem
from pik.usecases.verify.unlisted import find_batch

CLOSING = re.compile(r"raw/closings/()([0-9A-Z]{26})\.ndjson\.zst")
OPENING = re.compile(r"raw/openings/()([0-9A-Z]{26})\.ndjson\.zst")
BLOCK = re.compile(r"raw/blocks/()([0-9A-Z]{26})-\d+\.ndjson\.zst")


@dataclass(frozen=True, slots=True)
class Openings:
    """Reads each record whole: it is one line, or one for each event whose winner changed."""

    store: Store

    def problems(self) -> Iterator[Problem]:
        """Records that are not as they were written, or of batches that the index has lost."""
        yield from self._of_batches(opening_keys(self.store.raw), read_opening)
        yield from self._of_batches(block_keys(self.store.raw), read_block)
        for found in self.store.raw.objects(CLOSINGS):
            try:
                line = read_closing(self.store.raw, found.key)
            except Damaged as error:
                yield Problem(MODIFIED, found.key, error.message)
            else:
                for batch_id in (line.batch_id, line.replaced_by):
                    if find_batch(self.store.index, batch_id) is None:
                        yield Problem(INDEX, found.key, f"the index does not know batch {batch_id}")
        yield from self._corrections()

    def _corrections(self) -> Iterator[Problem]:
        there = correction_keys(self.store.raw)
        followed = self.store.audit.corrections()
        for key in there:
            try:
                deque(read_winners(self.store.raw, key), maxlen=0)
            except Damaged as error:
                yield Problem(MODIFIED, key, error.message)
            else:
                if key not in followed:
                    yield Problem(INDEX, key, "the index was not made by following this correction")
        for key in sorted(followed.difference(there)):
            yield Problem(MISSING, key, "the index follows this correction; the next rebuild would forget it")

    def _of_batches(self, keys: Iterator[tuple[str, str]], read: Callable[[Raw, str], object]) -> Iterator[Problem]:
        for batch_id, of_batch in groupby(keys, key=itemgetter(1)):
            known = find_batch(self.store.index, batch_id) is not None
            for key, _ in of_batch:
                try:
                    read(self.store.raw, key)
                except Damaged as error:
                    yield Problem(MODIFIED, key, error.message)
                else:
                    if not known:
                        yield Problem(INDEX, key, "the index does not know this batch")


def missing_openings(store: Store, batch: Batch) -> Iterator[Problem]:
    """What is missing of the opening record and the block records of an interrupted batch of several blocks. A finished
    batch does not need them any more: its own record says all that they do."""
    if batch.state != INTERRUPTED or batch.is_request or has_expired(store, batch.started_at):
        return
    opening = opening_key(batch.batch_id)
    there = store.raw.size(opening) is not None
    keys = [key for key, _ in block_keys(store.raw, batch.batch_id)]
    numbers = {s.key.rpartition("-")[2] for s in store.index.segments(ALL_TIME, batch_id=batch.batch_id)}
    if not there and (keys or len(numbers) > 1):
        yield Problem(MISSING, opening, "the opening record of this interrupted batch is not there")
    if there:
        yield from _other_opening(store, batch, opening)
    if there or keys or len(numbers) > 1:
        yield from _missing_blocks(store, batch, keys)


def _other_opening(store: Store, batch: Batch, key: str) -> Iterator[Problem]:
    with suppress(Damaged):  # which is said of that record
        line = read_opening(store.raw, key)
        if (line.origin, line.started_at) != (batch.origin, batch.started_at):
            yield Problem(INDEX, f"batch {batch.batch_id}", f"the index has another origin or started_at than {key}")


def _missing_blocks(store: Store, batch: Batch, keys: Iterable[str]) -> Iterator[Problem]:
    try:
        blocks = recorded_blocks(read_block(store.raw, key)[0] for key in keys)
    except Damaged:  # which is said of that record
        return
    last_seq, number = (blocks[-1].last_seq, blocks[-1].number) if blocks else (0, 0)
    if last_seq + 1 < batch.next_seq:
        detail = f"the block records of this interrupted batch end at record {last_seq}, it goes on at {batch.next_seq}"
        yield Problem(MISSING, block_key(batch.batch_id, number + 1), detail)
    elif batch.next_seq > 1:
        ends = {(block.last_seq + 1, block.offset, block.prefix_digest) for block in blocks}
        if (batch.next_seq, batch.offset, batch.prefix_digest) not in ends:
            detail = "it does not go on where one of its block records ends"
            yield Problem(INDEX, f"batch {batch.batch_id}", detail)

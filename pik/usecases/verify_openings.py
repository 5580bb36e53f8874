"""Verifying opening records and corrections: small sealed records, on which a later rebuild relies."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from pik.errors import Damaged
from pik.model.batch import INTERRUPTED, Batch
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.usecases.closing import PREFIX as CLOSINGS
from pik.usecases.closing import read_closing
from pik.usecases.correction_log import correction_keys, read_winners
from pik.usecases.held import has_expired
from pik.usecases.opening import add_opening, opening_key, opening_keys
from pik.usecases.verify_findings import INDEX, MISSING, MODIFIED, Problem
from pik.usecases.verify_unlisted import find_batch

CLOSING = re.compile(r"raw/closings/()([0-9A-Z]{26})\.ndjson\.zst")
OPENING = re.compile(r"raw/openings/()([0-9A-Z]{26})-\d+\.ndjson\.zst")


@dataclass(frozen=True, slots=True)
class Openings:
    """Reads each record whole: it is one line, or one for each event whose winner changed."""

    store: Store

    def problems(self) -> Iterator[Problem]:
        """Records that are not as they were written, or of batches that the index has lost."""
        for key, batch_id in opening_keys(self.store.raw):
            try:
                add_opening({}, self.store.raw, key)
            except Damaged as error:
                yield Problem(MODIFIED, key, error.message)
            else:
                if find_batch(self.store.index, batch_id) is None:
                    yield Problem(INDEX, key, "the index does not know this batch")
        for found in self.store.raw.objects(CLOSINGS):
            try:
                line = read_closing(self.store.raw, found.key)
            except Damaged as error:
                yield Problem(MODIFIED, found.key, error.message)
            else:
                for batch_id in (line.batch_id, line.replaced_by):
                    if find_batch(self.store.index, batch_id) is None:
                        yield Problem(INDEX, found.key, f"the index does not know batch {batch_id}")
        for key in correction_keys(self.store.raw):
            try:
                deque(read_winners(self.store.raw, key), maxlen=0)
            except Damaged as error:
                yield Problem(MODIFIED, key, error.message)


def missing_opening(store: Store, batch: Batch) -> Iterator[Problem]:
    """The opening record of an interrupted batch of several blocks. A finished batch does not need its own any more."""
    if batch.state != INTERRUPTED or batch.is_request or has_expired(store, batch.started_at):
        return
    key = opening_key(batch.batch_id, 1)
    numbers = {s.key.rpartition("-")[2] for s in store.index.segments(ALL_TIME, batch_id=batch.batch_id)}
    if len(numbers) > 1 and store.raw.size(key) is None:
        yield Problem(MISSING, key, "the opening record of this interrupted batch is not there")

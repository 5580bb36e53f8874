"""Reading the items of batches, and what claims make of them."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from operator import itemgetter

from pik.model.batch import Batch, Counts, Verdict
from pik.model.ids import ID_LENGTH
from pik.stores.aws.catalog import codec, layout
from pik.stores.aws.catalog.deliveries import claims_of, read_ids
from pik.stores.aws.catalog.layout import BatchItem
from pik.stores.aws.catalog.recording import NO_DELIVERIES, advance, chunk_counts
from pik.stores.aws.catalog.requests import Requests, is_single
from pik.stores.aws.clients import Flow
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.table import READS, Table, batched

_FEW = 20
"""Batches that are read of each shard at first; a question about the newest ones needs no others."""

ListedBatch = tuple[Batch, BatchItem]
"""A batch, and its item."""


@dataclass(frozen=True, slots=True)
class BatchList:
    """The batches of a generation. Whether the writer of one lives is not asked."""

    table: Table
    raw: AwsRaw
    generation: int

    def newest_first(self, prefix: str = "") -> Iterator[ListedBatch]:
        """Yield those whose id begins so, newest first."""
        if len(prefix) == ID_LENGTH:
            return self.named([prefix])
        found = self._of_shards(partial(self.table.query, prefix=prefix, descending=True, first=_FEW), descending=True)
        # The first few at once, so that the newest one does not wait for a hundred.
        return chain(self.counted(list(islice(found, _FEW))), self.counted(found))

    def named(self, batch_ids: Iterable[str]) -> Iterator[ListedBatch]:
        """Yield those of these that there are, in no order."""
        keys = (layout.batch_key(self.generation, batch_id) for batch_id in batch_ids)
        return self.counted(self.table.get_many(keys).values())

    def items_between(self, after: str, before: str = "~") -> Iterator[BatchItem]:
        """Yield the items of those whose ids are between these two, in the order of the ids."""
        found = self._of_shards(partial(self.table.query, between=(f"{after}0", before)), descending=False)
        return (item for item in found if item["sk"] < before)

    def counted(self, items: Iterable[BatchItem]) -> Iterator[ListedBatch]:
        """Yield the batches of these items with the counts that follow from their claims."""
        for some in batched(items, READS):
            requests = Requests(self.table, self.generation).batches(some)
            for item in some:
                if not is_single(item):
                    yield self._as_claimed(item)
                elif item["sk"] in requests:
                    yield requests[item["sk"]], item

    def _of_shards(self, query: partial[Iterator[BatchItem]], *, descending: bool) -> Iterator[BatchItem]:
        def begin(shard: str) -> Iterator[BatchItem]:
            items = query(layout.batches_pk(self.generation, shard))
            return chain(list(islice(items, _FEW)), items)

        return heapq.merge(*Flow().map(begin, layout.BATCH_SHARDS), key=itemgetter("sk"), reverse=descending)

    def _as_claimed(self, item: BatchItem) -> ListedBatch:
        """Return the batch with the pending chunk, if that is recorded. A request that died is never finished: only the
        deliveries that it had claimed count."""
        batch, pending = codec.batch_of(item), item.get("pending", NO_DELIVERIES)
        if pending == NO_DELIVERIES or not (batch.is_request or "settled_at" in item):
            return batch, item
        header, rows = read_ids(self.raw, pending)
        verdicts = claims_of(self.table, self.generation, batch.batch_id, header.segments).verdicts(rows)
        if not batch.is_request:  # all of it is recorded, but its writer has not advanced the batch yet
            after: BatchItem = {**item, **advance(item, item["settled_at"], header, chunk_counts(header, verdicts))}
            return codec.batch_of(after), after
        kinds = Counter(verdicts.values())
        read = len(rows) - kinds[Verdict.UNRECORDED]
        counts = Counts(read, len(rows) - len(verdicts), kinds[Verdict.EXACT], kinds[Verdict.CONFLICT])
        first = min(segment.first_event for segment in header.segments)
        last = max(segment.last_event for segment in header.segments)
        size = sum(segment.size for segment in header.segments)
        claimed: BatchItem = {**item, "segments": len(header.segments), "bytes": size}
        return replace(batch, counts=counts, first_event=first, last_event=last), claimed

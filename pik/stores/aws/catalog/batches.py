"""Recording batches in a deployed store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from time import time_ns

from pik.model.batch import Batch, BatchState, Chunk, Counts, Origin, Verdict
from pik.ports.store import Rebuild
from pik.stores.aws.catalog import layout
from pik.stores.aws.catalog.generation import Generation, rebuilt
from pik.stores.aws.catalog.layout import BatchItem
from pik.stores.aws.catalog.rebuild import rebuilding
from pik.stores.aws.catalog.record_chunk import Recording
from pik.stores.aws.catalog.requests import Requests, has_one_event
from pik.stores.aws.lease import held, holding
from pik.stores.aws.raw import AwsRaw
from pik.stores.aws.table import Table


@dataclass(slots=True)
class AwsBatches:
    """Writes the index table, and id files beside raw."""

    table: Table
    raw: AwsRaw
    generation: Generation
    _opened: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)
    """The generation and the attempt of the batches that were opened here: they must not be written to by others."""
    _days: set[tuple[int, int]] = field(default_factory=set, repr=False, compare=False)
    """The (generation, day) that are known to be listed as having requests."""

    def find(self, origin: Origin) -> Batch | None:
        g = self.generation.current()
        for named in self.table.query(layout.origin_pk(g, origin), descending=True):
            # A writer that died between naming the origin and beginning the batch has left no batch.
            if item := self.table.get(layout.batch_key(g, named["sk"].partition("/")[2])):
                return with_state(self.table, layout.batch_of(item))
        return None

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        with holding(self.table, name):
            self.generation.for_writing()
            yield

    def open(self, origin: Origin, batch_id: str, started_at: int) -> Batch:
        g = self.generation.current()
        item = self._taken_over(g, batch_id)
        if item is None:
            batch = Batch(batch_id=batch_id, origin=origin, state=BatchState.INTERRUPTED, started_at=started_at)
            item = layout.batch_item(g, batch)
            self.table.put(layout.origin_item(g, origin, batch_id, time_ns()))
            self.table.put(item)
        self._opened[batch_id] = g, item["attempt"]
        return with_state(self.table, layout.batch_of(item))

    def record(self, chunk: Chunk, *, refuse_conflicts: bool = False) -> Counts:
        g, attempt = self._opened.get(chunk.batch_id) or (self.generation.current(), None)
        item = self.table.get(layout.batch_key(g, chunk.batch_id))
        if item is None:
            raise rebuilt()
        recording = Recording(self.table, self.raw, g, chunk.batch_id)
        return recording.record(item, chunk, attempt or item["attempt"], refuse_conflicts=refuse_conflicts).counts

    def expect_ready(self) -> None:
        self.generation.for_request()

    def record_request(self, batch: Batch, chunk: Chunk, copies: Mapping[str, bytes]) -> dict[int, Verdict]:
        g = self.generation.for_request()
        if has_one_event(chunk):
            copy = copies.get(chunk.arrivals[0].segment.key, b"")
            kind = Requests(self.table, g, self._days).record(batch, chunk, copy)
            verdicts: dict[int, Verdict] = {} if kind == Verdict.ACCEPTED else {chunk.first_seq: kind}
        else:
            verdicts = self._record_request(g, batch, chunk)
        self.generation.expect(g)
        return verdicts

    def finish(self, batch_id: str, finished_at: int) -> Batch:
        g = self.generation.for_writing()
        opened, _ = self._opened.get(batch_id, (g, 0))
        change = "SET #complete = :complete, #finished_at = if_not_exists(#finished_at, :finished_at)"
        values = {"complete": True, "finished_at": finished_at}
        item = self.table.update(layout.batch_key(g, batch_id), change, values, condition="attribute_exists(pk)")
        if item is None or opened != g:
            raise rebuilt()
        return layout.batch_of(item)

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def rebuild(self) -> AbstractContextManager[Rebuild]:
        return rebuilding(self.table, self.raw, self.generation)

    def _taken_over(self, g: int, batch_id: str) -> BatchItem | None:
        """Return the batch's item with one more attempt, and its last chunk finished; None if there is no such
        batch."""
        change, values = "SET #attempt = #attempt + :one", {"one": 1}
        item = self.table.update(layout.batch_key(g, batch_id), change, values, condition="attribute_exists(pk)")
        return item and Recording(self.table, self.raw, g, batch_id).finish_pending(item)

    def _record_request(self, g: int, batch: Batch, chunk: Chunk) -> dict[int, Verdict]:
        """Record a request with several events as a file's chunk. One that fails on its way is not taken up again: its
        sender sends it again."""
        item = layout.batch_item(g, replace(batch, state=BatchState.INTERRUPTED, finished_at=None, next_seq=1))
        self.table.put(item)
        recorded = Recording(self.table, self.raw, g, batch.batch_id).record(item, chunk, 1, refuse_conflicts=False)
        change = "SET #complete = :complete, #finished_at = :finished_at"
        values = {"complete": True, "finished_at": batch.finished_at or batch.started_at}
        self.table.update(layout.batch_key(g, batch.batch_id), change, values)
        return dict(recorded.verdicts)


def with_state(table: Table, batch: Batch) -> Batch:
    """Return the batch, RUNNING if it is not complete and its writer lives."""
    if batch.state == BatchState.INTERRUPTED and held(table, batch.origin.content):
        return replace(batch, state=BatchState.RUNNING)
    return batch

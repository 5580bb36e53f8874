"""Batches of a deployed store: opening and finishing them, recording requests, and rebuilding the index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from time import time_ns

from pik.errors import StoreError
from pik.model.batch import Batch, BatchState, Chunk, Counts, Origin, Verdict, is_buffered
from pik.ports.index import Rebuild, unheard
from pik.stores.aws.catalog import codec, layout
from pik.stores.aws.catalog.generation import Generation, rebuilt
from pik.stores.aws.catalog.layout import BatchItem
from pik.stores.aws.catalog.rebuild import AwsRebuild, sweep
from pik.stores.aws.catalog.recording import Recording
from pik.stores.aws.catalog.request_recorder import RequestRecorder
from pik.stores.aws.lease import held, holding
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.table import Key, KeyItem, Table


@dataclass(slots=True)
class AwsBatches:
    """Writes the index table, and id files beside raw."""

    table: Table
    raw: AwsRaw
    generation: Generation
    _opened: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)
    """The generation and the attempt of the batches that were opened here: they must not be written to by others."""
    _days: set[Key[KeyItem]] = field(default_factory=set, repr=False, compare=False)
    """The keys of items of days that are known to be there: each writes them once."""

    def find(self, origin: Origin) -> Batch | None:
        return next(self._named(origin.content, layout.origin_digest(origin)), None)

    def of_content(self, content: str) -> Iterator[Batch]:
        return self._named(content)

    def _named(self, content: str, digest: str | None = None) -> Iterator[Batch]:
        """Yield the batches of this content, newest first, of the origin with this digest alone if one is given."""
        g = self.generation.current()
        for named in self.table.query(layout.content_pk(g, content), descending=True):
            _, batch_id, of_origin = named["sk"].split("/")
            # A writer that died between naming the origin and beginning the batch has left no batch.
            if digest in (None, of_origin) and (item := self.table.get(layout.batch_key(g, batch_id))):
                yield with_state(self.table, codec.batch_of(item))

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        with holding(self.table, name):
            self.generation.for_writing()
            yield

    def open(self, origin: Origin, batch_id: str, started_at: int, actor: str = "") -> Batch:
        g, state = self.generation.current(), BatchState.INTERRUPTED
        item = self._taken_over(g, batch_id)
        if item is None:
            batch = Batch(batch_id=batch_id, origin=origin, state=state, started_at=started_at, actor=actor)
            item = codec.batch_item(g, batch)
            self.table.put(layout.origin_item(g, origin, batch_id, time_ns()))
            with self._counting(g, batch_id) as exceptions:
                self.table.write_many(exceptions)
                self.table.put(item)
        self._opened[batch_id] = g, item["attempt"]
        return with_state(self.table, codec.batch_of(item))

    def record(self, chunk: Chunk, *, refuse_conflicts: bool = False) -> Counts:
        g, attempt = self._opened.get(chunk.batch_id) or (self.generation.current(), None)
        item = self.table.get(layout.batch_key(g, chunk.batch_id))
        if item is None:
            raise rebuilt()
        recording = Recording(self.table, self.raw, g, chunk.batch_id, self._days)
        return recording.record(item, chunk, attempt or item["attempt"], refuse_conflicts=refuse_conflicts).counts

    def expect_ready(self) -> None:
        self.generation.for_request()

    def record_request(self, batch: Batch, chunk: Chunk, copies: Mapping[str, bytes]) -> dict[int, Verdict]:
        target, batch_id = self.generation.for_request(), batch.batch_id
        is_single = chunk.read == 1 and chunk.arrivals  # one event, and nothing else
        with self._counting(target.first, batch_id) as one, self._counting(target.second, batch_id) as other:
            exceptions = {target.first: one, target.second: other}
            recorder = RequestRecorder(self.table, self.raw, target, exceptions, self._days)
            if is_single:
                verdicts = recorder.record_single(batch, chunk, copies)
            else:
                verdicts = recorder.record_array(batch, chunk)
            self.generation.expect(target)
        return verdicts

    def finish(self, batch_id: str, finished_at: int) -> Batch:
        g = self.generation.for_writing()
        opened, _ = self._opened.get(batch_id, (g, 0))
        change = "SET #complete = :complete, #finished_at = if_not_exists(#finished_at, :finished_at)"
        values = {"complete": True, "finished_at": finished_at}
        item = self.table.update(layout.batch_key(g, batch_id), change, values, condition="attribute_exists(pk)")
        if item is None or opened != g:
            raise rebuilt()
        return codec.batch_of(item)

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def rebuild(self, waiting: Callable[[str], None] = unheard) -> Iterator[Rebuild]:
        with self.generation.replacing(is_buffered, waiting) as made:
            replaced = self.generation.current()  # kept until the next rebuild, for those who are still reading it
            sweep(self.table, self.raw, {str(made), str(replaced)})
            self._finish_pending(replaced, made)
            rebuild = AwsRebuild(self.table, self.raw, made, replaced, self.generation, waiting)
            yield rebuild
            rebuild.count()

    @contextmanager
    def _counting(self, g: int, batch_id: str) -> Iterator[list[KeyItem]]:
        """Yield what is to be written before a new batch, or with it, so that the totals count it whatever batches are
        summed up meanwhile."""
        if not g:
            yield []
            return
        is_older = batch_id < self.generation.summed()
        yield [layout.exception_item(g, batch_id)] if is_older else []
        if not is_older and batch_id < self.generation.summed():
            # This process slept before it wrote the batch: the sums may have counted it, or not.
            self.table.delete(layout.sums_key(g))

    def _taken_over(self, g: int, batch_id: str) -> BatchItem | None:
        """Return the batch's item with one more attempt, and its last chunk finished; None if there is no such
        batch."""
        change, values = "SET #attempt = #attempt + :one", {"one": 1}
        item = self.table.update(layout.batch_key(g, batch_id), change, values, condition="attribute_exists(pk)")
        return item and Recording(self.table, self.raw, g, batch_id).finish_pending(item)

    def _finish_pending(self, g: int, made: int) -> None:
        """Finish what writers that died had begun to record, as those who go on with their batches would: then the
        generation has a verdict on each delivery, but for those of requests that are recorded in both."""
        for shard in layout.BATCH_SHARDS:
            for item in self.table.query(layout.batches_pk(g, shard)):
                if "pending" in item and item.get("made") != made:
                    with suppress(StoreError):  # of what is damaged, what is there is read
                        Recording(self.table, self.raw, g, item["sk"]).finish_pending(item)


def with_state(table: Table, batch: Batch) -> Batch:
    """Return the batch, RUNNING if it is not complete and its writer lives."""
    if batch.state == BatchState.INTERRUPTED and held(table, batch.origin.content):
        return replace(batch, state=BatchState.RUNNING)
    return batch

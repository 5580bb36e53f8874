"""Buffered requests: record those that the queue delivers together as one batch, a part of it for each request.

The queue may deliver a message again, in another grouping and to two recorders at once. So a request is assigned to the
batch of the first recorder that has it, before anything of it is written. A recorder that receives a request of another
batch leaves it alone while the recorder of that batch lives. Once that has died, the batch is finished if the index has
begun to record it; otherwise it is closed for good, and its requests are moved to another batch. A message is done when
the record of its batch is in raw.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import time, time_ns

from pik.errors import Busy, InputError, Invalid, StoreError
from pik.inputs.blocks import Block, FilePart, Problem
from pik.model.batch import Batch, BatchState, Chunk, Origin, RejectFile, buffered_content
from pik.model.buffered import BufferedRequest
from pik.model.event import MAX_LINE
from pik.model.ids import creation_time, new_id
from pik.model.times import Times
from pik.ports.index import batch_of
from pik.ports.store import Store
from pik.rawlog.objects import read_rejects
from pik.rawlog.reading import Reading
from pik.rawlog.sealed_records import write_record
from pik.rawlog.segment_writer import SegmentBuilder, reason_kind
from pik.usecases.availability import require_writable
from pik.usecases.ingest.api_request import MAX_BODY, block_of
from pik.usecases.inspect.batches import close_batch

KEPT = 60 * 24 * 3600
"""Seconds for which it is kept which batch recorded a request: longer than the queues may deliver its message again,
14 days as a request, as many as a dead letter, and then once more."""

MAX_BYTES = 24 << 20
"""Bytes of bodies that are recorded as one batch, about: all of it is in memory."""


@dataclass(frozen=True, slots=True)
class RecordedRequests:
    """A batch, and the ids of the requests that it was made of."""

    batch: Batch
    requests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BufferedResult:
    """What became of requests. `done` are the ids of those that are recorded, now or before; `failure` is why the
    others are not yet."""

    done: frozenset[str]
    recorded: tuple[RecordedRequests, ...]
    failure: StoreError | None


def record_buffered(
    store: Store, requests: Sequence[BufferedRequest], broken: Mapping[str, str] | None = None
) -> BufferedResult:
    """Record the events of these requests, each exactly once, whatever happened to earlier deliveries of them.

    The API has acknowledged them, so whatever they hold is kept: a body without any event is one rejected record, and
    so is that of a request in `broken`, by its id, with that reason.
    """
    require_writable(store)
    done: set[str] = set()
    recorded: list[RecordedRequests] = []
    failure: StoreError | None = None
    for part in _parts(requests, broken or {}):
        try:
            taken = _assigned(store, part, done)
            if taken.requests:
                recorded.append(_record(store, taken))
                done.update(taken.requests)
        except StoreError as error:
            failure = error
        else:
            failure = failure or taken.failure
    return BufferedResult(frozenset(done), tuple(recorded), failure)


@dataclass(slots=True)
class _Part:
    """Requests that one batch may record: their blocks by their ids, how they are read, and the id of that batch.
    `closed` are the batches that it replaces, `failure` is why it lacks a request that it had."""

    batch_id: str
    timezone: str | None
    max_line: int
    requests: dict[str, tuple[BufferedRequest, Block]]
    closed: list[str] = field(default_factory=list)
    failure: StoreError | None = None

    @property
    def origin(self) -> Origin:
        """The origin of the batch."""
        options = () if self.timezone is None else (("timezone", self.timezone),)
        return _origin(self.batch_id, options)

    def block(self) -> Block:
        """Return all records, with the request that each of them comes from."""
        data: list[bytes] = []
        files: list[FilePart] = []
        problems: dict[int, Problem] = {}
        last = 0
        for request_id, (request, block) in self.requests.items():
            files.append(FilePart(request_id, last + 1, last + block.last_seq, "", request.actor))
            problems |= {last + seq: problem for seq, problem in block.problems.items()}
            data.append(block.data)
            last += block.last_seq
        return Block(1, last, b"".join(data), 0, problems=problems, files=tuple(files))


def _origin(batch_id: str, options: tuple[tuple[str, str], ...] = ()) -> Origin:
    return Origin(name="buffered API requests", content=buffered_content(batch_id), options=options)


def _parts(requests: Sequence[BufferedRequest], broken: Mapping[str, str]) -> Iterator[_Part]:
    """Yield the requests, each once, in the order in which the API received them: those that are read alike together,
    as many as fit into a batch."""
    parts: dict[tuple[str | None, int], _Part] = {}
    sizes: defaultdict[tuple[str | None, int], int] = defaultdict(int)
    for request_id, request in sorted({request.id: request for request in requests}.items()):
        block, max_line = _read(request, broken.get(request_id, ""))
        kind = request.timezone, max_line
        if sizes[kind] + len(block.data) > MAX_BYTES:
            yield parts.pop(kind)
            sizes[kind] = 0
        part = parts.setdefault(kind, _Part("", request.timezone, max_line, {}))
        part.batch_id = part.batch_id or new_id()
        part.requests[request_id] = request, block
        sizes[kind] += len(block.data)
    yield from parts.values()


def _read(request: BufferedRequest, reason: str) -> tuple[Block, int]:
    """Return the records of a request, and the most bytes that one of them may have. A body that has none is a record
    itself, kept with all of its bytes."""
    try:
        if reason:
            raise Invalid(reason)
        return block_of(request.body, request.as_lines)[0], MAX_LINE
    except (InputError, Invalid) as error:
        return Block(1, 1, b"\n", 0, problems={1: Problem(error.message, request.body)}), MAX_BODY


def _assigned(store: Store, part: _Part, done: set[str]) -> _Part:
    """Return the part with those of its requests that its batch is to record; add to `done` those that another one has
    recorded."""
    ids = list(part.requests)
    elsewhere: defaultdict[str, list[str]] = defaultdict(list)
    assigned = store.assignments.assign(ids, part.batch_id, int(time()) + KEPT)
    for request_id, batch_id in zip(ids, assigned, strict=True):
        if batch_id != part.batch_id:
            elsewhere[batch_id].append(request_id)
    for batch_id, theirs in elsewhere.items():
        try:
            kept: list[str] = []
            if _is_recorded(store, batch_id):
                done.update(theirs)
            else:
                if close_batch(store, batch_id, part.batch_id):
                    part.closed.append(batch_id)
                kept = [one for one in theirs if store.assignments.move(one, batch_id, part.batch_id)]
                if len(kept) < len(theirs):
                    part.failure = Busy("another recorder has taken a request over", hint="it comes again")
        except StoreError as error:
            part.failure, kept = error, []
        for request_id in set(theirs) - set(kept):
            del part.requests[request_id]
    return part


def _is_recorded(store: Store, batch_id: str) -> bool:
    """Return whether a batch is recorded, after finishing it if its recorder died on the way; if not, it never will be.
    Raises Busy while its recorder lives."""
    batch = next(store.index.batches(batch_id), None)
    if batch is not None and batch.state == BatchState.COMPLETE:
        return True
    origin = _origin(batch_id)
    with store.batches.writing(origin.content):
        # Only the first to open a batch may record it (see `_record`): from here on its recorder cannot.
        batch = store.batches.open(origin, batch_id, creation_time(batch_id))
        rejects = store.index.rejects(batch_id)
        if batch.next_seq == 1 and rejects:  # with deliveries it would have been pending, and is finished by now
            store.batches.record(_rejected(store, batch_id, rejects[0]))
        elif batch.next_seq == 1:
            return False
        _finish(store, batch_id)
        return True


def _rejected(store: Store, batch_id: str, file: RejectFile) -> Chunk:
    """Return the chunk of a batch that has rejected records and no delivery."""
    records = read_rejects(store.raw, file.key)
    return Chunk(
        batch_id=batch_id,
        first_seq=1,
        last_seq=records[-1].seq,
        read=len(records),
        offset=0,
        prefix_digest="",
        arrivals=(),
        rejects=file,
        reasons=Counter(reason_kind(record.reason) for record in records),
        lags={},
        sources={},
    )


def _record(store: Store, part: _Part) -> RecordedRequests:
    """Record the requests of a part as its batch. Raises StoreError; Busy if another recorder has closed the batch."""
    with store.batches.writing(part.origin.content):
        batch = store.batches.open(part.origin, part.batch_id, time_ns())
        if batch.attempt != 1:
            raise Busy("another recorder took this one for dead", hint="the requests come again")
        reading = Reading(max_line=part.max_line, times=Times(timezone=part.timezone))
        chunk, objects = SegmentBuilder(part.batch_id, reading).build(part.block(), 1)
        store.raw.create_all(objects)
        store.batches.record(chunk)
        return RecordedRequests(_finish(store, part.batch_id, part.closed), tuple(part.requests))


def _finish(store: Store, batch_id: str, replaces: Sequence[str] = ()) -> Batch:
    """Complete a batch that is recorded."""
    recorded = batch_of(store.index, batch_id)
    return store.batches.finish(batch_id, write_record(store, recorded, time_ns(), replaces))

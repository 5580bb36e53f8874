"""API requests: record the events in the body of one HTTP request as a batch, at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from operator import attrgetter

import msgspec

from pik.errors import Damaged, Invalid, UsageError
from pik.inputs import blocks as json_lines
from pik.inputs import json_values
from pik.inputs.blocks import UTF8_BOM, Block
from pik.inputs.time_formats import TimeCounter
from pik.model.batch import (
    OF_REQUEST,
    Batch,
    BatchState,
    Chunk,
    Counts,
    RejectFile,
    Verdict,
    count_lags,
    request_origin,
    with_lags,
    with_names,
)
from pik.model.delivery import read_delivery
from pik.model.event import MAX_LINE, one_line, read_event
from pik.model.ids import creation_time, new_id
from pik.model.times import Times
from pik.model.zone import Zones
from pik.ports.raw import Raw, RawKey, RawKind
from pik.ports.remote import RecordStatus
from pik.ports.store import Store
from pik.rawlog.objects import read_rejects, unpacked
from pik.rawlog.reading import Reading
from pik.rawlog.segment_reader import ids_of
from pik.rawlog.segment_writer import SegmentBuilder, reason_kind
from pik.usecases.availability import require_writable

MAX_BODY = 4 << 20
"""Most bytes of a body: a function is called with 6 MB of JSON, and text may grow by half on the way into it."""

MAX_EVENTS = 10_000
"""Most events of a body, so that the answer fits where the body did."""


class TooLarge(UsageError):
    """A body has more bytes or events than one request may."""


@dataclass(frozen=True, slots=True)
class EventResult:
    """The outcome for the event at `seq`, 1-based. `lag` in nanoseconds; `key` is that of its segment, empty in a dry
    run; `error` and `field` say why it was rejected."""

    seq: int
    status: str
    event_id: str = ""
    entity_id: str = ""
    lag: int = 0
    key: str = ""
    conflict: bool = False
    error: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True)
class RequestReport:
    """A recorded request. `single`: its body was one event, not a list of them."""

    batch_id: str
    single: bool
    results: tuple[EventResult, ...]

    def count(self, status: str) -> int:
        """Return how many events have this status."""
        return sum(result.status == status for result in self.results)


def record_request(
    store: Store,
    body: bytes,
    *,
    as_lines: bool = False,
    dry_run: bool = False,
    timezone: str | None = None,
    actor: str = "",
) -> RequestReport:
    """Record the events of a body: one event, an array, `{"events": [...]}` or one event per line; with `as_lines` one
    per line, whatever they look like. Times without an offset are in `timezone`, or invalid without one. `actor` is who
    sent it.

    A body without any event is rejected as a whole: Invalid. Otherwise each event is accepted, a duplicate or rejected
    by itself, and all of them are kept. Raises TooLarge, StoreError, Busy.
    """
    expect_size(body)
    require_writable(store)
    block, single = block_of(body, as_lines)
    if block.last_seq > MAX_EVENTS:
        raise TooLarge(f"the body has {block.last_seq} events; {MAX_EVENTS} is the most", hint="send several requests")
    if not dry_run:
        store.requests.expect_ready()  # a refused request should leave no object
    batch_id = new_id()
    reading = Reading(max_line=MAX_LINE, times=Times(timezone=timezone))
    chunk, objects = SegmentBuilder(batch_id, reading, actor=actor).build(block, OF_REQUEST)
    verdicts: Mapping[int, Verdict] = {}
    if not dry_run:
        store.raw.create_all(objects)
        batch = request_batch(batch_id, chunk.last_seq, actor)
        verdicts = store.requests.record_request(batch, chunk, dict(objects))
    return RequestReport(batch_id, single, tuple(_results(block, chunk, verdicts, reading.times.zones(), dry_run)))


def expect_size(body: bytes) -> None:
    """Raise TooLarge for a body with more bytes than a request may have."""
    if len(body) > MAX_BODY:
        raise TooLarge(f"the body has {len(body)} bytes; {MAX_BODY} is the most", hint="send several requests")


_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def block_of(body: bytes, as_lines: bool) -> tuple[Block, bool]:
    """Return the body's records, one per line, and whether it is a single one. Raises Invalid or InputError if it holds
    none, or cannot be read to its end."""
    if as_lines:
        return _joined(body.split(b"\n")), False
    try:
        members = _decode_object(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # An array, or lines: read as a file is, but without taking NUL bytes for what a loss of power left.
        is_array = body.removeprefix(UTF8_BOM).lstrip().startswith(b"[")
        read = json_values.blocks if is_array else json_lines.blocks
        parts = read(BytesIO(body), "the body", max_line=MAX_LINE)
        return _joined([line for part in parts for line in part.data.split(b"\n")]), False
    if members.keys() != {"events"}:
        return _joined([one_line(body.strip())]), True
    try:
        events = _decode_list(members["events"])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Invalid(f"events is not a list: {error}", field="events") from None
    return _joined([one_line(bytes(event)) for event in events]), False


def _joined(lines: list[bytes]) -> Block:
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise Invalid("the body holds no event")
    return Block(1, len(lines), b"\n".join(lines) + b"\n", 0)


def request_batch(batch_id: str, last_seq: int, actor: str = "") -> Batch:
    """Return the batch of a request with so many records, before they are counted. It arrived when its id was made."""
    arrived = creation_time(batch_id)
    return Batch(
        batch_id=batch_id,
        origin=request_origin(batch_id),
        state=BatchState.COMPLETE,
        started_at=arrived,
        actor=actor,
        finished_at=arrived,
        next_seq=last_seq + 1,
    )


def recovered_request(
    raw: Raw, batch_id: str, last_seq: int, segments: Iterable[str], rejects: Sequence[RejectFile]
) -> Batch:
    """Return the batch of a request from its segments and files of rejects, which are its record. Damaged ones are left
    out."""
    told = batch_statistics(raw, segments, rejects, {})
    counts = Counts(read=last_seq, rejected=sum(file.records for file in rejects))
    return replace(told.added_to(request_batch(batch_id, last_seq)), counts=counts)


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """What the objects of a batch tell of it; `actor` is empty unless it is an API request. `times_problem` is why
    `times` cannot be known, if they cannot."""

    reasons: Mapping[str, int]
    lags: Mapping[int, int]
    sources: Mapping[str, int]
    times: Mapping[str, int]
    actor: str
    times_problem: str = ""

    def added_to(self, batch: Batch) -> Batch:
        """Return the batch with them."""
        actor = self.actor or batch.actor
        return replace(batch, reasons=self.reasons, lags=self.lags, sources=self.sources, times=self.times, actor=actor)


def batch_statistics(
    raw: Raw, segments: Iterable[str], rejects: Iterable[RejectFile], options: Mapping[str, str]
) -> BatchStatistics:
    """Return what a batch with these options counts, counted over the records in these objects, and the actor that they
    name. Damaged ones are left out."""
    actors: set[str] = set()
    lags: Mapping[int, int] = {}
    sources: Mapping[str, int] = {}
    times: Mapping[str, int] = {}
    counter = TimeCounter(options)
    for key in segments:
        with suppress(Damaged, Invalid):
            deliveries = sorted(map(read_delivery, unpacked(key, raw.read(key))), key=attrgetter("seq"))
            lags = with_lags(lags, count_lags(delivery.lag for delivery in deliveries))
            sources = with_names(sources, Counter(delivery.source for delivery in deliveries))
            times = with_names(times, counter.count(deliveries))
            actors.update(delivery.actor for delivery in deliveries)
    reasons: Mapping[str, int] = {}
    for file in rejects:
        with suppress(Damaged):
            found = read_rejects(raw, file.key)
            reasons = with_names(reasons, Counter(reason_kind(reject.reason) for reject in found))
            actors.update(reject.actor for reject in found)
    return BatchStatistics(reasons, lags, sources, times, max(actors, default=""), counter.problem)


def request_actor(raw: Raw, key: str) -> str | None:
    """Return who sent the request that a segment or a file of rejects is of; None if that cannot be read."""
    with suppress(Damaged, Invalid):
        if RawKey.of(key).kind is RawKind.REJECTS:
            return read_rejects(raw, key)[0].actor
        return read_delivery(unpacked(key, raw.read(key))[0]).actor
    return None


def _results(
    block: Block, chunk: Chunk, verdicts: Mapping[int, Verdict], zones: Zones, dry_run: bool
) -> Iterator[EventResult]:
    places = {seq: (event_id, arrivals) for arrivals in chunk.arrivals for seq, event_id in ids_of(arrivals)}
    for seq, line in enumerate(block.data[:-1].split(b"\n"), 1):
        try:
            if len(line) > MAX_LINE:
                raise Invalid(f"the line is longer than {MAX_LINE} bytes")
            event = read_event(line, zones)
        except Invalid as error:
            yield EventResult(seq, RecordStatus.REJECTED, error=error.message, field=error.field)
            continue
        event_id, arrivals = places[seq]
        received = arrivals.segment.ingest_time if event.received_time is None else event.received_time
        recorded = RecordStatus.DUPLICATE if seq in verdicts else RecordStatus.ACCEPTED
        yield EventResult(
            seq,
            RecordStatus.VALID if dry_run else recorded,
            event_id=event_id.hex(),
            entity_id=event.entity_id,
            lag=received - event.event_time,
            key="" if dry_run else arrivals.segment.key,
            conflict=verdicts.get(seq) == Verdict.CONFLICT,
        )

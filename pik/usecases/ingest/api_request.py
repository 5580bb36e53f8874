"""API requests: the events in the body of one HTTP request become a batch, at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from operator import attrgetter

import msgspec
from ulid import ULID

from pik.errors import Damaged, Invalid, UsageError
from pik.inputs.blocks import Block, unaltered_blocks
from pik.model.batch import (
    KEYED,
    OF_REQUEST,
    PLAIN,
    Arrivals,
    Batch,
    BatchState,
    Chunk,
    Counts,
    Reject,
    RejectFile,
    Verdict,
    count_lags,
    request_origin,
    with_lags,
    with_names,
)
from pik.model.delivery import read_delivery
from pik.model.event import MAX_LINE, one_line, read_event
from pik.model.instant import Zone
from pik.ports.raw import Object, Raw
from pik.ports.remote import RecordStatus
from pik.ports.store import Store
from pik.rawlog.frames import unpacked
from pik.rawlog.segment_writer import Reading, SegmentBuilder, reason_kind
from pik.usecases.availability import expect_own

MAX_BODY = 4 << 20
"""Bytes of a body, at most: a function is called with 6 MB of JSON, and text may grow by half on the way into it."""

MAX_EVENTS = 10_000
"""Events in a body, at most, so that the answer fits where the body did."""

"""What becomes of an event; VALID is all that a dry run can say."""


class TooLarge(UsageError):
    """A body has more bytes or events than one request may."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of the event at `seq`, 1-based. `lag` in nanoseconds; `key` is that of its segment, empty in a dry
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
class Taken:
    """A request that was recorded. `single`: its body was one event, not a list of them."""

    batch_id: str
    single: bool
    results: tuple[Result, ...]

    def count(self, status: str) -> int:
        """How many events have this status."""
        return sum(result.status == status for result in self.results)


def take(
    store: Store, body: bytes, *, as_lines: bool = False, dry_run: bool = False, timezone: str | None = None
) -> Taken:
    """Record the events of a body: one event, an array, one a line, or `{"events": [...]}`; with `as_lines` one a line,
    whatever they look like. Times without an offset are in `timezone`, or invalid without one.

    A body that holds no event at all is rejected as a whole: Invalid. Otherwise each event is accepted, a duplicate or
    rejected by itself, and all that came is kept. Raises TooLarge, StoreError, Busy.
    """
    if len(body) > MAX_BODY:
        raise TooLarge(f"the body has {len(body)} bytes; {MAX_BODY} is the most", hint="send several requests")
    expect_own(store)
    block, single = (_joined([line for line in body.split(b"\n") if line.strip()]), False) if as_lines else _block(body)
    if not dry_run:
        store.batches.expect_ready()  # what is refused should leave no object
    batch_id = str(ULID())
    kept, reading = _Kept(store.raw), Reading(max_line=MAX_LINE, timezone=timezone)
    builder = SegmentBuilder(None if dry_run else kept, batch_id, reading)
    chunk = builder.build(block, OF_REQUEST)
    if chunk.read == 0:
        raise Invalid("the body holds no event")
    verdicts: Mapping[int, Verdict] = {}
    if not dry_run:
        verdicts = store.batches.take(request_batch(batch_id, chunk.last_seq), chunk, kept.copies)
    return Taken(batch_id, single, tuple(_results(block, chunk, verdicts, reading.zone(), dry_run)))


@dataclass(frozen=True, slots=True)
class _Kept:
    """Raw that remembers what was created, for the index to keep copies."""

    raw: Raw
    copies: dict[str, bytes] = field(default_factory=dict)

    def create_all(self, objects: Sequence[Object]) -> None:
        self.raw.create_all(objects)
        self.copies.update(objects)


_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_reject = msgspec.json.Decoder(Reject).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _block(body: bytes) -> tuple[Block, bool]:
    """The body's records, one a line, and whether it is a single one. Raises Invalid, TooLarge."""
    try:
        members = _decode_object(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _lines(body), False
    if members.keys() != {"events"}:
        return _joined([one_line(body.strip())]), True
    try:
        events = _decode_list(members["events"])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Invalid(f"events is no list of events: {error}", field="events") from None
    return _joined([one_line(bytes(event)) for event in events]), False


def _lines(body: bytes) -> Block:
    """An array, or one record a line: read as a file of them is, but that NUL bytes separate nothing."""
    parts = list(unaltered_blocks(BytesIO(body), "the body", max_line=MAX_LINE))
    lines = [line for part in parts for line in part.data.split(b"\n") if line.strip()]
    return _joined(lines)


def _joined(lines: list[bytes]) -> Block:
    if not lines:
        raise Invalid("the body holds no event")
    if len(lines) > MAX_EVENTS:
        raise TooLarge(f"the body has {len(lines)} events; {MAX_EVENTS} is the most", hint="send several requests")
    return Block(1, len(lines), b"\n".join(lines) + b"\n", 0)


def made_at(batch_id: str) -> int:
    """When the id was made, in nanoseconds to the millisecond: a ULID tells."""
    return int(ULID.from_str(batch_id).timestamp * 1000) * 1_000_000


def request_batch(batch_id: str, last_seq: int) -> Batch:
    """The batch of a request with so many records, before they are counted. Its id tells when it came."""
    came = made_at(batch_id)
    return Batch(
        batch_id=batch_id,
        origin=request_origin(batch_id),
        state=BatchState.COMPLETE,
        started_at=came,
        finished_at=came,
        next_seq=last_seq + 1,
    )


def restored_request(
    raw: Raw, batch_id: str, last_seq: int, segments: Iterable[str], rejects: Sequence[RejectFile]
) -> Batch:
    """The batch of a request with these segments and files of rejects, which are its record. What is damaged among them
    is left out."""
    reasons, lags, sources = told_of(raw, segments, rejects)
    return replace(
        request_batch(batch_id, last_seq),
        counts=Counts(read=last_seq, rejected=sum(file.records for file in rejects)),
        reasons=reasons,
        lags=lags,
        sources=sources,
    )


def told_of(
    raw: Raw, segments: Iterable[str], rejects: Iterable[RejectFile]
) -> tuple[Mapping[str, int], Mapping[int, int], Mapping[str, int]]:
    """What a batch counts over its records, from these objects: reasons, lags, sources. What is damaged among them is
    left out."""
    lags: Mapping[int, int] = {}
    sources: Mapping[str, int] = {}
    for key in segments:
        with suppress(Damaged, Invalid):
            deliveries = sorted(map(read_delivery, unpacked(key, raw.read(key))), key=attrgetter("seq"))
            lags = with_lags(lags, count_lags(delivery.lag for delivery in deliveries))
            sources = with_names(sources, Counter(delivery.source for delivery in deliveries))
    reasons: Mapping[str, int] = {}
    for file in rejects:
        with suppress(Damaged, msgspec.MsgspecError):
            found = (_decode_reject(line).reason for line in unpacked(file.key, raw.read(file.key)))
            reasons = with_names(reasons, Counter(map(reason_kind, found)))
    return reasons, lags, sources


def _results(
    block: Block, chunk: Chunk, verdicts: Mapping[int, Verdict], zone: Zone | None, dry_run: bool
) -> Iterator[Result]:
    places = {seq: (event_id, arrived) for arrived in chunk.arrivals for seq, event_id in _ids(arrived)}
    for seq, line in enumerate(block.data[:-1].split(b"\n"), 1):
        try:
            if len(line) > MAX_LINE:
                raise Invalid(f"the line is longer than {MAX_LINE} bytes")
            event = read_event(line, zone)
        except Invalid as error:
            yield Result(seq, RecordStatus.REJECTED, error=error.message, field=error.field)
            continue
        event_id, arrived = places[seq]
        received = arrived.segment.ingest_time if event.received_time is None else event.received_time
        recorded = RecordStatus.DUPLICATE if seq in verdicts else RecordStatus.ACCEPTED
        yield Result(
            seq,
            RecordStatus.VALID if dry_run else recorded,
            event_id=event_id.hex(),
            entity_id=event.entity_id,
            lag=received - event.event_time,
            key="" if dry_run else arrived.segment.key,
            conflict=verdicts.get(seq) == Verdict.CONFLICT,
        )


def _ids(arrived: Arrivals) -> Iterator[tuple[int, bytes]]:
    for event_id, seq, _ in PLAIN.iter_unpack(arrived.plain):
        yield seq, event_id
    for seq, event_id, _, _ in KEYED.iter_unpack(arrived.keyed):
        yield seq, event_id

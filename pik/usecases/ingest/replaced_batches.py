"""Closing interrupted batches: one whose every record came again in a later, finished batch is replaced by that.

A file that was cut can never be ingested to its end, so its batch would stay interrupted although the whole file came
later. `raw/closings/<batch_id>.ndjson.zst`, one line, sealed as a batch record is, says by which batch it is replaced.
Its deliveries stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import groupby, islice

import msgspec

from pik.errors import AlreadyExists, Damaged
from pik.model.batch import KEYED, PLAIN, Batch, BatchState, Segment, Verdict
from pik.model.window import ALL_TIME
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.frames import frame_lines, parse
from pik.rawlog.keys import RawKind, number_of
from pik.rawlog.records import packed, read_rejects, record_lines
from pik.rawlog.segment_reader import ids_of, readable

_LOOKED_UP = 16
"""Duplicates of a batch that are looked up to find which interrupted batch they repeat."""


class ClosingLine(msgspec.Struct, frozen=True, kw_only=True, tag="closing"):
    """That the records of a batch are all in another one."""

    format: int
    batch_id: str
    replaced_by: str


@dataclass(frozen=True, slots=True)
class _Sum:
    """A number of records, and a sum over what each is and where it stands, so that their order does not matter."""

    records: int = 0
    digest: int = 0

    def with_record(self, *parts: bytes) -> _Sum:
        value = int.from_bytes(blake2b(b"\0".join(parts), digest_size=16).digest(), "big")
        return _Sum(self.records + 1, (self.digest + value) % (1 << 128))


def close_replaced(store: Store, later: Batch) -> list[str]:
    """Close the interrupted batches whose records are all in this one, of which each record is recorded; return those
    that it replaces."""
    closed: list[str] = []
    for batch_id in _repeated(store, later) if later.counts.exact else ():
        cut = next(store.index.batches(batch_id), None)
        if cut is None or cut.state != BatchState.INTERRUPTED or cut.is_request or cut.counts.read > later.counts.read:
            continue
        if _is_repeated(store, cut, later):
            line = ClosingLine(format=store.format_version, batch_id=batch_id, replaced_by=later.batch_id)
            try:
                store.raw.create(RawKind.CLOSING.key(batch_id), packed([line]))
            except AlreadyExists:
                if read_closing(store.raw, RawKind.CLOSING.key(batch_id)) != line:
                    continue  # it is replaced by another batch already
            closed.append(batch_id)
    return closed


def _is_repeated(store: Store, cut: Batch, later: Batch) -> bool:
    """Whether the later batch surely holds every record of the other one. Where the raw of one is damaged nothing is
    sure; that must not stop the later one, whose own records are durable, and `verify` reports it."""
    try:
        last = _last_seq(store, cut)
        return bool(last) and _sum(store, cut, last) == _sum(store, later, last)
    except Damaged:
        return False


def as_closed(store: Store, batch: Batch) -> Batch:
    """The batch, REPLACED if it is interrupted and its records are all in a later one. Raises Damaged."""
    if batch.state != BatchState.INTERRUPTED or store.raw.size(RawKind.CLOSING.key(batch.batch_id)) is None:
        return batch
    return replace(
        batch,
        state=BatchState.REPLACED,
        replaced_by=read_closing(store.raw, RawKind.CLOSING.key(batch.batch_id)).replaced_by,
    )


def read_closing(raw: Raw, key: str) -> ClosingLine:
    """What closes a batch. Raises Damaged."""
    for line in record_lines(raw, key, _decode):
        if RawKind.CLOSING.key(line.batch_id) == key:
            return line
    raise Damaged(f"record {key} is that of another batch", hint="pik verify --full")


_decode = msgspec.json.Decoder(ClosingLine).decode


def _repeated(store: Store, later: Batch) -> list[str]:
    """The batches that accepted what the first duplicates of this one repeat."""
    found: dict[str, None] = {}
    for segment in islice(_ordered(store, later), _LOOKED_UP):
        again = sorted(seq for seq, kind in store.index.skipped(segment).items() if kind == Verdict.EXACT)
        for event_id in _event_ids(store.raw, segment, again[:_LOOKED_UP]):
            for place in store.index.deliveries(event_id, _LOOKED_UP):
                found[place.batch_id] = None
        if found:
            break
    found.pop(later.batch_id, None)
    return list(found)[:_LOOKED_UP]


def _event_ids(raw: Raw, segment: Segment, seqs: Sequence[int]) -> list[str]:
    """The event_ids of these deliveries of a segment, in their order, as far as they can be read."""
    found: dict[int, str] = {}
    for frame in segment.frames if seqs else ():
        with suppress(Damaged):
            for line in frame_lines(raw, segment, frame):
                delivery = parse(segment, line)
                if delivery.seq in seqs:
                    found[delivery.seq] = delivery.event_id
        if len(found) == len(seqs):
            break
    return list(dict.fromkeys(found[seq] for seq in seqs if seq in found))


def _ordered(store: Store, batch: Batch) -> Iterator[Segment]:
    """The batch's segments in the order of its blocks."""
    return iter(sorted(store.index.segments(ALL_TIME, batch_id=batch.batch_id), key=lambda one: number_of(one.key)))


def _last_seq(store: Store, batch: Batch) -> int:
    """The last record of the batch that is kept."""
    last = max(
        (max((seq for seq, _ in ids_of(readable(store.raw, s))), default=0) for s in _ordered(store, batch)), default=0
    )
    rejected = (read_rejects(store.raw, file.key)[-1].seq for file in store.index.rejects(batch.batch_id))
    return max(last, max(rejected, default=0))


def _sum(store: Store, batch: Batch, last: int) -> _Sum:
    """Over the batch's records up to this one."""
    total = _Sum()
    for _, of_block in groupby(_ordered(store, batch), key=lambda segment: number_of(segment.key)):
        first = None
        for segment in of_block:
            for seq, name in _contents(store.raw, segment):
                first = seq if first is None else min(first, seq)
                if seq <= last:
                    total = total.with_record(b"%d" % seq, name)
        if first is not None and first > last:
            break
    for file in store.index.rejects(batch.batch_id):
        for reject in read_rejects(store.raw, file.key):
            if reject.seq <= last:
                total = total.with_record(b"%d" % reject.seq, msgspec.json.encode(reject))
    return total


def _contents(raw: Raw, segment: Segment) -> Iterator[tuple[int, bytes]]:
    """seq and content of each delivery: its event_id, with an idempotency key also its content_hash."""
    arrivals = readable(raw, segment)
    for event_id, seq, _ in PLAIN.iter_unpack(arrivals.plain):
        yield seq, event_id
    for seq, event_id, content, _ in KEYED.iter_unpack(arrivals.keyed):
        yield seq, event_id + content

"""Batches: their rejects and lags, which of them a later one replaced, and what the store holds.

A truncated file can never be ingested to its end, so its batch would stay interrupted although the whole file came
later. `raw/closings/<batch_id>.ndjson.zst`, one line, sealed as a batch record is, names the batch that replaces it.
Its deliveries stay what they are.
"""

from __future__ import annotations

import heapq
from base64 import b64decode
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate, chain, groupby
from pathlib import Path

import msgspec

from pik.errors import AlreadyExists, Damaged, StoreError
from pik.model.batch import KEYED, OTHERS, PLAIN, Batch, BatchState, Reject, Segment, Verdict, are_exact
from pik.model.run import Run
from pik.model.window import ALL_TIME, PulledWindow
from pik.ports.index import RebuildUnderWay, Totals
from pik.ports.raw import ObjectReader, Raw, RawKind, number_of
from pik.ports.store import Store
from pik.rawlog.corrected import corrected_until
from pik.rawlog.objects import damaged, frame_lines, packed, parse, read_rejects, record_lines
from pik.rawlog.sealed_records import parts
from pik.rawlog.segment_reader import salvage
from pik.runtime.new_file import created_whole


def list_rejects(store: Store, batch: Batch) -> Iterator[Reject]:
    """Yield the rejected records of the batch, in the order of the input. Raises Damaged."""
    for file in store.index.rejects(batch.batch_id):
        rejects = read_rejects(store.raw, file.key)
        if len(rejects) != file.records:
            raise damaged(file.key, f"it holds {len(rejects)} of {file.records} rejects")
        yield from rejects


def write_rejects(store: Store, batches: list[Batch], path: Path) -> int:
    """Write the rejected records of the batches as they came, one per line, to a new file; return how many there are.

    Raises UsageError if the file exists, StoreError if it cannot be written.
    """
    try:
        with created_whole(path, "--rejects") as file:
            written = 0
            for batch in batches:
                for reject in list_rejects(store, batch):
                    file.write(record_bytes(reject) + b"\n")
                    written += 1
            return written
    except StoreError as error:
        kept = "the input is recorded, rejects and all"
        raise type(error)(f"{error.message}; {kept}", hint="to list them: pik batches BATCH --rejects") from None


def record_bytes(reject: Reject) -> bytes:
    """Return the rejected record as it came."""
    return b64decode(reject.bytes) if reject.bytes else reject.line.encode()


@dataclass(frozen=True, slots=True)
class Lags:
    """Percentiles of lag, in nanoseconds. Unless `exact`, each is rounded down to three significant digits."""

    min: int
    p50: int
    p95: int
    p99: int
    max: int
    exact: bool


def lags(counts: Mapping[int, int]) -> Lags | None:
    """Return the nearest-rank percentiles of lags, given how many deliveries have each; None if there are none."""
    if not counts:
        return None
    p50, p95, p99 = nearest_ranks(counts, 50, 95, 99)
    return Lags(
        min=min(counts),
        p50=p50,
        p95=p95,
        p99=p99,
        max=max(counts),
        exact=are_exact(counts),
    )


def nearest_ranks(counts: Mapping[int, int], *percents: int) -> list[int]:
    """Return the nearest-rank percentiles of values, given how often there is each; there is at least one."""
    ordered = sorted(counts)
    cumulative = list(accumulate(counts[value] for value in ordered))
    return [ordered[bisect_left(cumulative, -(-cumulative[-1] * percent // 100))] for percent in percents]


@dataclass(frozen=True, slots=True)
class Status:
    """The contents of a store. `active_corrections` counts those that hold, `withdrawn` the batches that they withdraw,
    which the other counts include. `sources` counts deliveries by source, duplicates included, `other_sources` those
    of all sources that are not counted by name, `rebuild` is that of the index which is under way. In a copy, `copy_of`
    is the URL of the source and `pulled` what was pulled."""

    url: str
    format_version: int
    totals: Totals
    last_batch: Batch | None
    interrupted: int
    replaced: int
    withdrawn: int
    active_corrections: int
    last_run: Run | None
    metrics: int
    sources: Mapping[str, int]
    other_sources: int
    rebuild: RebuildUnderWay | None
    copy_of: str | None
    pulled: tuple[PulledWindow, ...]


def status(store: Store) -> Status:
    """Return what the store holds."""
    found = store.overview.summary()
    corrected = corrected_until(store)
    withdrawn = corrected.withdrawn
    unfinished = [with_closing(store, batch) for batch in found.unfinished]
    sources = dict(found.sources)
    others = sources.pop(OTHERS, 0)
    return Status(
        url=store.url,
        format_version=store.format_version,
        totals=found.totals,
        last_batch=found.newest and with_closing(store, found.newest),
        interrupted=sum(one.state == BatchState.INTERRUPTED and one.batch_id not in withdrawn for one in unfinished),
        replaced=sum(one.state == BatchState.REPLACED for one in unfinished),
        withdrawn=len(withdrawn),
        active_corrections=len(corrected.active),
        last_run=next(store.runs.newest_first(), None),
        metrics=len(store.metrics.latest()),
        sources=sources,
        other_sources=others,
        rebuild=store.overview.rebuilding(),
        copy_of=store.copy.source if store.copy else None,
        pulled=tuple(parts(store)) if store.copy else (),
    )


_LOOKED_UP = 16
"""Duplicates of a batch that are looked up to find which interrupted batch they repeat."""


class ClosingLine(msgspec.Struct, frozen=True, kw_only=True, tag="closing"):
    """States that the records of a batch are all in another one."""

    format: int
    batch_id: str
    replaced_by: str


_decode = msgspec.json.Decoder(ClosingLine).decode


def read_closing(raw: ObjectReader, key: str) -> ClosingLine:
    """Read the record that closes a batch. Raises Damaged."""
    for line in record_lines(raw, key, _decode):
        if RawKind.CLOSING.key(line.batch_id) == key:
            return line
    raise Damaged(f"record {key} is that of another batch", hint="pik verify --full")


def with_closing(store: Store, batch: Batch) -> Batch:
    """Return the batch, as REPLACED if it is interrupted and its records are all in a later one. Raises Damaged."""
    key = RawKind.CLOSING.key(batch.batch_id)
    if batch.state != BatchState.INTERRUPTED or store.raw.size(key) is None:
        return batch
    return replace(batch, state=BatchState.REPLACED, replaced_by=read_closing(store.raw, key).replaced_by)


def close_replaced(store: Store, later: Batch) -> list[str]:
    """Close the interrupted batches whose records are all in this one, whose own records are all in the index; return
    those that it replaces. The caller holds the right to write this one's content, so that another unfinished batch of
    the same content, a withdrawn one, has no writer, though it looks as if it were running."""
    closed: list[str] = []
    for batch_id in _repeated_batches(store, later) if later.counts.exact else ():
        earlier = next(store.index.batches(batch_id), None)
        if earlier is None or earlier.is_request:
            continue
        is_held = earlier.state == BatchState.RUNNING and earlier.origin.content == later.origin.content
        if earlier.state != BatchState.INTERRUPTED and not is_held:
            continue
        if earlier.counts.read > later.counts.read or not _is_repeated(store, earlier, later):
            continue
        if close_batch(store, batch_id, later.batch_id):
            closed.append(batch_id)
    return closed


def close_batch(store: Store, batch_id: str, replaced_by: str) -> bool:
    """State that an interrupted batch is replaced by another; return False if it is by a third one already."""
    line = ClosingLine(format=store.format_version, batch_id=batch_id, replaced_by=replaced_by)
    try:
        store.raw.create(RawKind.CLOSING.key(batch_id), packed([line]))
    except AlreadyExists:
        return read_closing(store.raw, RawKind.CLOSING.key(batch_id)) == line
    return True


def _repeated_batches(store: Store, later: Batch) -> list[str]:
    """Return the batches that accepted the events of this one's first duplicates."""
    found: dict[str, None] = {}
    for segment in _in_order(store, later)[:_LOOKED_UP]:
        exact = sorted(seq for seq, kind in store.index.skipped(segment).items() if kind == Verdict.EXACT)[:_LOOKED_UP]
        for event_id in _event_ids(store.raw, segment, exact):
            found |= dict.fromkeys(place.batch_id for place in store.index.deliveries(event_id, _LOOKED_UP))
        if found:
            break
    found.pop(later.batch_id, None)
    return list(found)[:_LOOKED_UP]


def _event_ids(raw: Raw, segment: Segment, seqs: Sequence[int]) -> list[str]:
    """Return the event_ids of these deliveries of a segment, in their order, as far as they can be read."""
    found: dict[int, str] = {}
    for frame in segment.frames if seqs else ():
        with suppress(Damaged):
            for line in frame_lines(raw, segment, frame):
                delivery = parse(segment.key, line)
                if delivery.seq in seqs:
                    found[delivery.seq] = delivery.event_id
        if len(found) == len(seqs):
            break
    return list(dict.fromkeys(found[seq] for seq in seqs if seq in found))


def _is_repeated(store: Store, earlier: Batch, later: Batch) -> bool:
    """Return whether the later batch certainly holds every record of the earlier one. Where the raw of one is damaged
    nothing is certain; that must not stop the later one, whose own records are durable, and `verify` reports it."""
    try:
        of_earlier, of_later = _records(store, earlier), _records(store, later)
        first = next(of_earlier, None)
        return first is not None and all(one == next(of_later, None) for one in chain([first], of_earlier))
    except Damaged:
        return False


def _in_order(store: Store, batch: Batch) -> list[Segment]:
    """Return the batch's segments in the order of its blocks."""
    return sorted(store.index.segments(ALL_TIME, batch_id=batch.batch_id), key=lambda one: number_of(one.key))


def _records(store: Store, batch: Batch) -> Iterator[tuple[int, bytes]]:
    """Yield seq and content of each record of the batch, by seq, in the memory that a block takes."""
    by_block = groupby(_in_order(store, batch), key=lambda segment: number_of(segment.key))
    deliveries = chain.from_iterable(
        sorted(chain.from_iterable(_contents(store.raw, segment) for segment in block)) for _, block in by_block
    )
    rejects = (
        (reject.seq, msgspec.json.encode(reject))
        for file in store.index.rejects(batch.batch_id)
        for reject in read_rejects(store.raw, file.key)
    )
    return heapq.merge(deliveries, rejects)


def _contents(raw: Raw, segment: Segment) -> Iterator[tuple[int, bytes]]:
    """Yield seq and content of each delivery: its event_id, with an idempotency key also its content_hash."""
    arrivals = salvage(raw, segment)
    for event_id, seq, _ in PLAIN.iter_unpack(arrivals.plain):
        yield seq, event_id
    for seq, event_id, content, _ in KEYED.iter_unpack(arrivals.keyed):
        yield seq, event_id + content

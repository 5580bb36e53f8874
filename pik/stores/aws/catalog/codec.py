"""Items of the index table from segments, batches, files of rejects and corrections, and these from the items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import cast

import msgspec
import zstandard
from msgspec import structs

from pik.errors import Invalid, StoreError
from pik.model.batch import Batch, BatchState, Counts, Frame, Origin, RejectFile, Segment, Verdict
from pik.model.correction import Correction
from pik.ports.raw import RawKind, number_of
from pik.stores.aws.catalog.layout import (
    BatchAttributes,
    BatchItem,
    CorrectionItem,
    RejectItem,
    SegmentItem,
    batch_key,
    corrections_pk,
    day_number,
    listing_key,
    rejects_pk,
)
from pik.stores.aws.state.layout import time_key
from pik.stores.state_rows import row_digest

_OF_SEGMENT = ("size", "deliveries", "ingest_time", "first_event", "last_event", "recorded_at")
"""What a segment's item has as it is."""


def segment_item(g: int, segment: Segment, skipped: Mapping[int, Verdict] | None = None) -> SegmentItem:
    """Return the item of a segment; without `skipped` its claims may not be finished."""
    pk, sk = listing_key(g, segment)
    as_is = {name: getattr(segment, name) for name in _OF_SEGMENT}
    digest, frames = bytes.fromhex(segment.digest), packed(segment.frames)
    item = cast(SegmentItem, {"pk": pk, "sk": sk, **as_is, "digest": digest, "frames": frames})
    if segment.guessed:
        item["guessed"] = True
    if skipped is not None:
        item["skipped"] = pack_skipped(skipped)
    return item


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Raise StoreError in place of the errors that a damaged item causes."""
    try:
        yield
    except (msgspec.MsgspecError, zstandard.ZstdError, ValueError, LookupError, TypeError, Invalid) as error:
        raise StoreError(f"the index is damaged: {what}: {error}", hint="pik verify --rebuild-index") from None


def segment_of(item: SegmentItem) -> Segment:
    """Return the segment of a `segment_item`. Raises StoreError."""
    with decoding(f"item {item['pk']} {item['sk']}"):
        batch_id, _, n = item["sk"].partition("-")
        day = day_number(item["pk"].split("/")[2])
        return Segment(
            key=RawKind.SEGMENT.key(batch_id, int(n), day),
            batch_id=batch_id,
            day=day,
            digest=item["digest"].hex(),
            frames=_read_frames(unpacked(item["frames"])),
            guessed=item.get("guessed", False),
            packed=item.get("packed"),
            **{name: item[name] for name in _OF_SEGMENT},  # type: ignore[literal-required]
        )


def pack_skipped(skipped: Mapping[int, Verdict]) -> bytes:
    """Pack the seqs of duplicates, each as its distance from the one before: exact ones, then conflicts."""
    lists = []
    for kind in (Verdict.EXACT, Verdict.CONFLICT):
        seqs = [0, *sorted(seq for seq, one in skipped.items() if one == kind)]
        lists.append([after - before for before, after in pairwise(seqs)])
    return packed(lists)


def unpack_skipped(data: bytes) -> dict[int, Verdict]:
    """Undo `pack_skipped`. Raises StoreError."""
    skipped: dict[int, Verdict] = {}
    with decoding("a list of duplicates"):
        for kind, distances in zip((Verdict.EXACT, Verdict.CONFLICT), _read_lists(unpacked(data)), strict=True):
            skipped |= dict.fromkeys(accumulate(distances), kind)
    return skipped


def batch_item(g: int, batch: Batch) -> BatchItem:
    """Return the item of a batch without segments."""
    pk, sk = batch_key(g, batch.batch_id)
    item: BatchItem = {
        "pk": pk,
        "sk": sk,
        "origin": msgspec.json.encode(batch.origin).decode(),
        "complete": batch.state == BatchState.COMPLETE,
        "attempt": batch.attempt,
        "started_at": batch.started_at,
        "actor": batch.actor,
        "segments": 0,
        "bytes": 0,
        "recorded_at": batch.recorded_at,
        **progress(batch),
    }
    return item if batch.finished_at is None else {**item, "finished_at": batch.finished_at}


def progress(batch: Batch) -> BatchAttributes:
    """Return the attributes of a batch that change with each chunk."""
    attributes: BatchAttributes = {
        "counts": msgspec.json.encode(batch.counts).decode(),
        "next_seq": batch.next_seq,
        "offset": batch.offset,
        "prefix_digest": batch.prefix_digest,
        "told": packed((dict(batch.reasons), dict(batch.lags), dict(batch.sources), dict(batch.times))),
    }
    if batch.first_event is not None and batch.last_event is not None:
        attributes |= {"first_event": batch.first_event, "last_event": batch.last_event}
    return attributes


def batch_of(item: BatchItem) -> Batch:
    """Return the batch of a `batch_item`; INTERRUPTED unless it is complete, for the item does not show whether its
    writer lives. Raises StoreError."""
    with decoding(f"item {item['pk']} {item['sk']}"):
        reasons, lags, sources, times = _read_tallies(unpacked(item["told"]))
        return Batch(
            batch_id=item["sk"],
            origin=_read_origin(item["origin"]),
            state=BatchState.COMPLETE if item["complete"] else BatchState.INTERRUPTED,
            attempt=item["attempt"],
            counts=_read_counts(item["counts"]),
            started_at=item["started_at"],
            actor=item["actor"],
            finished_at=item.get("finished_at") if item["complete"] else None,
            first_event=item.get("first_event"),
            last_event=item.get("last_event"),
            next_seq=item["next_seq"],
            offset=item["offset"],
            prefix_digest=item["prefix_digest"],
            recorded_at=item["recorded_at"],
            reasons=reasons,
            lags=lags,
            sources=sources,
            times=times,
        )


def reject_item(g: int, batch_id: str, file: RejectFile) -> RejectItem:
    """Return the item of a file of rejects."""
    pk, sk = rejects_pk(g, batch_id), f"{number_of(file.key):012d}"
    return cast(RejectItem, {"pk": pk, "sk": sk, **structs.asdict(file)})


def reject_file(item: RejectItem) -> RejectFile:
    """Return the file of a `reject_item`."""
    return RejectFile(key=item["key"], size=item["size"], digest=item["digest"], records=item["records"])


def correction_item(g: int, correction: Correction, numbers: tuple[int, int, int], header: bytes) -> CorrectionItem:
    """Return the item of a part of a correction, of this number, revision, and revision before. Its key is in the order
    of the log, and never that of an item of another revision."""
    number, revision, before = numbers
    sk = f"{time_key(correction.recorded_at)}/{correction.correction_id}/{revision}/{number:03d}"
    digest = row_digest("correction", sk, revision, before, header)
    pk = corrections_pk(g)
    return {"pk": pk, "sk": sk, "revision": revision, "before": before, "header": header, "digest": digest}


def correction_is_sound(item: CorrectionItem) -> bool:
    """Return whether a `correction_item` is as it was written."""
    columns = (item.get(name) for name in ("sk", "revision", "before", "header"))
    return item.get("digest") == row_digest("correction", *columns)


def packed(value: object) -> bytes:
    """Return a value as compressed JSON."""
    return zstandard.ZstdCompressor().compress(msgspec.json.encode(value))


def unpacked(data: bytes) -> bytes:
    """Return the JSON of what was `packed`."""
    return zstandard.ZstdDecompressor().decompress(data)


_read_frames = msgspec.json.Decoder(tuple[Frame, ...]).decode
_read_lists = msgspec.json.Decoder(list[list[int]]).decode
_read_counts = msgspec.json.Decoder(Counts).decode
_read_tallies = msgspec.json.Decoder(tuple[dict[str, int], dict[int, int], dict[str, int], dict[str, int]]).decode
_read_origin = msgspec.json.Decoder(Origin).decode

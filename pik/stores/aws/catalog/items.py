"""Segments and batches as items of the index table, and all of its keys, which docs/dev/aws-layout.md lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from itertools import pairwise

import msgspec
import zstandard

from pik.errors import Invalid, StoreError
from pik.model.batch import Batch, BatchState, Counts, Frame, Origin, RejectFile, Segment, Verdict
from pik.model.instant import day_of, day_text, parse_instant
from pik.rawlog.keys import RawKind, number_of
from pik.stores.aws.catalog.id_files import Row
from pik.stores.aws.state.items import US
from pik.stores.aws.table import Item, Key

BATCH_SHARDS = "01234567"
DAY_SHARDS = "0123456789abcdef"
PREFIXES = 2
"""Hex digits of an event_id that are the partition of a request in the index `by_event`."""

FILE, REQUEST = "file", "request"
"""What a day has: segments of files and streams, or of API requests with one event."""

KEYED_DAY = "keyed"
"""Stands for the day among duplicates where the event has an idempotency key, and so no day of its own."""

_ULID = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def day_number(text: str) -> int:
    """The day of `YYYY-MM-DD`."""
    return day_of(parse_instant(text, date_only=True))


def claim_key(g: int, day: int, entity: str, event_id: bytes, *, keyed: bool) -> Key:
    """Of the claim of an event, which comes on this day, of this entity."""
    if keyed:
        return f"{g}/key/{event_id.hex()}", "claim"
    return f"{g}/claim/{day_text(day)}/{entity}", event_id.hex()


def listing_key(g: int, segment: Segment) -> Key:
    """Of a segment among those of its day. What the key says is known before the segment is recorded, and never
    changes."""
    return f"{g}/day/{day_text(segment.day)}", f"{segment.batch_id}-{number_of(segment.key):012d}"


def reference(g: int, segment: Segment) -> Item:
    """That the segment's batch has it."""
    pk, sk = listing_key(g, segment)
    return {"pk": f"{g}/segment/{segment.batch_id}", "sk": f"{pk.rpartition('/')[2]}/{sk}"}


def referred(g: int, item: Item) -> Key:
    """The `listing_key` that a `reference` is about."""
    day, _, sk = item["sk"].partition("/")
    return f"{g}/day/{day}", sk


def day_item(g: int, day: int, kind: str) -> Item:
    """That the day has segments of this kind."""
    return {"pk": f"{g}/days", "sk": f"{day_text(day)}/{kind}"}


def request_pk(g: int, day: int, entity: str) -> str:
    """The partition of the requests that are about an entity's events of a day."""
    return f"{g}/request/{day_text(day)}/{sha256(entity.encode()).hexdigest()[0]}"


def request_key(g: int, day: int, entity: str, event_id: bytes, batch_id: str) -> Key:
    """Of a request with one event."""
    return request_pk(g, day, entity), US.join((entity, event_id.hex(), batch_id))


def duplicate_pk(g: int, day: str, event_id: str) -> str:
    """The partition of an event's duplicates; `day` as text, or KEYED_DAY."""
    return f"{g}/duplicate/{day}/{event_id[0]}"


def duplicate_item(g: int, segment: Segment, row: Row, kind: Verdict) -> Item:
    """A duplicate of a file or stream, or of a request with several events."""
    event_id = row.event_id.hex()
    of_day = day_text(segment.day) if row.content is None else KEYED_DAY
    return {
        "pk": duplicate_pk(g, of_day, event_id),
        "sk": f"{event_id}/{segment.batch_id}/{row.seq}",
        "kind": kind,
        "day": segment.day,
        "n": number_of(segment.key),
        "frame": row.frame,
        "ingest_time": segment.ingest_time,
        **({"entity": row.entity} if row.content is None else {"content": row.content}),
    }


def batch_key(g: int, batch_id: str) -> Key:
    """Of a batch."""
    return f"{g}/batch/{BATCH_SHARDS[max(0, _ULID.find(batch_id[-1:])) % len(BATCH_SHARDS)]}", batch_id


def origin_pk(g: int, origin: Origin) -> str:
    """The partition of the batches of an origin: all of it but its name."""
    text = msgspec.json.encode([origin.content, origin.options, origin.again])
    return f"{g}/origin/{sha256(text).hexdigest()[:32]}"


def reject_item(g: int, batch_id: str, file: RejectFile) -> Item:
    """A file of rejects."""
    number = f"{number_of(file.key):012d}"
    fields = {"key": file.key, "size": file.size, "digest": file.digest, "records": file.records}
    return {"pk": f"{g}/reject/{batch_id}", "sk": number, **fields}


def reject_file(item: Item) -> RejectFile:
    """The file of a `reject_item`."""
    return RejectFile(key=item["key"], size=item["size"], digest=item["digest"], records=item["records"])


def segment_item(g: int, segment: Segment, skipped: Mapping[int, Verdict] | None = None) -> Item:
    """A segment in the list of its day; without `skipped`, while its claims may not be finished."""
    pk, sk = listing_key(g, segment)
    item = {
        "pk": pk,
        "sk": sk,
        "size": segment.size,
        "digest": bytes.fromhex(segment.digest),
        "deliveries": segment.deliveries,
        "ingest_time": segment.ingest_time,
        "first_event": segment.first_event,
        "last_event": segment.last_event,
        "frames": packed(segment.frames),
        "recorded_at": segment.recorded_at,
        **({"guessed": True} if segment.guessed else {}),
    }
    return item if skipped is None else {**item, "skipped": pack_skipped(skipped)}


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Turns what an item says that nobody wrote so into StoreError."""
    try:
        yield
    except (msgspec.MsgspecError, zstandard.ZstdError, ValueError, LookupError, TypeError, Invalid) as error:
        raise StoreError(f"the index is damaged: {what}: {error}", hint="pik verify --rebuild-index") from None


def segment_of(item: Item) -> Segment:
    """The segment of a `segment_item`. Raises StoreError."""
    with decoding(f"item {item['pk']} {item['sk']}"):
        return _segment_of(item)


def _segment_of(item: Item) -> Segment:
    batch_id, _, n = item["sk"].partition("-")
    day = day_number(item["pk"].rpartition("/")[2])
    return Segment(
        key=RawKind.SEGMENT.key(batch_id, int(n), day),
        batch_id=batch_id,
        day=day,
        size=item["size"],
        digest=item["digest"].hex(),
        deliveries=item["deliveries"],
        ingest_time=item["ingest_time"],
        first_event=item["first_event"],
        last_event=item["last_event"],
        frames=_read_frames(unpacked(item["frames"])),
        recorded_at=item["recorded_at"],
        guessed=item.get("guessed", False),
    )


def pack_skipped(skipped: Mapping[int, Verdict]) -> bytes:
    """Seqs of duplicates, each as its distance from the one before: exact ones, then conflicts."""
    lists = []
    for kind in (Verdict.EXACT, Verdict.CONFLICT):
        seqs = [0, *sorted(seq for seq, one in skipped.items() if one == kind)]
        lists.append([after - before for before, after in pairwise(seqs)])
    return packed(lists)


def unpack_skipped(data: bytes) -> dict[int, Verdict]:
    """What `pack_skipped` packed. Raises StoreError."""
    skipped = {}
    with decoding("a list of duplicates"):
        for kind, distances in zip((Verdict.EXACT, Verdict.CONFLICT), _read_lists(unpacked(data)), strict=True):
            seq = 0
            for distance in distances:
                seq += distance
                skipped[seq] = kind
    return skipped


class Told(msgspec.Struct, frozen=True, array_like=True):
    """What a batch counts over its deliveries."""

    reasons: dict[str, int] = {}
    lags: dict[int, int] = {}
    sources: dict[str, int] = {}


def batch_item(g: int, batch: Batch) -> Item:
    """A batch, whose counts are those of nothing yet but what it says itself."""
    pk, sk = batch_key(g, batch.batch_id)
    finished = {} if batch.finished_at is None else {"finished_at": batch.finished_at}
    return {
        "pk": pk,
        "sk": sk,
        "origin": msgspec.json.encode(batch.origin).decode(),
        "complete": batch.state == BatchState.COMPLETE,
        "attempt": batch.attempt,
        "started_at": batch.started_at,
        **finished,
        **progress_fields(batch),
        "segments": 0,
        "bytes": 0,
        "recorded_at": batch.recorded_at,
    }


def progress_fields(batch: Batch) -> Item:
    """What changes with each chunk."""
    events = {"first_event": batch.first_event, "last_event": batch.last_event}
    return {
        "counts": msgspec.json.encode(batch.counts.astuple()).decode(),
        "next_seq": batch.next_seq,
        "offset": batch.offset,
        "prefix_digest": batch.prefix_digest,
        "told": packed(Told(dict(batch.reasons), dict(batch.lags), dict(batch.sources))),
        **{name: value for name, value in events.items() if value is not None},
    }


def batch_of(item: Item) -> Batch:
    """The batch of a `batch_item`; INTERRUPTED unless it is complete: the item does not know whether its writer
    lives. Raises StoreError."""
    with decoding(f"item {item['pk']} {item['sk']}"):
        return _batch_of(item)


def _batch_of(item: Item) -> Batch:
    told = _read_told(unpacked(item["told"]))
    return Batch(
        batch_id=item["sk"],
        origin=_read_origin(item["origin"]),
        state=BatchState.COMPLETE if item["complete"] else BatchState.INTERRUPTED,
        attempt=item["attempt"],
        counts=Counts(*msgspec.json.decode(item["counts"])),
        started_at=item["started_at"],
        finished_at=item.get("finished_at"),
        first_event=item.get("first_event"),
        last_event=item.get("last_event"),
        next_seq=item["next_seq"],
        offset=item["offset"],
        prefix_digest=item["prefix_digest"],
        recorded_at=item["recorded_at"],
        reasons=told.reasons,
        lags=told.lags,
        sources=told.sources,
    )


def packed(value: object) -> bytes:
    """A value as JSON, compressed."""
    return zstandard.ZstdCompressor().compress(msgspec.json.encode(value))


def unpacked(data: bytes) -> bytes:
    """The JSON of what was `packed`."""
    return zstandard.ZstdDecompressor().decompress(data)


_read_frames = msgspec.json.Decoder(tuple[Frame, ...]).decode
_read_lists = msgspec.json.Decoder(list[list[int]]).decode
_read_told = msgspec.json.Decoder(Told).decode
_read_origin = msgspec.json.Decoder(Origin).decode

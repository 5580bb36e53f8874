"""Keys of the index table, and the types of its items. docs/dev/aws-layout.md lists them."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from enum import StrEnum
from hashlib import sha256
from itertools import product
from typing import Any, NotRequired, TypedDict, cast

from pik.model.batch import OF_REQUEST, Origin, PackedCopy, Segment
from pik.model.ids import DIGITS
from pik.model.instant import day_of, day_text, parse_instant
from pik.ports.raw import RawKey, number_of
from pik.stores.aws.state.layout import US, time_key
from pik.stores.aws.table import ItemT, Key, KeyItem, Partition

BATCH_SHARDS = "01234567"
"""Of batches, and of the segments of a day's requests with several events. Their sort keys rise with time, so DynamoDB
cannot split what they are written to: each shard takes 1,000 write units a second."""

DAY_SHARDS = "0123456789abcdef"


class Listed(StrEnum):
    """What a day has segments of."""

    FILE = "file"
    """Files and streams."""
    ARRAY = "array"
    """API requests with several events."""
    REQUEST = "request"
    """API requests with one event."""


KEYED_DAY = "keyed"
"""Stands for the day among duplicates where the event has an idempotency key: such events have no day."""

CLAIM_DIGITS = 2
"""Hex digits of an event_id that choose the partition of its claim: 256 partitions, evenly written to and read from."""


class ClaimItem(KeyItem):
    """Which delivery of an event came first; `content` only where it has an idempotency key. `brought`: a request wrote
    it into the generation that a rebuild fills, before the rebuild did."""

    batch: str
    day: int
    n: int
    frame: int
    seq: int
    content: NotRequired[bytes]
    brought: NotRequired[bool]


class SegmentItem(KeyItem):
    """A segment in the list of its day; `skipped` is missing as long as its claims may not be finished. Only one from a
    pack has `packed`."""

    size: int
    digest: bytes
    deliveries: int
    ingest_time: int
    first_event: int
    last_event: int
    frames: bytes
    recorded_at: int
    guessed: NotRequired[bool]
    skipped: NotRequired[bytes]
    packed: NotRequired[PackedCopy]


class RequestItem(KeyItem):
    """The segment of an API request with one event. Only one from a pack has `skipped` and `packed`."""

    recorded_at: int
    ingest_time: int
    event_time: int
    size: int
    digest: bytes
    seq: int
    guessed: NotRequired[bool]
    content: NotRequired[bytes]
    inline: NotRequired[bytes]
    skipped: NotRequired[bytes]
    packed: NotRequired[PackedCopy]


class DuplicateItem(KeyItem):
    """A duplicate; `content` only where it has an idempotency key."""

    kind: str
    day: int
    n: int
    frame: int
    ingest_time: int
    content: NotRequired[bytes]


class BatchAttributes(TypedDict, total=False):
    """What a batch's item has besides its key. `pending` (the id file of the chunk that is being recorded) and
    `settled_at` are there meanwhile; an API request with one event also has `listed` and `listed_as` (the key of its
    RequestItem), `seq` and `content`. `made` is the generation that a rebuild fills and the request was recorded in as
    well."""

    origin: str
    complete: bool
    attempt: int
    started_at: int
    actor: str
    finished_at: int
    counts: str
    next_seq: int
    offset: int
    prefix_digest: str
    first_event: int
    last_event: int
    segments: int
    recorded_at: int
    settled_at: int
    pending: str
    listed: str
    listed_as: str
    seq: int
    told: builtins.bytes
    content: builtins.bytes
    bytes: int
    made: int


class BatchItem(KeyItem, BatchAttributes): ...


def moved(item: ItemT, g: int) -> ItemT:
    """Return an item of another generation as one of this generation."""
    keys = {name: f"{g}/{item[name].partition('/')[2]}" for name in ("pk", "listed") if name in item}
    return cast("ItemT", {**item, **keys})


class TotalsItem(KeyItem):
    """The `sums` of batches, and their number; or an exception, which has nothing but its key."""

    number: NotRequired[int]
    sums: NotRequired[builtins.bytes]


class RejectItem(KeyItem):
    """A file of rejects."""

    key: str
    size: int
    digest: str
    records: int


def day_number(text: str) -> int:
    """Return the number of the day `YYYY-MM-DD`."""
    return day_of(parse_instant(text, date_only=True))


class CorrectionItem(KeyItem):
    """A part of the header of a correction. `revision` is that with which it came, `before` the one before that.
    `digest` is of all the others."""

    revision: int
    before: int
    digest: bytes
    header: bytes


FIRST_REVISION = 1
"""The revision of the corrections that a generation began with. Others are moments, in nanoseconds."""


# Partitions and keys of a generation `g`, as docs/dev/aws-layout.md lists them. Days in them are texts.


def days_pk(g: int) -> Partition[KeyItem]:
    return Partition(f"{g}/days")


def listed_pks(g: int, day: str, kind: Listed) -> list[Partition[SegmentItem]]:
    """Return the partitions with the segments of a day of this kind, but of requests with one event."""
    if kind == Listed.FILE:
        return [Partition(f"{g}/day/{day}")]
    return [Partition(f"{g}/array/{day}/{shard}") for shard in BATCH_SHARDS]


def partitions(g: int, day: str, kind: Listed) -> list[Partition[Any]]:
    """Return all partitions with the segments of a day of this kind."""
    if kind == Listed.REQUEST:
        return [requests_pk(g, day, shard) for shard in DAY_SHARDS]
    return [*listed_pks(g, day, kind)]


def references_pk(g: int, batch_id: str) -> Partition[KeyItem]:
    return Partition(f"{g}/segment/{batch_id}")


def requests_pk(g: int, day: str, shard: str) -> Partition[RequestItem]:
    return Partition(f"{g}/request/{day}/{shard}")


def entity_requests_pk(g: int, day: int, entity: str) -> Partition[RequestItem]:
    return requests_pk(g, day_text(day), sha256(entity.encode()).hexdigest()[0])


def duplicates_pk(g: int, day: str, shard: str) -> Partition[DuplicateItem]:
    return Partition(f"{g}/duplicate/{day}/{shard}")


def claims_pk(g: int, digits: str) -> Partition[ClaimItem]:
    return Partition(f"{g}/claim/{digits}")


def batches_pk(g: int, shard: str) -> Partition[BatchItem]:
    return Partition(f"{g}/batch/{shard}")


def totals_pk(g: int) -> Partition[TotalsItem]:
    return Partition(f"{g}/totals")


def rejects_pk(g: int, batch_id: str) -> Partition[RejectItem]:
    return Partition(f"{g}/reject/{batch_id}")


def corrections_pk(g: int) -> Partition[CorrectionItem]:
    return Partition(f"{g}/correction")


def content_pk(g: int, content: str) -> Partition[KeyItem]:
    """Return the partition that names the batches of a content, in the order in which they were opened."""
    return Partition(f"{g}/content/{_digest(content.encode())}")


def origin_digest(origin: Origin) -> str:
    """Return the last part of the sk of an item that names a batch of an origin: of all of it but its name."""
    return _digest(origin.identity)


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:32]


def claim_key(g: int, event_id: str) -> Key[ClaimItem]:
    """Return the key of an event's claim."""
    return Key((claims_pk(g, event_id[:CLAIM_DIGITS]), event_id))


def claims_beginning(g: int, prefix: str) -> Iterator[Partition[ClaimItem]]:
    """Yield the partitions with the claims of the events whose id begins so, in the order of the ids."""
    head = prefix[:CLAIM_DIGITS]
    rest = product("0123456789abcdef", repeat=CLAIM_DIGITS - len(head))
    return (claims_pk(g, head + "".join(digits)) for digits in rest)


def duplicate_key(g: int, day: int, event_id: str, place: tuple[str, int], *, keyed: bool) -> Key[DuplicateItem]:
    """Return the key of a duplicate; its day matters only where the event has no idempotency key."""
    batch_id, seq = place
    return Key((duplicates_of(g, KEYED_DAY if keyed else day_text(day), event_id), f"{event_id}/{batch_id}/{seq:012d}"))


def conflict_item(g: int, event_id: str) -> KeyItem:
    """Return the item that says of an event that a delivery of it is a conflict."""
    return {"pk": f"{g}/conflict/{event_id[:CLAIM_DIGITS]}", "sk": event_id}


def duplicates_of(g: int, day: str, event_id: str) -> Partition[DuplicateItem]:
    """Return the partition with an event's duplicates. Their sk begins with its id and a slash, and is in the order of
    (batch_id, seq)."""
    return duplicates_pk(g, day, event_id[0])


def listed_as(n: int) -> Listed:
    """Return what the segments with this number are of, if not of requests with one event."""
    return Listed.ARRAY if n == OF_REQUEST else Listed.FILE


def listing_key(g: int, segment: Segment) -> Key[SegmentItem]:
    """Return the key of a segment's item. It is known before the segment is recorded, and never changes."""
    return numbered_key(g, segment.day, segment.batch_id, number_of(segment.key))


def numbered_key(g: int, day: int, batch_id: str, n: int) -> Key[SegmentItem]:
    """Return the key of a segment's item, given the parts of its key in raw."""
    partitions = listed_pks(g, day_text(day), listed_as(n))
    return Key((partitions[_shard(batch_id) % len(partitions)], f"{batch_id}-{n:012d}"))


def segment_key(g: int, key: str) -> Key[SegmentItem]:
    """Return the key of a segment's item, given its key in raw."""
    raw_key = RawKey.of(key)
    assert raw_key.day is not None
    assert raw_key.number is not None
    return numbered_key(g, raw_key.day, raw_key.id, raw_key.number)


def day_and_kind(pk: str) -> tuple[str, Listed] | None:
    """Return the day and the kind of the segments of requests that a partition lists; None for another partition."""
    _, name, *rest = pk.split("/")
    return (rest[0], Listed(name)) if name in (Listed.ARRAY, Listed.REQUEST) else None


def referred(g: int, item: KeyItem) -> Key[SegmentItem]:
    """Return the key of the segment that a `reference` names."""
    day, batch_id, n = item["sk"].replace("/", "-").rsplit("-", 2)
    return numbered_key(g, day_number(day), batch_id, int(n))


def request_key(g: int, day: int, entity: str, event_id: bytes, batch_id: str) -> Key[RequestItem]:
    """Return the key of a request with one event."""
    return Key((entity_requests_pk(g, day, entity), US.join((entity, event_id.hex(), batch_id))))


def batch_key(g: int, batch_id: str) -> Key[BatchItem]:
    """Return the key of a batch."""
    return Key((batches_pk(g, BATCH_SHARDS[_shard(batch_id)]), batch_id))


def sums_key(g: int) -> Key[TotalsItem]:
    """Return the key of the sums of batches. It is greater than those of all exceptions."""
    return Key((totals_pk(g), "sums"))


def exception_key(g: int, batch_id: str) -> Key[TotalsItem]:
    """Return the key of the item that keeps a batch out of the sums."""
    return Key((totals_pk(g), batch_id))


def sums_item(g: int, number: int, sums: bytes) -> TotalsItem:
    """Return the item of the sums of batches."""
    pk, sk = sums_key(g)
    return {"pk": pk, "sk": sk, "number": number, "sums": sums}


def exception_item(g: int, batch_id: str) -> TotalsItem:
    """Return the item that keeps a batch out of the sums."""
    pk, sk = exception_key(g, batch_id)
    return {"pk": pk, "sk": sk}


def _shard(batch_id: str) -> int:
    """Return the number of a shard, which the last character of a batch's id chooses."""
    return max(0, DIGITS.find(batch_id[-1:])) % len(BATCH_SHARDS)


def day_item(g: int, day: int, kind: Listed) -> KeyItem:
    """Return the item that names a day that has segments of this kind."""
    return {"pk": days_pk(g), "sk": f"{day_text(day)}/{kind}"}


def day_of_segment(g: int, segment: Segment) -> KeyItem:
    """Return the item that names the day of a segment that is in the list of its day."""
    return day_item(g, segment.day, listed_as(number_of(segment.key)))


def reference(g: int, segment: Segment) -> KeyItem:
    """Return the item that names a segment of its batch."""
    _, sk = listing_key(g, segment)
    return {"pk": references_pk(g, segment.batch_id), "sk": f"{day_text(segment.day)}/{sk}"}


def origin_item(g: int, origin: Origin, batch_id: str, opened_at: int) -> KeyItem:
    """Return the item that names a batch of an origin."""
    sk = f"{time_key(opened_at)}/{batch_id}/{origin_digest(origin)}"
    return {"pk": content_pk(g, origin.content), "sk": sk}

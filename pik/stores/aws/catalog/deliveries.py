"""The deliveries of a chunk: their rows in id files, their claims, and the items of those that are duplicates.

An id file is an object in S3 that holds a chunk's deliveries, so that an interrupted chunk can be finished;
docs/dev/aws-layout.md describes its bytes. A claim is an item that names the first delivery of
an event. It can be inserted only once: it decides each verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from operator import attrgetter, itemgetter
from typing import NamedTuple

import msgspec
import zstandard

from pik.errors import Damaged, StoreError
from pik.model.batch import KEYED, PLAIN, Arrivals, Location, RejectFile, Segment, Verdict, duplicate_kind
from pik.model.instant import day_text
from pik.ports.raw import ObjectReader, RawKind, number_of
from pik.stores.aws.catalog import codec, layout
from pik.stores.aws.catalog.layout import ClaimItem, DuplicateItem, SegmentItem
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.table import Key, KeyItem, Table


class Row(NamedTuple):
    """A delivery. `segment` is the position of its segment in the chunk; `content` is None without an idempotency
    key."""

    seq: int
    event_id: bytes
    content: bytes | None
    segment: int
    frame: int
    entity: str


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk without its deliveries. Its segments have their `recorded_at` already. After a rebuild only the batch and
    its segments are known."""

    batch_id: str
    first_seq: int = 0
    last_seq: int = 0
    read: int = 0
    offset: int = 0
    prefix_digest: str = ""
    segments: tuple[Segment, ...]
    rejects: RejectFile | None = None
    reasons: dict[str, int] = {}
    lags: dict[int, int] = {}
    sources: dict[str, int] = {}
    times: dict[str, int] = {}


def rows_of(arrivals: Iterable[Arrivals]) -> list[Row]:
    """Return the deliveries of a chunk in the order of the input."""
    rows: list[Row] = []
    for place, arrived in enumerate(arrivals):
        entities = arrived.entities.split("\n") if arrived.entities else []
        plain = [(seq, event_id, None, frame) for event_id, seq, frame in PLAIN.iter_unpack(arrived.plain)]
        of_segment = sorted([*plain, *KEYED.iter_unpack(arrived.keyed)], key=itemgetter(0))
        rows += [
            Row(seq, event_id, content, place, frame, entity)
            for (seq, event_id, content, frame), entity in zip(of_segment, entities, strict=True)
        ]
    rows.sort(key=attrgetter("seq"))
    return rows


def arrivals_of(segment: Segment, rows: Sequence[Row]) -> Arrivals:
    """Return rows as the deliveries of a segment."""
    plain = sorted(PLAIN.pack(row.event_id, row.seq, row.frame) for row in rows if row.content is None)
    keyed = sorted(KEYED.pack(row.seq, row.event_id, row.content, row.frame) for row in rows if row.content is not None)
    in_order = "\n".join(row.entity for row in sorted(rows, key=lambda row: row.seq))
    return Arrivals(segment, b"".join(plain), b"".join(keyed), in_order)


def prefix_of(generation: int) -> str:
    """Return the prefix of the keys of a generation's id files."""
    return f"index/{generation}/"


def ids_key(generation: int, header: Header, rows: Sequence[Row]) -> str:
    """Return the key of a chunk's id file."""
    first, keyed = header.segments[0], sum(row.content is not None for row in rows)
    return f"{prefix_of(generation)}{header.batch_id}-{number_of(first.key)}-{day_text(first.day)}-{keyed}.ids"


def keyed_rows(key: str) -> int:
    """Return how many deliveries with an idempotency key an id file has."""
    return int(key.removesuffix(".ids").rpartition("-")[2])


def write_ids(raw: AwsRaw, key: str, header: Header, rows: Sequence[Row]) -> None:
    """Store the deliveries of a chunk. Raises AlreadyExists."""
    raw.create(key, zstandard.ZstdCompressor(write_checksum=True).compress(msgspec.msgpack.encode((header, rows))))


def read_ids(raw: ObjectReader, key: str) -> tuple[Header, list[Row]]:
    """Return a chunk as it was stored, its deliveries in the order of the input. Raises Damaged."""
    try:
        return _read_chunk(zstandard.ZstdDecompressor().decompress(raw.read(key)))
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise Damaged(f"{key} is damaged: {error}", hint="pik verify --rebuild-index") from None


class Delivery(NamedTuple):
    """A delivery, and where it is. `n` is the number of its segment."""

    generation: int
    day: int
    n: int
    batch_id: str
    row: Row

    @property
    def event_id(self) -> str:
        """The id of its event."""
        return self.row.event_id.hex()

    @property
    def claim_key(self) -> Key[ClaimItem]:
        """The key of the claim of its event."""
        return layout.claim_key(self.generation, self.event_id)

    @property
    def claim(self) -> ClaimItem:
        """The item of the claim that it is the first of its event."""
        (pk, sk), row = self.claim_key, self.row
        item: ClaimItem = {
            "pk": pk,
            "sk": sk,
            "batch": self.batch_id,
            "day": self.day,
            "n": self.n,
            "frame": row.frame,
            "seq": row.seq,
        }
        return item if row.content is None else {**item, "content": row.content}

    def verdict(self, first: ClaimItem | None) -> Verdict:
        """Return what it is, given the claim of its event; UNRECORDED if there is none."""
        if first is None:
            return Verdict.UNRECORDED
        # A claim that names this delivery was made by a call whose answer was lost, or by a writer that died.
        is_first = (first["batch"], first["seq"]) == (self.batch_id, self.row.seq)
        return Verdict.ACCEPTED if is_first else duplicate_kind(self.row.content, first.get("content"))

    def skipped(self, kind: Verdict) -> dict[int, Verdict]:
        """Return the duplicates of a segment that holds nothing else, given what this is."""
        return {} if kind == Verdict.ACCEPTED else {self.row.seq: kind}

    def location(self, kind: Verdict) -> Location:
        """Return where its raw line is, given what it is."""
        key, row = RawKind.SEGMENT.key(self.batch_id, self.n, self.day), self.row
        return Location(self.event_id, self.day, key, self.batch_id, row.frame, row.seq, kind)


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of one batch's deliveries. `segments` are the (day, n) of the segments that rows refer to."""

    table: Table
    generation: int
    batch_id: str
    segments: Sequence[tuple[int, int]]

    def make(self, rows: Sequence[Row], known: Mapping[int, Verdict] | None = None) -> dict[int, Verdict]:
        """Claim the events of a chunk, in the order of its rows, and return the seqs that are duplicates, each with its
        kind. The seqs in `known` are duplicates already and claim nothing. May be repeated."""
        return claim_blocks([(self, rows, known)])[0]

    def verdicts(self, rows: Sequence[Row]) -> dict[int, Verdict]:
        """Return the seqs that are not accepted, each with its verdict, by the claims that there are."""
        claims = self.look_up(rows)
        kinds = ((row.seq, self.delivery(row).verdict(claims.get(row.event_id))) for row in rows)
        return {seq: kind for seq, kind in kinds if kind != Verdict.ACCEPTED}

    def duplicates(
        self, segments: Sequence[Segment], rows: Iterable[Row], verdicts: Mapping[int, Verdict]
    ) -> Iterator[KeyItem]:
        """Yield the items of a chunk's duplicates."""
        conflicts: set[bytes] = set()
        for row in rows:
            if kind := verdicts.get(row.seq):
                yield from duplicate_items(segments[row.segment].ingest_time, self.delivery(row), kind, conflicts)

    def settled(
        self, segments: Sequence[Segment], rows: Iterable[Row], verdicts: Mapping[int, Verdict]
    ) -> Iterator[SegmentItem]:
        """Yield the items that list the segments with their duplicates, once their claims are settled."""
        skipped: list[dict[int, Verdict]] = [{} for _ in segments]
        for row in rows:
            if kind := verdicts.get(row.seq):
                skipped[row.segment][row.seq] = kind
        return map(codec.segment_item, repeat(self.generation), segments, skipped)

    def delivery(self, row: Row) -> Delivery:
        """Return the delivery of a row."""
        return Delivery(self.generation, *self.segments[row.segment], self.batch_id, row)

    def look_up(self, rows: Iterable[Row]) -> dict[bytes, ClaimItem]:
        """Return the claims of the rows' events, as far as there are any."""
        keys = {self.delivery(row).claim_key: row.event_id for row in rows}
        return {keys[Key(key)]: item for key, item in self.table.get_many(keys).items()}


Claiming = tuple[Claims, Sequence[Row], Mapping[int, Verdict] | None]
"""The rows of a block, in the order of the input, and the verdicts of those that are duplicates already and claim
nothing."""


def claim_blocks(blocks: Sequence[Claiming]) -> list[dict[int, Verdict]]:
    """Claim the events of blocks of one generation, each of which claims before those after it. Return as `Claims.make`
    does of each. May be repeated."""
    every = [(claims.delivery(row), known or {}) for claims, rows, known in blocks for row in rows]
    first: dict[Key[ClaimItem], ClaimItem] = {}
    for delivery, known in every:
        if delivery.row.seq not in known:
            first.setdefault(delivery.claim_key, delivery.claim)
    if first:
        table = blocks[0][0].table
        inserted = table.insert_many(first.values())
        there = [key for key, new in zip(first, inserted, strict=True) if not new]
        found = table.get_many(there)
        if len(found) != len(there):
            raise StoreError("a claim that was there is gone", hint="pik verify --rebuild-index")
        first |= {Key(key): claim for key, claim in found.items()}
    skipped: list[dict[int, Verdict]] = []
    deliveries = iter(every)
    for _, rows, _ in blocks:
        kinds: dict[int, Verdict] = {}
        for delivery, known in islice(deliveries, len(rows)):
            seq = delivery.row.seq
            kind = known[seq] if seq in known else delivery.verdict(first[delivery.claim_key])
            if kind != Verdict.ACCEPTED:
                kinds[seq] = kind
        skipped.append(kinds)
    return skipped


def claims_of(table: Table, generation: int, batch_id: str, segments: Iterable[Segment]) -> Claims:
    """Return the claims of a batch's deliveries in these segments."""
    return Claims(table, generation, batch_id, [(segment.day, number_of(segment.key)) for segment in segments])


def duplicate_item(ingest_time: int, delivery: Delivery, kind: Verdict) -> DuplicateItem:
    """Return the item of a duplicate in a segment with this `ingest_time`."""
    row, place = delivery.row, (delivery.batch_id, delivery.row.seq)
    keyed = row.content is not None
    pk, sk = layout.duplicate_key(delivery.generation, delivery.day, delivery.event_id, place, keyed=keyed)
    item: DuplicateItem = {
        "pk": pk,
        "sk": sk,
        "kind": kind,
        "day": delivery.day,
        "n": delivery.n,
        "frame": row.frame,
        "ingest_time": ingest_time,
    }
    return item if row.content is None else {**item, "content": row.content}


def duplicate_items(
    ingest_time: int, delivery: Delivery, kind: Verdict, conflicts: set[bytes] | None = None
) -> Iterator[KeyItem]:
    """Yield the items of a duplicate: for a conflict also that which says that its event has one, unless the event is
    in `conflicts`, to which it is added."""
    conflicts = set() if conflicts is None else conflicts
    if kind == Verdict.CONFLICT and delivery.row.event_id not in conflicts:
        conflicts.add(delivery.row.event_id)
        yield layout.conflict_item(delivery.generation, delivery.event_id)
    yield duplicate_item(ingest_time, delivery, kind)


def accepted_of(claim: ClaimItem) -> Location:
    """Return the delivery that a claim names, without its `recorded_at`."""
    key = RawKind.SEGMENT.key(claim["batch"], claim["n"], claim["day"])
    return Location(claim["sk"], claim["day"], key, claim["batch"], claim["frame"], claim["seq"], Verdict.ACCEPTED)


def duplicate_of(g: int, item: DuplicateItem) -> Delivery:
    """Return the delivery of a `duplicate_item`, whose row has no entity. Raises StoreError."""
    with codec.decoding(f"item {item['pk']} {item['sk']}"):
        event_id, batch_id, seq = item["sk"].split("/")
        row = Row(int(seq), bytes.fromhex(event_id), item.get("content"), 0, item["frame"], "")
        return Delivery(g, item["day"], item["n"], batch_id, row)


def duplicate_location(g: int, item: DuplicateItem) -> Location:
    """Return where the delivery of a `duplicate_item` is, without its `recorded_at`. Raises StoreError."""
    with codec.decoding(f"item {item['pk']} {item['sk']}"):
        return duplicate_of(g, item).location(Verdict(item["kind"]))


_read_chunk = msgspec.msgpack.Decoder(tuple[Header, list[Row]]).decode

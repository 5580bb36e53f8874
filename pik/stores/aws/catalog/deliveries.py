"""The deliveries of a chunk: their rows in id files, their claims, and the items of those that are duplicates.

An id file is an object in S3 that holds a chunk's deliveries, so that events are found by their ids and an interrupted
chunk can be finished; docs/dev/aws-layout.md describes its bytes. A claim is an item that names the first delivery of
an event. It can be inserted only once: it decides each verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, repeat
from math import sqrt
from operator import attrgetter, itemgetter
from struct import Struct
from typing import Any, NamedTuple

import msgspec
import zstandard

from pik.errors import Damaged, NotFound, StoreError
from pik.model.batch import KEYED, OF_REQUEST, PLAIN, Arrivals, Location, RejectFile, Segment, Verdict, duplicate_kind
from pik.model.instant import day_text
from pik.ports.raw import ObjectReader, RawKind, number_of
from pik.stores.aws.catalog import layout
from pik.stores.aws.catalog.layout import ClaimItem, DuplicateItem
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.table import READS, Key, Table, batched

PLAIN_ROW = Struct(">16sIIQ")
KEYED_ROW = Struct(">16s16sIIQ")

_MARGIN = 64
"""Rows that are read on both sides of the place where an id should be, at least."""

_REMEMBERED = 10_000
"""Segments whose `recorded_at` is remembered."""


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


@dataclass(frozen=True, slots=True)
class IdFile:
    """An id file by its key, which has the number of rows of each kind."""

    key: str
    plain: int
    keyed: int

    @property
    def tail(self) -> int:
        """The offset of what follows the rows."""
        return self.plain * PLAIN_ROW.size + self.keyed * KEYED_ROW.size


def prefix_of(generation: int) -> str:
    """Return the prefix of the keys of a generation's id files."""
    return f"index/{generation}/"


def id_file(key: str) -> IdFile:
    """Return the id file of a key `…/<batch_id>-<n>-<first day>-<plain>-<keyed>.ids`."""
    *_, plain, keyed = key.removesuffix(".ids").rsplit("-", 2)
    return IdFile(key, int(plain), int(keyed))


def ids_key(generation: int, header: Header, rows: Sequence[Row]) -> str:
    """Return the key of a chunk's id file."""
    first, keyed = header.segments[0], sum(row.content is not None for row in rows)
    name = f"{header.batch_id}-{number_of(first.key)}-{day_text(first.day)}-{len(rows) - keyed}-{keyed}"
    return f"{prefix_of(generation)}{name}.ids"


def write_ids(raw: AwsRaw, key: str, header: Header, rows: Sequence[Row]) -> None:
    """Store the deliveries of a chunk. Raises AlreadyExists."""
    ordered = sorted(rows, key=lambda row: (row.content is not None, row.event_id, row.seq))
    packed = (
        PLAIN_ROW.pack(row.event_id, row.segment, row.frame, row.seq)
        if row.content is None
        else KEYED_ROW.pack(row.event_id, row.content, row.segment, row.frame, row.seq)
        for row in ordered
    )
    tail = msgspec.json.encode(header) + b"\n" + "\n".join(row.entity for row in ordered).encode()
    raw.create(key, b"".join((*packed, zstandard.ZstdCompressor(write_checksum=True).compress(tail))))


def read_ids(raw: ObjectReader, key: str) -> tuple[Header, list[Row]]:
    """Return a chunk as it was stored, its deliveries in the order of the input. Raises Damaged."""
    file, data = id_file(key), raw.read(key)
    border = file.plain * PLAIN_ROW.size
    plain = (
        (seq, event_id, None, segment, frame) for event_id, segment, frame, seq in PLAIN_ROW.iter_unpack(data[:border])
    )
    keyed = (
        (seq, event_id, content, segment, frame)
        for event_id, content, segment, frame, seq in KEYED_ROW.iter_unpack(data[border : file.tail])
    )
    header, entities = _decode_tail(key, data[file.tail :])
    rows = [Row(*row, entity) for row, entity in zip(chain(plain, keyed), entities, strict=True)]
    return header, sorted(rows, key=attrgetter("seq"))


def _decode_tail(key: str, data: bytes) -> tuple[Header, list[str]]:
    try:
        text = zstandard.ZstdDecompressor().decompress(data)
        head, _, entities = text.partition(b"\n")
        return _read_header(head), entities.decode().split("\n")
    except (zstandard.ZstdError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(f"{key} is damaged: {error}", hint="pik verify --rebuild-index") from None


_read_header = msgspec.json.Decoder(Header).decode


def find_claims(
    raw: AwsRaw, generation: int, file: IdFile, low: bytes, high: bytes, limit: int
) -> dict[str, Key[ClaimItem]]:
    """Return the keys of the claims of a file's events with an id from `low` to `high` (both included, 16 bytes), by
    event_id: the first `limit`. Raises Damaged."""
    read = partial(raw.read, file.key)
    found = _search(read, 0, file.plain, PLAIN_ROW, low, high)
    plain = {event_id: (place, segment) for place, (event_id, segment, *_) in reversed(found)}
    keyed = {row[0] for _, row in _search(read, file.plain * PLAIN_ROW.size, file.keyed, KEYED_ROW, low, high)}
    chosen = sorted(plain.keys() | keyed)[:limit]
    keys = {each.hex(): layout.claim_key(generation, 0, "", each, keyed=True) for each in chosen}
    if some := [event_id for event_id in chosen if event_id in plain]:  # else the rest of the file need not be read
        header, entities = _decode_tail(file.key, raw.read(file.key, file.tail))
        for event_id in some:
            place, segment = plain[event_id]
            day, entity = header.segments[segment].day, entities[place]
            keys[event_id.hex()] = layout.claim_key(generation, day, entity, event_id, keyed=False)
    return keys


def _search(
    read: Callable[[int, int], bytes], offset: int, count: int, row: Struct, low: bytes, high: bytes
) -> list[tuple[int, tuple[Any, ...]]]:
    """Return rows with their places. Rows are sorted and ids evenly spread, so a row is near its id's share of the
    rows; where it turns out not to be, more is read."""
    spread = _MARGIN + int(2 * sqrt(count))  # four standard deviations in the middle
    while count:
        begin = max(0, _share(low, count) - spread)
        end = min(count, _share(high, count) + spread + 1)
        rows = list(row.iter_unpack(read(offset + begin * row.size, (end - begin) * row.size)))
        if (begin == 0 or rows[0][0] < low) and (end == count or rows[-1][0] > high):
            return [(place, one) for place, one in enumerate(rows, begin) if low <= one[0] <= high]
        spread *= 8
    return []


def _share(event_id: bytes, count: int) -> int:
    return int.from_bytes(event_id[:8], "big") * count >> 64


class Delivery(NamedTuple):
    """A delivery, and where it is. `n` is the number of its segment."""

    generation: int
    day: int
    n: int
    batch_id: str
    row: Row

    @property
    def claim_key(self) -> Key[ClaimItem]:
        """The key of the claim of its event."""
        row = self.row
        return layout.claim_key(self.generation, self.day, row.entity, row.event_id, keyed=row.content is not None)

    @property
    def claim(self) -> ClaimItem:
        """The item of the claim that it is the first of its event."""
        (pk, sk), row = self.claim_key, self.row
        item: ClaimItem = {"pk": pk, "sk": sk, "batch": self.batch_id, "n": self.n, "frame": row.frame, "seq": row.seq}
        return item if row.content is None else {**item, "day": self.day, "content": row.content}

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

    def location(self, kind: Verdict, recorded_at: int = 0) -> Location:
        """Return where its raw line is, given what it is."""
        key, row = RawKind.SEGMENT.key(self.batch_id, self.n, self.day), self.row
        return Location(row.event_id.hex(), self.day, key, self.batch_id, row.frame, row.seq, kind, recorded_at)


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
        known = known or {}
        first: dict[bytes, Row] = {}
        for row in rows:
            if row.seq not in known:
                first.setdefault(row.event_id, row)
        claiming = list(first.values())
        inserted = self.table.insert_many(self.delivery(row).claim for row in claiming)
        there = [row for row, new in zip(claiming, inserted, strict=True) if not new]
        found = self.look_up(there)
        if len(found) != len(there):
            raise StoreError("a claim that was there is gone", hint="pik verify --rebuild-index")

        def kind(row: Row) -> Verdict:
            if row.seq in known:
                return known[row.seq]
            if row.event_id in found:
                return self.delivery(row).verdict(found[row.event_id])
            mine = first[row.event_id]
            return Verdict.ACCEPTED if row is mine else duplicate_kind(row.content, mine.content)

        return {row.seq: verdict for row in rows if (verdict := kind(row)) != Verdict.ACCEPTED}

    def verdicts(self, rows: Sequence[Row]) -> dict[int, Verdict]:
        """Return the seqs that are not accepted, each with its verdict, by the claims that there are."""
        claims = self.look_up(rows)
        kinds = ((row.seq, self.delivery(row).verdict(claims.get(row.event_id))) for row in rows)
        return {seq: kind for seq, kind in kinds if kind != Verdict.ACCEPTED}

    def write_duplicates(
        self, segments: Sequence[Segment], rows: Iterable[Row], verdicts: Mapping[int, Verdict]
    ) -> None:
        """Write the items of a chunk's duplicates."""
        self.table.write_many(
            duplicate_item(segments[row.segment], self.delivery(row), verdicts[row.seq])
            for row in rows
            if row.seq in verdicts
        )

    def write_settled(self, segments: Sequence[Segment], rows: Iterable[Row], verdicts: Mapping[int, Verdict]) -> None:
        """List the segments with their duplicates, once their claims are settled."""
        skipped: list[dict[int, Verdict]] = [{} for _ in segments]
        for row in rows:
            if kind := verdicts.get(row.seq):
                skipped[row.segment][row.seq] = kind
        self.table.write_many(map(layout.segment_item, repeat(self.generation), segments, skipped))

    def delivery(self, row: Row) -> Delivery:
        """Return the delivery of a row."""
        return Delivery(self.generation, *self.segments[row.segment], self.batch_id, row)

    def look_up(self, rows: Iterable[Row]) -> dict[bytes, ClaimItem]:
        """Return the claims of the rows' events, as far as there are any."""
        keys = {self.delivery(row).claim_key: row.event_id for row in rows}
        return {keys[Key(key)]: item for key, item in self.table.get_many(keys).items()}


def claims_of(table: Table, generation: int, batch_id: str, segments: Iterable[Segment]) -> Claims:
    """Return the claims of a batch's deliveries in these segments."""
    return Claims(table, generation, batch_id, [(segment.day, number_of(segment.key)) for segment in segments])


def duplicate_item(segment: Segment, delivery: Delivery, kind: Verdict) -> DuplicateItem:
    """Return the item of a duplicate in this segment, but of a request with one event."""
    row = delivery.row
    event_id = row.event_id.hex()
    day = day_text(delivery.day) if row.content is None else layout.KEYED_DAY
    item: DuplicateItem = {
        "pk": layout.duplicates_pk(delivery.generation, day, event_id[0]),
        "sk": f"{event_id}/{delivery.batch_id}/{row.seq}",
        "kind": kind,
        "day": delivery.day,
        "n": delivery.n,
        "frame": row.frame,
        "ingest_time": segment.ingest_time,
    }
    return {**item, "entity": row.entity} if row.content is None else {**item, "content": row.content}


def accepted_of(event_id: str, claim: ClaimItem) -> Location:
    """Return the delivery that a claim names, without its `recorded_at`."""
    day = claim["day"] if "content" in claim else layout.day_number(claim["pk"].split("/")[2])
    key = RawKind.SEGMENT.key(claim["batch"], claim["n"], day)
    return Location(event_id, day, key, claim["batch"], claim["frame"], claim["seq"], Verdict.ACCEPTED)


def duplicate_of(g: int, item: DuplicateItem) -> Delivery:
    """Return the delivery of a `duplicate_item`. Raises StoreError."""
    with layout.decoding(f"item {item['pk']} {item['sk']}"):
        event_id, batch_id, seq = item["sk"].split("/")
        row = Row(int(seq), bytes.fromhex(event_id), item.get("content"), 0, item["frame"], item.get("entity", ""))
        return Delivery(g, item["day"], item["n"], batch_id, row)


def duplicate_location(g: int, item: DuplicateItem) -> Location:
    """Return where the delivery of a `duplicate_item` is, without its `recorded_at`. Raises StoreError."""
    with layout.decoding(f"item {item['pk']} {item['sk']}"):
        return duplicate_of(g, item).location(Verdict(item["kind"]))


@dataclass(slots=True)
class RecordingTimes:
    """Adds to locations the `recorded_at` of their segments. A number of segments is remembered."""

    table: Table
    generation: int
    _known: dict[str, int] = field(default_factory=dict)

    def added(self, groups: Iterable[Sequence[Location]]) -> Iterator[list[Location]]:
        """Yield the groups in their order; the segments of a hundred are read together. Raises NotFound."""
        for some in batched(groups, READS):
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            self._read(one for group in some for one in group if not one.recorded_at)
            for group in some:
                yield [one if one.recorded_at else replace(one, recorded_at=self._of(one)) for one in group]

    def _read(self, locations: Iterable[Location]) -> None:
        keys: dict[Key[Any], str] = {}
        for one in locations:
            if one.segment_key not in self._known:
                n = number_of(one.segment_key)
                keys[layout.numbered_key(self.generation, one.day, one.batch_id, n)] = one.segment_key
                if n == OF_REQUEST:  # one with one event is listed elsewhere, but its batch has it, too
                    keys[layout.batch_key(self.generation, one.batch_id)] = one.segment_key
        for key, item in self.table.get_many(keys).items():
            if "frames" in item or "listed" in item:
                self._known[keys[Key(key)]] = item["recorded_at"]

    def _of(self, location: Location) -> int:
        if location.segment_key not in self._known:
            raise NotFound(f"segment {location.segment_key} is not in the index", hint="pik verify --rebuild-index")
        return self._known[location.segment_key]

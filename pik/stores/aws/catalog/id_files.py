"""Id files: objects in S3 that hold the deliveries of a chunk, so that events are found by their ids and an interrupted
chunk can be finished. docs/dev/aws-layout.md describes their bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import sqrt
from operator import attrgetter, itemgetter
from struct import Struct
from typing import Any, NamedTuple

import msgspec
import zstandard

from pik.errors import Damaged
from pik.model.batch import KEYED, PLAIN, Arrivals, RejectFile, Segment
from pik.model.instant import day_text
from pik.ports.raw import number_of
from pik.stores.aws.raw import AwsRaw

PLAIN_ROW = Struct(">16sIIQ")
KEYED_ROW = Struct(">16s16sIIQ")

_MARGIN = 64
"""Rows that are read on both sides of the place where an id should be, at least."""


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


def read_ids(raw: AwsRaw, key: str) -> tuple[Header, list[Row]]:
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


def read_tail(raw: AwsRaw, file: IdFile) -> tuple[Header, list[str]]:
    """Return the header, and the entities in the order of the rows. Raises Damaged."""
    return _decode_tail(file.key, raw.read(file.key, file.tail))


def _decode_tail(key: str, data: bytes) -> tuple[Header, list[str]]:
    try:
        text = zstandard.ZstdDecompressor().decompress(data)
        head, _, entities = text.partition(b"\n")
        return _read_header(head), entities.decode().split("\n")
    except (zstandard.ZstdError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(f"{key} is damaged: {error}", hint="pik verify --rebuild-index") from None


_read_header = msgspec.json.Decoder(Header).decode


class Match(NamedTuple):
    """A row that a search found. `place` is its position among all rows of the file."""

    event_id: bytes
    place: int
    segment: int
    keyed: bool


def search_ids(raw: AwsRaw, file: IdFile, low: bytes, high: bytes) -> list[Match]:
    """Return the rows with an event_id from `low` to `high` (both included, 16 bytes), ordered by event_id."""
    read = partial(raw.read, file.key)
    plain = _search(read, 0, file.plain, PLAIN_ROW, low, high)
    keyed = _search(read, file.plain * PLAIN_ROW.size, file.keyed, KEYED_ROW, low, high)
    found = [Match(row[0], place, row[1], keyed=False) for place, row in plain]
    return sorted(found + [Match(row[0], file.plain + place, row[2], keyed=True) for place, row in keyed])


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

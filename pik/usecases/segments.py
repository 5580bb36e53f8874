"""From a block of records to raw segments: what a worker does with its part of the input."""

from __future__ import annotations

import re
from base64 import b64encode
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from operator import itemgetter
from struct import Struct
from time import time_ns
from typing import Protocol

import msgspec
import zstandard

from pik.errors import InputError, Invalid
from pik.model.batch import Arrivals, Chunk, Frame, Reject, RejectFile, Segment
from pik.model.event import raw_line, read_event, stamp
from pik.model.instant import DAY, SECOND, day_text
from pik.model.mapping import RecordMapping
from pik.usecases.source import Block

FRAME = 96 * 1024
"""Uncompressed bytes after which a frame ends."""

COMPRESSION_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Reading:
    """How records are read. `mapping` None means that they are events already; `stop` that no record may be invalid."""

    max_line: int
    stop: bool = False
    mapping: Mapping[str, str] | None = None
    time_format: str = "rfc3339"


class InvalidRecord(InputError):
    """A record that is no event, where none may be. `seq` is its position in the input."""

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(
            f"record {seq} is no event: {reason}", hint="correct it, or --on-invalid reject keeps it apart"
        )
        self.seq = seq
        self.reason = reason


_Row = tuple[str, int, bytes, bytes, bool]
"""A delivery on its way into a segment: entity_id, event_time, raw line, its PLAIN or KEYED but for the frame, and
whether that is a KEYED. Segments have them in the order of the first two, and then of their seqs."""

_PLAIN, _KEYED, _FRAME = Struct(">16sQ"), Struct(">Q16s16s"), Struct(">I")
"""PLAIN and KEYED in two parts: the frame is known last."""


class _Read:
    """What a block holds: rows by day, and what is counted over them."""

    def __init__(self) -> None:
        self.days: defaultdict[int, list[_Row]] = defaultdict(list)
        self.rejects: list[Reject] = []
        self.lags: list[int] = []
        self.sources: list[str] = []
        self.blank = 0


def _lines(block: Block) -> list[bytes]:
    lines = block.data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


class Creator(Protocol):
    """As much of Raw as building segments takes."""

    def create(self, key: str, data: bytes) -> None:
        """As Raw's."""


class SegmentBuilder:
    """Builds the segments of one batch. `raw` None means a dry run: everything but the storing."""

    def __init__(self, raw: Creator | None, batch_id: str, reading: Reading) -> None:
        self.raw, self.batch_id, self.max_line, self.stop = raw, batch_id, reading.max_line, reading.stop
        mapping = None if reading.mapping is None else RecordMapping(reading.mapping, reading.time_format)
        self._mapping = mapping
        self._compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True)

    def build(self, block: Block, number: int) -> Chunk:
        """Parse the block, store its segments and rejects under `number`, and tell what the index needs."""
        ingest_time = time_ns()
        read = self._read(block, ingest_time)
        if read.rejects and self.stop:
            raise InvalidRecord(read.rejects[0].seq, read.rejects[0].reason)
        return Chunk(
            batch_id=self.batch_id,
            first_seq=block.first_seq,
            last_seq=block.last_seq,
            offset=block.offset,
            prefix_digest=block.prefix_digest,
            read=block.last_seq - block.first_seq + 1 - read.blank,
            arrivals=tuple(self._store(day, rows, number, ingest_time) for day, rows in sorted(read.days.items())),
            rejects=self._store_rejects(read.rejects, number) if read.rejects else None,
            reasons=Counter(reason_kind(reject.reason) for reject in read.rejects),
            lags=coarse_lags(read.lags),
            sources=Counter(read.sources),
        )

    def _read(self, block: Block, ingest_time: int) -> _Read:
        """Parse every record of the block. This loop is what an ingest spends most of its time in."""
        read = _Read()
        days, lags, sources = read.days, read.lags, read.sources
        stamped = stamp(ingest_time, self.batch_id)
        mapping, max_line = self._mapping, self.max_line
        original = None
        for seq, line in enumerate(_lines(block), block.first_seq):
            try:
                if len(line) > max_line:
                    raise Invalid(f"the line is longer than {max_line} bytes")
                if mapping is None:
                    event = read_event(line)
                else:
                    event, original = mapping.read(line)
            except Invalid as error:
                if line.strip() or len(line) > max_line:
                    # How much of an over-long line came along depends on where blocks end; what is kept must not.
                    read.rejects.append(make_reject(seq, error, line[: max_line + 1]))
                else:
                    read.blank += 1
                continue
            time, received = event.event_time, event.received_time
            keyed = event.idempotency_key is not None
            claim = _KEYED.pack(seq, event.event_id, event.content_hash) if keyed else _PLAIN.pack(event.event_id, seq)
            text = raw_line(event, seq, stamped, original)
            days[time // DAY].append((event.entity_id, time, text, claim, keyed))
            sources.append(event.source)
            lags.append((ingest_time if received is None else received) - time)
        return read

    def _store(self, day: int, rows: list[_Row], number: int, ingest_time: int) -> Arrivals:
        key = f"raw/event_date={day_text(day)}/{self.batch_id}-{number}.ndjson.zst"
        in_order = "\n".join([row[0] for row in rows])
        rows.sort(key=itemgetter(1))  # twice by one field is much faster than once by two
        rows.sort(key=itemgetter(0))
        entities, times, lines, claims, keyed = zip(*rows, strict=True)
        frames: list[Frame] = []
        parts: list[bytes] = []
        plain_claims: list[bytes] = []
        keyed_claims: list[bytes] = []
        offset = 0
        for frame, (begin, end) in enumerate(_frames(lines)):
            data = self._compressor.compress(b"\n".join(lines[begin:end]) + b"\n")
            parts.append(data)
            frames.append(Frame(offset, len(data), end - begin, entities[begin], entities[end - 1]))
            offset += len(data)
            tail = _FRAME.pack(frame)
            of_frame = list(zip(claims[begin:end], keyed[begin:end], strict=True))
            plain_claims += [claim + tail for claim, with_key in of_frame if not with_key]
            keyed_claims += [claim + tail for claim, with_key in of_frame if with_key]
        stored = b"".join(parts)
        if self.raw is not None:
            self.raw.create(key, stored)
        segment = Segment(
            key=key,
            batch_id=self.batch_id,
            day=day,
            size=len(stored),
            digest=sha256(stored).hexdigest(),
            deliveries=len(rows),
            ingest_time=ingest_time,
            first_event=min(times),
            last_event=max(times),
            frames=tuple(frames),
        )
        return Arrivals(segment, b"".join(sorted(plain_claims)), b"".join(sorted(keyed_claims)), in_order)

    def _store_rejects(self, rejects: list[Reject], number: int) -> RejectFile:
        key = f"raw/rejects/{self.batch_id}-{number}.ndjson.zst"
        data = self._compressor.compress(b"".join(msgspec.json.encode(reject) + b"\n" for reject in rejects))
        if self.raw is not None:
            self.raw.create(key, data)
        return RejectFile(key=key, size=len(data), digest=sha256(data).hexdigest(), records=len(rejects))


def _frames(lines: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Where frames begin and end among the lines."""
    sizes = list(accumulate([len(line) + 1 for line in lines]))
    begin = size = 0
    while begin < len(lines):
        end = min(bisect_left(sizes, size + FRAME, begin) + 1, len(lines))
        yield begin, end
        begin, size = end, sizes[end - 1]


def make_reject(seq: int, error: Invalid, line: bytes) -> Reject:
    """The record as it is kept."""
    text = line.decode(errors="replace")
    whole = "" if "\ufffd" not in text else b64encode(line).decode()
    return Reject(seq=seq, reason=error.message, field=error.field, line=text, bytes=whole)


_SPECIFIC = re.compile(r"'.*'|\".*\"| \((byte|character) \d+\)")


def reason_kind(reason: str) -> str:
    """A reason without what is special to one record, for counting."""
    return _SPECIFIC.sub(lambda found: "" if found[0][0] == " " else "…", reason)


def coarse_lags(lags: list[int]) -> dict[int, int]:
    """How many there are of each lag, in nanoseconds cut to three significant digits."""
    # From 10^5 s on a thousand seconds are fine enough, and make few distinct numbers out of many.
    coarse: Counter[int] = Counter()
    near = False
    for kiloseconds, count in Counter([lag // (1000 * SECOND) for lag in lags]).items():
        if -100 <= kiloseconds < 100:
            near = True
        else:
            coarse[_three_digits(kiloseconds) * 1000 * SECOND] += count
    if near:
        coarse.update(_three_digits(lag) for lag in lags if -100 <= lag // (1000 * SECOND) < 100)
    return dict(coarse)


def _three_digits(number: int) -> int:
    unit: int = 10 ** max(0, len(str(abs(number))) - 3)
    return number // unit * unit  # toward smaller numbers, the negative ones too

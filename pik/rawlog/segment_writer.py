"""From a block of records to raw segments: what a worker does with its part of the input."""

from __future__ import annotations

import re
from base64 import b64encode
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import sha256
from itertools import accumulate, repeat
from operator import add, sub
from time import time_ns

import msgspec
import zstandard
from msgspec import structs

from pik.errors import InputError, Invalid
from pik.inputs.blocks import Block, FilePart, Problem
from pik.inputs.parents import Parents
from pik.inputs.time_formats import advised
from pik.model.batch import KEYED, PLAIN, Arrivals, Chunk, Frame, Reject, RejectFile, Segment, count_lags, frame_of
from pik.model.delivery import actor_field, file_field, raw_line, stamp
from pik.model.event import Event, Rows, read_event, read_rows
from pik.model.instant import DAY
from pik.model.place import NOWHERE, Place
from pik.ports.raw import Object, Raw, RawKind
from pik.rawlog.reading import Reading

FRAME = 96 * 1024
"""Uncompressed bytes after which a frame ends."""

COMPRESSION_LEVEL = 1

GROUP = 128 * 1024
"""Bytes of records read together: enough that steps over all of them cost little, few enough that they stay in the
processor's caches from one step to the next."""


class InvalidRecord(InputError):
    """A record that is not an event, where each must be. `seq` is its position in the input."""

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(
            f"record {seq} is not an event: {reason}", hint="correct it, or --on-invalid reject keeps it apart"
        )
        self.seq = seq
        self.reason = reason


_COLUMNS = tuple(column.name for column in fields(Rows))


@dataclass(slots=True)
class _Read(Rows):
    """What a block holds: its deliveries, in the order of their `seqs`, and what else there is."""

    seqs: list[int] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    blank: int = 0

    def add(self, rows: Rows, seqs: Iterable[int]) -> None:
        """Add these after those that are there already."""
        self.seqs += seqs
        for column in _COLUMNS:
            getattr(self, column).extend(getattr(rows, column))


def _groups(lines: bytes) -> Iterator[list[bytes]]:
    """Yield the lines, a group at a time."""
    start = 0
    while start < len(lines):
        end = lines.find(b"\n", start + GROUP) + 1 or len(lines)
        yield lines[start:end].removesuffix(b"\n").split(b"\n")
        start = end


def _parts(block: Block) -> Iterator[tuple[FilePart | None, int, bytes]]:
    """Yield what a block has of each file, from which record on, where several files are one input."""
    if not block.files:
        yield None, block.first_seq, block.data
        return
    start, first_seq = 0, block.first_seq
    for part in block.files:
        end = start
        for _ in range(part.last_seq - first_seq + 1):
            end = block.data.index(b"\n", end) + 1
        yield part, first_seq, block.data[start:end]
        start, first_seq = end, part.last_seq + 1


def _part_field(part: FilePart) -> bytes:
    """Return the part of the envelope that says what a record comes from."""
    return actor_field(part.actor) + file_field(part.name, part.first_seq)


def place_of(block: Block, seq: int, file: str) -> Place:
    """Return where a record of the block stands; `file` is the path of an input that is one file."""
    parents = Parents(block).of(seq)
    for part in block.files:
        if seq <= part.last_seq:
            return Place(part.path, seq - part.first_seq + 1, parents)
    return Place(file, seq, parents)


class SegmentBuilder:
    """Builds the segments of one batch. `tell` is called with the number of bytes read. `actor` is who sent an API
    request, whose objects are its only record."""

    def __init__(
        self, batch_id: str, reading: Reading, tell: Callable[[int], None] = lambda _done: None, actor: str = ""
    ) -> None:
        self._batch_id, self._reading, self._tell = batch_id, reading, tell
        self._actor, self._sender = actor, actor_field(actor)
        self._noted: list[str] = []
        self._mapping, self._zones = reading.record_mapping(self._noted), reading.times.zones(self._noted)
        self._compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True)

    def build(self, block: Block, number: int, ingest_time: int | None = None) -> tuple[Chunk, list[Object]]:
        """Parse the block and return what the index needs, and the block's segments and rejects, named by `number`, as
        objects that are still to be created. The ingest time is now, unless given."""
        ingest_time = time_ns() if ingest_time is None else ingest_time
        self._noted.clear()
        read = self._read(block, ingest_time)
        if read.rejects and self._reading.stop:
            reject = read.rejects[0]
            where = f" (record {reject.record} of {reject.file})" if reject.file else ""
            raise InvalidRecord(reject.seq, reject.reason + where)
        days: defaultdict[int, list[int]] = defaultdict(list)
        for place, time in enumerate(read.times):
            days[time // DAY].append(place)
        objects: list[Object] = []
        chunk = Chunk(
            batch_id=self._batch_id,
            first_seq=block.first_seq,
            last_seq=block.last_seq,
            offset=block.offset,
            prefix_digest=block.prefix_digest,
            read=block.last_seq - block.first_seq + 1 - read.blank,
            arrivals=tuple(
                self._segment(RawKind.SEGMENT.key(self._batch_id, number, day), day, ingest_time, read, places, objects)
                for day, places in sorted(days.items())
            ),
            rejects=self._reject_file(read.rejects, number, objects) if read.rejects else None,
            reasons=Counter(reason_kind(reject.reason) for reject in read.rejects),
            lags=count_lags(read.lags),
            sources=Counter(read.sources),
            longer=self._longer(),
            times=Counter(self._noted),
        )
        return chunk, objects

    def _longer(self) -> Counter[str]:
        """Return how often the mapping took one element of a longer list since it was asked last."""
        if self._mapping is None:
            return Counter()
        longer, self._mapping.longer = self._mapping.longer, Counter()
        return longer

    def _read(self, block: Block, ingest_time: int) -> _Read:
        """Read every record of the block."""
        read = _Read()
        stamped = stamp(ingest_time, self._batch_id)
        parents = Parents(block)
        for part, first_seq, data in _parts(block):
            field = self._sender if part is None else _part_field(part)
            for group in _groups(data):
                self._tell(sum(map(len, group)) + len(group))
                seqs: Sequence[int] = range(first_seq, first_seq + len(group))
                first_seq += len(group)
                fit = max(map(len, group)) <= self._reading.max_line
                if fit and not block.problems and not any(map(bytes.strip, group)):
                    read.blank += len(group)
                    continue
                rows, noted = None, len(self._noted)
                if fit and self._mapping is None:
                    rows = read_rows(group, seqs[0], ingest_time, stamped, self._zones, field)
                if rows is None:
                    del self._noted[noted:]
                    rows, seqs = self._one_by_one(
                        group, seqs, ingest_time, stamped, read, block.problems, part, parents
                    )
                read.add(rows, seqs)
        return read

    def _one_by_one(
        self,
        lines: list[bytes],
        seqs: Sequence[int],
        ingest_time: int,
        stamped: bytes,
        read: _Read,
        problems: Mapping[int, Problem],
        part: FilePart | None,
        parents: Parents,
    ) -> tuple[Rows, list[int]]:
        """Return the events of lines, and their seqs; lines that are none are kept apart."""
        field = self._sender if part is None else _part_field(part)
        actor = self._actor if part is None else part.actor
        mapping = self._mapping
        uses_place = mapping is not None and mapping.uses_place
        file, before = (self._reading.file, 0) if part is None else (part.path, part.first_seq - 1)
        place = NOWHERE
        events: list[Event] = []
        kept: list[int] = []
        raw_lines: list[bytes] = []
        for seq, line in zip(seqs, lines, strict=True):
            noted = len(self._noted)
            try:
                if seq in problems:
                    line = problems[seq].record
                    raise Invalid(problems[seq].reason)
                if len(line) > self._reading.max_line:
                    raise Invalid(f"the line is longer than {self._reading.max_line} bytes")
                if mapping is None:
                    event, original = read_event(line, self._zones), None
                else:
                    if uses_place:
                        place = Place(file, seq - before, parents.of(seq))
                    event, original = mapping.read(line, place)
                    parents.add_to(event)
            except Invalid as error:
                del self._noted[noted:]
                if self._mapping is None and not actor:
                    error = advised(error, line, self._zones)
                if line.strip() or len(line) > self._reading.max_line:
                    # How much of an over-long line came along depends on where blocks end; what is kept must not.
                    reject = make_reject(seq, error, line[: self._reading.max_line + 1], actor)
                    if part is not None:
                        reject = structs.replace(reject, file=part.name, record=seq - part.first_seq + 1)
                    read.rejects.append(reject)
                else:
                    read.blank += 1
                continue
            events.append(event)
            kept.append(seq)
            raw_lines.append(raw_line(event, seq, stamped, original, field))
        times = [event.event_time for event in events]
        received = [ingest_time if event.received_time is None else event.received_time for event in events]
        rows = Rows(
            entity_ids=[event.entity_id for event in events],
            sources=[event.source for event in events],
            times=times,
            lags=list(map(sub, received, times)),
            event_ids=[event.event_id for event in events],
            contents=[None if event.idempotency_key is None else event.content_hash for event in events],
            lines=raw_lines,
        )
        return rows, kept

    def _segment(
        self, key: str, day: int, ingest_time: int, read: _Read, deliveries: list[int], objects: list[Object]
    ) -> Arrivals:
        in_order = "\n".join([read.entity_ids[n] for n in deliveries])
        deliveries.sort(key=read.times.__getitem__)  # twice by one field is much faster than once by two
        first_event, last_event = read.times[deliveries[0]], read.times[deliveries[-1]]
        deliveries.sort(key=read.entity_ids.__getitem__)
        entities, lines = [read.entity_ids[n] for n in deliveries], [read.lines[n] for n in deliveries]
        seqs, event_ids, contents = read.seqs, read.event_ids, read.contents
        frames: list[Frame] = []
        parts: list[bytes] = []
        plain: list[bytes] = []
        keyed: list[bytes] = []
        offset = 0
        for frame, (begin, end) in enumerate(frame_bounds(lines)):
            data = self._compressor.compress(b"\n".join(lines[begin:end]) + b"\n")
            parts.append(data)
            frames.append(frame_of(offset, len(data), entities[begin:end]))
            offset += len(data)
            of_frame = deliveries[begin:end]
            plain += [PLAIN.pack(event_ids[n], seqs[n], frame) for n in of_frame if contents[n] is None]
            keyed += [KEYED.pack(seqs[n], event_ids[n], content, frame) for n in of_frame if (content := contents[n])]
        stored = b"".join(parts)
        objects.append((key, stored))
        segment = Segment(
            key=key,
            batch_id=self._batch_id,
            day=day,
            size=len(stored),
            digest=sha256(stored).hexdigest(),
            deliveries=len(lines),
            ingest_time=ingest_time,
            first_event=first_event,
            last_event=last_event,
            frames=tuple(frames),
        )
        return Arrivals(segment, b"".join(sorted(plain)), b"".join(sorted(keyed)), in_order)

    def _reject_file(self, rejects: list[Reject], number: int, objects: list[Object]) -> RejectFile:
        key = RawKind.REJECTS.key(self._batch_id, number)
        data = self._compressor.compress(b"".join(msgspec.json.encode(reject) + b"\n" for reject in rejects))
        objects.append((key, data))
        return RejectFile(key=key, size=len(data), digest=sha256(data).hexdigest(), records=len(rejects))


Work = tuple[str, Block, int, int]
"""The batch, a block of it, the block's number, and its time of ingest.

Workers do not take the time themselves: one that starts late would date its block after the next one, and a rebuild
without the old index, which goes by these times, would record the blocks in another order than the ingest did.
"""


def increasing_times() -> Iterator[int]:
    """Yield the time, each later than the one before, also where the clock goes back."""
    latest = 0
    while True:
        latest = max(time_ns(), latest + 1)
        yield latest


def building(raw: Raw, reading: Reading, tell: Callable[[int], None]) -> Callable[[Work], Chunk]:
    """Return what workers run. It is here rather than beside the ingest for them to import no more than it takes."""

    def build(work: Work) -> Chunk:
        batch_id, block, number, ingest_time = work
        chunk, objects = SegmentBuilder(batch_id, reading, tell).build(block, number, ingest_time)
        raw.create_all(objects)
        return chunk

    return build


def frame_bounds(lines: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield where frames begin and end among the lines."""
    sizes = list(accumulate(map(add, map(len, lines), repeat(1))))
    begin = size = 0
    while begin < len(lines):
        end = min(bisect_left(sizes, size + FRAME, begin) + 1, len(lines))
        yield begin, end
        begin, size = end, sizes[end - 1]


def make_reject(seq: int, error: Invalid, line: bytes, actor: str = "") -> Reject:
    """Return the record as it is kept."""
    text = line.decode(errors="replace")
    whole = "" if "\ufffd" not in text else b64encode(line).decode()
    return Reject(seq=seq, reason=error.message, field=error.field, line=text, bytes=whole, actor=actor)


_SPECIFIC = re.compile(r"(?<!\w)'.*'(?!\w)|\".*\"| \((byte|character|line|element) \d+\)")  # not what is the date's


def reason_kind(reason: str) -> str:
    """Return a reason without what is special to one record, for counting."""
    return _SPECIFIC.sub(lambda found: "" if found[0][0] == " " else "…", reason)

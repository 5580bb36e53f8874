"""Batches, their segments and counts, and what the index records about deliveries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import repeat
from operator import add, floordiv
from struct import Struct

import msgspec
from msgspec import structs

from pik.model.instant import SECOND


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """One independently compressed zstd frame of a segment.

    `offset` and `length` in bytes of the object; lines run from (`first`, …) to (`last`, …) in entity order. `names`
    are all of its entities, in order, if there are more than two distinct ones and not too many. One with no `lines`
    was lost when the index was rebuilt: which of its deliveries count is not known, so it is not read.
    """

    offset: int
    length: int
    lines: int
    first: str
    last: str
    names: tuple[str, ...] = ()

    @property
    def entities(self) -> tuple[str, ...]:
        """All entities in the frame; empty where only the first and the last are known."""
        if self.names or self.first == self.last:
            return self.names or (self.first,)
        return (self.first, self.last) if self.lines == 2 else ()


_NAMES = 20
"""Entities of a frame that it names, at most."""


def frame_of(offset: int, length: int, entities: Sequence[str]) -> Frame:
    """Return the frame at `offset` whose lines belong to these entities, in order."""
    first, last = entities[0], entities[-1]
    distinct = dict.fromkeys(entities) if first != last else {}
    names = tuple(distinct) if len(entities) > 2 and len(distinct) <= _NAMES else ()
    return Frame(offset, length, len(entities), first, last, names)


class PackedCopy(msgspec.Struct, frozen=True, array_like=True):
    """A copy of an object's bytes inside of a larger object: its key, and where they begin."""

    key: str
    offset: int


class Segment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An immutable raw object: deliveries of one batch for one UTC day, sorted by entity and time.

    `digest` is the SHA-256 of the object's bytes in hex, `size` their number, `day` days since 1970-01-01,
    times nanoseconds. `recorded_at` is when the index recorded it (0 before that), one moment for all segments of a
    block; `guessed`: a rebuild did not know it and took `ingest_time` instead. `inline` is a copy of the
    object's bytes, where the index keeps one of a small object to spare readers the way to raw, and `packed` is where
    the copy of a compacted store is; raw stays the truth.
    """

    key: str
    batch_id: str
    day: int
    size: int
    digest: str
    deliveries: int
    ingest_time: int
    first_event: int
    last_event: int
    frames: tuple[Frame, ...]
    recorded_at: int = 0
    guessed: bool = False
    inline: bytes = b""
    packed: PackedCopy | None = None

    @property
    def has_copy(self) -> bool:
        """Whether its bytes are elsewhere than in raw, too."""
        return bool(self.inline) or self.packed is not None

    @property
    def unknown_frames(self) -> tuple[Frame, ...]:
        """The frames of whose deliveries the index knows nothing."""
        return tuple(frame for frame in self.frames if not frame.lines)


class RejectFile(msgspec.Struct, frozen=True, kw_only=True):
    """A raw object with the rejected records of one chunk of a batch."""

    key: str
    size: int
    digest: str
    records: int


class Reject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record that is not a valid event: its position, why it was refused, and its text.

    `line` is the record's text; bytes that are not UTF-8 come as U+FFFD there and whole, base64, in `bytes`. `actor` is
    who sent it, of an API request only. Where several files are one batch, `file` is the one that it comes from, and
    `record` its position there.
    """

    seq: int
    reason: str
    field: str = ""
    line: str = ""
    bytes: str = ""
    actor: str = ""
    file: str = ""
    record: int = 0


class Verdict(StrEnum):
    """What the index recorded about a delivery."""

    ACCEPTED = "accepted"
    EXACT = "exact"
    """A duplicate with the same content."""
    CONFLICT = "conflict"
    """A duplicate with the same idempotency key and other content."""
    UNRECORDED = "unrecorded"
    """Not in the index yet: its writer is recording it, or died and the batch was not resumed. It does not count."""


def duplicate_kind(content: bytes | None, accepted: bytes | None) -> Verdict:
    """Return what a later delivery of an event is, given its content hash and that of the accepted delivery. Both are
    None for an event without an idempotency key, whose id is made of its content."""
    return Verdict.EXACT if content == accepted else Verdict.CONFLICT


PLAIN = Struct(">16sQI")
KEYED = Struct(">Q16s16sI")


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The deliveries of one segment, as the index needs them.

    `plain` packs those without an idempotency key as PLAIN (event_id, seq, frame), `keyed` the others as KEYED
    (seq, event_id, content_hash, frame); each is sorted, as bytes and so by its first fields. `entities` are the
    deliveries' entity_ids in the order of their seqs, joined by line feeds, which no name can hold.
    """

    segment: Segment
    plain: bytes
    keyed: bytes
    entities: str

    @property
    def count(self) -> int:
        """The number of deliveries."""
        return len(self.plain) // PLAIN.size + len(self.keyed) // KEYED.size


@dataclass(frozen=True, slots=True)
class Chunk:
    """A contiguous part of a batch's input, raw already durable, ready to be recorded.

    `first_seq` to `last_seq` are the records it covers, `offset` is the number of input bytes consumed by its end,
    `prefix_digest` the SHA-256 of all of them, empty where no stream is read. `lags` counts deliveries per lag
    (see EXACT_LAGS), `sources` per source, in the order in which they came, `times` how many times were read in
    which way, where they do not say it themselves (see TimeNotes); `longer` counts those that a mapping made of one
    element of a longer list, and is not recorded.
    """

    batch_id: str
    first_seq: int
    last_seq: int
    read: int
    offset: int
    prefix_digest: str
    arrivals: tuple[Arrivals, ...]
    rejects: RejectFile | None
    reasons: Mapping[str, int]
    lags: Mapping[int, int]
    sources: Mapping[str, int]
    longer: Mapping[str, int] = field(default_factory=dict)
    times: Mapping[str, int] = field(default_factory=dict)


class Counts(msgspec.Struct, frozen=True, array_like=True):
    """read = accepted + exact + conflict + rejected, always."""

    read: int = 0
    accepted: int = 0
    exact: int = 0
    conflict: int = 0
    rejected: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*map(add, structs.astuple(self), structs.astuple(other)))

    @property
    def duplicates(self) -> int:
        """exact + conflict."""
        return self.exact + self.conflict


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What makes two ingests the same batch: where the input came from, its content, and how it was read.

    `content` is the SHA-256 of the input's bytes (as stored, compressed or not) or, for a stream, `key:NAME`;
    `options` everything that changes what is recorded, as sorted (name, value) pairs; and `mapping`, the name of the
    mapping that gave some of them.
    """

    name: str
    content: str
    options: tuple[tuple[str, str], ...] = ()
    again: bool = False

    @property
    def identity(self) -> bytes:
        """JSON of everything but names: ingests with the same identity are the same batch."""
        options = [(name, value) for name, value in self.options if name != "mapping"]
        return msgspec.json.encode([self.content, options, self.again])


class BatchState(StrEnum):
    """What became of a batch."""

    RUNNING = "RUNNING"
    """Its writer lives."""
    INTERRUPTED = "INTERRUPTED"
    COMPLETE = "COMPLETE"
    REPLACED = "REPLACED"
    """Interrupted, and all its records are in a later batch (see pik.usecases.inspect.batches)."""
    PULLED = "PULLED"
    """In a copy: a part of the batch, whatever became of it in the source."""


_REQUEST, _BUFFERED = "request:", "requests:"

OF_REQUEST = 0
"""The segment number of an API request: its segments, one a day, are its own record."""


def request_origin(batch_id: str) -> Origin:
    """Return the Origin of an API request."""
    return Origin(name="API request", content=f"{_REQUEST}{batch_id}")


def buffered_content(batch_id: str) -> str:
    """Return the content of the Origin of a batch of buffered requests."""
    return f"{_BUFFERED}{batch_id}"


def is_buffered(content: str) -> bool:
    """Return whether a batch with this content is one of buffered requests."""
    return content.startswith(_BUFFERED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One input ingested. `state` is RUNNING while its writer lives, then COMPLETE or INTERRUPTED; in a copy it is
    PULLED, and the counts are of the part that is there. If it is REPLACED, `replaced_by` is the later batch.

    `actor` is who began it, empty where that is not known.

    An interrupted one goes on at `next_seq`, `offset` and `prefix_digest`. `attempt` counts its writers;
    `recorded_at` is that of its last block. `lags` counts deliveries by lag (large batches: see EXACT_LAGS), `sources`
    by source and `reasons` rejects by reason (at most NAMES each), `times` as in Chunk.
    """

    batch_id: str
    origin: Origin
    state: BatchState
    attempt: int = 1
    counts: Counts = Counts()  # noqa: RUF009 - frozen
    started_at: int
    actor: str = ""
    finished_at: int | None = None
    first_event: int | None = None
    last_event: int | None = None
    next_seq: int = 1
    offset: int = 0
    prefix_digest: str = ""
    replaced_by: str = ""
    recorded_at: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    lags: Mapping[int, int] = field(default_factory=dict)
    sources: Mapping[str, int] = field(default_factory=dict)
    times: Mapping[str, int] = field(default_factory=dict)

    def advanced(self, chunk: Chunk, counts: Counts, recorded_at: int) -> Batch:
        """Return the batch after this chunk, which has these counts and was recorded at this moment."""
        return replace(
            self,
            counts=self.counts + counts,
            next_seq=chunk.last_seq + 1,
            offset=chunk.offset,
            prefix_digest=chunk.prefix_digest,
            recorded_at=max(self.recorded_at, recorded_at),
            reasons=with_names(self.reasons, chunk.reasons),
            lags=with_lags(self.lags, chunk.lags),
            sources=with_names(self.sources, chunk.sources),
            times=with_names(self.times, chunk.times),
        )

    @property
    def is_request(self) -> bool:
        """Whether it came through the API."""
        return self.origin.content.startswith(_REQUEST)

    @property
    def has_record(self) -> bool:
        """Whether a record of the batch is among raw: of every finished one but an API request, whose one segment a day
        is its record."""
        return self.state == BatchState.COMPLETE and not self.is_request


@dataclass(frozen=True, slots=True)
class Location:
    """Where a delivery's raw line is. `recorded_at` in nanoseconds, 0 where it was not asked for."""

    event_id: str
    day: int
    segment_key: str
    batch_id: str
    frame: int
    seq: int
    kind: Verdict
    recorded_at: int = field(default=0, compare=False)

    @property
    def order(self) -> tuple[int, str, int]:
        """Sorts deliveries in recording order."""
        return self.recorded_at, self.batch_id, self.seq


EXACT_LAGS = 1000
"""Deliveries of a batch up to which lags are exact. Those of a larger one are cut to three significant digits."""

NAMES = 1000
"""Names (sources, reasons) of a batch that are counted one by one: the first that came."""

OTHERS = ""
"""Counts all other names together. No source and no reason is called so."""


def with_names(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Return the counts with `more`, whose names stand in the order in which they came."""
    total = dict(counts)
    for name, count in more.items():
        known = name if name in total or len(total) - (OTHERS in total) < NAMES else OTHERS
        total[known] = total.get(known, 0) + count
    return total


def with_lags(counts: Mapping[int, int], more: Mapping[int, int]) -> dict[int, int]:
    """Return the counts with `more`."""
    total = Counter(counts)
    total.update(more)
    if are_exact(total) or not (are_exact(counts) or are_exact(more)):
        return dict(total)
    cut: Counter[int] = Counter()
    for lag, count in total.items():
        cut[three_digits(lag)] += count
    return dict(cut)


def are_exact(counts: Mapping[int, int]) -> bool:
    """Return whether the lags are exact, not cut."""
    return sum(counts.values()) <= EXACT_LAGS


def count_lags(lags: Iterable[int]) -> dict[int, int]:
    """Return how many there are of each lag."""
    every = list(lags)
    if len(every) <= EXACT_LAGS:
        return dict(Counter(every))
    # From 10^5 s on a thousand seconds are fine enough, and make few distinct numbers out of many.
    coarse: Counter[int] = Counter()
    near = False
    for kiloseconds, count in Counter(map(floordiv, every, repeat(1000 * SECOND))).items():
        if -100 <= kiloseconds < 100:
            near = True
        else:
            coarse[three_digits(kiloseconds) * 1000 * SECOND] += count
    if near:
        coarse.update(three_digits(lag) for lag in every if -100 <= lag // (1000 * SECOND) < 100)
    return dict(coarse)


def three_digits(number: int) -> int:
    """Return the number cut to three significant digits, toward smaller ones."""
    unit: int = 10 ** max(0, len(str(abs(number))) - 3)
    return number // unit * unit

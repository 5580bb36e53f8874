"""The index: which deliveries there are, which count, and where their raw is. It can be rebuilt from raw.

Four ports over the same data: `Batches` writes, `Rebuild` writes all of it again, `Index` reads, `Audit` compares.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from pik.errors import CANDIDATES, not_one
from pik.model.batch import Arrivals, Batch, Chunk, Counts, Location, Origin, RejectFile, Segment, Verdict
from pik.model.window import Window


class Batches(Protocol):
    """Records batches. Every call is atomic and may be repeated: a repeat changes nothing.

    A deployed store records a chunk in steps. Its counts and totals move at once; a delivery counts from the moment at
    which its claim is there; and what a call has begun that did not come to its end, the next `open` of the batch
    finishes.
    """

    def find(self, origin: Origin) -> Batch | None:
        """The newest batch of this origin, if any."""

    def writing(self, name: str) -> AbstractContextManager[None]:
        """Holds the right to write the batches called `name` (an Origin's content) until the context ends or the
        process dies (in a deployed store, half a minute after). Raises Busy when another living process holds it, or
        while the index is being rebuilt."""

    def open(self, origin: Origin, batch_id: str, started_at: int) -> Batch:
        """Begin this batch, or take over the interrupted one of that id: its `attempt` grows by one."""

    def record(self, chunk: Chunk, *, refuse_conflicts: bool = False) -> Counts:
        """Claim each delivery of the chunk, in the order of its seqs: the first of an event_id anywhere in the store is
        accepted, each other is a duplicate; and advance the batch, all at once. A delivery that is recorded already
        keeps its verdict. All segments of the chunk get one `recorded_at`, later than that of every chunk before (in a
        deployed store, as far as clocks agree: it is the moment at which the last claim was there). With
        `refuse_conflicts` a conflict raises ConflictFound, and nothing of the chunk is recorded; a deployed store may
        record one with a delivery that is recorded at the same moment."""

    def expect_ready(self) -> None:
        """Raise Busy if a request would be refused now, as far as is known without writing anything."""

    def take(self, batch: Batch, chunk: Chunk, copies: Mapping[str, bytes]) -> dict[int, Verdict]:
        """Record a whole batch of one chunk, an API request, and tell which seqs are duplicates: exact or conflict. It
        is complete when this returns; where this raises, nothing of it is acknowledged, and whoever sent it sends it
        again as another batch. `copies` are the bytes of its segments by key, which the index may keep."""

    def finish(self, batch_id: str, finished_at: int) -> Batch:
        """Mark the batch complete. A repeat returns it as it is."""

    def together(self) -> AbstractContextManager[None]:
        """Calls of `open`, `record` and `finish` inside of it are durable, and seen by readers, when it ends; where it
        ends with an error, none of them is. A deployed store does each by itself, at once."""

    def rebuild(self) -> AbstractContextManager[Rebuild]:
        """An empty index beside this one; it replaces this one, at once, when the context ends without an error. Raises
        Busy while anything is being written; while the context lasts, whatever would be written raises Busy. So raw
        that is listed inside of it is all that there will be."""


@dataclass(frozen=True, slots=True)
class Winner:
    """The accepted delivery of an event: (batch_id, seq), its segment, and its content_hash where it has an idempotency
    key."""

    place: tuple[str, int]
    key: str
    content: bytes | None


class Rebuild(Protocol):
    """An index being rebuilt from raw. Meanwhile the store's own ports still read the one that it replaces."""

    def add_batch(self, batch: Batch) -> None:
        """Restore a batch from its record, or a stand-in for one without; its counts are those of its segments."""

    def add_segments(self, arrivals: Sequence[Arrivals], verdicts: Mapping[int, Verdict] | None) -> None:
        """Restore segments of one block, with the `recorded_at` that they have. `verdicts` maps seqs to exact or
        conflict, the others were accepted; with None the first to come is, so blocks without verdicts are added last,
        ordered by (ingest_time, batch_id). Fewer deliveries than the segment says were lost."""

    def add_rejects(self, batch_id: str, rejects: RejectFile) -> None:
        """Restore one file of rejects."""

    def rows(self, segment: Segment, frames: Collection[int]) -> Arrivals:
        """The rows that the replaced index has of the deliveries in these frames of a segment, as far as it can be
        read."""

    def skipped(self, segment: Segment) -> dict[int, Verdict]:
        """The segment's duplicates as this index has them: seq → exact or conflict."""

    def winners(self, arrivals: Arrivals, seqs: Collection[int]) -> dict[int, Winner]:
        """The accepted deliveries of the events of which these are deliveries, by seq."""

    def prefer(self, arrivals: Arrivals, seq: int) -> None:
        """Make this delivery the accepted one of its event. A repeat changes nothing; neither does a delivery that is
        not in this index."""

    def settle(self) -> Iterator[Location]:
        """Accept the first of the duplicates of each event whose accepted delivery is lost, by (ingest_time, batch_id,
        seq), and tell which."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What the index holds. Times in nanoseconds, None in an empty store."""

    events: int
    deliveries: int
    segments: int
    batches: int
    raw_bytes: int
    first_event: int | None
    last_event: int | None


class Index(Protocol):
    """Answers questions about deliveries without reading raw."""

    def segments(
        self, window: Window, *, batch_id: str | None = None, entities: Sequence[str] = ()
    ) -> Iterator[Segment]:
        """The segments of the days that the window touches, by day; those of one batch and day in the order in which
        they were recorded, otherwise in no particular order. With `entities` those that hold none of them may be left
        out."""

    def skipped(self, segment: Segment) -> dict[int, Verdict]:
        """The segment's duplicates: seq → exact or conflict. In a deployed store also those of its deliveries that are
        not recorded yet, as `unrecorded`: they do not count, whatever is asked."""

    def locate(self, event_id_prefix: str, limit: int = 10) -> list[Location]:
        """The accepted deliveries whose event_id (hex) starts so, at most `limit`, ordered by event_id."""

    def deliveries(self, event_id: str, limit: int | None = None) -> list[Location]:
        """Every delivery of an event, the accepted one first, the others by (batch_id, seq); at most `limit`."""

    def repeats(self, events: Sequence[tuple[int, str]]) -> list[int]:
        """How many duplicates each event has, given as (day, event_id)."""

    def batches(self, prefix: str = "") -> Iterator[Batch]:
        """The batches whose id starts so, newest first."""

    def rejects(self, batch_id: str) -> list[RejectFile]:
        """The batch's files of rejects, in order."""

    def totals(self) -> Totals:
        """What the index holds."""


class Audit(Protocol):
    """Holds the index against raw."""

    def differing(self, arrivals: Sequence[Arrivals]) -> dict[str, str]:
        """What is wrong with what the index says of the deliveries of segments, by the segments' keys: they are those
        that the index lists, with the deliveries that were read from raw. A segment of which each delivery is in the
        index, in exactly its place, and nothing else, is left out."""

    def rows(self) -> Iterator[tuple[str, int | None]]:
        """How many deliveries the index has of each segment, by key, counted row by row. In no order; where a key comes
        several times the numbers add up, and None says that somebody is at work on the segment, or died at it."""

    def knows(self, batch_id: str) -> bool:
        """Whether the index has anything to say of this batch, though it may not be enough for an answer."""

    def damage(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the index in itself: the part of it, and what."""

    def corrections(self) -> set[str]:
        """The keys of the corrections that this index follows."""

    def follow(self, corrections: Sequence[str]) -> None:
        """Note that this index follows these corrections, given by their keys. A repeat changes nothing."""


def batch_of(index: Index, prefix: str) -> Batch:
    """The batch of this id or unambiguous prefix. Raises NotFound."""
    found = list(islice(index.batches(prefix.upper()), CANDIDATES + 1))
    if len(found) != 1:
        raise not_one("batch", prefix, [batch.batch_id for batch in found], hint="pik batches")
    return found[0]

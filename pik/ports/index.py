"""The ports of the index, which knows which deliveries there are, which count, and where their raw is.

It can be rebuilt from raw. All of these ports are over the same data: `Batches` and `Requests` write, `Corrections`
reads and writes what changes what counts, `Rebuild` writes all of it again; `Index`, `Overview` and `Repeats` read, and
`Audit` compares.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from pik.errors import CANDIDATES, BeingRebuilt, ambiguous_id
from pik.model.batch import Arrivals, Batch, Chunk, Counts, Location, Origin, RejectFile, Segment, Verdict
from pik.model.correction import Correction
from pik.model.instant import display_instant
from pik.model.share import WHOLE, Share
from pik.model.window import Window


def unheard(_: str) -> None:
    """Ignore what is waited for."""


class Batches(Protocol):
    """Records batches. A repeated call changes nothing.

    `open`, `record` and `finish` are atomic where they are durable together (see `together`). A store that records a
    chunk in several steps moves its counts first; each delivery counts from the moment its claim is written, and the
    next `open` of the batch finishes a chunk that was left half recorded.
    """

    def find(self, origin: Origin) -> Batch | None:
        """Return the newest batch of this origin, if any."""

    def of_content(self, content: str) -> Iterator[Batch]:
        """Yield the batches of this content, whatever the other parts of their origins are, newest first. Costs what
        reading those batches does, however many others there are."""

    def writing(self, name: str) -> AbstractContextManager[None]:
        """Hold the right to write the batches called `name` (an Origin's content) until the context ends, or the
        process dies and the store notices: at once, or when its lease of half a minute expires. Raises Busy when
        another living process holds it, or while the index is being rebuilt."""

    def open(self, origin: Origin, batch_id: str, started_at: int, actor: str = "") -> Batch:
        """Begin this batch, or take over the interrupted one with that id: its `attempt` grows by one, and its actor
        stays who began it."""

    def record(self, chunk: Chunk, *, refuse_conflicts: bool = False) -> Counts:
        """Claim each delivery of the chunk, in the order of its seqs, and advance the batch; return the chunk's counts.

        The first delivery of an event_id anywhere in the store is accepted, each other one is a duplicate. A delivery
        that is recorded already keeps its verdict. All segments of the chunk get one `recorded_at`, the moment of its
        last claim: later than that of every chunk before, as far as the writers' clocks agree. With `refuse_conflicts`
        a conflict raises ConflictFound, and nothing of the chunk is recorded, unless the conflicting delivery is
        recorded by another writer at the same moment.
        """

    def finish(self, batch_id: str, finished_at: int) -> Batch:
        """Mark the batch complete. A repeat returns it as it is."""

    def together(self) -> AbstractContextManager[None]:
        """Group calls of `open`, `record` and `finish`: they are durable, and seen by readers, when the context ends at
        the latest; where it ends with an error, those that are not durable yet are undone."""

    def rebuild(self, waiting: Callable[[str], None] = unheard) -> AbstractContextManager[Rebuild]:
        """Provide an empty index beside this one; it replaces this one, at once, when the context ends without an
        error. Raises Busy while anything is being written, BeingRebuilt during another rebuild; while the context
        lasts, `writing` raises BeingRebuilt, and so do requests, if they are not recorded in both: see `Beside`.
        `waiting` is told what is waited for, and how long, before each wait of a second or more."""


class Requests(Protocol):
    """Records API requests: batches of one chunk each."""

    def expect_ready(self) -> None:
        """Raise Busy if a request would be refused now, as far as is known without writing anything."""

    def record_request(self, batch: Batch, chunk: Chunk, copies: Mapping[str, bytes]) -> dict[int, Verdict]:
        """Record a whole batch of one chunk and return the verdicts of its duplicates, by seq.

        The batch is complete when this returns. Where it raises, nothing of it is acknowledged, and the sender sends it
        again as another batch. `copies` are the bytes of its segments by key, which the index may keep.
        """


@dataclass(frozen=True, slots=True)
class Winner:
    """The accepted delivery of an event: (batch_id, seq), the key of its segment, and its content_hash if it has an
    idempotency key."""

    place: tuple[str, int]
    key: str
    content: bytes | None


class Beside(Protocol):
    """What is recorded beside a rebuild. Whoever begins to record after the rebuild has begun records in both indexes;
    others have ended before it begins."""

    def await_writers(self) -> None:
        """Wait until whatever is being recorded when this is called has been, or its writer has died."""

    def batches(self, batch_ids: Sequence[str], /) -> tuple[set[str], set[str]]:
        """Return those of these batches which their writers record in both indexes, and those of them which are not in
        the new one (yet)."""


class Rebuild(Protocol):
    """An index being rebuilt from raw. Meanwhile the store's other ports still read the one that it replaces."""

    @property
    def beside(self) -> Beside:
        """What is recorded meanwhile."""

    @property
    def corrections(self) -> Corrections:
        """The corrections that the new index follows; until it replaces the old one, no other port reads them."""

    def add_batch(self, batch: Batch) -> None:
        """Restore a batch from its record, or a stand-in for one without; its counts are those of its segments. A
        repeat replaces it."""

    def add_segments(self, arrivals: Sequence[Arrivals], verdicts: Mapping[int, Verdict] | None) -> None:
        """Restore segments of one block, with the `recorded_at` that they have.

        `verdicts` are those of duplicates, by seq; all others were accepted. With None the first delivery to come is,
        so blocks without verdicts are added last, ordered by (ingest_time, batch_id). Deliveries that a segment counts
        and `arrivals` lack were lost.
        """

    def add_rejects(self, batch_id: str, rejects: RejectFile) -> None:
        """Restore one file of rejects."""

    def rows(self, segment: Segment, frames: Collection[int]) -> Arrivals:
        """Return the rows that the replaced index has of the deliveries in these frames of a segment, as far as it can
        be read."""

    def skipped(self, segments: Sequence[Segment]) -> list[dict[int, Verdict]]:
        """Return the verdicts of the duplicates of each segment in this index, by seq."""

    def winners(self, arrivals: Arrivals, seqs: Collection[int]) -> dict[int, Winner]:
        """Return the accepted deliveries of the events of which these are deliveries, by seq."""

    def prefer(self, arrivals: Arrivals, seq: int) -> None:
        """Make this delivery the accepted one of its event. A repeat changes nothing; neither does a delivery that is
        not in this index."""

    def settle(self) -> Iterator[Location]:
        """Accept the first duplicate of each event whose accepted delivery is lost, by (ingest_time, batch_id, seq),
        and yield it, with the verdict that it had as a duplicate."""


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
        """Yield the segments of the days that the window touches, by day; those of one batch and day in the order in
        which they were recorded, otherwise in no particular order. With `entities`, segments that hold none of them may
        be left out."""

    def skipped(self, segment: Segment) -> dict[int, Verdict]:
        """Return the verdicts, by seq, of those of the segment's deliveries that were not accepted: duplicates, and
        deliveries that are UNRECORDED, which no question counts."""

    def locate(self, event_id_prefix: str, limit: int = 10) -> list[str]:
        """Return the ids (hex) of the events whose id starts so, the first `limit` of them in order."""

    def deliveries(self, event_id: str, limit: int | None = None) -> list[Location]:
        """Return every delivery of an event, at most `limit`: the accepted one first, the others by (batch_id, seq)."""

    def segments_of(self, deliveries: Collection[Location]) -> dict[str, Segment]:
        """Return the segments that these deliveries are in, by key, as far as they are listed. Costs a few calls for
        each hundred deliveries."""

    def batches(self, prefix: str = "") -> Iterator[Batch]:
        """Yield the batches whose id starts so, newest first."""

    def rejects(self, batch_id: str) -> list[RejectFile]:
        """Return the batch's files of rejects, in order."""

    def totals(self) -> Totals:
        """Return what the index holds."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What the index holds, in numbers. `sources` counts deliveries by source, as `Batch.sources` does; `unfinished`
    are the batches that are RUNNING or INTERRUPTED, newest first; `newest` is the last batch that was begun."""

    totals: Totals
    sources: Mapping[str, int]
    unfinished: tuple[Batch, ...]
    newest: Batch | None


@dataclass(frozen=True, slots=True)
class RebuildUnderWay:
    """A rebuild of the index, and since when it is under way, in nanoseconds; None: not known."""

    since: int | None

    @property
    def text(self) -> str:
        """What people should know of it."""
        began = f" since {display_instant(self.since)}" if self.since else ""
        return f"under way{began}; files and buffered requests wait until it has ended"


class Overview(Protocol):
    """Sums up what the index holds."""

    def rebuilding(self) -> RebuildUnderWay | None:
        """Return the rebuild that another process has under way, as far as clocks agree; None: none. Costs nothing but
        during a rebuild."""

    def summary(self) -> Summary:
        """Return it. In a store that is compacted this costs what reading the later batches does."""


class Repeats(Protocol):
    """Finds events with several deliveries, each as the list of all of them in recording order.

    As in `Index.deliveries`, a delivery is missing whose writer has not recorded it to the end.
    """

    def counts(self, events: Sequence[tuple[int | None, str]]) -> list[int]:
        """Return how many duplicates each event has, given as (day, event_id), without the day if it has an idempotency
        key. Never costs more calls than there are events, and mostly a few for each day."""

    def conflicted(self, event_ids: Collection[str]) -> set[str]:
        """Return those of these events of which a delivery may be a conflict. Costs a call for each hundred."""

    def repeated_from(self, batch_id: str, days: tuple[int, int] | None = None) -> Iterator[list[Location]]:
        """Yield those whose accepted delivery is in this batch. Where the first and the last of some days are given,
        events without a delivery of these days may be left out."""

    def conflicting(self) -> Iterator[list[Location]]:
        """Yield those of which a delivery is a conflict."""

    def verdicts(self, arrivals: Sequence[Arrivals]) -> dict[int, Verdict]:
        """Return the verdicts, by seq, that deliveries of a chunk which is not recorded would get from what is: those
        of events that are recorded already, and no others. Costs about what recording the chunk would."""


@dataclass(frozen=True, slots=True)
class SegmentCopies:
    """An object with copies of segments of a day: its key, size and SHA-256 (hex), how many segments, and the least
    ingest time of these, in nanoseconds."""

    key: str
    size: int
    digest: str
    day: int
    segments: int
    oldest: int


class Audit(Protocol):
    """Compares the index with raw. It may remember what it has read of the index."""

    def anew(self) -> Audit:
        """Return one that remembers nothing."""

    def differing(self, arrivals: Sequence[Arrivals]) -> dict[str, str]:
        """Return, by segment key, how the index differs from these deliveries, read from raw, of segments that it
        lists. A segment is left out if each of its deliveries is in the index, in exactly its place, and no other."""

    def rows(self, share: Share = WHOLE) -> Iterator[tuple[str, int | None]]:
        """Yield the number of deliveries that the index has of each segment, by key, counted row by row, in no order;
        or those of a share of the rows. The numbers of a key that comes several times add up; None: a writer is
        recording the segment, or died at it."""

    def arrivals(self, segments: Sequence[Segment]) -> Iterator[Arrivals]:
        """Yield the rows that the index has of all deliveries of each of these segments, which follow each other as
        `Index.segments` yields them, as far as it can be read."""

    def deliveries(self, segment: Segment, frames: Collection[int]) -> Arrivals:
        """Return the rows that the index has of the deliveries in these frames of a segment, given by their numbers, as
        far as it can be read."""

    def knows(self, batch_id: str) -> bool:
        """Return whether the index has anything about this batch, though it may not be enough for an answer."""

    def damage(self, *, quick: bool = False) -> Iterator[tuple[str, str]]:
        """Yield what is wrong within the index itself: the part of it, and the problem. If it is to be quick, as far as
        presence and sizes tell."""

    def copies(self) -> Iterator[SegmentCopies]:
        """Yield the objects with copies of segments that the index refers to. Raises StoreError."""


class Corrections(Protocol):
    """The corrections that the index follows. Their objects in raw are the evidence; that the index follows one is what
    makes it hold."""

    def recorded(self) -> Sequence[Correction]:
        """Return them in the order of the log, (recorded_at, correction_id), their lists without frames. Costs no call
        of its own in a store without any, else one or a few."""

    def follow(self, corrections: Sequence[Correction]) -> None:
        """Follow these as well, all or none of them, from the moment on that this returns at the latest, in every
        reader. A repeat changes nothing. The caller holds the right to write `CORRECTIONS`."""


def being_rebuilt(since: int | None) -> BeingRebuilt:
    """Return the error for what cannot be done during a rebuild, which is under way since then, if that is known."""
    began = f", since {display_instant(since)}" if since else ""
    return BeingRebuilt(
        f"the index is being rebuilt by another pik process{began}",
        hint="wait until that has ended, then run this again; as long as it is under way, `pik status` shows it",
    )


CORRECTIONS = "corrections"
"""What `Batches.writing` is asked for by those who record corrections."""


def _newest(index: Index) -> Iterator[str]:
    return (one.batch_id for one in index.batches())


def batch_of(index: Index, prefix: str) -> Batch:
    """Return the batch with this id or unambiguous prefix. Raises NotFound."""
    found = list(islice(index.batches(prefix.upper()), CANDIDATES + 1))
    if len(found) != 1:
        ids = [one.batch_id for one in found]
        raise ambiguous_id("batch", prefix, ids, hint="pik batches", others=lambda: _newest(index))
    return found[0]

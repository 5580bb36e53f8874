"""What reads raw in bulk: the engine computes metrics, exporters write files that other tools open."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from pik.model.batch import Verdict
from pik.model.delivery import Delivery, ExtractedColumn, Filter
from pik.model.event import ENVELOPE
from pik.model.instant import Window
from pik.model.metric import BucketDigest, Computed, Definition


@dataclass(frozen=True, slots=True)
class Inputs:
    """The raw that a computation reads: whole segments, or files of some of their frames.

    `files` are NDJSON in zstd frames; `deliveries` is how many lines they hold together, so that a lost frame shows;
    `skip` is a CSV file of `batch_id,seq` without a header (None: nothing to skip), the deliveries that don't count.
    With `duplicates` they may hold several deliveries of one event, and all of them count.
    """

    files: Sequence[Path]
    deliveries: int
    skip: Path | None = None
    duplicates: bool = False


@dataclass(frozen=True, slots=True)
class Touched:
    """Bucket starts (nanoseconds) that matching events of an entity fall into, and how many of them."""

    bucket: int
    entity_id: str
    events: int


Bucket = tuple[str, int]
"""A metric's name and the start of one of its buckets (nanoseconds)."""


class Computation(Protocol):
    """Metrics computed over raw, to be read in as much detail as is needed. Both methods may be called any number of
    times, one after the other, and raise EngineError as `Engine.computation` does."""

    def digests(self) -> Iterator[BucketDigest]:
        """Yield what the values of each bucket come to, ordered by metric name and bucket; buckets without any value
        are left out."""

    def rows(self, *, skipping: Collection[Bucket] = ()) -> Iterator[Computed]:
        """Yield every (metric, bucket, entity) with at least one matching event, without those of the buckets to skip,
        ordered by metric name, bucket, entity (UTF-8).

        What fails on the data (a text that is not a number, a sum of too many digits, a denominator of zero) stops
        nothing else: the row of that (metric, bucket, entity) comes in its place, with a `failure` instead of a value,
        and all others as if it had not failed. What the caller makes of it is the caller's choice; it must not be taken
        for a bucket without a value.
        """


class Engine(Protocol):
    """Evaluates metrics over raw lines. Stateless between calls; one per process."""

    @property
    def version(self) -> str:
        """The program that evaluates them, and its version."""

    def shared(self, parts: int) -> Engine:
        """Return the same engine for one of so many processes that work at a time: with its part of what one may
        use."""

    def check(self, definition: Definition) -> int:
        """Return the scale of the definition's values: how many digits after the point their type has.

        Raises Invalid, with the reason and where there is one the exact alternative, unless the definition parses,
        names only columns that exist, is one aggregate, and has a result that neither order nor floating point can
        change.
        """

    def computation(
        self, inputs: Inputs, metrics: Sequence[Definition], window: Window, entities: Sequence[str] = ()
    ) -> AbstractContextManager[Computation]:
        """Compute the metrics, and provide what they come to for as long as the context lasts.

        `metrics` share one bucket size; `window` is made of whole buckets; `entities`, if any, limits to those.

        Raises Damaged (naming the file) for raw that cannot be read or has not `deliveries` lines, EngineError where
        nothing can be computed, such as for lack of memory.
        """

    def touched(
        self,
        inputs: Inputs,
        bucket_size: int,
        window: Window,
        *,
        entities: Sequence[str] = (),
        source: str | None = None,
        event_type: str | None = None,
    ) -> Iterator[Touched]:
        """Yield the (bucket, entity) pairs with an event in `window` that matches, ordered by bucket and entity."""


Format = Literal["parquet", "jsonl", "csv"]
Compression = Literal["zstd", "snappy", "gzip", "none"]

COLUMNS = tuple(field.name for field in ENVELOPE)
"""The columns of every export; after them `delivery` where duplicates are included, then the extracted ones."""

DELIVERY = "delivery"
"""The column with the verdict: accepted, exact or conflict."""

PARTITIONS = ("event_date", "source", "event_type")
"""What an export can be partitioned by."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What is exported, and how. Without `include_duplicates` only accepted deliveries are.

    `microseconds`: times of Parquet have those, not nanoseconds.
    """

    selection: Filter
    format: Format = "parquet"
    compression: Compression = "zstd"
    include_duplicates: bool = False
    columns: tuple[ExtractedColumn, ...] = ()
    partition_by: tuple[str, ...] = ()
    microseconds: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """So many deliveries of one segment.

    `verdicts` maps the seqs of the segment's duplicates to exact or conflict, and of deliveries that are not recorded
    yet, which no export has, to unrecorded; `read` parses one line and raises Damaged, naming the segment.
    """

    lines: int
    verdicts: Mapping[int, Verdict]
    read: Callable[[bytes], Delivery]


@dataclass(frozen=True, slots=True)
class Block:
    """Raw lines of one day (`YYYY-MM-DD`), one piece after the other: `text`, and in it the places of the line breaks
    that end them."""

    day: str
    text: bytes
    ends: array[int]
    pieces: Sequence[Piece]

    def lines(self) -> Iterator[tuple[Piece, bytes]]:
        """Yield each line, without its line break, and the piece that it belongs to."""
        lines = iter(self.text.split(b"\n"))
        for piece in self.pieces:
            for line in islice(lines, piece.lines):
                yield piece, line


Rows = Sized
"""Rows on their way from `cut` to `write`, in whatever form suits the exporter."""


class Sink(Protocol):
    """One file being written."""

    def write(self, rows: Rows) -> None:
        """Append rows that `cut` of the same exporter made."""

    def close(self) -> None:
        """Write what the format needs at its end. The file itself stays open."""


class Exporter(Protocol):
    """Writes one layout."""

    @property
    def layout(self) -> Layout:
        """What it was made for."""

    @property
    def suffix(self) -> str:
        """How the names of its files end: `.parquet`, `.csv.gz`."""

    def cut(self, block: Block) -> Iterator[tuple[tuple[str, ...], Rows]]:
        """Yield the rows that the layout asks for among the lines of a block, in their order, by the values of
        `partition_by`; none without rows. May run in several threads at once.

        Raises Damaged for a line that is not a delivery, UsageError naming event and column for a value that a column's
        type does not hold exactly.
        """

    def sink(self, file: BinaryIO) -> Sink:
        """Begin a file. `file` need not be seekable; its errors pass through."""

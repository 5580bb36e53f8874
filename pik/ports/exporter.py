"""Exporters: raw lines to rows of a format that other tools open."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Literal, Protocol

from pik.model.batch import Verdict
from pik.model.column import OwnColumn
from pik.model.event import Delivery
from pik.model.filter import Filter

Format = Literal["parquet", "jsonl", "csv"]
Compression = Literal["zstd", "snappy", "gzip", "none"]

COLUMNS = (
    "event_id",
    "content_hash",
    "source",
    "event_type",
    "entity_id",
    "event_time",
    "received_time",
    "ingest_time",
    "batch_id",
    "seq",
    "idempotency_key",
    "payload",
    "extra",
)
"""The columns of every export, in this order; behind them `delivery` where duplicates are included, then one's own."""

DELIVERY = "delivery"
"""The column that says accepted, exact or conflict."""

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
    columns: tuple[OwnColumn, ...] = ()
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
        """Each line, without its line break, and the piece that it belongs to."""
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
        """The rows that the layout asks for among the lines of a block, in their order, by the values of
        `partition_by`; none without rows. May run in several threads at once.

        Raises Damaged for a line that is no delivery, UsageError naming event and column for a value that a column's
        type does not hold exactly.
        """

    def sink(self, file: BinaryIO) -> Sink:
        """Begin a file. `file` need not be seekable; its errors pass through."""

"""The port Exporter: writes deliveries to files, in one layout."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import BinaryIO, Literal, Protocol

from pik.model.batch import Verdict
from pik.model.calendar import CalendarBuckets
from pik.model.delivery import Delivery, ExtractedColumn, Filter
from pik.model.event import ENVELOPE
from pik.model.instant import day_of, day_text

Format = Literal["parquet", "jsonl", "csv"]
Compression = Literal["zstd", "snappy", "gzip", "none"]

COLUMNS = tuple(each.name for each in ENVELOPE)
"""The columns of every export; after them `delivery` where duplicates are included, those of CORRECTED unless what came
is exported, then the extracted ones."""

DELIVERY = "delivery"
"""The column with the verdict: accepted, exact or conflict."""

CORRECTED = ("received_event_time", "correction")
"""The columns with the event_time that a correction replaced (null: none did), and with the ids of the corrections that
moved the delivery, chose whether it counts, or took it out, with a comma between two (null: none did)."""

PARTITIONS = ("event_date", "source", "event_type")
"""What an export can be partitioned by."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What is exported, and how. Without `include_duplicates` only deliveries that count are. With `as_received` no
    correction holds, and there are no columns about corrections.

    `microseconds`: times of Parquet have those, not nanoseconds. `days`: the event_date of a partition is a date of
    that calendar (None: of UTC).
    """

    selection: Filter
    format: Format = "parquet"
    compression: Compression = "zstd"
    include_duplicates: bool = False
    columns: tuple[ExtractedColumn, ...] = ()
    partition_by: tuple[str, ...] = ()
    microseconds: bool = False
    as_received: bool = False
    days: CalendarBuckets | None = None


def local_date(days: CalendarBuckets, event_time: int) -> str:
    """Return the date (`YYYY-MM-DD`) of an event in that calendar."""
    return _date(days, days.start_of(event_time))


@lru_cache(maxsize=1024)
def _date(days: CalendarBuckets, start: int) -> str:
    return day_text(day_of(start + days.offset_at(start)))


@dataclass(frozen=True, slots=True)
class Piece:
    """So many deliveries of one segment.

    `verdicts` maps the seqs of the segment's duplicates to exact or conflict, and of deliveries that are not recorded
    yet, which no export has, to unrecorded; `read` parses one line and raises Damaged, naming the segment. `corrected`
    maps seqs to the values of CORRECTED; lines have the corrected event_time. All lines of such a block are exported.
    """

    lines: int
    verdicts: Mapping[int, Verdict]
    read: Callable[[bytes], Delivery]
    corrected: Mapping[int, tuple[str | None, str | None]] = field(default_factory=dict)


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

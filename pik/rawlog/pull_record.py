"""The record of a pull: a create-only object of a copy, from which the copy's index can be rebuilt.

`raw/pulls/<pull_id>.ndjson.zst`, built as the record of a batch is: first what was pulled, then a line a batch, then a
line a segment. docs/format.md specifies it. It is written last: what a copy has no
record of, it does not claim to hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from pik.model.batch import BatchState, Origin, RejectFile
from pik.model.coverage import Part
from pik.model.window import Window
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.batch_record import SegmentLine
from pik.rawlog.sealed_record import packed, record_lines

PREFIX = "raw/pulls/"


class PullLine(msgspec.Struct, frozen=True, kw_only=True, tag="pull"):
    """The first line. Instants in nanoseconds; `start` and `end` are those of whole days, `entities` none for all."""

    format: int
    pull_id: str
    source: str
    pulled_at: int
    start: int
    end: int
    entities: tuple[str, ...] = ()

    @property
    def part(self) -> Part:
        """What the copy holds by this pull."""
        return Part(Window(self.start, self.end), self.entities)


class PulledBatch(msgspec.Struct, frozen=True, kw_only=True, tag="batch"):
    """A batch as the source knew it. `counts`, of all of it: read, accepted, exact, conflict, rejected."""

    batch_id: str
    origin: Origin
    state: BatchState
    attempt: int
    started_at: int
    finished_at: int | None
    counts: tuple[int, int, int, int, int]
    rejects: tuple[RejectFile, ...] = ()


Line = PullLine | PulledBatch | SegmentLine

_decode = msgspec.json.Decoder(Line).decode


def write_pull(raw: Raw, lines: Iterable[Line], pull_id: str) -> None:
    """Create the record of a pull."""
    raw.create(f"{PREFIX}{pull_id}.ndjson.zst", packed(lines))


def read_pull(raw: Raw, key: str) -> Iterator[Line]:
    """The lines of a record. Raises Damaged."""
    return record_lines(raw, key, _decode)


def pulls(raw: Raw) -> list[str]:
    """The keys of all records, oldest first."""
    return [found.key for found in raw.objects(PREFIX)]


def parts(store: Store) -> list[Part]:
    """What a copy holds. Raises Damaged."""
    first = (next(read_pull(store.raw, key)) for key in pulls(store.raw))
    return [line.part for line in first if isinstance(line, PullLine)]

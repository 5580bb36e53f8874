"""Sealed records about the whole store: what was pulled into a copy, and corrections. docs/format.md specifies them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import msgspec

from pik.errors import Damaged
from pik.model.batch import BatchState, Origin, RejectFile
from pik.model.window import Part, Window
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.batch_records import SegmentLine
from pik.rawlog.keys import RawKind, keys_of
from pik.rawlog.records import packed, record_lines


class PullLine(msgspec.Struct, frozen=True, kw_only=True, tag="pull"):
    """The first line of a pull. Instants in nanoseconds; `start` and `end` bound whole days; no `entities`: all."""

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

_decode_pull = msgspec.json.Decoder(Line).decode


def write_pull(raw: Raw, lines: Iterable[Line], pull_id: str) -> None:
    """Create the record of a pull."""
    raw.create(RawKind.PULL.key(pull_id), packed(lines))


def read_pull(raw: Raw, key: str) -> Iterator[Line]:
    """Yield the lines of the record of a pull. Raises Damaged."""
    return record_lines(raw, key, _decode_pull)


def pulls(raw: Raw) -> list[str]:
    """Return the keys of the records of all pulls, oldest first."""
    return [str(key) for key in keys_of(raw, RawKind.PULL)]


def parts(store: Store) -> list[Part]:
    """Return what a copy holds, by its pulls. Raises Damaged."""
    first = (next(read_pull(store.raw, key)) for key in pulls(store.raw))
    return [line.part for line in first if isinstance(line, PullLine)]


Place = tuple[str, int]
"""A delivery: batch_id and seq."""


class CorrectionLine(msgspec.Struct, frozen=True, kw_only=True, tag="correction"):
    """The first line of a correction: what was corrected, when and why. `events` counts the lines that follow."""

    format: int
    correction_id: str
    kind: str
    recorded_at: int
    reason: str
    events: int


class WinnerLine(msgspec.Struct, frozen=True, kw_only=True, tag="winner", omit_defaults=True):
    """An event of which another delivery counts now: `new`, in the segment `key`. `old` is None if it is lost and
    unknown."""

    event_id: str
    key: str
    new: Place
    old: Place | None = None


def write_winners(store: Store, winners: Sequence[WinnerLine], recorded_at: int) -> str:
    """Record that other deliveries of these events count now; return the key of the record."""
    from ulid import ULID  # late: commands that only read need no ids

    correction_id = str(ULID())
    head = CorrectionLine(
        format=store.format_version,
        correction_id=correction_id,
        kind="verdict",
        recorded_at=recorded_at,
        reason="the index was rebuilt",
        events=len(winners),
    )
    key = RawKind.CORRECTION.key(correction_id)
    store.raw.create(key, packed(chain([head], winners)))
    return key


def correction_keys(raw: Raw) -> list[str]:
    """Return the keys of the corrections, in the order in which they were recorded."""
    return [str(key) for key in keys_of(raw, RawKind.CORRECTION)]


def read_winners(raw: Raw, key: str) -> Iterator[WinnerLine]:
    """Yield the events of a correction. Raises Damaged, before the first one, if any bit is not as it was written."""
    for line in record_lines(raw, key, _decode_correction):
        if isinstance(line, WinnerLine):
            yield line
        elif key != RawKind.CORRECTION.key(line.correction_id):
            raise Damaged(f"record {key} is that of another correction", hint="pik verify --full")


_decode_correction = msgspec.json.Decoder(CorrectionLine | WinnerLine).decode

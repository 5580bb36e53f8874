"""The log of corrections, beside raw: so far the winners that a rebuild of the index has changed.

`corrections/<ID>.ndjson.zst`, create-only and sealed as a batch record is; docs/format.md specifies it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import msgspec
from ulid import ULID

from pik.errors import Damaged
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.sealed_record import packed, record_lines

PREFIX = "corrections/"

VERDICT = "verdict"

Place = tuple[str, int]
"""A delivery: batch_id and seq."""


class CorrectionLine(msgspec.Struct, frozen=True, kw_only=True, tag="correction"):
    """The first line: what was corrected, when and why. `events` counts the lines that follow."""

    format: int
    correction_id: str
    kind: str
    recorded_at: int
    reason: str
    events: int


class WinnerLine(msgspec.Struct, frozen=True, kw_only=True, tag="winner", omit_defaults=True):
    """An event whose counting delivery is another one now: `new`, in the segment `key`. `old` is None where it is lost
    and nothing tells which it was."""

    event_id: str
    key: str
    new: Place
    old: Place | None = None


def write_winners(store: Store, winners: Sequence[WinnerLine], recorded_at: int) -> str:
    """Record that these events count by another delivery now; return the key of the record."""
    correction_id = str(ULID())
    head = CorrectionLine(
        format=store.format_version,
        correction_id=correction_id,
        kind=VERDICT,
        recorded_at=recorded_at,
        reason="the index was rebuilt",
        events=len(winners),
    )
    key = f"{PREFIX}{correction_id}.ndjson.zst"
    store.raw.create(key, packed(chain([head], winners)))
    return key


def correction_keys(raw: Raw) -> list[str]:
    """The corrections, in the order in which they were recorded."""
    return [found.key for found in raw.objects(PREFIX)]


def read_winners(raw: Raw, key: str) -> Iterator[WinnerLine]:
    """The events of a correction. Raises Damaged, before the first one, if any bit is not as it was written."""
    for line in record_lines(raw, key, _decode):
        if isinstance(line, WinnerLine):
            yield line
        elif key != f"{PREFIX}{line.correction_id}.ndjson.zst":
            raise Damaged(f"record {key} is that of another correction", hint="pik verify --full")


_decode = msgspec.json.Decoder(CorrectionLine | WinnerLine).decode

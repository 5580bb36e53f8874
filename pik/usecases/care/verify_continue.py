"""What a verification takes over from an earlier one that was interrupted: segments that were found to be sound."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import msgspec

from pik import __version__
from pik.model.batch import Segment
from pik.model.instant import HOUR
from pik.ports.index import Index
from pik.ports.store import Store
from pik.runtime.checkpoint import Checkpoint
from pik.usecases.care.verify_ledger import Holding, segment_holding

MAX_AGE = 24 * HOUR
"""How long ago segments may have been checked that are taken over."""

Listed = tuple[Segment, int | None]
"""A segment of the index, and the size of its object where raw was seen to have it."""


class _Sound(msgspec.Struct, frozen=True, array_like=True):
    """What was read of a sound segment and is not in the index's list; see `Holding`."""

    lags: dict[int, int]
    sources: dict[str, int]
    actor: str
    read: bool


class SoundSegments(msgspec.Struct, frozen=True):
    """Segments of one day that were all found to be sound: when, and of how many the storage's SHA-256 was taken."""

    checked_at: int
    vouched: int
    segments: list[_Sound]

    def holding(self, index: Index, number: int, segment: Segment) -> Holding:
        """Return what one of them holds."""
        sound = self.segments[number]
        return replace(
            segment_holding(index, segment),
            lags=sound.lags,
            sources=sound.sources,
            actor=sound.actor,
            read=sound.read,
        )


@dataclass(frozen=True, slots=True)
class TakenOver:
    """How many segments of which days (since 1970-01-01) were taken over, not checked, and between which moments the
    earlier verification had checked them."""

    segments: int
    days: frozenset[int]
    checked_from: int
    checked_until: int


class Earlier:
    """Keeps which segments were sound, a group of one day at a time, and finds those of an earlier verification.

    A group is found only if it is exactly as it was: its name is a digest over all that the index lists of its
    segments, with their verdicts, the sizes that raw was seen to have, and what the check depends on.
    """

    def __init__(self, store: Store, depth: str, checkpoint: Checkpoint) -> None:
        self._store, self._checkpoint = store, checkpoint
        self._scope = (__version__, store.format_version, store.url.encode(errors="surrogateescape"), depth)
        self._taken: TakenOver | None = None

    @property
    def taken_over(self) -> TakenOver | None:
        """What was taken over so far; None: nothing."""
        return self._taken

    def name(self, listed: Sequence[Listed]) -> str:
        """Return the name of a group of segments as they are now."""
        digest = sha256(msgspec.msgpack.encode(self._scope))
        for segment, size in listed:
            skipped = sorted(self._store.index.skipped(segment).items())
            digest.update(msgspec.msgpack.encode((segment, size, skipped)))
        return digest.hexdigest()

    def find(self, name: str) -> SoundSegments | None:
        """Return what was found of the group, if that is not too long ago."""
        data = self._checkpoint.get(name)
        if data is None:
            return None
        found = msgspec.msgpack.decode(zlib.decompress(data), type=SoundSegments)
        return found if 0 <= time.time_ns() - found.checked_at <= MAX_AGE else None

    def note(self, day: int, found: SoundSegments) -> None:
        """Count a group that is taken over."""
        before = self._taken or TakenOver(0, frozenset(), found.checked_at, found.checked_at)
        self._taken = TakenOver(
            before.segments + len(found.segments),
            before.days | {day},
            min(before.checked_from, found.checked_at),
            max(before.checked_until, found.checked_at),
        )

    def keep(self, name: str, vouched: int, holdings: Sequence[Holding], began: int) -> None:
        """Keep that all segments of the group were found to be sound by a check that `began` then."""
        segments = [_Sound(dict(one.lags), dict(one.sources), one.actor, one.read) for one in holdings]
        self._checkpoint.add(name, zlib.compress(msgspec.msgpack.encode(SoundSegments(began, vouched, segments)), 1))

    def end(self) -> None:
        """Forget everything: the verification has ended."""
        self._checkpoint.remove()

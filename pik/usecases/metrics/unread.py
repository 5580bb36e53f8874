"""What a recomputed value leaves out because raw cannot be read, and what can still be said of the right value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import NamedTuple

from pik.errors import Invalid
from pik.model.aggregate import Computed
from pik.model.metric import Combination, Definition
from pik.ports.engine import Engine
from pik.rawlog.segment_reader import places_of
from pik.rawlog.selection import Selection
from pik.usecases.metrics.chain import EXACT, value_of


@dataclass(frozen=True, slots=True)
class Unread:
    """Deliveries in frames that cannot be read, by the key of their segment: when they were recorded, and how many of
    them may count in a value, at most (None: not even the index knows)."""

    segments: Mapping[str, tuple[int, int | None]]

    def events(self, after: int | None = None) -> int | None:
        """Return how many they are, or those recorded after a time (nanoseconds), at most; None: not known."""
        total = 0
        for recorded_at, events in self.segments.values():
            if after is None or recorded_at > after:
                if events is None:
                    return None
                total += events
        return total


NOTHING_UNREAD = Unread({})


class Bounds(NamedTuple):
    """The least and the greatest that a value may be, both included; None: that does not follow."""

    lowest: Decimal | None = None
    highest: Decimal | None = None


NO_BOUNDS = Bounds()


def unread_deliveries(selection: Selection, unreadable: Mapping[str, frozenset[int]]) -> Unread:
    """Return what the selection needs of these frames, given by the key of their segment and their offset. Raises
    Damaged."""
    if not unreadable:
        return NOTHING_UNREAD
    store = selection.store
    whole = replace(selection, overrides=replace(selection.overrides, unreadable={}))
    chosen = whole.counting()
    found: dict[str, tuple[int, int | None]] = {}
    for segment in whole.segments():
        gone = unreadable.get(segment.key, frozenset())
        frames = [frame for frame in whole.frames_in(segment) if frame.offset in gone]
        if not frames:
            continue
        lines = sum(frame.lines for frame in frames)
        if not all(frame.lines for frame in frames):
            found[segment.key] = segment.recorded_at, None
            continue
        if not selection.overrides.duplicates:
            counting, skipped = chosen.get(segment.batch_id, {}), store.index.skipped(segment)
            numbers = {number for number, frame in enumerate(segment.frames) if frame in frames}
            rows = places_of(store.audit.deliveries(segment, numbers))
            lines -= sum(not counting.get(seq, seq not in skipped) for seq, _, _ in rows)
        if lines:
            found[segment.key] = segment.recorded_at, lines
    return Unread(found)


def bounds(engine: Engine, definition: Definition, computed: Computed | None, events: int | None) -> Bounds:
    """Return what a computed value may be at least and at most once so many more events count, at most (None: any
    number)."""
    if engine.counts(definition):
        counted = value_of(computed)
        return Bounds(counted, None if events is None else EXACT.add(counted, Decimal(events)))
    try:
        combination = engine.combination(definition)
    except Invalid:
        return Bounds()
    value = None if computed is None else computed.value
    lowest = value if combination == Combination.MAX else None
    return Bounds(lowest, value if combination == Combination.MIN else None)

"""Exact copies that count in the place of deliveries that cannot be read.

An exact copy has the content of the delivery that counts, so the event counts as it would have. That is certain only
where nothing tells the two apart: a conflict never stands for another delivery, nor does a copy that a correction moves
otherwise, and no copy does where a selection of the scenario is by batch, by arrival or by a condition, or where a
definition reads how a payload is written: 1 and 1.0 are one content.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from pik.model.batch import Location, Segment, Verdict
from pik.rawlog.corrected import Marks
from pik.rawlog.selection import Overrides, Selection

_SAME = Verdict.ACCEPTED, Verdict.EXACT
"""The verdicts of an event's deliveries that have one content."""

_AT_ONCE = 50_000
"""Events of which it is looked up together whether corrections move their deliveries."""

Place = tuple[str, int]
"""A delivery: its batch and seq."""


def copies_of(counting: Location, others: Iterable[Location]) -> Iterator[Location]:
    """Yield those of an event's other deliveries that certainly have the content of the one that counts."""
    return (one for one in others if counting.kind in _SAME and one.kind in _SAME)


def tells_copies_apart(overrides: Overrides) -> bool:
    """Return whether an event may count otherwise if an exact copy of it counts."""
    selections = [rule.criteria for rule in overrides.rules]
    return overrides.duplicates or any(one.batch is not None or one.condition is not None for one in selections)


def readable_part(
    selection: Selection, unreadable: Mapping[str, frozenset[int]], *, moments: Collection[int] | None
) -> Selection:
    """Return the selection without these frames, given by the key of their segment and their offset. The first exact
    copy of each event counts whose counting delivery is in one of them, unless that, and not the copy, was known at one
    of the `moments` (nanoseconds) that are compared; None: no copy counts. Raises Damaged."""
    overrides = replace(selection.overrides, unreadable=dict(unreadable))
    if moments is not None and unreadable and not overrides.duplicates:
        counting: dict[str, Marks] = {}
        for batch_id, seqs in overrides.counting.items():
            counting.setdefault(batch_id, Marks()).add(seqs)
        for lost, copy in _Search(selection, unreadable, moments).pairs():
            for one in (lost, copy):
                counting.setdefault(one.batch_id, Marks()).mark(one.seq, one is copy)
        overrides = replace(overrides, counting=counting)
    return replace(selection, overrides=overrides)


@dataclass(slots=True)
class _Search:
    """Finds the copies. `whole` is the selection that leaves nothing out."""

    whole: Selection
    unreadable: Mapping[str, frozenset[int]]
    moments: Collection[int]
    _segments: dict[str, Segment] = field(init=False)
    _counting: Mapping[str, Mapping[int, bool]] = field(init=False)
    _withdrawn: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self._segments = {one.key: one for one in self.whole.segments() if one.key in self.unreadable}
        self._counting = self.whole.counting()
        self._withdrawn = self.whole.overrides.withdrawn.union(self.whole.corrected.withdrawn)

    def pairs(self) -> Iterator[tuple[Location, Location]]:
        """Yield the counting deliveries that cannot be read, each with the one that counts in its place."""
        events = self._events()
        while some := list(islice(events, _AT_ONCE)):
            times = self._times({(one.batch_id, one.seq) for deliveries in some for one in deliveries})
            for lost, *copies in some:
                time = times.get((lost.batch_id, lost.seq))
                copy = next((one for one in copies if times.get((one.batch_id, one.seq)) == time), None)
                if copy is not None:
                    yield lost, copy

    def _events(self) -> Iterator[Sequence[Location]]:
        """Yield the counting deliveries that cannot be read, each before its copies, in recording order."""
        repeats, days = self.whole.store.repeats, self.whole.days.bounds
        for batch_id in sorted({one.batch_id for one in self._segments.values()} | self._withdrawn):
            for deliveries in repeats.repeated_from(batch_id, days):
                for one in deliveries:
                    if self._is_known(one) and self._counts(one) and self._is_lost(one):
                        if copies := self._copies(one, deliveries):
                            yield one, *copies
                        break

    def _times(self, places: set[Place]) -> dict[Place, str | None]:
        """Return the times to which corrections move these deliveries."""
        corrected = self.whole.corrected
        if not places or not corrected.moving:
            return {}
        listed = corrected.listed(corrected.moving, self.whole.days, self.whole.entities)
        return {place: one.time for _, one in listed if (place := (one.batch_id, one.seq)) in places}

    def _is_known(self, one: Location) -> bool:
        until = self.whole.overrides.until
        is_recorded = one.kind != Verdict.UNRECORDED and (until is None or one.recorded_at <= until)
        return is_recorded and one.batch_id not in self._withdrawn

    def _counts(self, one: Location) -> bool:
        return self._counting.get(one.batch_id, {}).get(one.seq, one.kind == Verdict.ACCEPTED)

    def _is_lost(self, one: Location) -> bool:
        segment = self._segments.get(one.segment_key)
        return segment is not None and segment.frames[one.frame].offset in self.unreadable[segment.key]

    def _is_left(self, one: Location) -> bool:
        return self._is_known(one) and not self._is_lost(one)

    def _copies(self, lost: Location, deliveries: Iterable[Location]) -> list[Location]:
        def always_known(copy: Location) -> bool:
            return not any(lost.recorded_at <= moment < copy.recorded_at for moment in self.moments)

        return list(filter(always_known, copies_of(lost, filter(self._is_left, deliveries))))

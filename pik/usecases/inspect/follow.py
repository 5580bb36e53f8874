"""Deliveries as they are recorded: what is new since the last look, each once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, takewhile
from operator import attrgetter
from time import time_ns
from typing import TYPE_CHECKING

from pik.model.batch import Batch, BatchState, Segment, Verdict
from pik.model.delivery import Filter
from pik.model.ids import time_digits
from pik.model.instant import MIN_INSTANT, SECOND, parse_instant
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.rawlog.corrected import Corrected, corrected_until
from pik.rawlog.objects import frame_lines, frames_of, parse
from pik.rawlog.selection import Overrides, RecordedDelivery, Selection
from pik.usecases.availability import expect_held
from pik.usecases.inspect.conditions import ACCEPTED, Conditions
from pik.usecases.inspect.events import EventRow

if TYPE_CHECKING:
    from pik.rawlog.corrected_reader import CorrectedReader

CLOCKS = 60 * SECOND
"""By how much the clocks of writers may differ: the id of a new batch is at most that much older than the last look."""


@dataclass(slots=True)
class _Followed:
    """A batch that may get more deliveries. `looked_at` is its progress at the last look; `waiting` has by segment the
    seqs that were not recorded then, none where all were."""

    looked_at: tuple[BatchState, int, int] | None = None
    waiting: dict[str, set[int]] = field(default_factory=dict)


class Follower:
    """Finds deliveries that are recorded after it was made, or where the conditions have a time of recording, since
    that. Each look costs a few requests, and one for each batch that is being written.

    Raises NotHeld for a copy that does not hold the window.
    """

    def __init__(self, store: Store, wanted: Filter, conditions: Conditions = ACCEPTED) -> None:
        expect_held(store, wanted.window, wanted.entities)
        self._store, self._wanted, self._conditions = store, wanted, conditions
        self._oldest = ""
        self._followed: dict[str, _Followed] = {}
        if conditions.recorded.start == MIN_INSTANT:
            for _ in self._look(note_only=True):
                pass

    def new(self) -> Iterator[EventRow]:
        """Yield what was recorded since the last look, batch by batch in the order of recording; `deliveries` of its
        event are not counted. Read all of it before the next look. Raises Damaged."""
        for found in self._look():
            delivery, received = found.delivery, found.received_event_time
            yield EventRow(
                delivery.event_id,
                delivery.event_instant,
                delivery.source,
                delivery.event_type,
                delivery.entity_id,
                delivery.lag,
                0,
                delivery.batch_id,
                delivery.seq,
                bytes(delivery.payload),
                found.segment.recorded_at,
                delivery,
                received_event_time=None if received is None else parse_instant(received),
                corrections=found.corrections,
            )

    def _look(self, *, note_only: bool = False) -> Iterator[RecordedDelivery]:
        began = time_ns()
        for batch in self._batches():
            if self._conditions.batch_id in (None, batch.batch_id):
                yield from self._new_of(batch, note_only=note_only)
        self._oldest = time_digits(began - CLOCKS)
        for batch_id, followed in list(self._followed.items()):
            is_finished = followed.looked_at is not None and followed.looked_at[0] == BatchState.COMPLETE
            if is_finished and batch_id < self._oldest and not any(followed.waiting.values()):
                del self._followed[batch_id]

    def _batches(self) -> list[Batch]:
        """Return the batches that may have new deliveries, the oldest first."""
        listed = takewhile(lambda batch: batch.batch_id >= self._oldest, self._store.index.batches())
        found = {batch.batch_id: batch for batch in listed if self._oldest or self._is_first(batch)}
        for batch_id in self._followed.keys() - found.keys():
            found |= {batch.batch_id: batch for batch in self._store.index.batches(batch_id)}
        return sorted(found.values(), key=attrgetter("batch_id"))

    def _is_first(self, batch: Batch) -> bool:
        """Return whether the first look is at this batch: others are finished, and have nothing that is asked for."""
        since = self._conditions.recorded.start
        is_asked_for = since > MIN_INSTANT and batch.recorded_at >= since
        return is_asked_for or batch.state != BatchState.COMPLETE or batch.batch_id >= time_digits(time_ns() - CLOCKS)

    def _new_of(self, batch: Batch, *, note_only: bool) -> Iterator[RecordedDelivery]:
        followed = self._followed.setdefault(batch.batch_id, _Followed())
        progress = batch.state, batch.recorded_at, batch.next_seq
        is_written = batch.state == BatchState.RUNNING or any(followed.waiting.values())
        if followed.looked_at == progress and not is_written:
            return
        # Deliveries may have been moved into the window since they were recorded.
        window = ALL_TIME if self._corrected().moving else self._wanted.window
        segments = self._store.index.segments(window, batch_id=batch.batch_id)
        new = [one for one in segments if followed.waiting.get(one.key, True)]
        in_order = groupby(sorted(new, key=attrgetter("recorded_at")), key=attrgetter("recorded_at"))
        for _, block in in_order:
            of_block = [found for segment in block for found in self._new_in(segment, followed, note_only=note_only)]
            yield from sorted(of_block, key=lambda found: found.delivery.seq)
        followed.looked_at = progress

    def _new_in(self, segment: Segment, followed: _Followed, *, note_only: bool) -> Iterator[RecordedDelivery]:
        verdicts = self._store.index.skipped(segment)
        unrecorded = {seq for seq, verdict in verdicts.items() if verdict == Verdict.UNRECORDED}
        before = followed.waiting.get(segment.key)
        if not note_only and self._conditions.holds(segment):
            for found in self._deliveries(segment, verdicts):
                seq = found.delivery.seq
                is_new = seq not in unrecorded and (before is None or seq in before)
                if is_new and self._wanted.matches(found.delivery) and self._conditions.meets(found):
                    yield found
        followed.waiting[segment.key] = unrecorded if before is None else before & unrecorded

    def _corrected(self) -> Corrected:
        """Return the corrections that hold now."""
        return corrected_until(self._store, 0 if self._conditions.as_received else None)

    def _deliveries(self, segment: Segment, verdicts: dict[int, Verdict]) -> Iterator[RecordedDelivery]:
        """Yield the deliveries of a segment as corrections have them."""
        entities, corrected = self._wanted.entities, self._corrected()
        reader: CorrectedReader | None = None
        if corrected:
            from pik.rawlog.corrected_reader import CorrectedReader

            overrides = Overrides(corrected=corrected)
            reader = CorrectedReader(Selection(self._store, Window.of_day(segment.day), entities, overrides), None)
        for frame in frames_of(segment, entities):
            for line in frame_lines(self._store.raw, segment, frame):
                if reader is not None:
                    if (found := reader.corrected(segment, line, verdicts)) is not None:
                        yield found
                    continue
                delivery = parse(segment.key, line)
                verdict = verdicts.get(delivery.seq, Verdict.ACCEPTED)
                yield RecordedDelivery(delivery, verdict, segment, b"", verdict == Verdict.ACCEPTED)

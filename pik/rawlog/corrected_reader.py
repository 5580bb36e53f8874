"""Reading deliveries where corrections hold: day by day of the times that corrections give them."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Generator, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from msgspec import structs

from pik.model.batch import Segment, Verdict
from pik.model.correction import ListedDelivery
from pik.model.delivery import Filter, entity_mark, event_id_text
from pik.model.instant import DAY, SECOND, full_instant
from pik.model.window import Window
from pik.rawlog.corrected import Days
from pik.rawlog.objects import frame_lines, parse
from pik.rawlog.selection import Bound, RecordedDelivery, Selection
from pik.runtime import Progress

_ACCEPTED, _CONFLICT, _UNRECORDED = (
    Verdict.ACCEPTED,
    Verdict.CONFLICT,
    Verdict.UNRECORDED,
)  # members are slow to look up


def corrected_deliveries(
    selection: Selection,
    wanted: Filter,
    kinds: Sequence[str],
    bound: Bound,
    progress: Progress,
) -> Generator[RecordedDelivery, None, None]:
    """Yield the deliveries of these verdicts, as `deliveries` does: those that count are `accepted`. A day
    from which deliveries move is read for each day to which they do."""
    marks = [entity_mark(entity) for entity in wanted.entities] if len(wanted.entities) <= 8 else []
    for day in _days(selection):
        window = selection.window
        start, end = max(window.start, Window.of_day(day).start), min(window.end, Window.of_day(day).end)
        if start >= end:
            continue
        of_day = selection.within(Window(start, end))
        reader: CorrectedReader | None = None
        for segment in of_day.recorded_segments():
            if segment.day == day and day not in of_day.days.others and bound.excludes(segment):
                continue
            frames = of_day.frames_in(segment)
            if not frames:
                continue
            reader = reader or CorrectedReader(of_day, day)
            verdicts = selection.store.index.skipped(segment)
            for frame in frames:
                for line in frame_lines(selection.store.raw, segment, frame):
                    if marks and not any(mark in line for mark in marks):
                        continue
                    found = reader.corrected(segment, line, verdicts)
                    if found is None or not reader.shows(found, kinds):
                        continue
                    if bound.excludes_text(day, found.delivery.event_time.encode(), event_id_text(line)):
                        continue
                    if wanted.matches(found.delivery):
                        yield found
                progress.advance(frame.lines)


def _days(selection: Selection) -> list[int]:
    """Return the days in which deliveries of the selection may have happened, in order."""
    first, last = selection.window.days
    found = {segment.day for segment in selection.recorded_segments()} | selection.corrected.reached(selection.window)
    return sorted(day for day in found if first <= day <= last)


class DeliveryState(NamedTuple):
    """Whether a delivery counts, when a correction says that it happened (nanoseconds; None: none does), and the ids of
    the corrections that moved it, chose whether it counts, or took it out."""

    counts: bool
    time: int | None
    corrections: tuple[str, ...]


class CorrectedReader:
    """What corrections say of the deliveries that may have happened in a selection's window. With a `day`, which the
    window is in, deliveries of others are left out.

    Memory: 24 bytes for each delivery that is moved there or away, a set of the ids of events that are out."""

    def __init__(self, selection: Selection, day: int | None = None) -> None:
        self._day = day
        corrected, days, entities = selection.corrected, selection.days, selection.entities
        self._withdrawn = corrected.withdrawn
        self._counting = selection.counting()
        self._moves = _Moves(corrected.listed(corrected.moving, days, entities))
        self._moving = [one.correction_id for one in corrected.moving]
        self._removing = [one.correction_id for one in corrected.removing]
        self._out: dict[bytes, tuple[int, ...]] = {}
        self._selection, self._is_anywhere = selection, corrected.removes_anywhere
        self._take_out(None if self._is_anywhere else days)
        self._chosen = {
            (one.batch_id, one.seq): one.correction_id for one in corrected.choices(days, entities, self._withdrawn)
        }
        self._heirs = corrected.heirs(days, self._withdrawn, selection.overrides.until)

    def _take_out(self, days: Days | None) -> None:
        """Read which events are out of the lists of these days (None: all)."""
        corrected = self._selection.corrected
        for number, one in corrected.listed(corrected.removing, days, self._selection.entities):
            event_id = one.event_id.encode()
            if number not in self._out.get(event_id, ()):
                self._out[event_id] = (*self._out.get(event_id, ()), number)

    def shows(self, found: RecordedDelivery, kinds: Sequence[str]) -> bool:
        """Return whether the delivery is one of these. With accepted ones and duplicates all deliveries are, otherwise
        none of an event that is out, nor of a batch that is withdrawn."""
        if found.counts:
            return _ACCEPTED in kinds
        if _ACCEPTED in kinds:
            return len(kinds) > 1 and found.kind != _UNRECORDED
        is_there = found.delivery.batch_id not in self._withdrawn and found.delivery.event_id.encode() not in self._out
        return is_there and found.kind in kinds

    def state(self, batch_id: str, seq: int, event_id: bytes, verdict: Verdict) -> DeliveryState:
        """Return what corrections say of a delivery."""
        out = self._out.get(event_id, ())
        counts = self._counting.get(batch_id, {}).get(seq, verdict == _ACCEPTED)
        counts = counts and not out and batch_id not in self._withdrawn
        by = [self._removing[number] for number in out]
        if batch_id in self._withdrawn:
            by.append(self._withdrawn[batch_id])
        if (place := (batch_id, seq)) in self._chosen:
            by.append(self._chosen[place])
        elif verdict != _ACCEPTED:
            by += [one for one, of_batches in self._heirs.items() if seq in of_batches.get(batch_id, ())]
        move = self._moves.of(batch_id, seq)
        if move is not None:
            by.append(self._moving[move[0]])
        return DeliveryState(counts, None if move is None else move[1], tuple(sorted(set(by))))

    def corrected(self, segment: Segment, line: bytes, verdicts: dict[int, Verdict]) -> RecordedDelivery | None:
        """Return a line of raw as corrections have it; None if it happened on another day than that of the reader."""
        delivery, received = parse(segment.key, line), None
        verdict = verdicts.get(delivery.seq, _ACCEPTED)
        if not self._is_anywhere and verdict == _CONFLICT:
            self._is_anywhere = self._selection.corrected.may_take_out_elsewhere((verdict,), segment.recorded_at)
            if self._is_anywhere:
                self._take_out(None)
        state = self.state(delivery.batch_id, delivery.seq, event_id_text(line), verdict)
        if self._day not in (None, segment.day if state.time is None else state.time // DAY):
            return None
        if state.time is not None and (text := full_instant(state.time)) != delivery.event_time:
            received, delivery = delivery.event_time, structs.replace(delivery, event_time=text)
        return RecordedDelivery(delivery, verdict, segment, line, state.counts, received, state.corrections)


class _Moves:
    """When moved deliveries happened, by batch and seq; of several about one delivery the last one holds."""

    def __init__(self, listed: Iterator[tuple[int, ListedDelivery]]) -> None:
        batches: dict[str, tuple[array[int], array[int], array[int]]] = {}
        for number, one in listed:
            seqs, times, numbers = batches.setdefault(one.batch_id, (array("q"), array("q"), array("q")))
            assert one.time is not None
            seqs.append(one.seq)
            times.append(_instant(one.time))
            numbers.append(number)
        self._batches = {batch_id: _by_seq(*columns) for batch_id, columns in batches.items()}

    def of(self, batch_id: str, seq: int) -> tuple[int, int] | None:
        """Return the number of the correction that moved a delivery, and its time; None: none did."""
        found = self._batches.get(batch_id)
        if found is None:
            return None
        seqs, times, numbers = found
        at = bisect_left(seqs, seq)
        return (numbers[at], times[at]) if at < len(seqs) and seqs[at] == seq else None


def _instant(time: str) -> int:
    """Return the nanoseconds of a time as raw has it, faster than what reads any time."""
    seconds = int(datetime.fromisoformat(f"{time[:19]}+00:00").timestamp())
    return seconds * SECOND + int(time[20:29])


def _by_seq(
    seqs: Sequence[int], times: Sequence[int], numbers: Sequence[int]
) -> tuple[array[int], array[int], array[int]]:
    """Return the columns ordered by seq, of each seq the row with the highest number."""
    order = sorted(range(len(seqs)), key=lambda at: (seqs[at], numbers[at]))
    last = [at for place, at in enumerate(order) if place + 1 == len(order) or seqs[order[place + 1]] != seqs[at]]
    return (
        array("q", (seqs[at] for at in last)),
        array("q", (times[at] for at in last)),
        array("q", (numbers[at] for at in last)),
    )

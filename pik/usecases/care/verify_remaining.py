"""What raw still holds of the inputs of aggregates, and which of these are not proven by it.

An aggregate records the number of its inputs and two XORs over them. Where what raw holds of what it knew comes to the
same, it is proven, whatever was lost beside it. Otherwise the index still knows the ids of the deliveries in the frames
that are lost, and which of them the aggregate counted follows from its XOR: their number is that of the inputs that are
missing, and their XOR with that of the rest is the recorded one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import chain, islice
from operator import xor

from pik.errors import number_of
from pik.model.aggregate import Aggregate, Computed, with_scale
from pik.model.batch import Frame, Verdict
from pik.model.instant import DAY, SECOND, day_text, display_instant
from pik.model.metric import ALL_ENTITIES, Metric, entities_of
from pik.model.window import ALL_TIME, Window
from pik.ports.raw import RawKey
from pik.ports.store import Store
from pik.rawlog.exact_copies import copies_of
from pik.rawlog.segment_reader import places_of
from pik.rawlog.selection import Overrides, Selection
from pik.usecases.care.verify_findings import InQuestion, Problem, ProblemKind
from pik.usecases.care.verify_run import LostFrames
from pik.usecases.metrics.winners import Winners
from pik.usecases.metrics.zones import MovedZones

_SOLVABLE = 96
"""Candidates up to which a XOR of 128 random bits tells which of them it is made of."""

_CLOCKS = 60 * SECOND
"""By how much the clocks of a deployed store's writers may differ."""


@dataclass(frozen=True, slots=True)
class _LostFrame:
    """A frame that is lost, when its deliveries were recorded, and the ids of those that counted, 16 bytes each."""

    frame: Frame
    recorded_at: int
    ids: bytes


@dataclass(frozen=True, slots=True)
class _LostSegment:
    """The lost frames of a segment, in its order, which is that of entities; `lasts` are the last entity of each."""

    frames: list[_LostFrame]
    lasts: list[str]
    events: Window
    """Which holds the times of all of its events."""

    def around(self, entity: str) -> Iterator[_LostFrame]:
        """Yield the frames that may hold the entity, by its first and last."""
        if entity == ALL_ENTITIES:
            yield from self.frames
            return
        for lost in islice(self.frames, bisect_left(self.lasts, entity), None):
            if lost.frame.first > entity:
                return
            yield lost


@dataclass(slots=True)
class _Forgotten:
    """Events whose counting delivery was lost together with the index: the ids of those of which another content counts
    now, the days of that, and the days on which the same content counts, from another delivery."""

    ids: list[int] = field(default_factory=list)
    days: set[int] = field(default_factory=set)
    days_of_same: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Remaining:
    """What is left of raw, once all that is lost is known. Memory: what is lost, without its content."""

    store: Store
    lost: Mapping[str, LostFrames]
    """By the key of the segment."""
    unknown_losses: Set[int]
    """Days of lost segments of which the index does not know what they held."""
    winners: Winners
    overrides: Overrides = field(init=False)
    _moved: MovedZones = field(init=False)
    _heirs: set[bytes] = field(default_factory=set)
    _by_day: dict[int, list[_LostSegment]] = field(default_factory=dict)
    """Of the days of the bucket that was looked at last."""
    _forgotten: dict[int, _Forgotten] = field(default_factory=dict)
    """By the moment after which they were."""

    def __post_init__(self) -> None:
        unreadable = {
            key: frozenset(lost.segment.frames[number].offset for number in lost.frames)
            for key, lost in self.lost.items()
        }
        self.overrides = Overrides(unreadable=unreadable, counting=self._succession())
        self._moved = MovedZones(self.store)

    def of(self, known: Overrides) -> Overrides:
        """Return what is left of what was known. Where it says which delivery of an event counted, that holds."""
        counting = {batch_id: dict(seqs) for batch_id, seqs in self.overrides.counting.items()}
        for batch_id, seqs in known.counting.items():
            counting.setdefault(batch_id, {}).update(seqs)
        return replace(known, unreadable=self.overrides.unreadable, counting=counting)

    def _succession(self) -> dict[str, dict[int, bool]]:
        """Return the deliveries that count now because the accepted delivery of their event is lost: the first exact
        copy in recording order, without one the first of the others, as a rebuild has it."""
        counting: dict[str, dict[int, bool]] = defaultdict(dict)
        store = self.store
        corrected = Selection(store, ALL_TIME)
        withdrawn, chosen = corrected.corrected.withdrawn, corrected.counting() if self.lost else {}
        for batch_id in sorted({lost.segment.batch_id for lost in self.lost.values()}):
            for deliveries in store.repeats.repeated_from(batch_id):
                [accepted] = (one for one in deliveries if one.kind == Verdict.ACCEPTED)
                if not self._is_lost(accepted.segment_key, accepted.frame):
                    continue
                if accepted.batch_id in withdrawn or not chosen.get(accepted.batch_id, {}).get(accepted.seq, True):
                    continue  # it does not count: a correction is why
                left = [
                    one
                    for one in deliveries
                    if one.kind != Verdict.UNRECORDED
                    and one.batch_id not in withdrawn
                    and not self._is_lost(one.segment_key, one.frame)
                ]
                for one in chain(copies_of(accepted, left), left):
                    counting[one.batch_id][one.seq] = True
                    if one.kind == Verdict.EXACT:
                        self._heirs.add(bytes.fromhex(one.event_id))
                    break
        return dict(counting)

    def _is_lost(self, key: str, frame: int) -> bool:
        lost = self.lost.get(key)
        return lost is not None and frame in lost.frames

    def problem(self, current: Aggregate, now: Computed | None, then: Metric) -> Problem:
        """Return why a current aggregate is not what raw makes of what it knew, by the definition of its time."""
        row, of_run = current.computed, f"{current.computed.metric} of run {current.run_id}"
        window = then.buckets.around(row.bucket)
        certain, others = self._candidates(window, row.entity_id, current.known_until)
        day = day_text(row.bucket // DAY)
        entities = entities_of(row.entity_id)
        left = 0 if now is None else now.inputs or 0
        missing, target = (
            (row.inputs or 0) - left,
            int(row.input_ids, 16) ^ (0 if now is None else int(now.input_ids, 16)),
        )
        forgotten, days = self._forgotten_since(current.run_id), set(_days(window))
        counted = counted_among(certain, [*others, *forgotten.ids], missing, target)
        if certain or others or counted or days & (self.unknown_losses | forgotten.days):
            kind = ProblemKind.UNPROVEN
            detail = f"raw has lost {missing} of its {row.inputs} inputs" if missing else "raw has other contents of it"
        elif not missing and not target and days & forgotten.days_of_same:
            kind = ProblemKind.UNCERTAIN
            detail = "which delivery of an event counted then was lost with the index"
        elif moved := self._moved.of(current.run_id, then, row.bucket):
            kind, detail = ProblemKind.UNCERTAIN, moved
        elif self._is_uncertain(window, current.known_until):
            kind, detail = ProblemKind.UNCERTAIN, "others recorded while it was computed"
        else:
            detail = (
                f"its {row.inputs} inputs are not the events of {display_instant(row.bucket)} that were known to it"
            )
            return Problem(ProblemKind.AGGREGATE, of_run, detail, day, entities)
        value = InQuestion(
            metric=row.metric,
            entity_id=row.entity_id,
            bucket=row.bucket,
            run_id=current.run_id,
            recorded=None if row.value is None else with_scale(row.value, then.scale),
            remaining=None if now is None or now.value is None else with_scale(now.value, then.scale),
            candidates=len(certain) + len(others),
        )
        lost = tuple(sorted(format(one, "032x") for one in counted))
        return Problem(kind, row.metric, detail, day, entities, value=value, lost_events=lost)

    def recorded_since(self, current: Aggregate, then: Metric) -> Problem | None:
        """Return what is lost of the deliveries that were recorded after a current aggregate was computed, and may
        belong to it; None: nothing."""
        row, window = current.computed, then.buckets.around(current.computed.bucket)
        certain, others = self._candidates(window, row.entity_id, current.known_until, since=True)
        if not certain and not others:
            return None
        count = len(certain) + len(others)
        value = InQuestion(
            metric=row.metric,
            entity_id=row.entity_id,
            bucket=row.bucket,
            run_id=current.run_id,
            recorded=None if row.value is None else with_scale(row.value, then.scale),
            remaining=None,
            candidates=count,
            incomplete=True,
        )
        detail = f"raw has lost up to {number_of(count, 'event')} of it that were recorded since"
        lost = () if others else tuple(sorted(format(one, "032x") for one in certain))
        place = day_text(row.bucket // DAY), entities_of(row.entity_id)
        return Problem(ProblemKind.INCOMPLETE, row.metric, detail, *place, value=value, lost_events=lost)

    def _candidates(
        self, window: Window, entity: str, known_until: int, *, since: bool = False
    ) -> tuple[list[int], list[int]]:
        """Return the ids of the lost deliveries that an aggregate may have counted, or with `since` of those recorded
        later: those of the entity, and others in the same frames, which may be."""
        days = _days(window) if self.lost else ()
        self._by_day = {day: self._by_day[day] if day in self._by_day else list(self._lost_of(day)) for day in days}
        certain: dict[bytes, None] = {}
        others: dict[bytes, None] = {}
        segments = [
            one
            for one in chain.from_iterable(self._by_day.values())
            if not since or (one.events.start < window.end and window.start < one.events.end)
        ]
        for lost in chain.from_iterable(one.around(entity) for one in segments):
            frame = lost.frame
            is_its_own = entity == ALL_ENTITIES or frame.first == frame.last == entity
            names = frame.entities
            if (lost.recorded_at > known_until) == since and (is_its_own or (entity in names if names else True)):
                ids = (lost.ids[at : at + 16] for at in range(0, len(lost.ids), 16))
                (certain if is_its_own else others).update(dict.fromkeys(ids))
        return _numbers(certain, self._heirs), _numbers((one for one in others if one not in certain), self._heirs)

    def _lost_of(self, day: int) -> Iterator[_LostSegment]:
        for lost in self.lost.values():
            if lost.segment.day == day:
                frames = list(self._frames_of(lost))
                events = Window(lost.segment.first_event, lost.segment.last_event + 1)
                yield _LostSegment(frames, [one.frame.last for one in frames], events)

    def _frames_of(self, lost: LostFrames) -> Iterator[_LostFrame]:
        store, segment = self.store, lost.segment
        skipped, ids = store.index.skipped(segment), defaultdict[int, list[bytes]](list)
        for seq, event_id, frame in places_of(self.store.audit.deliveries(segment, lost.frames)):
            if seq not in skipped:
                ids[frame].append(event_id)
        for number in sorted(lost.frames):
            yield _LostFrame(segment.frames[number], segment.recorded_at, b"".join(ids[number]))

    def _forgotten_since(self, run_id: str) -> _Forgotten:
        """Return what rebuilds have forgotten since the run was planned, and what is still not there again."""
        after = self.winners.known_to(run_id)
        if after not in self._forgotten:
            lost = {name for name, one in self.winners.before(after, ALL_TIME).items() if one.place is None}
            found = _Forgotten([int(name, 16) for name in lost])
            for line in self.winners.forgotten(after):
                day = RawKey.of(line.key).day or 0
                if line.was == Verdict.EXACT:
                    found.days_of_same.add(day)
                elif line.event_id in lost:
                    found.days.add(day)
            self._forgotten[after] = found
        return self._forgotten[after]

    def _is_uncertain(self, window: Window, known_until: int) -> bool:
        """Return whether what was known then is not certain: in a deployed store a block of another writer was recorded
        at about that time, or still is being recorded."""
        store = self.store
        if not store.deployed:
            return False
        segments = list(store.index.segments(window))
        writers = {segment.batch_id for segment in segments if abs(segment.recorded_at - known_until) <= _CLOCKS}
        return len(writers) > 1 or any(
            Verdict.UNRECORDED in store.index.skipped(segment).values() for segment in segments
        )


def _days(window: Window) -> range:
    first, last = window.days
    return range(first, last + 1)


def _numbers(ids: Iterable[bytes], without: Container[bytes]) -> list[int]:
    return [int.from_bytes(one, "big") for one in ids if one not in without]


def counted_among(certain: Sequence[int], others: Sequence[int], number: int, target: int) -> list[int]:
    """Return those `number` lost ids that have this XOR; none if that cannot be told. Of a metric without a condition
    these are all the `certain` ones and some of the others; of one with a condition, some of them all."""
    everything = [*certain, *others]
    if number <= 0:
        return []
    if number == 1 and target in everything:
        return [target]
    if len(everything) == number and _xor(everything) == target:
        return everything
    chosen = _solved(everything, target) if len(everything) <= _SOLVABLE else None
    if chosen is None and certain and len(others) <= _SOLVABLE:
        some = _solved(others, target ^ _xor(certain))
        chosen = None if some is None else [*certain, *some]
    return chosen if chosen is not None and len(chosen) == number else []


def _xor(values: Iterable[int]) -> int:
    return reduce(xor, values, 0)


def _solved(values: Sequence[int], target: int) -> list[int] | None:
    """Return which of the values have this XOR; None if none have. Gaussian elimination over GF(2)."""
    basis: dict[int, tuple[int, int]] = {}  # by highest bit: a value, and of which it is made, as a bit for each
    for number, value in enumerate(values):
        rest, made = _reduced(basis, value, 1 << number)
        if rest:
            basis[rest.bit_length()] = rest, made
    rest, made = _reduced(basis, target, 0)
    return None if rest else [value for number, value in enumerate(values) if made >> number & 1]


def _reduced(basis: Mapping[int, tuple[int, int]], value: int, made: int) -> tuple[int, int]:
    while value and value.bit_length() in basis:
        other, of = basis[value.bit_length()]
        value, made = value ^ other, made ^ of
    return value, made

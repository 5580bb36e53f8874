"""What happened to one event: its deliveries, what corrections and rebuilds said of them, and what counted since."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from pik.model.batch import Location, Verdict
from pik.model.correction import Correction, CorrectionKind, ListedDelivery, active
from pik.model.ids import creation_time
from pik.model.instant import format_instant, parse_instant
from pik.ports.raw import RawKind
from pik.ports.store import Store
from pik.rawlog.corrected import first_known, withdrawn_by
from pik.rawlog.corrections import Place, read_list, read_winners, with_frames

if TYPE_CHECKING:
    from pik.model.metric import Aggregate
    from pik.usecases.inspect.deliveries import DeliveryRow


def place_of(location: Location) -> Place:
    """Return the batch and seq of a delivery."""
    return location.batch_id, location.seq


@dataclass(frozen=True, slots=True)
class EventState:
    """Which delivery of an event counts at a moment (None: none does); when those happened that corrections move, in
    nanoseconds; and the ids of the corrections that concern each delivery, those that take the event out at all."""

    counting: Location | None
    times: Mapping[Place, int]
    corrections: Mapping[Place, tuple[str, ...]]


@dataclass(slots=True)
class EventLog:
    """What the log of corrections says of one event, whose `locations` are all of its deliveries. `log` has the
    corrections and revocations that concern it, in the order of the log."""

    locations: Sequence[Location]
    log: Sequence[Correction] = ()
    _said: dict[str, dict[Place, ListedDelivery]] = field(default_factory=dict)
    _winners: dict[str, tuple[Place | None, Place]] = field(default_factory=dict)

    @property
    def moments(self) -> list[int]:
        """When it was corrected."""
        return [one.recorded_at for one in self.log]

    def said(self, correction: Correction) -> Mapping[Place, ListedDelivery]:
        """Return what a correction lists of the event."""
        return self._said.get(correction.correction_id, {})

    def chosen(self, correction: Correction) -> Place | None:
        """Return the delivery that a correction, or a rebuild, lets count; None: it does not choose."""
        if correction.correction_id in self._winners:
            return self._winners[correction.correction_id][1]
        return next((place for place, one in self.said(correction).items() if one.counts), None)

    def state(self, until: int | None = None, known_until: int | None = None) -> EventState:
        """Return what the corrections until that moment (None: now; 0: none) come to, for the deliveries recorded until
        `known_until` (None: all)."""
        holding = active(self.log, until)
        withdrawn = withdrawn_by(holding)
        by: defaultdict[Place, list[str]] = defaultdict(list)
        for one in self.locations:
            if one.batch_id in withdrawn:
                by[place_of(one)].append(withdrawn[one.batch_id])
        counting = self._accepted(until)
        if counting is None or counting.batch_id in withdrawn or not _is_known(counting, known_until):
            heir = first_known(self.locations, withdrawn, known_until)
            if heir is not None and counting is not None and counting.batch_id in withdrawn:
                by[place_of(heir)].append(withdrawn[counting.batch_id])
            counting = heir
        times: dict[Place, int] = {}
        moved: dict[Place, str] = {}
        choices: Correction | None = None
        for correction in holding:
            said = self.said(correction)
            if correction.kind.chooses and said:
                choices = correction
            for place, listed in said.items():
                if correction.kind.moves and listed.time is not None:
                    times[place], moved[place] = parse_instant(listed.time), correction.correction_id
        if choices is not None:
            counting = self._with_choice(choices, counting, withdrawn, known_until, by)
        for place, correction_id in moved.items():
            by[place].append(correction_id)
        for correction in holding:
            if correction.kind is CorrectionKind.WITHOUT and self.said(correction):
                counting = None
                for one in self.locations:
                    by[place_of(one)].append(correction.correction_id)
        return EventState(counting, times, {place: tuple(sorted(set(ids))) for place, ids in by.items()})

    def _with_choice(
        self,
        choice: Correction,
        counting: Location | None,
        withdrawn: Mapping[str, str],
        known_until: int | None,
        by: defaultdict[Place, list[str]],
    ) -> Location | None:
        """Return the chosen delivery, if it can count; otherwise the one that counts without the choice."""
        place = self.chosen(choice)
        chosen = next((one for one in self.locations if place_of(one) == place), None)
        if chosen is None or chosen.batch_id in withdrawn or not _is_known(chosen, known_until):
            return counting
        for each in self.said(choice):
            by[each] = [one for one in by[each] if one in withdrawn.values() and each[0] in withdrawn]
            by[each].append(choice.correction_id)
        return chosen

    def _accepted(self, until: int | None) -> Location | None:
        """Return the delivery that the index took for the first one at that moment."""
        accepted = next((place_of(one) for one in self.locations if one.kind == Verdict.ACCEPTED), None)
        for one in reversed([one for one in self.log if one.correction_id in self._winners]):
            if until is not None and one.recorded_at > until:
                accepted = self._winners[one.correction_id][0]
        return next((one for one in self.locations if place_of(one) == accepted), None)


def _is_known(location: Location, known_until: int | None) -> bool:
    return location.kind != Verdict.UNRECORDED and (known_until is None or location.recorded_at <= known_until)


def event_log(store: Store, event_id: str, entity_id: str, some: Sequence[Location], *, all_there: bool) -> EventLog:
    """Return what the log of corrections says of an event, some of whose deliveries are given. Without any correction
    this costs no call if these are all of them. Raises Damaged."""
    log = store.corrections.recorded()
    if not log:
        return EventLog(some)
    locations = some if all_there else store.index.deliveries(event_id)
    found = EventLog(sorted(locations, key=lambda one: one.order))
    concerning: dict[str, Correction] = {}
    for one in log:
        if _concerns(store, one, event_id, entity_id, found, concerning):
            concerning[one.correction_id] = one
    found.log = list(concerning.values())
    return found


def _concerns(
    store: Store,
    one: Correction,
    event_id: str,
    entity_id: str,
    found: EventLog,
    concerning: Mapping[str, Correction],
) -> bool:
    """Whether a correction concerns the event; what it lists of it is kept."""
    if one.kind is CorrectionKind.REVOCATION:
        return one.revokes in concerning
    if one.kind is CorrectionKind.WITHOUT_BATCH:
        return any(each.batch_id == one.batch_id for each in found.locations)
    if one.kind is CorrectionKind.VERDICT:
        for line in read_winners(store.raw, RawKind.CORRECTION.key(one.correction_id)) if one.events else ():
            if line.event_id == event_id:
                found._winners[one.correction_id] = line.old, line.new
                return True
        return False
    days = {each.day for each in found.locations}
    if not any(listed.day in days for listed in one.lists):
        return False
    said = {
        (line.batch_id, line.seq): line for line in _lines(store, one, days, entity_id) if line.event_id == event_id
    }
    found._said[one.correction_id] = said
    return bool(said)


def _lines(store: Store, one: Correction, days: set[int], entity_id: str) -> Iterator[ListedDelivery]:
    for listed in with_frames(store.raw, one).lists:
        if listed.day in days:
            yield from read_list(store.raw, listed, [entity_id])


class Happening(StrEnum):
    """What happened to an event."""

    DELIVERY = "delivery"
    REBUILD = "rebuild"
    """The index was rebuilt, and another delivery was accepted."""
    CORRECTION = "correction"
    REVOCATION = "revocation"
    VALUE = "value"
    """A value was computed that is current and counts it."""


_CORRECTED = {CorrectionKind.VERDICT: Happening.REBUILD, CorrectionKind.REVOCATION: Happening.REVOCATION}


@dataclass(frozen=True, slots=True)
class Chapter:
    """Something that happened to an event at a moment (nanoseconds): `id` is that of the batch, the correction or the
    run. From then on the delivery `batch_id`, `seq` counts at `event_time` (None: none does; the time of one that is
    not shown)."""

    at: int
    what: Happening
    id: str
    about: str
    actor: str = ""
    reason: str = ""
    batch_id: str | None = None
    seq: int | None = None
    event_time: int | None = None


def chapters(
    log: EventLog,
    shown: Sequence[Location],
    rows: Sequence[DeliveryRow],
    values: Sequence[Aggregate] = (),
) -> tuple[Chapter, ...]:
    """Return what happened to the event, in order: the deliveries shown, corrections, and the values that count it."""
    received = {
        place_of(each): row.event_time if row.received_event_time is None else row.received_event_time
        for each, row in zip(shown, rows, strict=True)
    }
    found = [
        _Draft(one.recorded_at, Happening.DELIVERY, one.batch_id, f"{one.kind}, {one.batch_id}/{one.seq}")
        for one in shown
    ]
    for one in log.log:
        what = _CORRECTED.get(one.kind, Happening.CORRECTION)
        found.append(_Draft(one.recorded_at, what, one.correction_id, _about(log, one), one.actor, one.reason))
    for value in values:
        computed = value.computed
        about = f"{computed.metric} {format_instant(computed.bucket)} counts it"
        found.append(_Draft(_computed_at(value), Happening.VALUE, value.run_id, about, value.actor, value.reason))
    found.sort(key=lambda one: one.at)
    return tuple(_chapter(log, one, received) for one in found)


@dataclass(frozen=True, slots=True)
class _Draft:
    at: int
    what: Happening
    id: str
    about: str
    actor: str = ""
    reason: str = ""


def _chapter(log: EventLog, draft: _Draft, received: Mapping[Place, int]) -> Chapter:
    state = log.state(draft.at, draft.at)
    counting = state.counting
    place = None if counting is None else place_of(counting)
    time = None if place is None else state.times.get(place, received.get(place))
    return Chapter(
        *(draft.at, draft.what, draft.id, draft.about, draft.actor, draft.reason),
        batch_id=None if place is None else place[0],
        seq=None if place is None else place[1],
        event_time=time,
    )


def _about(log: EventLog, one: Correction) -> str:
    """Return what a correction says, and how many deliveries of the event it lists."""
    if one.kind is CorrectionKind.VERDICT:
        place = log.chosen(one)
        return "the index was rebuilt" + (f": {place[0]}/{place[1]} is accepted" if place else "")
    return one.statement


def _computed_at(value: Aggregate) -> int:
    try:
        return creation_time(value.run_id)
    except ValueError:  # a damaged id
        return value.known_until

"""What happened to one event: its deliveries, what corrections and rebuilds said of them, and what counted since."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from pik.model.batch import Arrivals, Location, Verdict
from pik.model.correction import Correction, CorrectionKind
from pik.model.ids import creation_time
from pik.model.instant import display_instant
from pik.model.scenario import Scenario
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.corrected_reader import CorrectedReader
from pik.rawlog.corrections import Place, read_list, with_frames
from pik.rawlog.selection import Selection
from pik.usecases.metrics.scenario import applied
from pik.usecases.metrics.winners import Winners

if TYPE_CHECKING:
    from pik.model.aggregate import Aggregate


def place_of(location: Location) -> Place:
    """Return the batch and seq of a delivery."""
    return location.batch_id, location.seq


@dataclass(frozen=True, slots=True)
class EventState:
    """Which delivery of an event counts at a moment (None: none does); when those happened that corrections move, in
    nanoseconds; and the ids of the corrections that concern each delivery."""

    counting: Location | None
    times: Mapping[Place, int]
    corrections: Mapping[Place, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _OneEvent:
    """The ports Repeats and Corrections, as far as they concern one event."""

    locations: Sequence[Location]
    log: Sequence[Correction]

    def counts(self, events: Sequence[tuple[int | None, str]]) -> list[int]:
        raise NotImplementedError("all of its deliveries are known")

    def conflicted(self, event_ids: Collection[str]) -> set[str]:
        raise NotImplementedError("all of its deliveries are known")

    def repeated_from(self, batch_id: str, days: tuple[int, int] | None = None) -> Iterator[list[Location]]:  # noqa: ARG002
        if any(one.batch_id == batch_id and one.kind == Verdict.ACCEPTED for one in self.locations):
            yield list(self.locations)

    def conflicting(self) -> Iterator[list[Location]]:
        if any(one.kind == Verdict.CONFLICT for one in self.locations):
            yield list(self.locations)

    def verdicts(self, arrivals: Sequence[Arrivals]) -> dict[int, Verdict]:
        raise NotImplementedError("nothing is about to be recorded")

    def recorded(self) -> Sequence[Correction]:
        return self.log

    def follow(self, corrections: Sequence[Correction]) -> None:
        raise NotImplementedError("these corrections are only read")


@dataclass(slots=True)
class EventLog:
    """What the log of corrections says of one event, whose `locations` are its deliveries in recording order. `log` has
    the corrections and revocations that concern it, `accepted` by the id of a rebuild the delivery that it accepted."""

    locations: Sequence[Location]
    log: Sequence[Correction] = ()
    accepted: Mapping[str, Place] = field(default_factory=dict)
    _computed: Callable[[int | None, int | None], EventState] | None = None
    _states: dict[tuple[int | None, int | None], EventState] = field(default_factory=dict)

    @property
    def moments(self) -> list[int]:
        """When it was corrected."""
        return [one.recorded_at for one in self.log]

    def state(self, until: int | None = None, known_until: int | None = None) -> EventState:
        """Return what the corrections until that moment (None: now; 0: none) come to, for the deliveries recorded until
        `known_until` (None: all). Raises Damaged."""
        if self._computed is None:
            accepted = next((one for one in self.locations if one.kind == Verdict.ACCEPTED), None)
            is_known = accepted is not None and _is_known(accepted, known_until)
            return EventState(accepted if is_known else None, {}, {})
        # Nothing changes between two moments of the log, nor between two deliveries.
        key = _last(self.moments, until), _last([one.recorded_at for one in self.locations], known_until)
        if key not in self._states:
            self._states[key] = self._computed(*key)
        return self._states[key]


def _last(moments: Sequence[int], until: int | None) -> int | None:
    return None if until is None else max((one for one in moments if one <= until), default=0)


def _is_known(location: Location, until: int | None) -> bool:
    return location.kind != Verdict.UNRECORDED and (until is None or location.recorded_at <= until)


def event_log(
    store: Store, engine: Engine, event_id: str, entity_id: str, some: Sequence[Location], *, all_there: bool
) -> EventLog:
    """Return what the log of corrections says of an event, some of whose deliveries are given. Without any correction
    this costs no call if these are all of them. Raises Damaged."""
    recorded = store.corrections.recorded()
    if not recorded:
        return EventLog(some)
    given = some if all_there else store.index.deliveries(event_id)
    locations = sorted(given, key=lambda one: one.order)
    days = {one.day for one in locations}
    window = Window(Window.of_day(min(days)).start, Window.of_day(max(days)).end)
    winners = Winners(store, event_id=event_id)
    log: dict[str, Correction] = {}
    accepted: dict[str, Place] = {}
    for one in recorded:
        match one.kind:
            case CorrectionKind.REVOCATION:
                concerns = one.revokes in log
            case CorrectionKind.WITHOUT_BATCH:
                concerns = any(each.batch_id == one.batch_id for each in locations)
            case CorrectionKind.VERDICT:
                lines = list(winners.lines(one, window)) if one.events else []
                accepted.update((one.correction_id, line.new) for line in lines)
                concerns = bool(lines)
            case _:
                concerns = any(listed.day in days for listed in one.lists)
                if concerns:
                    one = with_frames(store.raw, one)
                    concerns = _lists(store, one, days, event_id, entity_id)
        if concerns:
            log[one.correction_id] = one
    narrow = _OneEvent(locations, list(log.values()))
    inner, entities = replace(store, repeats=narrow, corrections=narrow), [entity_id]

    def computed(until: int | None, known_until: int | None) -> EventState:
        scenario = Scenario(known_until, corrected=until, corrections_until=until)
        with applied(inner, engine, scenario, window, entities, winners) as overrides:
            reader = CorrectedReader(Selection(inner, window, entities, overrides))
        states = {place_of(one): reader.state(*place_of(one), event_id.encode(), one.kind) for one in locations}
        counting = (one for one in locations if _is_known(one, known_until) and states[place_of(one)].counts)
        times = {place: one.time for place, one in states.items() if one.time is not None}
        return EventState(next(counting, None), times, {place: one.corrections for place, one in states.items()})

    return EventLog(locations, narrow.log, accepted, computed)


def _lists(store: Store, one: Correction, days: set[int], event_id: str, entity_id: str) -> bool:
    """Return whether a correction lists a delivery of the event. Raises Damaged."""
    lists = [listed for listed in one.lists if listed.day in days]
    return any(line.event_id == event_id for listed in lists for line in read_list(store.raw, listed, [entity_id]))


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
    shown: Mapping[Location, int],
    values: Sequence[Aggregate] = (),
) -> tuple[Chapter, ...]:
    """Return what happened to the event, in order: the deliveries shown, given with their times as they came,
    corrections, and the values that count it. Raises Damaged."""
    found = [
        Chapter(one.recorded_at, Happening.DELIVERY, one.batch_id, f"{one.kind}, {one.batch_id}/{one.seq}")
        for one in shown
    ]
    for one in log.log:
        what = _CORRECTED.get(one.kind, Happening.CORRECTION)
        about = one.statement
        if place := log.accepted.get(one.correction_id):
            about = f"the index was rebuilt: {place[0]}/{place[1]} is accepted"
        found.append(Chapter(one.recorded_at, what, one.correction_id, about, one.actor, one.reason))
    for value in values:
        computed = value.computed
        about = f"{computed.metric} {display_instant(computed.bucket)} counts it"
        found.append(Chapter(_computed_at(value), Happening.VALUE, value.run_id, about, value.actor, value.reason))
    found.sort(key=lambda one: one.at)
    return tuple(_counted(log, one, shown) for one in found)


def _counted(log: EventLog, chapter: Chapter, received: Mapping[Location, int]) -> Chapter:
    """Return a chapter with what counts from then on."""
    state = log.state(chapter.at, chapter.at)
    if state.counting is None:
        return chapter
    place = place_of(state.counting)
    event_time = state.times.get(place, received.get(state.counting))
    return replace(chapter, batch_id=place[0], seq=place[1], event_time=event_time)


def _computed_at(value: Aggregate) -> int:
    try:
        return creation_time(value.run_id)
    except ValueError:  # a damaged id
        return value.known_until

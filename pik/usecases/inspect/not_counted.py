"""Events that the current value of a metric does not count, and why."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pik.errors import UsageError
from pik.model.aggregate import Aggregate
from pik.model.delivery import Filter
from pik.model.metric import ALL_ENTITIES, Definition, Per
from pik.model.window import Window
from pik.ports.store import Store
from pik.rawlog.corrected_reader import CorrectedReader
from pik.rawlog.corrections import Place
from pik.rawlog.selection import Overrides, RecordedDelivery, Selection
from pik.usecases.inspect.where import Places, selected
from pik.usecases.metrics.computation import sound
from pik.usecases.metrics.definitions import chosen
from pik.usecases.metrics.winners import Winners

if TYPE_CHECKING:
    from pik.ports.engine import Engine


class Reason(StrEnum):
    """Why a value does not count an event."""

    NO_VALUE = "no value"
    """There is no current value of its entity and bucket."""
    LATE = "late"
    """It was recorded after the current value's known until."""
    VERDICT = "verdict"
    """It counts only since the index was rebuilt, after the run of the current value was planned."""
    CORRECTED = "corrected"
    """It counts there only since a correction was recorded or revoked, after the run of the current value was
    planned."""
    IMPORTED = "imported"
    """The current value was imported from a file, so what it counts is not known."""
    FILTER = "filter"
    """The definition's filter leaves it out."""


@dataclass(frozen=True, slots=True)
class Omission:
    """Why the current value does not count an event; `known_until` and `run_id` are those of that value, if any."""

    reason: Reason
    known_until: int | None = None
    run_id: str | None = None


class CurrentValues:
    """The current values of a metric, looked up day by day. `metric` is its latest definition as NAME@VERSION.

    Raises NotFound for an unknown metric.
    """

    def __init__(self, store: Store, engine: Engine, wanted: Filter, name: str) -> None:
        if "@" in name:
            raise UsageError(
                f"--not-counted {name}: each current value is looked at with the definition that made it",
                hint=f"--not-counted {name.partition('@')[0]}",
            )
        [latest] = chosen(store.metrics, [name])
        self.metric = f"{latest.name}@{latest.version}"
        self._store, self._engine, self._wanted, self._latest = store, engine, wanted, latest.definition
        self._definitions = {one.version: one.definition for one in store.metrics.versions(name)}
        self._selected: dict[str, Places] = {}
        self._day: int | None = None
        self._values: dict[str, list[tuple[Window, Aggregate]]] = {}
        self._winners, self._later = Winners(store), dict[str, set[Place]]()
        self._readers: dict[tuple[int, int], CorrectedReader] = {}

    def omission(self, found: RecordedDelivery) -> Omission | None:
        """Return why the delivery, an accepted one, is not counted; None if it is. Raises Damaged for a value that is
        not as it was written."""
        if found.day != self._day:
            self._load(found.day)
        delivery = found.delivery
        place, instant = (delivery.batch_id, delivery.seq), delivery.event_instant
        entity = ALL_ENTITIES if self._latest.per == Per.ALL else delivery.entity_id
        values = [one for one in self._values.get(entity, ()) if instant in one[0]]
        omissions: list[Omission] = []
        for bucket, value in values:
            if not self._selects(self._definitions[value.metric_version], place):
                omissions.append(Omission(Reason.FILTER, value.known_until or None, value.run_id))
            elif value.is_imported:
                omissions.append(Omission(Reason.IMPORTED, None, value.run_id))
            elif found.segment.recorded_at > value.known_until:
                omissions.append(Omission(Reason.LATE, value.known_until, value.run_id))
            elif place in self._since(value.run_id, found.day):
                omissions.append(Omission(Reason.VERDICT, value.known_until, value.run_id))
            elif not self._counted_in(bucket, value.run_id, found):
                omissions.append(Omission(Reason.CORRECTED, value.known_until, value.run_id))
            else:
                return None
        if omissions:
            return omissions[0]
        return Omission(Reason.NO_VALUE if self._selects(self._latest, place) else Reason.FILTER)

    def _since(self, run_id: str, day: int) -> set[Place]:
        """Return the deliveries of the day that count only since the run was planned, because the index was rebuilt."""
        if run_id not in self._later:
            changed = self._winners.before(self._winners.known_to(run_id), Window.of_day(day)).values()
            self._later[run_id] = {place for one in changed for place in one.later if place != one.place}
        return self._later[run_id]

    def _counted_in(self, bucket: Window, run_id: str, found: RecordedDelivery) -> bool:
        """Return whether the delivery counted in the bucket by the corrections that the run knew."""
        until = self._winners.corrections_known_to(run_id)
        if until == self._winners.correction_moment(None):
            return True
        day = found.segment.day
        if (until, day) not in self._readers:
            self._readers = {key: reader for key, reader in self._readers.items() if key[1] == day}
            overrides = Overrides(corrected_until=until)
            selection = Selection(self._store, Window.of_day(day), self._wanted.entities, overrides)
            self._readers[until, day] = CorrectedReader(selection)
        then = self._readers[until, day].corrected(found.segment, found.line, {found.delivery.seq: found.kind})
        return then is not None and then.counts and then.delivery.event_instant in bucket

    def _load(self, day: int) -> None:
        """Look up the values of all buckets that meet the day."""
        of_day = Window.of_day(day)
        start = min(one.buckets.start_of(of_day.start) for one in self._definitions.values())
        self._day, self._values, self._later = day, defaultdict(list), {}
        entities = () if self._latest.per == Per.ALL else self._wanted.entities
        current = self._store.aggregates.current(self._latest.name, Window(start, of_day.end), entities, checked=True)
        for value in sound(current):
            computed = value.computed
            bucket = self._definitions[value.metric_version].buckets.around(computed.bucket)
            if bucket.end > of_day.start:
                self._values[computed.entity_id].append((bucket, value))

    def _selects(self, definition: Definition, place: tuple[str, int]) -> bool:
        where = definition.where
        if where is None:
            return True
        if where not in self._selected:
            self._selected[where] = selected(self._store, self._engine, self._wanted, where)
        return place in self._selected[where]

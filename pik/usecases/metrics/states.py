"""A value as it would be under other scenarios, and the deliveries that it counts then: what `explain` compares."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal

from pik.errors import Damaged, EngineError, command
from pik.model.batch import Segment
from pik.model.instant import Window
from pik.model.metric import Computed, Metric, entities_of
from pik.model.scenario import Scenario
from pik.ports.engine import CountedDelivery, Engine
from pik.ports.store import Store
from pik.rawlog.objects import frame_lines, frames_of
from pik.rawlog.selection import Selection
from pik.usecases.metrics.definitions import pin
from pik.usecases.metrics.scenario import applied
from pik.usecases.metrics.winners import Winners

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class State:
    """A value between the two sides, and the deliveries that it counts."""

    computed: Computed | None
    counted: frozenset[CountedDelivery]
    moves: tuple[int, int]

    @property
    def value(self) -> Decimal:
        return value_of(self.computed)


@dataclass(frozen=True, slots=True)
class States:
    """Computes one value under several scenarios."""

    store: Store
    engine: Engine
    name: str
    entity: str
    bucket: int
    winners: Winners
    lost: set[str] = field(default_factory=set)
    """Segments that cannot be read, as far as that has been noticed."""

    def at(self, metric: Metric, scenario: Scenario) -> State:
        """Compute the value from what can be read. Raises EngineError if its definition fails on the events."""
        window = Window(self.bucket, self.bucket + 1).widened(metric.bucket_size)
        entities = entities_of(self.entity)
        with applied(self.store, self.engine, scenario, window, entities, self.winners) as overrides:
            selection = Selection(self.store, window, entities, replace(overrides, lost=frozenset(self.lost)))
            try:
                return self._computed(metric, selection)
            except Damaged:
                lost = {segment.key for segment in selection.segments() if not _is_readable(selection, segment)}
                if not lost:
                    raise
                self.lost.update(lost)
                selection = replace(selection, overrides=replace(overrides, lost=frozenset(self.lost)), _listed=None)
                return self._computed(metric, selection)

    def _computed(self, metric: Metric, selection: Selection) -> State:
        window, entities = selection.window, selection.entities
        with selection.gather() as raw:
            with self.engine.computation(raw.inputs, [metric.definition], window, entities) as computation:
                found = next(computation.rows(), None)
            if found is not None and found.failure is not None:
                words = [word for entity in entities for word in ("--entity", entity)]
                raise EngineError(
                    f"{pin(metric)} cannot be computed: {found.failure.reason}",
                    hint=command("diff", "aggregates", "--metric", self.name, *words),
                )
            counted = frozenset(self.engine.counted(raw.inputs, metric.definition, window, entities))
            return State(found, counted, (selection.overrides.later, selection.overrides.earlier))


def value_of(computed: Computed | None) -> Decimal:
    """Return the value; 0 where there is none."""
    return _ZERO if computed is None or computed.value is None else computed.value


def _is_readable(selection: Selection, segment: Segment) -> bool:
    try:
        for frame in frames_of(segment, selection.entities):  # as gathered, whatever the times of their events
            frame_lines(selection.store.raw, segment, frame)
    except Damaged:
        return False
    return True

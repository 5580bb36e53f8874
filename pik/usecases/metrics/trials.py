"""Which scenario makes raw give an expected number, or one of a file: an explanation of where it may come from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pik.errors import Damaged, EngineError, NotHeld, UsageError
from pik.model.aggregate import Computed
from pik.model.criteria import Criteria
from pik.model.metric import entities_of
from pik.model.scenario import (
    CountedConflict,
    CountedDuplicates,
    Which,
)
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.gathering import gather
from pik.rawlog.selection import Selection
from pik.runtime import SILENT, Progress, showing
from pik.usecases.metrics.candidates import (
    Question,
    Trial,
    assuming,
    buckets_beside,
    earlier_moments,
    left_out_corrections,
    missing_batches,
    other_definitions,
    other_zones,
    righted_clocks,
    together,
    without_suspects,
)
from pik.usecases.metrics.chain import EXACT, value_of
from pik.usecases.metrics.impact import adds_up
from pik.usecases.metrics.neighbors import MOST_DELIVERIES, MOST_ENTITIES, entities_with
from pik.usecases.metrics.scenario import applied
from pik.usecases.metrics.sides import RecordedSide, Side, SideKind
from pik.usecases.metrics.states import computed_states
from pik.usecases.metrics.winners import Winners


@dataclass(frozen=True, slots=True)
class Trials:
    """How many scenarios were `tried`, those that `met` the number, first those that change the fewest deliveries, how
    many could not be computed (`failed`), and what was not tried."""

    tried: int
    met: tuple[Trial, ...]
    failed: int
    not_tried: tuple[str, ...]


def try_scenarios(store: Store, engine: Engine, asked: Question, progress: Progress = SILENT) -> Trials:
    """Try single scenarios: an earlier definition, duplicates counted, conflicts last, without suspects, each batch
    missing, each correction not recorded, as of each promotion of the value, what was current then, days of other
    zones, the buckets beside this one, and another entity counted as well; and together those of conflicts, suspects
    and clocks that move the value."""
    with showing(progress, "trying what gives the number", None, "scenarios"):
        return _tried(_Work(store, engine, asked, progress))


def _tried(work: _Work) -> Trials:
    store, engine, asked, not_tried = work.store, work.engine, work.asked, work.not_tried
    wrong = [
        assuming(asked, "conflicts", CountedConflict(Which.LAST, Criteria()), "the last of conflicting deliveries"),
        without_suspects(store, engine, asked),
        *righted_clocks(store, engine, asked, not_tried),
    ]
    for trial in (
        *other_definitions(store, asked, not_tried),
        assuming(asked, "duplicates", CountedDuplicates(), "a pipeline without deduplication"),
    ):
        work.add(trial)
    moving = [trial for trial in wrong if work.add(trial)]
    for trial in (
        *together(asked, moving),
        *missing_batches(store, asked, not_tried),
        *left_out_corrections(store, asked, not_tried),
        *earlier_moments(store, asked, not_tried),
        *other_zones(store, asked, not_tried),
        *buckets_beside(store, asked, not_tried),
    ):
        work.add(trial)
    work.add_entities()
    met = sorted(work.met, key=lambda one: (one.events is None, one.events, one.kind == "current"))
    return Trials(work.tried, tuple(met), work.failed, tuple(not_tried))


@dataclass(slots=True)
class _Work:
    store: Store
    engine: Engine
    asked: Question
    progress: Progress
    tried: int = 0
    met: list[Trial] = field(default_factory=list)
    failed: int = 0
    not_tried: list[str] = field(
        default_factory=lambda: ["others together", "zones at quarter hours, and changes of clocks within the bucket"]
    )

    def add(self, trial: Trial) -> bool:
        """Try this, and return whether it moves the value."""
        try:
            computed = _value(self.store, self.engine, self.asked, trial)
        except NotHeld:
            self.not_tried.append(f"{trial.scenario}, whose raw is not all there")
            return False
        except (Damaged, EngineError, UsageError):
            self._count(failed=True)
            return False
        has_failed = computed is not None and computed.failure is not None
        self._count(failed=has_failed)
        if has_failed or (trial.bucket is not None and computed is None):
            return False
        if self.asked.meets(value_of(computed)):
            value = None if computed is None else computed.value
            events = _changed(self.store, self.engine, self.asked, trial)
            self.met.append(replace(trial, value=value, events=events))
        return value_of(computed) != self.asked.recomputed

    def _count(self, *, failed: bool = False) -> None:
        self.tried += 1
        self.failed += failed
        self.progress.advance(1)

    def add_entities(self) -> None:
        """Try whether the number lacks the value of another entity, where values add up."""
        asked = self.asked
        if asked.metric.is_over_all or not adds_up(self.engine, asked.metric):
            return
        try:
            found = entities_with(self.store, self.engine, asked)
        except NotHeld:
            self.not_tried.append("other entities, whose raw is not all there")
            return
        except (Damaged, EngineError, UsageError):
            self._count(failed=True)
            return
        if found is None:
            self.not_tried.append(f"other entities, of more than {MOST_DELIVERIES:,} deliveries")
            return
        self._count()
        if len(found) > MOST_ENTITIES:  # chance: a count of 2 says nothing
            self.not_tried.append(f"other entities one by one: more than {MOST_ENTITIES} have what lacks")
            return
        for entity, value in found:
            detail = f"recomputed, and {value:,f} of this other entity"
            total = EXACT.add(asked.recomputed, value)
            self.met.append(
                Trial("entity", (f"entity={entity}",), detail, asked.metric, asked.scenario, entity=entity, value=total)
            )


def _value(store: Store, engine: Engine, asked: Question, trial: Trial) -> Computed | None:
    """Return what a trial gives, a failed value included. Raises Damaged, EngineError and UsageError."""
    window, entities = asked.window, entities_of(asked.entity)
    if trial.bucket is not None:
        window = asked.metric.buckets.around(trial.bucket)
    if trial.at is not None:
        side = RecordedSide(store, Side(SideKind.CURRENT, at=trial.at))
        found = side.named(asked.metric.name, Window(asked.bucket, asked.bucket + 1), (asked.entity,))
        version = next(found, None)
        return None if version is None else version.computed
    with (
        applied(store, engine, trial.assumed, window, entities) as overrides,
        gather(Selection(store, window, entities, overrides)) as raw,
        engine.computation(raw.inputs, [trial.metric.definition], window, entities) as computation,
    ):
        return next(computation.rows(), None)


def _changed(store: Store, engine: Engine, asked: Question, trial: Trial) -> int | None:
    """Return how many deliveries count otherwise under a trial; None where that is not why its value is another."""
    if trial.at is not None or trial.bucket is not None or trial.metric.definition != asked.metric.definition:
        return None
    wanted = [(asked.metric, asked.scenario), (trial.metric, trial.assumed)]
    with computed_states(store, engine, wanted, asked.bucket, asked.entity, Winners(store)) as states:
        return states.changed(*(states.at(*one) for one in wanted))

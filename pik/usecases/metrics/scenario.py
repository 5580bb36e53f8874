"""Scenarios applied to a store: which deliveries count, at which time, and under which definitions.

The steps are those of docs/investigating.md: which deliveries are known; which batches never arrived; which delivery of
each event counts; which events are out and which are added; which times move; the definition.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pik.errors import EngineError, NotFound, UsageError, ambiguous_id, command, number_of
from pik.model.batch import Location, Verdict
from pik.model.correction import Correction, CorrectionKind, revoked
from pik.model.criteria import Criteria
from pik.model.delivery import Filter
from pik.model.instant import DAY, SECOND
from pik.model.metric import Metric
from pik.model.scenario import (
    ASSUMED_BATCH,
    Assumption,
    CountedConflict,
    CountedDelivery,
    CountedDuplicates,
    LocalTime,
    OtherDefinition,
    Scenario,
    Shift,
    Which,
    With,
    Without,
    WithoutBatch,
    WithoutCorrection,
    WithoutSelected,
    WithoutSuspects,
)
from pik.model.window import ALL_TIME, Window
from pik.model.zone import load_zone
from pik.ports.engine import Engine, Rule
from pik.ports.index import batch_of
from pik.ports.store import Store
from pik.rawlog.corrected import Corrected, Days, Marks, corrected_until
from pik.rawlog.corrections import find_correction
from pik.rawlog.selection import NO_OVERRIDES, Overrides
from pik.runtime.storage import CarriedFile, scratch
from pik.usecases.availability import expect_held
from pik.usecases.inspect.where import Places, selected
from pik.usecases.metrics.definitions import computed_by, expect_computed, some
from pik.usecases.metrics.offsets import shift_offsets, zone_offsets
from pik.usecases.metrics.selections import Selecting, check_where, criteria_sql
from pik.usecases.metrics.winners import Winners

FROM_FILE = 0
"""The version of a definition that is only assumed."""


def definitions(store: Store, engine: Engine, scenario: Scenario, names: Sequence[str]) -> list[Metric]:
    """Return the metrics, by NAME or NAME@VERSION (none named: all), under the scenario's definitions, ordered by name.
    Raises NotFound, InputError, UsageError and Invalid."""
    found = {metric.name: metric for metric in computed_by(store.metrics, names)}
    retired = {metric.name: metric for metric in store.metrics.latest() if metric.retired}
    for assumed in (one for one in scenario.assumptions if isinstance(one, OtherDefinition)):
        from pik.usecases.metrics.definition_file import read_definitions  # imports pydantic

        given = read_definitions(Path(assumed.path))
        wanted = [definition for definition in given if definition.name in found or not names]
        if not wanted:
            defined = ", ".join(definition.name for definition in given)
            raise UsageError(f"{assumed}: it defines {defined}, not {', '.join(sorted(found))}", hint="--metric NAME")
        for definition in wanted:
            if definition.name in retired:
                expect_computed(retired[definition.name])
            scale, stored = engine.check(definition), found.get(definition.name)
            if stored is not None and stored.definition.per != definition.per:
                raise UsageError(
                    f'{assumed}: {definition.name} is per = "{stored.definition.per}" in the store, not'
                    f' "{definition.per}": their values cannot be compared',
                    hint="assume it under another name",
                )
            found[definition.name] = Metric(definition=definition, version=FROM_FILE, applied_at=0, scale=scale)
    return some([found[name] for name in sorted(found)])


def resolved(store: Store, scenario: Scenario) -> Scenario:
    """Return the scenario with whole ids in place of their beginnings, and deliveries by batch and seq. Raises
    NotFound."""
    return replace(scenario, assumptions=tuple(_resolved(store, one) for one in scenario.assumptions))


def _resolved(store: Store, assumption: Assumption) -> Assumption:
    if isinstance(assumption, WithoutBatch):
        return WithoutBatch(batch_of(store.index, assumption.batch_id).batch_id)
    if isinstance(assumption, WithoutCorrection):
        return WithoutCorrection(_standing(store, assumption).correction_id)
    if isinstance(assumption, Without):
        return Without(tuple(_event(store, prefix)[0].event_id for prefix in assumption.event_ids))
    if isinstance(assumption, CountedDelivery):
        deliveries = _event(store, assumption.event_id)
        chosen = _chosen_of(deliveries, assumption)
        return CountedDelivery(chosen.event_id, (chosen.batch_id, chosen.seq))
    if isinstance(assumption, Selecting) and assumption.criteria.batch:
        batch_id = batch_of(store.index, assumption.criteria.batch).batch_id
        return replace(assumption, criteria=replace(assumption.criteria, batch=batch_id))
    return assumption


def _standing(store: Store, assumption: WithoutCorrection) -> Correction:
    """Return the correction that is left out. Raises NotFound, UsageError for one that does not hold or always does."""
    correction = find_correction(store, assumption.correction_id)
    if correction.kind is CorrectionKind.VERDICT:
        raise UsageError(
            f"{assumption}: it records what a rebuild of the index changed, which always holds",
            hint="another delivery of an event counts with --assume delivery=EVENT_ID:N",
        )
    if by := revoked(store.corrections.recorded()).get(correction.correction_id):
        raise UsageError(
            f"{assumption}: it is revoked already, by {by}", hint=f"without that: --assume without-correction={by}"
        )
    return correction


def _event(store: Store, prefix: str) -> list[Location]:
    """Return the deliveries of the event in recording order. Raises NotFound."""
    found = store.index.locate(prefix)
    if len(found) != 1:
        raise ambiguous_id("event", prefix, found, hint="pik events")
    return sorted(store.index.deliveries(found[0]), key=lambda one: one.order)


@contextmanager
def applied(
    store: Store,
    engine: Engine,
    scenario: Scenario,
    window: Window,
    entities: Sequence[str] = (),
    winners: Winners | None = None,
) -> Iterator[Overrides]:
    """Provide what the scenario, a resolved one, changes of what counts in the window. Several calls may share
    `winners`. Raises UsageError and InputError for an assumption that the store does not allow, NotHeld for one that
    moves times into the window from where raw is not there."""
    if not scenario:
        yield NO_OVERRIDES
        return
    with scratch() as directory:
        yield _Applied(store, engine, scenario, window, entities, winners or Winners(store)).overrides(directory)


@dataclass(slots=True)
class _Applied:
    store: Store
    engine: Engine
    scenario: Scenario
    window: Window
    entities: Sequence[str]
    winners: Winners
    corrected: Corrected = field(init=False)
    withdrawn: set[str] = field(default_factory=set)
    counting: dict[str, Marks] = field(default_factory=dict)
    duplicates: bool = False
    added: set[bytes] = field(default_factory=set)
    """The events that files add."""

    def __post_init__(self) -> None:
        without = {one.correction_id for one in self.scenario.assumptions if isinstance(one, WithoutCorrection)}
        self.corrected = corrected_until(self.store, self.scenario.corrections_at, without)

    def overrides(self, directory: Path) -> Overrides:
        """Return what the recorded corrections and the assumptions come to, step by step; in each, corrections come
        first."""
        given = self.scenario.assumptions
        self.withdrawn = {one.batch_id for one in given if isinstance(one, WithoutBatch)} | {*self.corrected.withdrawn}
        rules, later, earlier = self._rules()
        sources = Overrides(later=later * SECOND, earlier=earlier * SECOND).sources(self.window)
        for one in given:
            if isinstance(one, Shift | LocalTime):
                first, last = max(sources.start, one.criteria.window.start), min(sources.end, one.criteria.window.end)
                if first < last:
                    expect_held(self.store, Window(first, last), self.entities)
        if not any(isinstance(one, CountedDuplicates) for one in given):
            days = Days(sources, self.corrected.entered(sources))
            self._count_winners(days)
            for choice in self.corrected.choices(days, self.entities, self.withdrawn):
                self._mark(choice.batch_id, choice.seq, counts=choice.counts)
        for one in given:
            if isinstance(one, CountedDuplicates):
                self.duplicates = True
                self.counting.clear()
            elif isinstance(one, CountedConflict):
                self._count(self._hit(self.store.repeats.conflicting(), one.criteria), one.which)
            elif isinstance(one, CountedDelivery):
                self._count_delivery(one)
        for one in given:
            if isinstance(one, Without):
                for event_id in one.event_ids:
                    self._remove(event_id)
            elif isinstance(one, WithoutSuspects):
                self._remove_suspects(one, sources)
        return Overrides(
            until=self.scenario.as_of,
            withdrawn=frozenset(self.withdrawn),
            counting=self.counting,
            rules=rules,
            later=later * SECOND,
            earlier=earlier * SECOND,
            added=[
                self._added(one, CarriedFile(directory, f"{n}.zst"))
                for n, one in enumerate(given)
                if isinstance(one, With)
            ],
            duplicates=self.duplicates,
            corrected=self.corrected,
            settled=True,
        )

    def _is_known(self, delivery: Location) -> bool:
        as_of = self.scenario.as_of
        return (
            (as_of is None or delivery.recorded_at <= as_of)
            and delivery.batch_id not in self.withdrawn
            and delivery.kind != Verdict.UNRECORDED
        )

    def _count_winners(self, days: Days) -> None:
        """Count the delivery of each event that counted then, and the first of those whose delivery is withdrawn."""
        moment = self.scenario.as_of if self.scenario.corrected is None else self.scenario.corrected
        earlier = {} if moment is None else self.winners.before(moment, days.window)
        for batch_id in sorted(self.withdrawn):
            repeated = self.store.repeats.repeated_from(batch_id, days.bounds)
            self._count((one for one in repeated if one[0].event_id not in earlier), Which.FIRST)
        for event_id, winner in earlier.items():
            if winner.place is not None and winner.place[0] in self.withdrawn:
                deliveries = sorted(self.store.index.deliveries(event_id), key=lambda one: one.order)
                self._count([deliveries], Which.FIRST)
                continue
            for place in winner.later:
                self._mark(*place, counts=False)
            if winner.place is not None:
                self._mark(*winner.place, counts=True)

    def _count(self, events: Iterable[list[Location]], which: Which) -> None:
        """Count the first or the last known delivery of each event."""
        for deliveries in events:
            known = [one for one in deliveries if self._is_known(one)]
            if known:
                self._choose(deliveries, known[0 if which == Which.FIRST else -1])

    def _choose(self, deliveries: Iterable[Location], chosen: Location) -> None:
        for one in deliveries:
            self._mark(one.batch_id, one.seq, counts=one is chosen)

    def _mark(self, batch_id: str, seq: int, *, counts: bool) -> None:
        self.counting.setdefault(batch_id, Marks()).mark(seq, counts)

    def _counts(self, delivery: Location) -> bool:
        counts = self.duplicates or delivery.kind == Verdict.ACCEPTED
        marks = self.counting.get(delivery.batch_id)
        return self._is_known(delivery) and (counts if marks is None else marks.get(delivery.seq, counts))

    def _hit(self, events: Iterable[list[Location]], criteria: Criteria) -> Iterator[list[Location]]:
        """Yield the events whose counting delivery meets the criteria."""
        if criteria == Criteria():
            yield from events
            return
        places = self._selected(criteria)
        for deliveries in events:
            if any(self._counts(one) and (one.batch_id, one.seq) in places for one in deliveries):
                yield deliveries

    def _selected(self, criteria: Criteria) -> Places:
        """Return the deliveries with an idempotency key that meet the criteria."""
        entities = (criteria.entity,) if criteria.entity else ()
        try:
            if criteria.condition is not None:
                check_where(self.engine, criteria.condition)
            wanted = Filter(criteria.window, entities)
            sql = f"idempotency_key IS NOT NULL AND {criteria_sql(criteria)}"
            return selected(self.store, self.engine, wanted, sql, Overrides(duplicates=True, corrected=self.corrected))
        except EngineError as error:
            what = f"where={criteria.where}: {error.message.partition(': ')[2]}"
            raise UsageError(what, hint="TRY_CAST in place of a cast") from None

    def _count_delivery(self, assumed: CountedDelivery) -> None:
        deliveries = self.store.index.deliveries(assumed.event_id)
        chosen = _chosen_of(deliveries, assumed)
        if not self._is_known(chosen):
            hint = command("show", assumed.event_id)
            raise UsageError(f"{assumed}: that delivery is not known in this scenario", hint=hint)
        self._choose(deliveries, chosen)

    def _remove(self, event_id: str) -> None:
        for one in self.store.index.deliveries(event_id):
            self._mark(one.batch_id, one.seq, counts=False)

    def _remove_suspects(self, assumed: WithoutSuspects, sources: Window) -> None:
        from pik.usecases.metrics.assumed_suspects import assumed_suspects  # which needs this module

        shown = Overrides(until=self.scenario.as_of, corrected=self.corrected)
        for row in assumed_suspects(self.store, self.engine, assumed, shown, sources, self.entities):
            self._remove(row.event_id)

    def _rules(self) -> tuple[tuple[Rule, ...], int, int]:
        """Return the rules for the engine, and by how many seconds deliveries may move to a later and to an earlier
        time."""
        rules: list[Rule] = []
        for one in self.scenario.assumptions:
            if isinstance(one, WithoutSelected):
                rules.append(Rule(self._recorded(one.criteria)))
            elif isinstance(one, Shift):
                times = self._all_times()
                offsets = shift_offsets(one.by, times.start, times.end - 1)
                rules.append(Rule(self._recorded(one.criteria), offsets))
            elif isinstance(one, LocalTime):
                offsets = zone_offsets(load_zone(one.zone), one.fold, self._times(one.criteria))
                rules.append(Rule(self._recorded(one.criteria), offsets))
        moves = [offset.seconds or 0 for rule in rules for offset in rule.offsets]
        return tuple(rules), max([0, *moves]), -min([0, *moves])

    def _recorded(self, criteria: Criteria) -> Criteria:
        """Return the criteria for deliveries of the store alone: what is only assumed is not selected."""
        if not any(isinstance(one, With) for one in self.scenario.assumptions):
            return criteria
        where = f"batch_id <> '{ASSUMED_BATCH}'"
        if criteria.condition is not None:
            check_where(self.engine, criteria.condition)
            where = f"CASE WHEN {where} THEN ({criteria.condition}\n) END"
        return replace(criteria, received=ALL_TIME, where=where)

    def _times(self, criteria: Criteria) -> Window:
        """Return the times for which offsets are needed: those of selected events that may fall into the window."""
        times = self._all_times()
        first = max(criteria.window.start, self.window.start - 2 * DAY, times.start)
        last = min(criteria.window.end, self.window.end + 2 * DAY, times.end)
        return Window(first, max(last, first + 1))

    def _all_times(self) -> Window:
        """Return the times at which deliveries happened."""
        totals = self.store.index.totals()
        return self.corrected.widened(Window(totals.first_event or 0, (totals.last_event or 0) + 1))

    def _added(self, assumed: With, target: Path) -> tuple[Path, int]:
        """Write the events of the file that are not known as raw lines, and return the file and their number."""
        from pik.usecases.metrics.assumed_events import write_new  # imports what reads files

        return target, write_new(assumed, target, self.added, self._has)

    def _has(self, event_id: str) -> bool:
        return any(self._is_known(one) for one in self.store.index.deliveries(event_id))


def _chosen_of(deliveries: Sequence[Location], assumed: CountedDelivery) -> Location:
    """Return the delivery that is assumed to count. Raises NotFound."""
    place = assumed.delivery
    if isinstance(place, int):
        if place <= len(deliveries):
            return deliveries[place - 1]
    else:
        found = [one for one in deliveries if one.batch_id.startswith(place[0]) and one.seq == place[1]]
        if len(found) == 1:
            return found[0]
        if found:
            raise ambiguous_id("batch", place[0], [one.batch_id for one in found], hint="pik batches")
    many = number_of(len(deliveries), "delivery")
    raise NotFound(f"{assumed}: the event has {many}, and not that one", hint=command("show", deliveries[0].event_id))

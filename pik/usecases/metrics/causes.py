"""The causes of many differences at once: each row of a diff with its shares, as `explain` has them for one value."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache, partial
from itertools import groupby, islice

from msgspec import structs

from pik.errors import UsageError
from pik.model.aggregate import Aggregate, Computed
from pik.model.calendar import covering
from pik.model.metric import Metric
from pik.model.scenario import PLAIN, Scenario, With
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.fleet import Fleet
from pik.ports.store import Store
from pik.usecases import Listing
from pik.usecases.availability import expect_held
from pik.usecases.metrics.chain import (
    EXACT,
    Cause,
    Knowledge,
    counts_same,
    inputs_of,
    is_short,
    knowledge_at,
    knowledge_of,
    steps,
    value_of,
)
from pik.usecases.metrics.comparison import Basis, Difference, Op, Stats
from pik.usecases.metrics.diff import Diff
from pik.usecases.metrics.explain import other_buckets
from pik.usecases.metrics.scenario import definitions
from pik.usecases.metrics.sides import RecordedSide
from pik.usecases.metrics.totals import DiffTotals
from pik.usecases.metrics.values import Key, values_under
from pik.usecases.metrics.winners import Winners
from pik.usecases.metrics.zones import MovedZones

TOGETHER = 20_000
"""Differences that are explained together, and held in memory."""

ON_FLEET = 4000
"""Differences that a task of a fleet explains: they travel to it and back."""

_FEW = 50
"""Entities up to which only their own events are read."""

_ZERO = Decimal(0)

_NONE: Mapping[str, Decimal] = {}

_LATE, _VERDICT, _CORRECTED = Cause.LATE, Cause.VERDICT, Cause.CORRECTED  # members are slow to look up


@dataclass(frozen=True, slots=True)
class ExplainedDifference:
    """A difference, and its share of each cause that changes the value. They add up to its delta, a missing value
    counted as 0. `proven`: the recorded sides counted exactly what raw still holds of what they knew. What cannot be
    computed has no shares. `current` is the version on the left; `late` is how many deliveries count that it did not
    know, `rebuilt` (nanoseconds) when the first rebuild was that changed which deliveries count. `corrections` are the
    corrections that change the value, by id, with their parts of the share of *corrected*."""

    difference: Difference
    shares: Mapping[Cause, Decimal]
    proven: bool
    current: Aggregate | None
    late: int = 0
    rebuilt: int | None = None
    corrections: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sides:
    """What is compared: on the left what is current, another recorded side, or a file (`from_file`); on the right what
    is recomputed, or another recorded side."""

    left: RecordedSide | None = None
    from_file: bool = False
    right: RecordedSide | None = None


_USUAL = Sides()


def explained(
    store: Store,
    engine: Engine,
    differences: Iterable[Difference],
    scenario: Scenario = PLAIN,
    *,
    metrics: Sequence[str] = (),
    sides: Sides = _USUAL,
    together: int = TOGETHER,
) -> Iterator[ExplainedDifference]:
    """Yield the rows of a diff of these metrics (NAME or NAME@VERSION), of these sides, recomputed under the scenario,
    a resolved one: each with its causes, in their order. Raises as `explain` does."""
    winners, rows = Winners(store), iter(differences)
    moved = MovedZones(store)
    versions = {text.partition("@")[0]: text for text in metrics if "@" in text}
    assumed: dict[str, Metric] = {}
    if sides.right is None:
        assumed = {metric.name: metric for metric in definitions(store, engine, scenario, metrics)}
    elif versions:
        raise UsageError(f"{sides.right} has values of whatever definition", hint="leave @VERSION out")

    @cache
    def definitions_of(name: str) -> tuple[Metric | None, Mapping[int, Metric]]:
        right = _definition(store, engine, assumed[name], versions.get(name, name)) if assumed else None
        return right, {metric.version: metric for metric in store.metrics.versions(name)}

    while some := list(islice(rows, together)):
        by_metric = [(name, list(of_metric)) for name, of_metric in groupby(some, key=lambda one: one.metric)]
        of_window = winners.within(_window(some, (definitions_of(name) for name, _ in by_metric)))
        groups = [
            _OfMetric(name, *definitions_of(name), scenario, sides, of_metric, of_window, moved)
            for name, of_metric in by_metric
        ]
        _compute(store, engine, groups, of_window, reads_rest=sides.right is not None)
        for group in groups:
            yield from group.explained()


def _window(
    differences: Iterable[Difference], definitions: Iterable[tuple[Metric | None, Mapping[int, Metric]]]
) -> Window:
    """Return what the buckets of the differences cover, by any of the definitions."""
    buckets = {one.bucket for one in differences}
    each = [one.buckets for right, known in definitions for one in (right, *known.values()) if one is not None]
    return covering(Window(min(buckets), max(buckets) + 1), each)


def _definition(store: Store, engine: Engine, assumed: Metric, text: str) -> Metric | None:
    """Return the definition before assumptions; None for a metric that is only assumed. Raises UsageError for an
    assumed one whose values cannot be compared."""
    if not store.metrics.versions(assumed.name):
        return None
    [right] = definitions(store, engine, PLAIN, [text])
    if right.buckets != assumed.buckets:
        raise other_buckets(right)
    return right


def with_causes(
    store: Store,
    engine: Engine,
    diff: Diff,
    metrics: Sequence[str] = (),
    entities: Sequence[str] = (),
    totals: DiffTotals | None = None,
    fleet: Fleet | None = None,
) -> Diff:
    """Return the diff of these metrics (NAME or NAME@VERSION) and entities (none: all), its rows with their causes;
    those of the `totals` are summed as well. Raises NotHeld, and as `explain` does while they are read."""
    sides = Sides(diff.left, diff.file is not None, diff.right)
    expect_held(store, diff.effective, entities)  # two recorded sides are compared without raw

    def causes(rows: Iterable[Difference]) -> Iterator[ExplainedDifference]:
        # A file of events that are assumed is read where it is.
        if fleet is None or fleet.slots == 1 or any(isinstance(one, With) for one in diff.scenario.assumptions):
            return explained(store, engine, rows, diff.scenario, metrics=metrics, sides=sides)
        return fleet.map(partial(_explained, diff.scenario, metrics, sides), _batches(rows))

    def rows() -> Generator[Difference, None, tuple[Stats, Basis]]:
        for one in causes(diff.rows):
            if totals is not None:
                _sum(totals, one)
            yield structs.replace(
                one.difference,
                causes=tuple(one.shares.items()),
                proven=one.proven,
                corrections=tuple(one.corrections) if _CORRECTED in one.shares else (),
            )
        if totals is not None:
            for one in causes(diff.tolerated):  # they are in the totals, too
                _sum(totals, one)
        return diff.rows.summary

    return replace(diff, rows=Listing(rows()))


def _batches(rows: Iterable[Difference]) -> Iterator[list[Difference]]:
    rows = iter(rows)
    while some := list(islice(rows, ON_FLEET)):
        yield some


def _explained(
    scenario: Scenario,
    metrics: Sequence[str],
    sides: Sides,
    store: Store,
    engine: Engine,
    differences: Sequence[Difference],
) -> Iterator[ExplainedDifference]:
    return explained(store, engine, differences, scenario, metrics=metrics, sides=sides)


def _sum(totals: DiffTotals, one: ExplainedDifference) -> None:
    if one.difference.op == Op.FAILED:  # a total without it has no delta
        return
    run_id = None if one.current is None else one.current.run_id or None
    totals.explain(one.difference.metric, one.difference.bucket, run_id, one.shares, proven=one.proven)


@dataclass(slots=True)
class _Path:
    """What values are computed from, from the left side to the right: `causes` lie between the `states`. Without a left
    version whose inputs are known it has the right side alone, without such a right one nothing. `tables` are the
    values of each state. Where the right one is in the row anyway (`in_row`), it has none."""

    states: list[Knowledge] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    is_from_left: bool = False
    in_row: bool = False
    tables: list[Mapping[Key, Computed]] = field(default_factory=list)


@dataclass(slots=True)
class _OfMetric:
    """Differences of one metric, ordered by bucket and entity. `metric` is the right definition where the right side is
    recomputed, None for a metric that is only assumed; `definitions` are all that the store has, by version. `keys` are
    those of the values that can be explained."""

    name: str
    metric: Metric | None
    definitions: Mapping[int, Metric]
    scenario: Scenario
    sides: Sides
    differences: Sequence[Difference]
    winners: Winners
    moved: MovedZones
    left: dict[Key, Aggregate] = field(default_factory=dict)
    right: dict[Key, Aggregate] = field(default_factory=dict)
    keys: set[Key] = field(default_factory=set)
    paths: dict[tuple[object, object], _Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for one in self.differences:
            if one.op != Op.FAILED:
                key = one.bucket, one.entity_id
                self.keys.add(key)
                if one.version is not None and not self.sides.from_file:
                    self.left[key] = one.version
        if self.sides.right is not None:
            self.right = self._versions(self.sides.right)

    def needed(self) -> Iterator[tuple[Knowledge, Key]]:
        """Yield the states to be computed, each with the keys that need it."""
        for key in self.keys:
            path = self._path(key)
            for known in path.states[:-1] if path.in_row else path.states:
                yield known, key

    def use(self, values: Mapping[Knowledge, Mapping[Key, Computed]]) -> None:
        """Use these values of the states."""
        for path in self.paths.values():
            path.tables = [values.get(known, {}) for known in path.states]
            if path.in_row:
                path.tables[-1] = {}

    def explained(self) -> Iterator[ExplainedDifference]:
        for one in self.differences:
            key = one.bucket, one.entity_id
            if key not in self.keys:
                yield ExplainedDifference(one, {}, False, None)
                continue
            path = self._path(key)
            computed = [table.get(key) for table in path.tables]
            if any(each is not None and each.failure is not None for each in computed):
                # A value between the two sides is not known, so no cause has a share.
                shares = {Cause.UNEXPLAINED: EXACT.subtract(one.recomputed or _ZERO, one.current or _ZERO)}
                yield ExplainedDifference(one, shares, False, self.left.get(key))
            else:
                yield self._explained(one, key, path, computed)

    def _path(self, key: Key) -> _Path:
        version, other = self.left.get(key), self.right.get(key)
        ends = _end(version), _end(other)
        found = self.paths.get(ends)
        if found is None:
            found = self.paths[ends] = self._new_path(version, other)
        return found

    def _new_path(self, version: Aggregate | None, other: Aggregate | None) -> _Path:
        left = self._knowledge(version, self.sides.left)
        right = self._knowledge(other, self.sides.right)
        if self.sides.right is None and self.metric is not None:
            right = knowledge_at(self.metric, self.scenario.as_of, self.winners)
        if right is None:
            return _Path()
        in_row = self.sides.right is None and not self.scenario.assumptions
        if left is None:
            return _Path([right], in_row=in_row)
        between = list(steps(left, right, self.winners))
        states = [left, *(known for _, known in between)]
        return _Path(states, [cause for cause, _ in between], True, in_row and bool(between))

    def _knowledge(self, version: Aggregate | None, side: RecordedSide | None) -> Knowledge | None:
        if version is None or version.is_imported:
            return None
        return knowledge_of(version, self.definitions[version.metric_version], side, self.winners)

    def _explained(
        self, one: Difference, key: Key, path: _Path, computed: Sequence[Computed | None]
    ) -> ExplainedDifference:
        before, after = one.current or _ZERO, one.recomputed or _ZERO
        version, other = self.left.get(key), self.right.get(key)
        values = [value_of(each) for each in computed]
        inputs = [inputs_of(each) for each in computed]
        if path.in_row:
            values[-1], inputs[-1] = after, one.inputs_after or 0
        target = values[-1] if values else _ZERO
        shares: dict[Cause, Decimal] = {}
        proven, late, rebuilt, corrections = True, 0, 0, dict[str, Decimal]()
        if not values and self.sides.right is not None:
            is_outside = other is not None and (version is not None or self.sides.from_file)
            shares[Cause.IMPORTED if is_outside else Cause.NOT_COMPUTED] = EXACT.subtract(after, before)
            return self._row(one, shares, not is_outside)
        if self.sides.from_file or (version is not None and not path.is_from_left):
            shares[Cause.IMPORTED], proven = EXACT.subtract(target, before), False
        elif version is None:
            shares[Cause.NOT_COMPUTED] = target
        else:
            proven = counts_same(computed[0], version.computed)
            if not proven and self.moved.of(version.run_id, self.definitions[version.metric_version], one.bucket):
                shares[Cause.DEFINITION] = EXACT.subtract(values[0], before)
            elif not proven and is_short(computed[0], version.computed):
                shares[Cause.LOST] = EXACT.subtract(values[0], before)
            for number, cause in enumerate(path.causes):
                share = EXACT.subtract(values[number + 1], values[number])
                shares[cause] = EXACT.add(shares[cause], share) if cause in shares else share
                late += inputs[number + 1] - inputs[number] if cause is _LATE else 0
                if share and cause is _VERDICT:
                    rebuilt = rebuilt or max(state.corrected for state in path.states[number : number + 2])
                if share and cause is _CORRECTED:
                    moment = max(state.corrections for state in path.states[number : number + 2])
                    corrections[self.winners.correction(moment).correction_id] = share
        if other is not None:
            is_right = counts_same(computed[-1], other.computed)
            if not is_right and is_short(computed[-1], other.computed):
                lost = EXACT.subtract(after, target)
                lost = EXACT.add(shares.get(Cause.LOST, _ZERO), lost)
                shares = {Cause.LOST: lost, **shares, Cause.LOST: lost}
            return self._row(one, shares, proven and is_right, late, rebuilt, corrections)
        shares[Cause.ASSUMED] = EXACT.subtract(after, target)
        return self._row(one, shares, proven, late, rebuilt, corrections)

    def _row(
        self,
        one: Difference,
        shares: dict[Cause, Decimal],
        proven: bool,
        late: int = 0,
        rebuilt: int = 0,
        corrections: Mapping[str, Decimal] = _NONE,
    ) -> ExplainedDifference:
        """Return the row; what is left is unexplained, and causes that change nothing are left out."""
        rest = EXACT.subtract(one.recomputed or _ZERO, one.current or _ZERO)
        for share in shares.values():
            rest = EXACT.subtract(rest, share)
        shares[Cause.UNEXPLAINED] = rest
        found = {cause: share for cause, share in shares.items() if share}
        version = self.left.get((one.bucket, one.entity_id))
        return ExplainedDifference(one, found, proven, version, late, rebuilt or None, corrections)

    def _versions(self, side: RecordedSide) -> dict[Key, Aggregate]:
        """Return the versions of a recorded side."""
        found: dict[Key, Aggregate] = {}
        for bucket, group in groupby(sorted(self.keys), key=lambda key: key[0]):
            entities = [entity for _, entity in group]
            few, window = tuple(entities) if len(entities) <= _FEW else (), Window(bucket, bucket + 1)
            for row in side.named(self.name, window, few):
                if (bucket, row.computed.entity_id) in self.keys:
                    found[bucket, row.computed.entity_id] = row
        return found


def _compute(store: Store, engine: Engine, groups: Sequence[_OfMetric], winners: Winners, *, reads_rest: bool) -> None:
    """Compute the values of all states, each for the keys that need it. Those of several metrics that are computed from
    the same are computed together."""
    needed: dict[Knowledge, set[Key]] = {}
    for group in groups:
        for known, key in group.needed():
            needed.setdefault(known, set()).add(key)
    together: dict[object, dict[Knowledge, set[Key]]] = {}
    for known, keys in needed.items():
        metric = known.metric  # versions of a metric have one name, so they are computed apart
        alike = known.scenario, metric.buckets, metric.definition.per, metric.version
        together.setdefault(alike, {})[known] = keys
    values: dict[Knowledge, Mapping[Key, Computed]] = {}
    moments: list[int] | None = [known.until for known in needed if known.until is not None]
    if not reads_rest or any(one.duplicates or engine.reads_delivery(one.metric.definition) for one in needed):
        moments = None
    for states in together.values():
        wanted = {known.metric: keys for known, keys in states.items()}
        scenario = next(iter(states)).scenario
        found = values_under(store, engine, wanted, scenario, winners, reads_rest=reads_rest, moments=moments)
        values |= {known: found[known.metric.name] for known in states}
    for group in groups:
        group.use(values)


def _end(version: Aggregate | None) -> tuple[int, int, str] | None:
    """Return what tells paths apart."""
    return None if version is None else (version.metric_version, version.known_until, version.run_id)

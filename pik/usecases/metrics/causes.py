"""The causes of many differences at once: each row of a diff with its shares, as `explain` has them for one value."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import groupby, islice, pairwise

from msgspec import structs

from pik.errors import Damaged
from pik.model.instant import Window
from pik.model.metric import Aggregate, Computed, Metric
from pik.model.scenario import PLAIN, Scenario
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.selection import Selection
from pik.usecases import Listing
from pik.usecases.metrics.comparison import Basis, Difference, Op, Stats
from pik.usecases.metrics.computation import recompute
from pik.usecases.metrics.definitions import pinned
from pik.usecases.metrics.diff import Diff
from pik.usecases.metrics.explain import EXACT, Cause, counts_same, other_buckets
from pik.usecases.metrics.scenario import applied, definitions

TOGETHER = 20_000
"""Differences that are explained together, and held in memory."""

_FEW = 50
"""Entities up to which only their own events are read."""

_ZERO = Decimal(0)

_Key = tuple[int, str]
"""A bucket's start and an entity."""


@dataclass(frozen=True, slots=True)
class ExplainedDifference:
    """A difference, and its share of each cause that changes the value. They add up to its delta, a missing value
    counted as 0. `proven` as in Explanation. What cannot be computed has no shares. `late` is how many deliveries count
    that the current value did not know."""

    difference: Difference
    shares: Mapping[Cause, Decimal]
    proven: bool
    current: Aggregate | None
    late: int = 0


def explained(
    store: Store,
    engine: Engine,
    differences: Iterable[Difference],
    scenario: Scenario = PLAIN,
    *,
    metrics: Sequence[str] = (),
    together: int = TOGETHER,
) -> Iterator[ExplainedDifference]:
    """Yield the rows of a diff of these metrics (NAME or NAME@VERSION) under the scenario, a resolved one, each with
    its causes, in their order. Raises as `explain` does."""
    versions = {text.partition("@")[0]: text for text in metrics if "@" in text}
    assumed = {metric.name: metric for metric in definitions(store, engine, scenario, metrics)}
    for name, of_metric in groupby(differences, key=lambda one: one.metric):
        right = _definition(store, engine, assumed[name], versions.get(name, name))
        while some := list(islice(of_metric, together)):
            yield from _Together(store, engine, name, right, scenario, some).explained()


def _definition(store: Store, engine: Engine, assumed: Metric, text: str) -> Metric | None:
    """Return the definition before assumptions; None for a metric that is only assumed. Raises UsageError for an
    assumed one whose values cannot be compared."""
    if not store.metrics.versions(assumed.name):
        return None
    [right] = definitions(store, engine, PLAIN, [text])
    if right.bucket_size != assumed.bucket_size:
        raise other_buckets(right)
    return right


def with_causes(store: Store, engine: Engine, diff: Diff, metrics: Sequence[str] = ()) -> Diff:
    """Return the diff of these metrics (NAME or NAME@VERSION), its rows with their causes. Raises as `explain` does,
    while they are read."""

    def rows() -> Generator[Difference, None, tuple[Stats, Basis]]:
        for one in explained(store, engine, diff.rows, diff.scenario, metrics=metrics):
            yield structs.replace(one.difference, causes=tuple(one.shares.items()), proven=one.proven)
        return diff.rows.summary

    return replace(diff, rows=Listing(rows()))


@dataclass(frozen=True, slots=True)
class _Together:
    """Differences of one metric, ordered by bucket and entity."""

    store: Store
    engine: Engine
    name: str
    right: Metric | None
    scenario: Scenario
    differences: Sequence[Difference]

    def explained(self) -> Iterator[ExplainedDifference]:
        keys = {(one.bucket, one.entity_id) for one in self.differences if one.op != Op.FAILED}
        current = self._current(keys)
        shares: dict[_Key, Mapping[Cause, Decimal]] = {}
        knew: dict[_Key, int] = {}
        proven: set[_Key] = set()
        failed: set[_Key] = set()
        by_knowledge: dict[tuple[int, int], set[_Key]] = {}
        for key in keys:
            if key in current:
                by_knowledge.setdefault((current[key].metric_version, current[key].known_until), set()).add(key)
        right = self.right
        for (version, known_until), some in by_knowledge.items():
            left = pinned(self.store.metrics, f"{self.name}@{version}")
            first = self._values(left, Scenario(known_until), some)
            redefined = first
            if right is not None and left.definition != right.definition:
                redefined = self._values(right, Scenario(known_until), some)
            for key in some:
                failed.update([key] if _fails(first.get(key)) or _fails(redefined.get(key)) else [])
                of_version = current[key].computed
                knew[key] = _inputs(redefined.get(key))
                if counts_same(first.get(key), of_version):
                    proven.add(key)
                steps = [_value(of_version), _value(first.get(key)), _value(redefined.get(key))]
                lost = Cause.LOST if key not in proven and _inputs(first.get(key)) < of_version.inputs else None
                shares[key] = _differences([lost or Cause.UNEXPLAINED, Cause.DEFINITION], steps)
        now: Mapping[_Key, Computed] | None = None
        if self.scenario.assumptions:
            now = {} if right is None else self._values(right, Scenario(self.scenario.as_of), keys)
            failed.update(key for key, computed in now.items() if _fails(computed))
        for one in self.differences:
            key = one.bucket, one.entity_id
            if key not in keys:
                yield ExplainedDifference(one, {}, False, None)
                continue
            if key in failed:  # a value between the two sides is not known, so no cause has a share
                sides = [one.current or _ZERO, one.recomputed or _ZERO]
                yield ExplainedDifference(one, _differences([Cause.UNEXPLAINED], sides), False, current.get(key))
                continue
            before = _value(current[key].computed) if key in current else _ZERO
            for share in shares.get(key, {}).values():
                before = EXACT.add(before, share)
            recomputed = one.recomputed or _ZERO
            known = _value(now.get(key)) if now is not None else recomputed
            arrived = Cause.LATE if key in current else Cause.NOT_COMPUTED
            rest = _differences([arrived, Cause.ASSUMED], [before, known, recomputed])
            inputs = one.inputs_after if now is None else _inputs(now.get(key))
            yield ExplainedDifference(
                one,
                {**shares.get(key, {}), **rest},
                key in proven or key not in current,
                current.get(key),
                inputs - knew.get(key, inputs),
            )

    def _current(self, keys: set[_Key]) -> dict[_Key, Aggregate]:
        found: dict[_Key, Aggregate] = {}
        for bucket, group in groupby(sorted(keys), key=lambda key: key[0]):
            entities = [entity for _, entity in group]
            few = entities if len(entities) <= _FEW else ()
            for row in self.store.aggregates.current(self.name, Window(bucket, bucket + 1), few):
                if (bucket, row.computed.entity_id) in keys:
                    found[bucket, row.computed.entity_id] = row
        return found

    def _values(self, metric: Metric, scenario: Scenario, keys: set[_Key]) -> dict[_Key, Computed]:
        return values_under(self.store, self.engine, metric, scenario, keys)


def values_under(
    store: Store, engine: Engine, metric: Metric, scenario: Scenario, keys: set[_Key]
) -> dict[_Key, Computed]:
    """Return what is computed of these buckets and entities under a scenario, failures included, but for buckets whose
    raw is damaged."""
    buckets, entities = sorted({bucket for bucket, _ in keys}), sorted({entity for _, entity in keys})
    window = Window(buckets[0], buckets[-1] + 1).widened(metric.bucket_size)
    few = tuple(entities) if len(entities) <= _FEW and not metric.is_over_all else ()
    found: dict[_Key, Computed] = {}
    with applied(store, engine, scenario, window, few) as overrides:
        selection = Selection(store, window, few, overrides)
        with closing(recompute(selection, engine, [metric])) as parts:
            for part in parts:
                if isinstance(part.computed, Damaged):
                    continue
                for row in part.computed.rows():
                    if (row.bucket, row.entity_id) in keys:
                        found[row.bucket, row.entity_id] = row
    return found


def _value(computed: Computed | None) -> Decimal:
    return _ZERO if computed is None or computed.value is None else computed.value


def _fails(computed: Computed | None) -> bool:
    return computed is not None and computed.failure is not None


def _inputs(computed: Computed | None) -> int:
    return 0 if computed is None else computed.inputs


def _differences(causes: Sequence[Cause], values: Sequence[Decimal]) -> dict[Cause, Decimal]:
    """Return by how much each cause changes the value, those that change nothing left out."""
    steps = zip(causes, pairwise(values), strict=True)
    return {cause: EXACT.subtract(after, before) for cause, (before, after) in steps if after != before}

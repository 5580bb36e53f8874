"""Current against recomputed values, over a window: totals with the causes of their difference where values add up,
otherwise the values themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from itertools import groupby

from pik.errors import Invalid
from pik.model.metric import ALL_ENTITIES, Combination, Metric
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.runtime import exhaust
from pik.usecases.metrics.causes import with_causes
from pik.usecases.metrics.chain import Cause
from pik.usecases.metrics.comparison import Difference, Op
from pik.usecases.metrics.definitions import Scales, chosen, of_entities
from pik.usecases.metrics.diff import Diff, diff_aggregates
from pik.usecases.metrics.totals import Combinations, DiffTotals, TotalDifference

METRICS = 12
"""Metrics of which a report shows numbers, the first ones by name unless some are named."""

POINTS = 1000
"""Values of a metric over time that a report keeps: where there are more, those that differ most."""

_WIDE = Context(prec=300)
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Shown:
    """The metrics whose numbers are shown: those that add up, and the others. `left_out` are over all entities, where
    some are named; of `more` there is no room."""

    sums: tuple[Metric, ...]
    others: tuple[Metric, ...]
    left_out: tuple[str, ...]
    more: tuple[str, ...]

    @property
    def all(self) -> tuple[Metric, ...]:
        """Both."""
        return self.sums + self.others


def shown_metrics(store: Store, engine: Engine, names: Sequence[str], entities: Sequence[str]) -> Shown:
    """Return the metrics whose numbers are shown: the named ones (none: all that are not retired). Raises
    NothingSelected for an unknown one, UsageError for a retired one, and where all are over all entities and some of
    these are named."""
    wanted, left_out = of_entities(chosen(store.metrics, names), entities)
    kept = wanted if names else wanted[:METRICS]
    sums = tuple(metric for metric in kept if _adds_up(engine, metric))
    others = tuple(metric for metric in kept if metric not in sums)
    return Shown(sums, others, left_out, tuple(metric.name for metric in wanted[len(kept) :]))


def _adds_up(engine: Engine, metric: Metric) -> bool:
    try:
        return engine.combination(metric.definition) == Combination.SUM
    except Invalid:
        return False


@dataclass(frozen=True, slots=True)
class Point:
    """The values of a bucket (its start, nanoseconds) on both sides; None: there is none, or it is not known. Unless it
    is `known` what both are, they are not compared."""

    bucket: int
    current: Decimal | None
    recomputed: Decimal | None
    known: bool = True

    @property
    def distance(self) -> Decimal:
        """How far apart they are; a missing value counts as 0."""
        return _WIDE.subtract(self.recomputed or _ZERO, self.current or _ZERO).copy_abs()


@dataclass(frozen=True, slots=True)
class Course:
    """A metric over time: its values by bucket, of which there are `buckets`; of those that are known on both sides,
    `different` differ. Of the others one side cannot be computed."""

    metric: str
    points: tuple[Point, ...]
    buckets: int
    known: int
    different: int

    @classmethod
    def of(cls, metric: str, points: Sequence[Point]) -> Course:
        """Return the course with these points, in their order."""
        known = [point for point in points if point.known]
        different = sum(point.current != point.recomputed for point in known)
        return cls(metric, _most_differing(points), len(points), len(known), different)


@dataclass(frozen=True, slots=True)
class Sums:
    """Metrics that add up: `totals` of each over the window, and by bucket; `diff` is what was compared. `different`
    values differ, `failed` cannot be computed."""

    diff: Diff
    totals: tuple[TotalDifference, ...]
    buckets: tuple[TotalDifference, ...]
    different: int
    failed: int

    @property
    def courses(self) -> Iterator[Course]:
        """Yield each metric over time."""
        for name, rows in groupby(self.buckets, key=lambda one: one.metric):
            yield Course.of(
                name, [Point(one.bucket or 0, one.current, one.recomputed, one.delta is not None) for one in rows]
            )


def compare_sums(
    store: Store, engine: Engine, window: Window, metrics: Sequence[Metric], entities: Sequence[str]
) -> Sums:
    """Compare the totals of metrics that add up, by bucket and over the window, and split their differences by cause.
    Raises NothingSelected where there is neither an event nor a value, NotHeld, EngineError where nothing can be
    computed, and UsageError where a current value's definition does not add up."""
    names = [metric.name for metric in metrics]
    totals = DiffTotals("bucket", Combinations(store, engine), explains=True)
    diff = diff_aggregates(store, engine, window, metrics=names, entities=entities, totals=totals)
    diff = with_causes(store, engine, diff, names, entities, totals)
    different = failed = 0
    for row in diff.rows:
        failed += row.op == Op.FAILED
        different += row.op != Op.FAILED
    exhaust(diff.tolerated)
    rows = totals.rows()
    of_metric = [
        _summed(list(group), is_damaged=name in totals.damaged)
        for name, group in groupby(rows, key=lambda one: one.metric)
    ]
    return Sums(diff, tuple(of_metric), tuple(rows), different, failed)


def _summed(rows: Sequence[TotalDifference], *, is_damaged: bool) -> TotalDifference:
    """Return the total of a metric over its buckets, as `pik diff aggregates --total` has it."""
    shares: dict[str, Decimal] = {}
    for row in rows:
        for cause, share in row.causes:
            shares[cause] = _WIDE.add(shares.get(cause, _ZERO), share)
    is_known = all(row.delta is not None for row in rows)
    return replace(
        rows[0],
        bucket=None,
        current=None if is_damaged else _sum(row.current for row in rows),
        recomputed=_sum(row.recomputed for row in rows) if is_known else None,
        delta=_sum(row.delta for row in rows) if is_known else None,
        compared=sum(row.compared for row in rows),
        different=sum(row.different for row in rows),
        failed=sum(row.failed for row in rows),
        causes=tuple((cause, shares[cause]) for cause in Cause if cause in shares) if is_known else (),
        proven=all(row.proven is not False for row in rows) if is_known else None,
    )


def _sum(values: Iterable[Decimal | None]) -> Decimal | None:
    """Return the sum of those that are known; None where none is."""
    total: Decimal | None = None
    for value in values:
        if value is not None:
            total = value if total is None else _WIDE.add(total, value)
    return total


@dataclass(frozen=True, slots=True)
class NonAdditiveMetrics:
    """Metrics that do not add up: the first of the `rows` that differ, of which there are `different`, and those that
    cannot be computed, `failed`. `courses` are those with one value for each bucket: over all entities, or of the only
    entity asked for."""

    diff: Diff
    rows: tuple[Difference, ...]
    different: int
    failed: int
    courses: tuple[Course, ...]


def compare_values(
    store: Store, engine: Engine, window: Window, metrics: Sequence[Metric], entities: Sequence[str], limit: int
) -> NonAdditiveMetrics:
    """Compare the values of these metrics and keep the first rows. Raises as `compare_sums` does."""
    names = [metric.name for metric in metrics]
    diff = diff_aggregates(store, engine, window, metrics=names, entities=entities)
    single = {metric.name: metric for metric in metrics if metric.is_over_all or len(entities) == 1}
    kept: list[Difference] = []
    changed: dict[str, dict[int, Difference]] = {name: {} for name in single}
    different = failed = 0
    for row in diff.rows:
        failed += row.op == Op.FAILED
        different += row.op != Op.FAILED
        if len(kept) < limit:
            kept.append(row)
        if row.metric in single:  # one for each bucket
            changed[row.metric][row.bucket] = row
    scales = Scales(store.metrics)
    courses = tuple(
        _course(store, scales, metric, metric.buckets.widened(window), entities, changed[name])
        for name, metric in single.items()
    )
    return NonAdditiveMetrics(diff, tuple(kept), different, failed, courses)


def _course(
    store: Store,
    scales: Scales,
    metric: Metric,
    window: Window,
    entities: Sequence[str],
    changed: Mapping[int, Difference],
) -> Course:
    """Return the current values of a metric with one value for each bucket, and what they should be."""
    names = (ALL_ENTITIES,) if metric.is_over_all else tuple(entities)
    points: dict[int, Point] = {}
    for row in store.aggregates.current(metric.name, window, names):
        value = scales.shown(row).computed.value
        points[row.computed.bucket] = Point(row.computed.bucket, value, value)
    for bucket, one in changed.items():
        points[bucket] = Point(bucket, one.current, one.recomputed, one.op != Op.FAILED)
    return Course.of(metric.name, [points[key] for key in sorted(points)])


def _most_differing(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return at most POINTS of the points, in their order: those that differ most, then the latest."""
    if len(points) <= POINTS:
        return tuple(points)
    kept = sorted(points, key=lambda one: (one.known, one.distance, one.bucket), reverse=True)[:POINTS]
    return tuple(sorted(kept, key=lambda one: one.bucket))

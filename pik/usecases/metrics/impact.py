"""What a change of the deliveries that count does to each metric: computed twice, and compared. Writes nothing."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Context, Decimal
from operator import attrgetter

from pik.errors import Damaged, Invalid
from pik.model.aggregate import Computed
from pik.model.metric import Combination, Metric
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.selection import Overrides, Selection
from pik.runtime.storage import Sorter
from pik.usecases.availability import expect_held
from pik.usecases.metrics.computation import BYTES_AT_ONCE, by_buckets, recompute, stretches, widest
from pik.usecases.metrics.definitions import chosen, of_entities, pin

_WIDE = Context(prec=200)
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class ImpactValue:
    """A value (None: no value) of a metric, entity and bucket (its start, nanoseconds) that differs under the
    assumption."""

    metric: str
    bucket: int
    entity_id: str
    value: Decimal | None
    assumed: Decimal | None

    @property
    def delta(self) -> Decimal:
        """assumed - value; no value counts as 0."""
        return _WIDE.subtract(self.assumed or _ZERO, self.value or _ZERO)


@dataclass(slots=True)
class MetricImpact:
    """What the assumption does to a metric (NAME@VERSION): how many values differ and could not be computed on either
    side, and where the metric adds up, what all values come to."""

    metric: str
    adds_up: bool
    differing: int = 0
    failed: int = 0
    sums: tuple[Decimal, Decimal] = (_ZERO, _ZERO)

    @property
    def total(self) -> Decimal | None:
        """The sum of all values as they count; None where values do not add up."""
        return self.sums[0] if self.adds_up and not self.failed else None

    @property
    def assumed(self) -> Decimal | None:
        """The sum of all values under the assumption."""
        return self.sums[1] if self.adds_up and not self.failed else None

    @property
    def delta(self) -> Decimal | None:
        """assumed - total."""
        return _WIDE.subtract(self.sums[1], self.sums[0]) if self.adds_up and not self.failed else None


@dataclass(frozen=True, slots=True)
class Impact:
    """The metrics, by name, over the whole buckets that the window touches. `values` are the differing ones of metrics
    that do not add up, by metric, bucket and entity; they may be iterated over once. `left_out` are metrics over all
    entities, where some were named."""

    effective: Window
    metrics: Sequence[MetricImpact]
    values: Iterable[ImpactValue]
    listed: int
    """The number of `values`."""
    left_out: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        """Values that could not be computed."""
        return sum(one.failed for one in self.metrics)


@dataclass(slots=True)
class _Work:
    metrics: dict[str, MetricImpact]
    values: Sorter[ImpactValue] = field(
        default_factory=lambda: Sorter[ImpactValue](attrgetter("metric", "bucket", "entity_id"))
    )
    listed: int = 0

    def add(self, before: Computed | None, after: Computed | None) -> None:
        """Add one value, as it counts and under the assumption."""
        here = before or after
        assert here is not None
        metric = self.metrics[here.metric]
        if any(side is not None and side.failure is not None for side in (before, after)):
            metric.failed += 1
            return
        value, assumed = (None if side is None else side.value for side in (before, after))
        sums = metric.sums
        metric.sums = _WIDE.add(sums[0], value or _ZERO), _WIDE.add(sums[1], assumed or _ZERO)
        if value != assumed:
            metric.differing += 1
            if not metric.adds_up:
                self.listed += 1
                self.values.add(ImpactValue(here.metric, here.bucket, here.entity_id, value, assumed))


def impact(
    store: Store,
    engine: Engine,
    window: Window,
    overrides: Overrides,
    *,
    entities: Sequence[str] = (),
    metrics: Sequence[str] = (),
) -> Impact:
    """Compute the metrics (none named: all) as deliveries count, and with the overrides, over the whole buckets that
    the window touches. Raises NotFound, NotHeld, Damaged and EngineError."""
    wanted, left_out = of_entities(chosen(store.metrics, metrics), entities)
    effective = widest(window, wanted)
    expect_held(store, effective, entities)
    work = _Work({one.name: MetricImpact(pin(one), adds_up(engine, one)) for one in wanted})
    for buckets, group in by_buckets(wanted):
        plain = Selection(store, buckets.widened(window), entities)
        for stretch in stretches(plain, buckets, size=BYTES_AT_ONCE):
            left = _rows(engine, group, plain.within(stretch))
            right = _rows(engine, group, Selection(store, stretch, entities, overrides))
            with closing(left), closing(right):
                for before, after in _side_by_side(left, right):
                    work.add(before, after)
    ordered = [work.metrics[name] for name in sorted(work.metrics)]
    return Impact(effective, ordered, work.values, work.listed, left_out)


def _rows(engine: Engine, metrics: Sequence[Metric], selection: Selection) -> Generator[Computed, None, None]:
    with closing(recompute(selection, engine, metrics)) as parts:
        for part in parts:
            if isinstance(part.computed, Damaged):
                raise part.computed
            yield from part.computed.rows()


def _side_by_side(
    left: Iterator[Computed], right: Iterator[Computed]
) -> Iterator[tuple[Computed | None, Computed | None]]:
    """Yield the rows of the same metric, bucket and entity together; both come ordered by these."""
    key = attrgetter("metric", "bucket", "entity_id")
    before, after = next(left, None), next(right, None)
    while before is not None or after is not None:
        if after is None or (before is not None and key(before) < key(after)):
            yield before, None
            before = next(left, None)
        elif before is None or key(after) < key(before):
            yield None, after
            after = next(right, None)
        else:
            yield before, after
            before, after = next(left, None), next(right, None)


def adds_up(engine: Engine, metric: Metric) -> bool:
    """Return whether the values of a metric add up over buckets and entities."""
    try:
        return engine.combination(metric.definition) == Combination.SUM
    except Invalid:
        return False

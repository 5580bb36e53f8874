"""Totals of values: exact sums of metrics that add up, the least or greatest of those that are a min or a max."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal
from enum import StrEnum
from functools import cache

from pik.errors import Invalid, UsageError
from pik.model.aggregate import Aggregate, Computed, with_scale
from pik.model.metric import Combination, Metric
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.usecases.metrics.chain import Cause

BY = ("run", "metric", "bucket")
"""What totals can be split by; they are always of one metric."""

_WIDE = Context(prec=300)  # sums of so many values of 100 digits that nothing is rounded

Group = tuple[str, int | None, str | None]
"""A metric, and where totals are by these a bucket or a run."""


class Combinations:
    """How values combine: those of the metrics in hand, or of earlier versions that the store keeps."""

    def __init__(self, store: Store, engine: Engine) -> None:
        self._metrics: dict[tuple[str, int], Metric] = {}
        self._of_version = cache(self._found)
        self._of_metric: dict[str, Combination] = {}
        self._store, self._engine = store, engine

    def of_metric(self, name: str) -> Combination:
        """Return how the values of a metric combine, which is known already."""
        return self._of_metric[name]

    def expect(self, metrics: Sequence[Metric]) -> None:
        """Raise UsageError unless the values of these metrics combine; they may be only assumed."""
        for metric in metrics:
            self._metrics[metric.name, metric.version] = metric
            self.of(metric.name, metric.version)

    def of(self, name: str, version: int) -> Combination:
        """Return how the values of a metric combine. Raises UsageError, with the reason, where they do not."""
        found = self._of_version(name, version)
        if self._of_metric.setdefault(name, found) != found:
            raise UsageError(
                f"values of {name} were computed under definitions that combine in two ways,"
                f" {self._of_metric[name]} and {found}",
                hint=f"--metric {name}@VERSION takes those of one definition",
            )
        return found

    def shown(self, name: str, value: Decimal | None) -> Decimal | None:
        """Return a total with the digits that values of the metric are printed with."""
        return None if value is None else self.printed(name, value)

    def printed(self, name: str, value: Decimal) -> Decimal:
        """Return a known total with those digits."""
        scales = [metric.scale for (of, _), metric in self._metrics.items() if of == name]
        return with_scale(value, max(scales, default=0))

    def _found(self, name: str, version: int) -> Combination:
        metric = self._metrics.get((name, version))
        if metric is None:
            metric = next((one for one in self._store.metrics.versions(name) if one.version == version), None)
        if metric is None:
            raise UsageError(f"there is no total of {name}: its definition {version} is not known")
        self._metrics[name, version] = metric
        try:
            return self._engine.combination(metric.definition)
        except Invalid as error:
            hint = "--metric NAME chooses metrics that add up"
            if not metric.is_over_all:
                hint += '; a definition with per = "all" has one value for each bucket, over all entities'
            raise UsageError(f"there is no total of {name}: {error.message}", hint=hint) from None


@dataclass(slots=True)
class Total:
    """Values combined, `values` of them; `value` is None where there is none."""

    combination: Combination
    value: Decimal | None = None
    values: int = 0

    def add(self, value: Decimal | None) -> None:
        """Take one more value; a missing one changes nothing."""
        if value is None:
            return
        self.values += 1
        if self.value is None:
            self.value = value
        elif self.combination == Combination.SUM:
            self.value = _WIDE.add(self.value, value)
        else:
            self.value = (min if self.combination == Combination.MIN else max)(self.value, value)

    def merge(self, part: Total) -> None:
        """Take all values of another total."""
        self.add(part.value)
        self.values += part.values - (part.value is not None)


@dataclass(frozen=True, slots=True)
class TotalRow:
    """The total of a group."""

    metric: str
    bucket: int | None
    run_id: str | None
    combination: Combination
    value: Decimal | None
    values: int


def group_of(by: str | None, metric: str, bucket: int, run_id: str | None) -> Group:
    """Return the group that a value belongs to."""
    return metric, bucket if by == "bucket" else None, run_id if by == "run" else None


def total(rows: Iterable[Aggregate], by: str | None, combinations: Combinations) -> list[TotalRow]:
    """Return the totals of recorded values, ordered by metric, bucket, run. Raises UsageError for a metric that has
    none."""
    totals: dict[Group, Total] = {}
    for row in rows:
        one = row.computed
        combination = combinations.of(one.metric, row.metric_version)
        if one.value is not None:
            key = group_of(by, one.metric, one.bucket, row.run_id)
            (totals.get(key) or totals.setdefault(key, Total(combination))).add(one.value)
    return [
        TotalRow(*key, found.combination, found.value, found.values)
        for key, found in sorted(totals.items(), key=lambda pair: ordered(pair[0]))
    ]


def ordered(group: Group) -> tuple[str, int, str]:
    """Return what groups are ordered by."""
    metric, bucket, run_id = group
    return metric, bucket or 0, run_id or ""


@dataclass(frozen=True, slots=True)
class TotalDifference:
    """The totals of a group on both sides; `run_id` is the run that wrote the left values. `different` of the values
    differ by more than is tolerated, whatever the totals. Where some `failed`, the right total is not known, and where
    raw of whole buckets cannot be read neither is the left one. `causes` are the shares of the delta by cause, if they
    were asked for and the delta is known, and `proven` says whether all of them are."""

    metric: str
    bucket: int | None
    run_id: str | None
    combination: Combination
    current: Decimal | None
    recomputed: Decimal | None
    delta: Decimal | None
    compared: int
    different: int
    failed: int
    causes: tuple[tuple[str, Decimal], ...] = ()
    proven: bool | None = None


class PairOutcome(StrEnum):
    """What a comparison made of a pair."""

    EQUAL = "equal"
    DIFFERENT = "different"
    FAILED = "failed"


@dataclass(slots=True)
class Both:
    """The totals of the two sides of a group, how its pairs compare, and the shares of their difference."""

    left: Total
    right: Total
    counts: Counter[PairOutcome] = field(default_factory=Counter)
    shares: dict[Cause, Decimal] = field(default_factory=dict)
    proven: bool = True


@dataclass(slots=True)
class DiffTotals:
    """The totals of both sides of a comparison, which adds its pairs, and where it `explains` them the shares of their
    differences."""

    by: str | None
    combinations: Combinations
    explains: bool = False
    groups: dict[Group, Both] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    """Metrics with whole buckets whose raw cannot be read: neither side of those was compared, so no total is known."""

    def expect(self, metrics: Sequence[Metric]) -> None:
        """Raise UsageError unless the values of these metrics combine, and their differences add up if they are
        explained."""
        self.combinations.expect(metrics)
        for name in (metric.name for metric in metrics) if self.explains else ():
            if (combination := self.combinations.of_metric(name)) != Combination.SUM:
                raise UsageError(
                    f"--explain: a total of {name} is the {combination} of its values, so their causes do not add up",
                    hint="--metric NAME chooses metrics that add up",
                )

    def explain(
        self, metric: str, bucket: int, run_id: str | None, shares: Mapping[Cause, Decimal], *, proven: bool
    ) -> None:
        """Take the shares of a pair that was added."""
        both = self.groups[group_of(self.by, metric, bucket, run_id)]
        both.proven = both.proven and proven
        for cause, share in shares.items():
            both.shares[cause] = _WIDE.add(both.shares.get(cause, Decimal(0)), share)

    def add(self, left: Aggregate | None, right: Computed | None, outcome: PairOutcome) -> None:
        """Take a pair. Raises UsageError where the left value was made by a definition that does not combine."""
        one = left.computed if left is not None else right
        assert one is not None
        if left is not None:
            self.combinations.of(one.metric, left.metric_version)
        key = group_of(self.by, one.metric, one.bucket, (left.run_id or None) if left is not None else None)
        both = self.groups.get(key)
        if both is None:
            combination = self.combinations.of_metric(one.metric)
            both = self.groups[key] = Both(Total(combination), Total(combination))
        both.left.add(None if left is None else left.computed.value)
        both.right.add(None if right is None else right.value)
        both.counts[outcome] += 1
        if one.failure is not None and one.failure.damage:
            self.damaged.add(one.metric)

    def merge(self, groups: Mapping[Group, Both], damaged: Collection[str]) -> None:
        """Add the pairs of a part of the comparison; they are not explained yet."""
        for key, theirs in groups.items():
            ours = self.groups.setdefault(key, theirs)
            if ours is not theirs:
                ours.left.merge(theirs.left)
                ours.right.merge(theirs.right)
                ours.counts.update(theirs.counts)
        self.damaged.update(damaged)

    def rows(self) -> list[TotalDifference]:
        """Return the totals, ordered by metric, bucket, run."""
        return [self._row(key, self.groups[key]) for key in sorted(self.groups, key=ordered)]

    def _row(self, key: Group, both: Both) -> TotalDifference:
        failed, different = both.counts[PairOutcome.FAILED], both.counts[PairOutcome.DIFFERENT]
        is_damaged = key[0] in self.damaged
        left = None if is_damaged else both.left.value
        right = None if is_damaged or failed else both.right.value
        missing = Decimal(0) if both.left.combination == Combination.SUM else None
        before, after = (missing if value is None else value for value in (left, right))
        delta = None
        if not (is_damaged or failed or before is None or after is None):
            delta = _WIDE.subtract(after, before)
        current, recomputed, delta = (self.combinations.shown(key[0], value) for value in (left, right, delta))
        counts = both.counts.total() - failed, different, failed
        found = TotalDifference(*key, both.left.combination, current, recomputed, delta, *counts)
        if not self.explains or delta is None:
            return found
        causes = tuple(
            (cause, self.combinations.printed(key[0], both.shares[cause])) for cause in Cause if cause in both.shares
        )
        return replace(found, causes=causes, proven=both.proven)

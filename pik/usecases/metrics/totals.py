"""Totals of values: exact sums of metrics that add up, the least or greatest of those that are a min or a max."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cache

from pik.errors import Invalid, UsageError
from pik.model.metric import Aggregate, Combination, Metric
from pik.ports.engine import Engine
from pik.ports.store import Store

BY = ("run", "metric", "bucket")
"""What totals can be split by; they are always of one metric."""

_WIDE = Context(prec=300)  # sums of so many values of 100 digits that nothing is rounded

Group = tuple[str, int | None, str | None]
"""A metric, and where totals are by these a bucket or a run."""


class Combinations:
    """How values combine: those of the metrics in hand, or of earlier versions that the store keeps."""

    def __init__(self, store: Store, engine: Engine, metrics: Sequence[Metric] = ()) -> None:
        self._metrics = {(metric.name, metric.version): metric for metric in metrics}
        self._of_version = cache(self._found)
        self._of_metric: dict[str, Combination] = {}
        self._store, self._engine = store, engine

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

    def _found(self, name: str, version: int) -> Combination:
        metric = self._metrics.get((name, version))
        if metric is None:
            metric = next((one for one in self._store.metrics.versions(name) if one.version == version), None)
        if metric is None:
            raise UsageError(f"there is no total of {name}: its definition {version} is not known")
        try:
            return self._engine.combination(metric.definition)
        except Invalid as error:
            raise UsageError(
                f"there is no total of {name}: {error.message}", hint="--metric NAME chooses metrics that add up"
            ) from None


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

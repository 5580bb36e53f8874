"""Metric definitions in the state table: one item for each version, never changed."""

from __future__ import annotations

from dataclasses import dataclass

from pik.model.metric import Metric
from pik.stores.aws.state.layout import METRICS, MetricItem, sealed
from pik.stores.aws.table import Table
from pik.stores.state_rows import all_versions, damaged_row, latest_versions, metric_columns, row_digest
from pik.stores.state_rows import metric_of as metric_of_columns


@dataclass(frozen=True, slots=True)
class AwsMetrics:
    """Keeps the definitions that were applied; the built-in one is added to each answer."""

    table: Table

    def append(self, metric: Metric) -> bool:
        item = metric_item(metric)
        return self.table.put_together([item, sealed(item)]) is None

    def latest(self) -> list[Metric]:
        return latest_versions(map(metric_of, self.table.query(METRICS)))

    def versions(self, name: str) -> list[Metric]:
        return all_versions(name, map(metric_of, self.table.query(METRICS, prefix=f"{name}/")))


def metric_item(metric: Metric) -> MetricItem:
    """Return the item of a version of a metric."""
    name, version, definition, applied_at, scale = columns = metric_columns(metric)
    return {
        "pk": METRICS,
        "sk": f"{name}/{version:06d}",
        "definition": definition,
        "applied_at": applied_at,
        "scale": scale,
        "digest": row_digest("metric", *columns),
    }


def metric_is_sound(item: MetricItem) -> bool:
    """Return whether the item of a version of a metric is as it was written."""
    name, _, version = item["sk"].rpartition("/")
    columns = item.get("definition"), item.get("applied_at"), item.get("scale")
    return item.get("digest") == row_digest("metric", name, int(version), *columns)


def metric_of(item: MetricItem) -> Metric:
    """Return the version of a metric of an item. Raises Damaged."""
    name, _, version = item["sk"].rpartition("/")
    if not metric_is_sound(item):
        raise damaged_row(f"the definition of {name} version {int(version)}")
    return metric_of_columns(int(version), item["definition"], item["applied_at"], item["scale"])

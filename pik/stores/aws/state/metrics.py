"""Metric definitions in the state table: an item each version, never changed."""

from __future__ import annotations

from dataclasses import dataclass

from pik.model.metric import Metric
from pik.stores.aws.state.items import sealed
from pik.stores.aws.table import Item, Table
from pik.stores.state_rows import all_versions, damaged_row, latest_versions, metric_columns, row_digest
from pik.stores.state_rows import metric_of as made_of

METRICS = "metric"


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


def metric_item(metric: Metric) -> Item:
    """The item of a version of a metric."""
    columns = metric_columns(metric)
    name, version, definition, applied_at, scale = columns
    return {
        "pk": METRICS,
        "sk": f"{name}/{version:06d}",
        "definition": definition,
        "applied_at": applied_at,
        "scale": scale,
        "digest": row_digest("metric", *columns),
    }


def metric_is_sound(item: Item) -> bool:
    """Whether the item of a version of a metric is as it was written."""
    name, _, version = item["sk"].rpartition("/")
    columns = (item.get(column) for column in ("definition", "applied_at", "scale"))
    return bool(item.get("digest") == row_digest("metric", name, int(version), *columns))


def metric_of(item: Item) -> Metric:
    """The version of a metric of an item. Raises Damaged."""
    if not metric_is_sound(item):
        raise damaged_row(f"the definition of {item['sk'].rpartition('/')[0]} version {int(item['sk'][-6:])}")
    version = int(item["sk"].rpartition("/")[2])
    return made_of(version, item["definition"], item["applied_at"], item["scale"])

"""Metric definitions in the state table: an item each version, never changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from pik.model.metric import EVENT_COUNT, Definition, Metric
from pik.stores.aws.table import Item, Table

_PK = "metric"


@dataclass(frozen=True, slots=True)
class AwsMetrics:
    """Keeps the definitions that were applied; the built-in one is added to each answer."""

    table: Table

    def apply(self, definition: Definition, applied_at: int, scale: int = 0) -> Metric:
        while True:
            versions = self.versions(definition.name)
            if versions and versions[-1].definition == definition:
                return versions[-1]
            version = versions[-1].version + 1 if versions else 1
            metric = Metric(definition=definition, version=version, applied_at=applied_at, scale=scale)
            if self.table.put(_item(metric), unless_exists=True):
                return metric
            # Somebody else made this version meanwhile, or this process did and its answer was lost: look again.

    def latest(self) -> list[Metric]:
        newest = {EVENT_COUNT.name: EVENT_COUNT}
        newest.update((metric.name, metric) for metric in map(_metric, self.table.query(_PK)))
        return [newest[name] for name in sorted(newest)]

    def versions(self, name: str) -> list[Metric]:
        return _with_built_in(name, self.table.query(_PK, prefix=f"{name}/"))


def _with_built_in(name: str, items: Iterable[Item]) -> list[Metric]:
    built_in = [EVENT_COUNT] if name == EVENT_COUNT.name else []
    return built_in + [_metric(item) for item in items]


def _item(metric: Metric) -> Item:
    return {
        "pk": _PK,
        "sk": f"{metric.name}/{metric.version:06d}",
        "definition": msgspec.json.encode(metric.definition).decode(),
        "applied_at": metric.applied_at,
        "scale": metric.scale,
    }


def _metric(item: Item) -> Metric:
    return Metric(
        definition=msgspec.json.decode(item["definition"], type=Definition),
        version=int(item["sk"].rpartition("/")[2]),
        applied_at=item["applied_at"],
        scale=item["scale"],
    )

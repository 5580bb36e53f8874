"""Versions as items: their keys, and what they say."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from pik.model.metric import Aggregate, Computed, decimal_text
from pik.stores.aws.keys import US, key_time, time_key
from pik.stores.aws.table import Item, Key

CONTENT = ("run", "value", "inputs", "input_ids", "input_contents", "metric_version", "known_until", "reason")
"""What a version says, and with it the pointer that is its copy."""


@dataclass(frozen=True, slots=True)
class Row:
    """Which aggregate an item is about."""

    metric: str
    bucket: int
    entity: str


def row_of(item: Item) -> Row:
    """The aggregate of a version or of a pointer."""
    kind, _, rest = item["pk"].partition("/")
    if kind == "current":
        metric, _, bucket = rest.partition("/")
        return Row(metric, key_time(bucket), item["sk"])
    metric, bucket, entity = item["sk"].split(US)
    return Row(metric, key_time(bucket), entity)


def current_key(row: Row) -> Key:
    """Of the pointer to the aggregate's current version."""
    return f"current/{row.metric}/{time_key(row.bucket)}", row.entity


def version_key(run_id: str, row: Row) -> Key:
    """Of the version that a run wrote."""
    return f"version/{run_id}", US.join((row.metric, time_key(row.bucket), row.entity))


def bucket_item(row: Row) -> Item:
    """What says that a bucket has versions."""
    return {"pk": f"buckets/{row.metric}", "sk": time_key(row.bucket)}


def value_text(value: Decimal | None) -> str:
    """An exact value in its shortest form, so that equal values are equal texts; empty for none."""
    if value is None:
        return ""
    return decimal_text(value) if value else "0"


def aggregate(row: Row, item: Item, *, current: bool) -> Aggregate:
    """What the item says of the aggregate."""
    value = Decimal(item["value"]) if item["value"] else None
    hashes = item["input_ids"].hex(), item["input_contents"].hex()
    computed = Computed(row.metric, row.bucket, row.entity, value, item["inputs"], *hashes)
    return Aggregate(
        computed, item["run"], item["metric_version"], item["known_until"], item["reason"], current=current
    )

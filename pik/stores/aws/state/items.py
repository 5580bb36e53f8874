"""Keys and items of the state table. docs/dev/aws-layout.md lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pik.model.metric import Aggregate, Computed, decimal_text
from pik.model.run import Task
from pik.stores.aws.table import Item, Key
from pik.stores.state_rows import damaged_row, row_digest

US = "\x1f"
"""Between the parts of a key. No name holds it, nor any character before it, so that keys sort as their parts do."""

SEALED = "sealed"

RUN = "run"
"""The sort key of a run's own item."""


def run_pk(run_id: str) -> str:
    """The partition of a run: itself, its promotions, its tasks and their states."""
    return f"run/{run_id}"


def sealed(item: Mapping[str, Any]) -> dict[str, Any]:
    """The copy of a definition or promotion that is written with it, so that one which is lost shows."""
    return {**item, "pk": f"{SEALED}/{item['pk']}"}


def task_sk(kind: str, task: Task) -> str:
    """The sort key of a task (`task`) or of its state (`state`)."""
    return f"{kind}/{task.number:08d}"


def time_key(instant: int) -> str:
    """An instant as 20 digits that sort as instants do, those before 1970 included."""
    return f"{instant + 2**63:020d}"


def key_time(text: str) -> int:
    """The instant of a `time_key`."""
    return int(text) - 2**63


CONTENT = (
    "run",
    "value",
    "inputs",
    "input_ids",
    "input_contents",
    "metric_version",
    "known_until",
    "reason",
    "base",
    "digest",
)
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


def version_digest(row: Row, item: Item) -> bytes:
    """The digest that a version should have, and with it the pointer that is its copy."""
    return row_digest(
        "version",
        row.metric,
        row.bucket,
        row.entity,
        item["run"],
        item["value"] or None,
        item["inputs"],
        item["input_ids"],
        item["input_contents"],
        item["base"] or None,
        item["metric_version"],
        item["known_until"],
        item["reason"],
    )


def version_item(
    row: Row,
    *,
    run_id: str,
    value: str,
    inputs: tuple[int, bytes, bytes],
    known: tuple[int, int, str],
    base: str,
    kind: str,
) -> Item:
    """The item of a version. `inputs` are their number, ids and contents, `known` is metric version, known until and
    reason."""
    pk, sk = version_key(run_id, row)
    item = {
        "pk": pk,
        "sk": sk,
        "bucket_key": f"{row.metric}{US}{time_key(row.bucket)}",
        "version_key": f"{row.entity}{US}{run_id}",
        "run": run_id,
        "value": value,
        **dict(zip(("inputs", "input_ids", "input_contents"), inputs, strict=True)),
        **dict(zip(("metric_version", "known_until", "reason"), known, strict=True)),
        "base": base,
        "kind": kind,
    }
    return {**item, "digest": version_digest(row, item)}


def is_sound(row: Row, item: Item) -> bool:
    """Whether a version, or a pointer, is as it was written."""
    return bool(item.get("digest") == version_digest(row, item))


def aggregate(row: Row, item: Item, *, current: bool, sound: bool = True) -> Aggregate:
    """What the item says of the aggregate."""
    try:
        value = Decimal(item["value"]) if item["value"] else None
        hashes = item["input_ids"].hex(), item["input_contents"].hex()
        computed = Computed(row.metric, row.bucket, row.entity, value, item["inputs"], *hashes)
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise damaged_row(f"the version of {row.metric} of {row.entity} by run {item['run']}") from error
    return Aggregate(
        computed,
        item["run"],
        item["metric_version"],
        item["known_until"],
        item["reason"],
        current=current,
        sound=sound,
    )

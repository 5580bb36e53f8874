"""Keys and items of the state table. docs/dev/aws-layout.md lists them."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from hashlib import sha256
from typing import Any, NotRequired

from msgspec import structs

from pik.model.aggregate import Aggregate, Computed
from pik.model.instant import DAY
from pik.model.metric import ALL_ENTITIES
from pik.model.run import Task
from pik.model.window import Window
from pik.ports.backup import VersionRow, Written
from pik.stores.aws.table import Key, KeyItem, Partition
from pik.stores.state_rows import AggregatePlace, damaged_row, row_digest

US = "\x1f"
"""Between the parts of a key. No name holds it, nor any character before it, so that keys sort as their parts do."""

RUN, MOVING, SEALED = "run", "moving", "sealed"
"""The sort keys of a run's own item and of the move of its versions under way; the prefix of partitions of copies."""

SHARDS = "01234567"
"""Of versions, pointers and buckets. Replays, promotions and rollbacks write them in the order of their keys, so
DynamoDB cannot split what they are written to: each shard takes 1,000 write units a second."""

METRICS: Partition[MetricItem] = Partition("metric")
RUNS: Partition[KeyItem] = Partition("runs")
PROMOTIONS: Partition[PromotionItem] = Partition("promotion")
REPUBLISHES: Partition[BodyItem] = Partition("republish")

BY_BUCKET = ("by_bucket", "bucket_key", "version_key")
"""The secondary index of versions by their bucket."""

TALLY = ("new", "changed", "unchanged", "removed")
_WRITTEN = (*TALLY, "written", "versions_xor", "computed_by")


class MetricItem(KeyItem):
    """A version of a metric."""

    definition: str
    applied_at: int
    scale: int
    actor: str
    reason: str
    retired: int
    digest: bytes


class BodyItem(KeyItem):
    """A task, the aggregates that failed in one, a republish, or what one could not send, as JSON."""

    body: str
    digest: bytes


class RunItem(BodyItem):
    """A run as it was planned, and its state."""

    state: str
    state_digest: bytes
    finished_at: NotRequired[int]
    planning_failure: NotRequired[str]


class TaskStateItem(KeyItem, total=False):
    """What is known of a task: its state, its failures, and how its versions compare with what was current."""

    state: str
    state_digest: bytes
    failing: int
    failures: str
    reason: str
    new: int
    changed: int
    unchanged: int
    removed: int
    written: int
    versions_xor: bytes
    computed_by: str
    tally_digest: bytes


class PromotionItem(KeyItem):
    """A promotion or rollback that is done, in the history of all or among its run's items."""

    run: str
    kind: str
    at: int
    reason: str
    actor: str
    moved: int
    conflicts: int
    pointers: int
    pointers_xor: bytes
    digest: NotRequired[bytes]


class MoveItem(KeyItem):
    """A promotion or rollback that is under way."""

    id: str
    run: str
    kind: str
    at: int
    reason: str
    actor: str
    already: int
    pointers: int
    pointers_xor: bytes


class PointerItem(KeyItem):
    """The pointer to an aggregate's current version, and a copy of that. `value`, `inputs` and `base` may be empty
    texts: none."""

    run: str
    value: str
    inputs: int | str
    input_ids: bytes
    input_contents: bytes
    base: str
    metric_version: int
    known_until: int
    reason: str
    actor: str
    digest: NotRequired[bytes]


CONTENT = tuple(name for name in PointerItem.__annotations__ if name not in KeyItem.__annotations__)
"""What a pointer copies from its version: the columns of the digest, in order, and the digest."""


class VersionItem(PointerItem):
    """A version of an aggregate; `kind` is how it compares with what was current when it was written."""

    bucket_key: str
    version_key: str
    kind: str


def run_pk(run_id: str) -> Partition[Any]:
    """Return the partition of a run: itself, its promotions, its tasks and their states."""
    return Partition(f"run/{run_id}")


def run_key(run_id: str) -> Key[RunItem]:
    """Return the key of a run's own item."""
    return Key((run_pk(run_id), RUN))


def moving_key(run_id: str) -> Key[MoveItem]:
    """Return the key of the move of a run's versions that is under way."""
    return Key((run_pk(run_id), MOVING))


def task_sk(kind: str, number: int) -> str:
    """Return the sort key of a task (`task`), of its state (`state`) or the prefix of its failures (`failures`)."""
    return f"{kind}/{number:08d}"


def state_key(task: Task) -> Key[TaskStateItem]:
    """Return the key of a task's state."""
    return Key((run_pk(task.run_id), task_sk("state", task.number)))


def refusals_pk(republish_id: str) -> Partition[BodyItem]:
    """Return the partition of what a republish could not send."""
    return Partition(f"refused/{republish_id}")


def sealed(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the copy of a definition or promotion that is written with it, so that the loss of one of them shows."""
    return {**item, "pk": f"{SEALED}/{item['pk']}"}


def time_key(instant: int) -> str:
    """Return an instant as 20 digits that sort as instants do, those before 1970 included."""
    return f"{instant + 2**63:020d}"


def key_time(text: str) -> int:
    """Return the instant of a `time_key`."""
    return int(text) - 2**63


def entity_shard(entity: str) -> str:
    """Return the shard of what a bucket has of an entity: its pointer and, in BY_BUCKET, its versions."""
    return _shard(entity)


def _shard(text: str) -> str:
    return SHARDS[sha256(text.encode()).digest()[0] % len(SHARDS)]


def buckets_pks(metric: str, window: Window) -> list[Partition[KeyItem]]:
    """Return the partitions that name the buckets of a metric that start in the window and have versions."""
    first, last = window.start // DAY, (window.end - 1) // DAY
    return [_buckets_pk(metric, day) for day in range(first, min(last + 1, first + len(SHARDS)))]


def _buckets_pk(metric: str, day: int) -> Partition[KeyItem]:
    """Return the partition that names the buckets that start on a day, which alone chooses it: so the buckets of a few
    days are few questions."""
    return Partition(f"buckets/{metric}/{SHARDS[day % len(SHARDS)]}")


def bucket_item(place: AggregatePlace) -> KeyItem:
    """Return the item that names a bucket and the shard of it in which the entity has a version."""
    return {
        "pk": _buckets_pk(place.metric, place.bucket // DAY),
        "sk": f"{time_key(place.bucket)}/{entity_shard(place.entity)}",
    }


def listed_bucket(key: Key[Any]) -> tuple[str, int, str]:
    """Return the metric, the start and the shard of a bucket that the item under this key names."""
    pk, (bucket, _, shard) = key[0], key[1].partition("/")
    return pk.split("/")[1], key_time(bucket), shard


def current_pk(metric: str, bucket: int, shard: str) -> Partition[PointerItem]:
    """Return the partition of the pointers of a bucket, of the entities of a shard."""
    return Partition(f"current/{metric}/{time_key(bucket)}/{shard}")


FIRST_POINTER = US
"""The sort key of the pointer to a value over all entities: a key cannot be empty, no entity has this name, and each
comes after it."""


def current_key(place: AggregatePlace) -> Key[PointerItem]:
    """Return the key of the pointer to an aggregate's current version."""
    pk = current_pk(place.metric, place.bucket, entity_shard(place.entity))
    return Key((pk, FIRST_POINTER if place.entity == ALL_ENTITIES else place.entity))


def versions_pks(run_id: str) -> list[Partition[VersionItem]]:
    """Return the partitions of the versions that a run wrote."""
    return [Partition(f"version/{run_id}/{shard}") for shard in SHARDS]


def version_key(run_id: str, place: AggregatePlace) -> Key[VersionItem]:
    """Return the key of the version that a run wrote. A run may write one entity's many buckets, or one bucket of many
    entities, so both choose its shard."""
    sk = US.join((place.metric, time_key(place.bucket), place.entity))
    return Key((Partition(f"version/{run_id}/{_shard(sk)}"), sk))


def bucket_pk(metric: str, bucket: int, shard: str) -> Partition[VersionItem]:
    """Return the partition of a bucket's versions in the index BY_BUCKET, of the entities of a shard."""
    return Partition(US.join((metric, time_key(bucket), shard)))


def by_bucket(run_id: str, place: AggregatePlace) -> tuple[Partition[VersionItem], str]:
    """Return the key of a version in the index BY_BUCKET."""
    return bucket_pk(place.metric, place.bucket, entity_shard(place.entity)), f"{place.entity}{US}{run_id}"


def place_of(item: KeyItem) -> AggregatePlace:
    """Return the aggregate of a version or of a pointer."""
    kind, _, rest = item["pk"].partition("/")
    if kind == "current":
        metric, bucket, _ = rest.split("/")
        return AggregatePlace(metric, key_time(bucket), ALL_ENTITIES if item["sk"] == FIRST_POINTER else item["sk"])
    metric, bucket, entity = item["sk"].split(US)
    return AggregatePlace(metric, key_time(bucket), entity)


def run_of(item: VersionItem) -> str:
    """Return the run that wrote a version, by the key of its item."""
    return item["pk"].split("/")[1]


def version_item(row: VersionRow) -> VersionItem:
    """Return the item of a version. Its digest is computed, whatever the row's is."""
    place = AggregatePlace(row.metric, row.bucket, row.entity)
    pk, sk = version_key(row.run_id, place)
    bucket_key, key_in_bucket = by_bucket(row.run_id, place)
    item: VersionItem = {
        "pk": pk,
        "sk": sk,
        "bucket_key": bucket_key,
        "version_key": key_in_bucket,
        "run": row.run_id,
        "value": row.value or "",
        "inputs": "" if row.inputs is None else row.inputs,
        "input_ids": bytes.fromhex(row.input_ids),
        "input_contents": bytes.fromhex(row.input_contents),
        "base": row.base or "",
        "metric_version": row.metric_version,
        "known_until": row.known_until,
        "reason": row.reason,
        "actor": row.actor,
        "kind": row.kind,
    }
    item["digest"] = version_digest(place, item)
    return item


def version_row(item: VersionItem) -> VersionRow:
    """Return the row of a version's item. Raises Damaged."""
    place, run_id = place_of(item), run_of(item)
    if not is_sound(place, item):
        raise damaged_row(f"the version of {place.name} by run {run_id}")
    inputs = inputs_of(item), item["input_ids"].hex(), item["input_contents"].hex()
    why = item["metric_version"], item["known_until"], item["reason"], item["actor"]
    row = *place, run_id, item["value"] or None, *inputs, item["base"] or None, *why
    return VersionRow(*row, item["kind"], item["digest"].hex())


def inputs_of(item: Mapping[str, Any]) -> int | None:
    """Return how many deliveries a version counts; None: that is not known."""
    inputs = item["inputs"]
    return None if inputs == "" else inputs


_MAY_BE_NONE = ("value", "inputs", "base")


def version_digest(place: AggregatePlace, item: Mapping[str, Any]) -> bytes:
    """Return the digest that a version should have, and with it the pointer that is its copy."""
    columns = (None if item[name] == "" and name in _MAY_BE_NONE else item[name] for name in CONTENT[:-1])
    return row_digest("version", *place, *columns)


def is_sound(place: AggregatePlace, item: PointerItem) -> bool:
    """Return whether a version, or a pointer, is as it was written."""
    return item.get("digest") == version_digest(place, item)


def aggregate(
    place: AggregatePlace, item: PointerItem, *, current: bool, sound: bool = True, base: str | None = None
) -> Aggregate:
    """Return the aggregate of a version or a pointer. Raises Damaged."""
    try:
        value = Decimal(item["value"]) if item["value"] else None
        hashes = item["input_ids"].hex(), item["input_contents"].hex()
        computed = Computed(*place, value, inputs_of(item), *hashes)
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise damaged_row(f"the version of {place.name} by run {item['run']}") from error
    why = item["metric_version"], item["known_until"], item["reason"]
    return Aggregate(computed, item["run"], *why, current=current, sound=sound, actor=item["actor"], base=base)


def task_tally(task: Task, written: Written) -> dict[str, Any]:
    """Return the attributes of a task's state that record its versions."""
    *counts, xor, programs = structs.astuple(written)
    state = dict(zip(_WRITTEN, (*counts, bytes.fromhex(xor), ", ".join(programs)), strict=True))
    return {**state, "tally_digest": tally_digest(task.run_id, task.number, state)}


def written_of(state: Mapping[str, Any]) -> Written | None:
    """Return what a task's state records of its versions."""
    if "written" not in state:
        return None
    *counts, xor, programs = (state[name] for name in _WRITTEN)
    return Written(*(*counts, xor.hex(), tuple(programs.split(", ")) if programs else ()))


def tally_digest(run_id: str, number: int, state: Mapping[str, Any]) -> bytes:
    """Return the digest of what a task's state records of its versions."""
    return row_digest("tally", run_id, number, *(state[name] for name in _WRITTEN))

"""Metric definitions and aggregate versions in the state table, and which versions are current.

A version is an item of its run; a pointer to the current one is a copy of it, in a partition of its bucket. A version
is written once, however often its task comes. What is written in the order of its keys has shards, which are read
together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from pik.model.aggregate import (
    Aggregate,
    BucketDigest,
    Computed,
    DigestLines,
    bucket_digests,
    decimal_text,
    digest_line,
)
from pik.model.entity_range import AFTER_ALL, EVERY_ENTITY, EntityRange
from pik.model.metric import Metric
from pik.model.run import PromotionKind, RunState, Task
from pik.model.window import Window
from pik.ports.backup import VersionRow, Written
from pik.ports.state import Change, PointerCounts, Promotion, Standing
from pik.runtime.storage import Spool
from pik.stores.aws.clients import Flow
from pik.stores.aws.state import layout
from pik.stores.aws.state.layout import METRICS, MetricItem, PointerItem, VersionItem, sealed
from pik.stores.aws.state.move_pointers import PointerMove, promotion_row
from pik.stores.aws.table import READS, Key, Partition, Table, batched, key_of
from pik.stores.state_rows import (
    NO_ROWS,
    AggregatePlace,
    all_versions,
    damaged_row,
    latest_versions,
    metric_columns,
    row_digest,
    xor_of,
)
from pik.stores.state_rows import metric_of as metric_of_columns

_CHUNK = READS - 1  # their pointers and the run are one read
_LISTED = 10_000
"""Keys of buckets that a writer keeps."""


@dataclass(frozen=True, slots=True)
class AwsAggregates:
    """Implements the port on the items of runs, versions, buckets and pointers."""

    table: Table

    def write(
        self,
        task: Task,
        rows: Iterable[Computed],
        *,
        versions: Mapping[str, int],
        known_until: int,
        reason: str,
        actor: str = "",
        computed_by: Sequence[str] = (),
    ) -> None:
        writing = _Writing(self.table, task, versions, known_until, reason, actor)
        tally: Counter[str] = Counter()
        digests = NO_ROWS
        spooled = Spool(Computed, rows)  # if the rows cannot all be computed, nothing is written
        for written in Flow().map(writing.write, batched(spooled, _CHUNK)):
            if written is None:  # the run was cancelled
                return
            tally.update(item["kind"] for item in written)
            digests = xor_of((item["digest"] for item in written), digests)
        counts = tally["new"], tally["changed"], tally["unchanged"], tally["removed"], tally.total()
        state = layout.task_tally(task, Written(*counts, digests.hex(), tuple(computed_by)))
        change = "SET " + ", ".join(f"#{name} = :{name}" for name in state)
        # Of two writers of one task that computed different rows, the counts of the one with more rows stay.
        condition = "attribute_not_exists(#written) OR #written <= :written"
        self.table.update(layout.state_key(task), change, state, condition=condition)

    def versions(
        self, metric: str, window: Window, entities: Sequence[str] = (), *, checked: bool = False
    ) -> Iterator[Aggregate]:
        wanted = sorted(set(entities))
        return self._history(metric, window, wanted, checked=checked or bool(wanted))

    def current(
        self,
        metric: str,
        window: Window,
        entities: Sequence[str] = (),
        *,
        entity_range: EntityRange = EVERY_ENTITY,
        checked: bool = False,
    ) -> Iterator[Aggregate]:
        wanted = sorted(set(entities))
        if wanted:
            return self._some(metric, window, wanted)
        first, last = entity_range.first or layout.FIRST_POINTER, entity_range.end or AFTER_ALL
        between = None if entity_range.is_all else (first, last)
        return (
            layout.aggregate(place, item, current=True, sound=not checked or layout.is_sound(place, item))
            for bucket in listed_buckets(self.table, metric, window)
            for item in self.table.query_merged(bucket.pointers, between=between)
            for place in (layout.place_of(item),)
            if place.entity in entity_range
        )

    def digests(self, metric: str, window: Window) -> Iterator[BucketDigest]:
        return bucket_digests(metric, self.lines(metric, window))

    def lines(self, metric: str, window: Window) -> Iterator[DigestLines]:
        for bucket in listed_buckets(self.table, metric, window):
            for item in self.table.query_merged(bucket.pointers):
                line = None
                if item["value"]:
                    hashes = item["input_ids"].hex().upper(), item["input_contents"].hex().upper()
                    inputs = layout.inputs_of(item)
                    line = digest_line(layout.place_of(item).entity, item["value"], inputs, *hashes)
                yield bucket.start, line, line is None, item["metric_version"], item["metric_version"]

    def changes(self, run_id: str) -> Iterator[Change]:
        for items in batched(self.table.query_merged(layout.versions_pks(run_id)), READS):
            versions = [(layout.place_of(item), item) for item in items]
            keys: set[Key[Any]] = {layout.current_key(place) for place, _ in versions}
            keys |= {layout.version_key(item["base"], place) for place, item in versions if item["base"]}
            found = self.table.get_many(keys)
            for place, item in versions:
                current = found.get(layout.current_key(place), {}).get("run")
                base = found.get(layout.version_key(item["base"], place))
                yield Change(
                    layout.aggregate(place, item, current=current == run_id),
                    None if base is None else layout.aggregate(place, base, current=current == item["base"]),
                )

    def standing(self, run_id: str) -> Standing:
        versions = current = restored = known_until = 0
        for items in batched(self.table.query_merged(layout.versions_pks(run_id)), READS):
            places = [layout.place_of(item) for item in items]
            found = self.table.get_many(map(layout.current_key, places))
            for place, item in zip(places, items, strict=True):
                pointer = found.get(layout.current_key(place))
                now = pointer["run"] if pointer else ""
                current += now == run_id
                restored += now == item["base"]
                known_until = max(known_until, item["known_until"])
            versions += len(items)
        return Standing(versions, current, restored, known_until)

    def promote(self, run_id: str, at: int, reason: str, actor: str = "", *, dry_run: bool = False) -> PointerCounts:
        return PointerMove(self.table, PromotionKind.PROMOTE, run_id).move(at, reason, actor, dry_run=dry_run)

    def rollback(self, run_id: str, at: int, reason: str, actor: str = "", *, dry_run: bool = False) -> PointerCounts:
        return PointerMove(self.table, PromotionKind.ROLLBACK, run_id).move(at, reason, actor, dry_run=dry_run)

    def newest_first(self) -> Iterator[Promotion]:
        return map(promotion_row, self.table.query(layout.PROMOTIONS, descending=True))

    def _some(self, metric: str, window: Window, entities: Sequence[str]) -> Iterator[Aggregate]:
        buckets = listed_buckets(self.table, metric, window)
        places = (place for bucket in buckets for place in bucket.places(entities))
        for some in batched(places, READS):
            found = self.table.get_many(map(layout.current_key, some))
            for place in some:
                if item := found.get(layout.current_key(place)):
                    yield layout.aggregate(place, item, current=True, sound=layout.is_sound(place, item))

    def _history(self, metric: str, window: Window, entities: Sequence[str], *, checked: bool) -> Iterator[Aggregate]:
        for items in batched(self._versions(metric, window, entities), READS):
            versions = [(layout.place_of(item), item) for item in items]
            pointers = self.table.get_many({layout.current_key(place) for place, _ in versions})
            for place, item in versions:
                pointer = pointers.get(layout.current_key(place))
                current = pointer is not None and pointer.get("run") == item["run"]
                sound = not checked or (
                    layout.is_sound(place, item) and (pointer is None or layout.is_sound(place, pointer))
                )
                yield layout.aggregate(place, item, current=current, sound=sound, base=item["base"] or None)

    def _versions(self, metric: str, window: Window, entities: Sequence[str]) -> Iterator[VersionItem]:
        for bucket in listed_buckets(self.table, metric, window):
            if not entities:
                yield from self.table.query_merged(bucket.versions, index=layout.BY_BUCKET)
            for place in bucket.places(entities):
                pk, _ = layout.by_bucket("", place)
                yield from self.table.query(pk, prefix=f"{place.entity}{layout.US}", index=layout.BY_BUCKET)


class ListedBucket(NamedTuple):
    """A bucket that has versions, and the shards of it that have."""

    metric: str
    start: int
    shards: Sequence[str]

    @property
    def pointers(self) -> list[Partition[PointerItem]]:
        """The partitions of its pointers."""
        return [layout.current_pk(self.metric, self.start, shard) for shard in self.shards]

    @property
    def versions(self) -> list[Partition[VersionItem]]:
        """The partitions of its versions in the index BY_BUCKET."""
        return [layout.bucket_pk(self.metric, self.start, shard) for shard in self.shards]

    def places(self, entities: Iterable[str]) -> Iterator[AggregatePlace]:
        """Yield those of these entities that may have versions in it."""
        return (
            AggregatePlace(self.metric, self.start, each)
            for each in entities
            if layout.entity_shard(each) in self.shards
        )


def listed_buckets(table: Table, metric: str, window: Window) -> Iterator[ListedBucket]:
    """Yield the buckets of a metric that start in the window and have versions, in order."""
    between = layout.time_key(window.start), layout.time_key(window.end)
    items = table.query_merged(layout.buckets_pks(metric, window), between=between)
    listed = (layout.listed_bucket(key_of(item)) for item in items)
    for (_, start), shards in groupby(listed, key=itemgetter(0, 1)):
        yield ListedBucket(metric, start, [shard for _, _, shard in shards])


@dataclass(frozen=True, slots=True)
class _Writing:
    """The write of what one task computed."""

    table: Table
    task: Task
    versions: Mapping[str, int]
    known_until: int
    reason: str
    actor: str
    listed: set[Key[Any]] = field(default_factory=set)
    """The last buckets that it listed, by their keys: a task has many rows of each, one after the other."""

    def write(self, rows: Sequence[Computed]) -> list[VersionItem] | None:
        """Write the versions of some rows and return them, those that were there already as they are; None if the run
        is cancelled."""
        places = [AggregatePlace(row.metric, row.bucket, row.entity_id) for row in rows]
        keys: list[Key[Any]] = [layout.run_key(self.task.run_id), *map(layout.current_key, places)]
        found = self.table.get_many(keys)
        if found.get(keys[0], {}).get("state") == RunState.CANCELLED:
            return None
        items = [
            self._item(row, place, found.get(layout.current_key(place)))
            for row, place in zip(rows, places, strict=True)
        ]
        buckets = {key_of(item): item for item in map(layout.bucket_item, places)}
        unlisted = [item for key, item in buckets.items() if key not in self.listed]
        inserted = list(self.table.insert_many([*unlisted, *items]))[len(unlisted) :]
        if len(self.listed) > _LISTED:
            self.listed.clear()
        self.listed.update(buckets)
        there: list[Key[VersionItem]] = [key_of(item) for item, new in zip(items, inserted, strict=True) if not new]
        before = self.table.get_many(there)
        return [before.get(key_of(item), item) for item in items]

    def _item(self, row: Computed, place: AggregatePlace, current: PointerItem | None) -> VersionItem:
        value, before = None if row.value is None else decimal_text(row.value), current["value"] if current else ""
        if before:
            kind = "removed" if not value else "unchanged" if value == before else "changed"
        else:
            kind = "new" if value else ""
        inputs = row.inputs, row.input_ids, row.input_contents
        why = self.versions[row.metric], self.known_until, self.reason, self.actor, kind, ""
        base = current["run"] if current else None
        return layout.version_item(VersionRow(*(*place, self.task.run_id, value, *inputs, base, *why)))


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
    name, version, definition, applied_at, scale, actor, reason, retired = columns = metric_columns(metric)
    return {
        "pk": METRICS,
        "sk": f"{name}/{version:06d}",
        "definition": definition,
        "applied_at": applied_at,
        "scale": scale,
        "actor": actor,
        "reason": reason,
        "retired": retired,
        "digest": row_digest("metric", *columns),
    }


def metric_is_sound(item: MetricItem) -> bool:
    """Return whether the item of a version of a metric is as it was written."""
    name, _, version = item["sk"].rpartition("/")
    columns = (item.get(column) for column in _METRIC)
    return item.get("digest") == row_digest("metric", name, int(version), *columns)


_METRIC = ("definition", "applied_at", "scale", "actor", "reason", "retired")
"""The attributes of a version of a metric, in the order of its digest."""


def metric_of(item: MetricItem) -> Metric:
    """Return the version of a metric of an item. Raises Damaged."""
    name, _, version = item["sk"].rpartition("/")
    if not metric_is_sound(item):
        raise damaged_row(f"the definition of {name} version {int(version)}")
    why = item["actor"], item["reason"], item["retired"]
    return metric_of_columns(int(version), item["definition"], item["applied_at"], item["scale"], *why)

"""Aggregate versions in the state table, and which of them is current.

A version is an item of its run; a pointer to the current one is a copy of it, in a partition of its bucket.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from pik.model.metric import Aggregate, BucketDigest, Computed, DigestLines, bucket_digests, digest_line
from pik.model.run import Task
from pik.model.window import Window
from pik.ports.state import Change, Promoted, Promotion
from pik.stores.aws.state.keys import US, key_time, run_pk, time_key
from pik.stores.aws.state.move_pointers import PROMOTIONS, Promoting, promotion_of
from pik.stores.aws.state.versions import aggregate, current_key, is_sound, row_of, version_key
from pik.stores.aws.state.write_versions import TALLY, Writing
from pik.stores.aws.table import READS, Item, Table, batched

_BY_BUCKET = ("by_bucket", "bucket_key", "version_key")


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
        computed_by: str = "",
    ) -> None:
        Writing(self.table, task, versions, known_until, reason, computed_by).write(rows)

    def current(
        self,
        metric: str,
        window: Window,
        entities: Sequence[str] = (),
        *,
        history: bool = False,
        checked: bool = False,
    ) -> Iterator[Aggregate]:
        wanted = sorted(set(entities))
        if history:
            return self._history(metric, window, wanted, checked=checked or bool(wanted))
        if wanted:
            return self._some(metric, window, wanted)
        return (
            aggregate(row, item, current=True, sound=not checked or is_sound(row, item))
            for bucket in self._buckets(metric, window)
            for item in self._pointers(metric, bucket)
            for row in (row_of(item),)
        )

    def digests(self, metric: str, window: Window) -> Iterator[BucketDigest]:
        return bucket_digests(metric, self._digest_lines(metric, window))

    def _digest_lines(self, metric: str, window: Window) -> Iterator[DigestLines]:
        for bucket in self._buckets(metric, window):
            for item in self._pointers(metric, bucket):
                line = None
                if item["value"]:
                    hashes = item["input_ids"].hex().upper(), item["input_contents"].hex().upper()
                    line = digest_line(item["sk"], item["value"], item["inputs"], *hashes)
                yield bucket, line, line is None, item["metric_version"], item["metric_version"]

    def changes(self, run_id: str) -> Iterator[Change]:
        for items in batched(self.table.query(f"version/{run_id}"), READS):
            rows = [row_of(item) for item in items]
            bases = {version_key(item["base"], row) for item, row in zip(items, rows, strict=True) if item["base"]}
            found = self.table.get_many([*map(current_key, rows), *bases])
            for item, row in zip(items, rows, strict=True):
                current = found.get(current_key(row), {}).get("run")
                base = found.get(version_key(item["base"], row))
                yield Change(
                    aggregate(row, item, current=current == run_id),
                    None if base is None else aggregate(row, base, current=current == item["base"]),
                )

    def tally(self, run_id: str) -> tuple[int, int, int, int]:
        states = list(self.table.query(run_pk(run_id), prefix="state/"))
        new, changed, unchanged, removed = (sum(state.get(name, 0) for state in states) for name in TALLY)
        return new, changed, unchanged, removed

    def promote(self, run_id: str, at: int, reason: str, *, dry_run: bool = False) -> Promoted:
        return Promoting(self.table, "promote", run_id).move(at, reason, dry_run=dry_run)

    def rollback(self, run_id: str, at: int, reason: str, *, dry_run: bool = False) -> Promoted:
        return Promoting(self.table, "rollback", run_id).move(at, reason, dry_run=dry_run)

    def promotions(self) -> Iterator[Promotion]:
        return map(promotion_of, self.table.query(PROMOTIONS, descending=True))

    def _buckets(self, metric: str, window: Window) -> Iterator[int]:
        between = time_key(window.start), time_key(window.end - 1)
        return (key_time(item["sk"]) for item in self.table.query(f"buckets/{metric}", between=between))

    def _pointers(self, metric: str, bucket: int) -> Iterator[Item]:
        return self.table.query(f"current/{metric}/{time_key(bucket)}")

    def _some(self, metric: str, window: Window, entities: Sequence[str]) -> Iterator[Aggregate]:
        pairs = ((bucket, entity) for bucket in self._buckets(metric, window) for entity in entities)
        keys = ((f"current/{metric}/{time_key(bucket)}", entity) for bucket, entity in pairs)
        for some in batched(keys, READS):
            found = self.table.get_many(some)
            for key in some:
                if key in found:
                    row = row_of(found[key])
                    yield aggregate(row, found[key], current=True, sound=is_sound(row, found[key]))

    def _history(self, metric: str, window: Window, entities: Sequence[str], *, checked: bool) -> Iterator[Aggregate]:
        prefixes = [f"{entity}{US}" for entity in entities] or [""]
        for items in batched(self._versions(metric, window, prefixes), READS):
            rows = [row_of(item) for item in items]
            pointers = self.table.get_many({current_key(row) for row in rows})
            for item, row in zip(items, rows, strict=True):
                pointer = pointers.get(current_key(row))
                current = pointer is not None and pointer.get("run") == item["run"]
                sound = not checked or (is_sound(row, item) and (pointer is None or is_sound(row, pointer)))
                yield aggregate(row, item, current=current, sound=sound)

    def _versions(self, metric: str, window: Window, prefixes: Sequence[str]) -> Iterator[Item]:
        for bucket, prefix in product(self._buckets(metric, window), prefixes):
            yield from self.table.query(f"{metric}{US}{time_key(bucket)}", prefix=prefix, index=_BY_BUCKET)

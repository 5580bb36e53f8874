"""Aggregate versions in the state table, and which of them is current.

A version is an item of its run; a pointer to the current one is a copy of it, in a partition of its bucket.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from tempfile import SpooledTemporaryFile
from typing import NamedTuple

import msgspec

from pik.model.metric import Aggregate, BucketDigest, Computed, DigestLines, bucket_digests, digest_line
from pik.model.run import RunState, Task
from pik.model.window import Window
from pik.ports.state import Change, Promoted, Promotion
from pik.stores.aws.clients import Flow
from pik.stores.aws.state.items import (
    RUN,
    US,
    Row,
    aggregate,
    bucket_item,
    current_key,
    is_sound,
    key_time,
    row_of,
    run_pk,
    task_sk,
    time_key,
    value_text,
    version_item,
    version_key,
)
from pik.stores.aws.state.move_pointers import PROMOTIONS, Promoting, promotion_of
from pik.stores.aws.table import READS, Item, Key, Table, Value, batched
from pik.stores.state_rows import NO_ROWS, row_digest, xor_of

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


TALLY = ("new", "changed", "unchanged", "removed")

_CHUNK = READS - 1  # their pointers and the run are one read
_IN_MEMORY = 1 << 20

_read_row = msgspec.json.Decoder(Computed).decode


@dataclass(frozen=True, slots=True)
class Writing:
    """One write of one task."""

    table: Table
    task: Task
    versions: Mapping[str, int]
    known_until: int
    reason: str
    computed_by: str = ""

    def write(self, rows: Iterable[Computed]) -> None:
        """Write the rows; those that are there already stay. Then the task's state tells how all of them compare."""
        tally: Counter[str] = Counter()
        digests = NO_ROWS
        with _staged(rows) as staged:
            for written in Flow().map(self._write, batched(staged, _CHUNK)):
                if written is None:  # the run was cancelled
                    return
                tally.update(written.kinds)
                digests = xor_of([written.digests], digests)
        self._tell(tally, digests)

    def _write(self, rows: Sequence[Computed]) -> _Written | None:
        """Write some rows, and count how they compare with what was current when they were first written."""
        places = [Row(row.metric, row.bucket, row.entity_id) for row in rows]
        found = self.table.get_many([self._run, *map(current_key, places)])
        if found.get(self._run, {}).get("state") == RunState.CANCELLED:
            return None
        items = [self._item(row, place, found.get(current_key(place))) for row, place in zip(rows, places, strict=True)]
        buckets = {(place.metric, place.bucket): bucket_item(place) for place in places}
        inserted = list(self.table.insert_many([*buckets.values(), *items]))[len(buckets) :]
        there = [(item["pk"], item["sk"]) for item, new in zip(items, inserted, strict=True) if not new]
        before = self.table.get_many(there)
        kept = [before.get((item["pk"], item["sk"]), item) for item in items]
        return _Written(Counter(item["kind"] for item in kept), xor_of(item["digest"] for item in kept))

    @property
    def _run(self) -> Key:
        return run_pk(self.task.run_id), RUN

    def _item(self, row: Computed, place: Row, current: Item | None) -> Item:
        value = value_text(row.value)
        return version_item(
            place,
            run_id=self.task.run_id,
            value=value,
            inputs=(row.inputs, bytes.fromhex(row.input_ids), bytes.fromhex(row.input_contents)),
            known=(self.versions[row.metric], self.known_until, self.reason),
            base=current["run"] if current else "",
            kind=_kind(value, current["value"] if current else ""),
        )

    def _tell(self, tally: Counter[str], digests: bytes) -> None:
        """Two writers of one task may have computed different rows: the count of more of them stays."""
        counts = {name: tally[name] for name in TALLY}
        values: dict[str, Value] = {
            **counts,
            "written": tally.total(),
            "versions_xor": digests,
            "computed_by": self.computed_by,
        }
        values["tally_digest"] = tally_digest(self.task.run_id, self.task.number, values)
        self.table.update(
            (run_pk(self.task.run_id), task_sk("state", self.task)),
            "SET " + ", ".join(f"#{name} = :{name}" for name in values),
            values,
            condition="attribute_not_exists(#written) OR #written <= :written",
        )


class _Written(NamedTuple):
    """How the versions of some rows compare with what was current, and the XOR of their digests."""

    kinds: Counter[str]
    digests: bytes


def tally_digest(run_id: str, number: int, state: Mapping[str, Value]) -> bytes:
    """The digest of what a task's state says of its versions."""
    counted = (*TALLY, "written", "versions_xor", "computed_by")
    return row_digest("tally", run_id, number, *(state[name] for name in counted))


def _kind(value: str, before: str) -> str:
    if not before:
        return "new" if value else ""
    if not value:
        return "removed"
    return "unchanged" if value == before else "changed"


@contextmanager
def _staged(rows: Iterable[Computed]) -> Iterator[Iterator[Computed]]:
    """The rows once all of them are made: should that fail, nothing is written. In bounded memory."""
    with SpooledTemporaryFile(_IN_MEMORY) as file:
        file.writelines(msgspec.json.encode(row) + b"\n" for row in rows)
        file.seek(0)
        yield map(_read_row, file)

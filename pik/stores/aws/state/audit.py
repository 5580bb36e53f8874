"""Checking the state table against itself: one scan, in which each item is checked by itself and counted.

Others may write meanwhile, and a scan is not of one moment. Runs are compared with their versions only if they had
ended before it, and pointers with promotions only if there was no promotion during it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import msgspec

from pik.model.run import ACTIVE, RunState
from pik.ports.state import StateProblem
from pik.stores import state_rows as found
from pik.stores.aws import queue
from pik.stores.aws.lease import lives
from pik.stores.aws.state import layout
from pik.stores.aws.state.aggregates import metric_is_sound
from pik.stores.aws.state.layout import PointerItem, VersionItem
from pik.stores.aws.state.move_pointers import promotion_is_sound
from pik.stores.aws.state.republishes import refusal_is_sound, republish_is_sound
from pik.stores.aws.state.runs import failures_are_sound, run_is_sound, task_is_sound, task_state_is_sound
from pik.stores.aws.table import Item, Key, Partition, Table, key_of
from pik.stores.state_rows import AggregatePlace, RowTally, pointer_digest, read_republish, read_run, xor_of

_COPIED = (layout.METRICS, layout.PROMOTIONS)
"""The partitions of which each item has a copy."""


@dataclass(slots=True)
class _Scan:
    """What a scan has counted, by run where that matters."""

    versions: dict[str, RowTally] = field(default_factory=lambda: defaultdict(RowTally))
    kinds: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    written: dict[str, RowTally] = field(default_factory=lambda: defaultdict(RowTally))
    written_kinds: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    tasks: Counter[str] = field(default_factory=Counter)
    settled: Counter[str] = field(default_factory=Counter)
    runs: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    moving: set[str] = field(default_factory=set)
    failing: set[tuple[str, str]] = field(default_factory=set)
    failures: set[tuple[str, str]] = field(default_factory=set)
    pointers: RowTally = field(default_factory=RowTally)
    buckets: set[Key[Any]] = field(default_factory=set)
    needed: set[Key[Any]] = field(default_factory=set)
    copies: dict[str, dict[str, Item]] = field(default_factory=lambda: defaultdict(dict))
    originals: dict[str, dict[str, Item]] = field(default_factory=lambda: defaultdict(dict))
    of_run: dict[str, Item] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class AwsStateAudit:
    """Implements the port."""

    table: Table

    def problems(self) -> Iterator[StateProblem]:
        ended = self._ended()
        ended_republishes = self._ended_republishes()
        before = self._promotions()
        scan = _Scan()
        for item in self.table.scan():
            if problem := _check(item, scan):
                yield problem
        yield from self._runs(scan, ended)
        unlisted = (key for key in scan.needed - scan.buckets if self._is_missing(Partition(key[0]), key[1]))
        for metric, start in sorted({layout.listed_bucket(key)[:2] for key in unlisted}):
            detail = "it has versions, and is not listed"
            yield StateProblem(f"bucket of {metric}", detail, found.RECOMPUTE, start)
        if not scan.moving and before == self._promotions():
            yield from self._pointers(scan)
        for kind in _COPIED:
            yield from self._copies(scan, kind)
        yield from self._refusals(scan, ended_republishes)

    def _refusals(self, scan: _Scan, ended: set[str]) -> Iterator[StateProblem]:
        """Compare republishes with their refusals, of which an interruption may have left too many."""
        for republish_id, counted in sorted(scan.refused.items()):
            if republish_id in ended and (there := scan.refusals[republish_id]) < counted:
                yield found.refusals_lost(republish_id, counted, there)
        for republish_id in sorted(scan.refusals.keys() - scan.refused.keys()):
            if self._is_missing(layout.REPUBLISHES, republish_id):
                yield found.republish_lost(republish_id)

    def _ended(self) -> dict[str, tuple[int | None, bool]]:
        """Return the runs that have ended: the number of their tasks, if it can be read, and whether they were
        cancelled."""
        keys = {item["sk"]: layout.run_key(item["sk"]) for item in self.table.query(layout.RUNS)}
        items = self.table.get_many(keys.values())
        ended = {}
        for run_id, key in keys.items():
            if (item := items.get(key)) and (state := item.get("state")) not in ACTIVE:
                try:
                    tasks = read_run(item["body"]).tasks
                except msgspec.MsgspecError:
                    tasks = None
                ended[run_id] = tasks, state == RunState.CANCELLED
        return ended

    def _ended_republishes(self) -> set[str]:
        """Return the republishes whose refusals no process changes."""
        found = {item["sk"]: item for item in self.table.query(layout.REPUBLISHES)}
        sound = (read_republish(item["body"]) for item in found.values() if republish_is_sound(item))
        return {one.republish_id for one in sound if not lives(self.table, f"republish {one.republish_id}")}

    def _promotions(self) -> set[str]:
        return {item["sk"] for item in self.table.query(layout.PROMOTIONS)}

    def _is_missing(self, pk: Partition[Any], sk: str) -> bool:
        """Return whether there is no such item now either: it may have been written after the scan passed its key."""
        key: Key[Any] = Key((pk, sk))
        return self.table.get(key) is None

    def _runs(self, scan: _Scan, ended: dict[str, tuple[int | None, bool]]) -> Iterator[StateProblem]:
        for run_id, (planned, cancelled) in ended.items():
            written, there = (rows.get(run_id, RowTally()) for rows in (scan.written, scan.versions))
            # A task that was done twice at once may have left more versions than either of the two counted.
            if there.count < written.count or (there.count == written.count and there.xor != written.xor):
                yield found.versions_lost(run_id, written.count, there.count)
            if there.count == written.count and scan.kinds[run_id] != scan.written_kinds[run_id]:
                yield found.row_altered(f"what the versions of run {run_id} change")
            if planned is not None and run_id in scan.runs:
                tasks = min(scan.tasks[run_id], planned if cancelled else scan.settled[run_id])
                if tasks != planned:
                    yield found.tasks_lost(run_id, planned, tasks)
        for run_id, sk in sorted(scan.failing - scan.failures):
            if self._is_missing(layout.run_pk(run_id), sk):
                yield found.row_lost(f"what failed in run {run_id}", f"the state of its task, as {sk}")
        # A run that is being created is listed first, and has its own item last.
        for run_id in sorted((scan.versions.keys() | scan.begun) - scan.runs):
            if self._is_missing(layout.run_pk(run_id), layout.RUN):
                yield found.run_lost(run_id)
        for run_id in sorted(scan.runs - scan.listed):
            if self._is_missing(layout.RUNS, run_id):
                yield StateProblem(
                    f"run {run_id}", "it is not listed, so `pik runs list` does not show it", found.RESTORE
                )

    def _pointers(self, scan: _Scan) -> Iterator[StateProblem]:
        promotions = [item for _, item in sorted(scan.originals[layout.PROMOTIONS].items())]
        expected = sum(item["pointers"] for item in promotions), xor_of(item["pointers_xor"] for item in promotions)
        if (scan.pointers.count, scan.pointers.xor) == expected:
            return
        moves = [(str(item["kind"]), str(item["run"])) for item in promotions]
        for metric, bucket, shard in sorted(map(layout.listed_bucket, scan.needed)):
            listed = self.table.query(layout.current_pk(metric, bucket, shard))
            pointers = {layout.place_of(item).entity: item["run"] for item in listed}
            versions = self.table.query(layout.bucket_pk(metric, bucket, shard), index=layout.BY_BUCKET)
            for entity, items in groupby(versions, key=lambda item: layout.place_of(item).entity):
                bases = {item["run"]: item["base"] or None for item in items}
                now = pointers.pop(entity, None)
                place = AggregatePlace(metric, bucket, entity)
                if now is not None and now not in bases:
                    yield found.pointer_without_version(place, now)
                elif problem := found.pointer_differs(place, now, bases, moves):
                    yield problem
            for entity, run_id in pointers.items():
                yield found.pointer_without_version(AggregatePlace(metric, bucket, entity), run_id)

    def _copies(self, scan: _Scan, kind: Partition[Any]) -> Iterator[StateProblem]:
        originals, copies = scan.originals[kind], scan.copies[kind]
        for sk in sorted(originals.keys() | copies.keys()):
            item, copy = originals.get(sk), copies.get(sk)
            if (item or copy or {}).get("run") in scan.moving:
                continue  # it is being written
            what, sealed = f"{kind} {sk}", f"{layout.SEALED}/{kind}"
            if item is None:
                if self._is_missing(kind, sk):
                    yield found.row_lost(what, f"the item {sealed} {sk}")
            elif copy is None or {**copy, "pk": kind} != item:
                if copy is not None or self._is_missing(Partition(sealed), sk):
                    yield found.copy_lost(what, f"(the item {sealed} {sk})")
            elif kind == layout.PROMOTIONS:
                beside = scan.of_run.get(sk)
                if beside is None or beside["digest"] != item["digest"]:
                    yield found.copy_lost(what, f"(the item run/{item['run']} promotion/{sk})")


def _check(item: Any, scan: _Scan) -> StateProblem | None:
    """Count an item, and return its problem if it has one."""
    pk, sk = item["pk"], item["sk"]
    kind, _, rest = pk.partition("/")
    try:
        match kind:
            case "version":
                return _check_version(item, scan)
            case "current":
                return _check_pointer(item, scan)
            case "run":
                return _check_of_run(item, rest, scan)
            case "buckets":
                scan.buckets.add(key_of(item))
            case layout.RUNS:
                scan.listed.add(sk)
            case layout.METRICS | layout.PROMOTIONS:
                scan.originals[kind][sk] = item
                if not (metric_is_sound(item) if kind == layout.METRICS else promotion_is_sound(item)):
                    return found.row_altered(f"{kind} {sk}")
            case layout.SEALED:
                scan.copies[rest][sk] = item
            case queue.PURGED:
                return None if queue.letter_is_sound(item) else found.row_altered(f"dead letter {sk}")
            case layout.REPUBLISHES:
                if not republish_is_sound(item):
                    return found.row_altered(f"republish {sk}")
                scan.refused[sk] = read_republish(item["body"]).refused
            case "refused":
                scan.refusals[rest] += 1
                if not refusal_is_sound(item):
                    return found.row_altered(f"refusal of republish {rest}")
            case "restore":
                detail = "a restore was interrupted, or is under way"
                return StateProblem("the state", detail, "the same file again: pik restore FILE")
    except (KeyError, ValueError, TypeError):
        return found.row_altered(f"item {pk} {sk}".replace(layout.US, " "))
    return None


def _check_version(item: VersionItem, scan: _Scan) -> StateProblem | None:
    place, run_id = layout.place_of(item), layout.run_of(item)
    scan.kinds[run_id][item["kind"]] += 1
    scan.versions[run_id].add(item["digest"])
    scan.needed.add(key_of(layout.bucket_item(place)))
    keys = layout.version_key(run_id, place), layout.by_bucket(run_id, place)
    sound = item["run"] == run_id and (key_of(item), (item["bucket_key"], item["version_key"])) == keys
    return None if sound and layout.is_sound(place, item) else found.version_altered(place, run_id)


def _check_pointer(item: PointerItem, scan: _Scan) -> StateProblem | None:
    place = layout.place_of(item)
    scan.pointers.add(pointer_digest(*place, item["run"]))
    scan.needed.add(key_of(layout.bucket_item(place)))
    sound = key_of(item) == layout.current_key(place) and layout.is_sound(place, item)
    return None if sound else found.pointer_altered(place)


def _check_of_run(item: Any, run_id: str, scan: _Scan) -> StateProblem | None:
    kind, _, rest = item["sk"].partition("/")
    what, sound = f"run {run_id}", True
    match kind:
        case layout.RUN:
            scan.runs.add(run_id)
            sound = run_is_sound(item)
        case "task":
            scan.tasks[run_id] += 1
            what, sound = f"task {int(rest)} of run {run_id}", task_is_sound(item)
        case "state":
            scan.begun.add(run_id)
            scan.settled[run_id] += "state" in item
            if "written" in item:
                counts = {name: item[name] for name in layout.TALLY}
                scan.written[run_id].add(item["versions_xor"], item["written"])
                scan.written_kinds[run_id].update({**counts, "": item["written"] - sum(counts.values())})
            if item.get("failing") and item["failures"]:
                scan.failing.add((run_id, item["failures"]))
            what, sound = f"the state of task {int(rest)} of run {run_id}", task_state_is_sound(item)
        case "failures":
            scan.failures.add((run_id, item["sk"]))
            what = f"what failed in task {int(rest.partition('/')[0])} of run {run_id}"
            sound = failures_are_sound(item)
        case "promotion":
            scan.begun.add(run_id)
            scan.of_run[rest] = item
            what, sound = f"promotion {rest} of run {run_id}", promotion_is_sound(item)
        case layout.MOVING:
            scan.moving.add(run_id)
    return None if sound else found.row_altered(what)

"""Checking the state table against itself: one scan, in which each item is checked by itself and counted.

Others may write meanwhile, and a scan is not of one moment. Runs are compared with their versions only if they had
ended before it, and pointers with promotions only if there was no promotion during it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import msgspec

from pik.model.run import RunState
from pik.ports.state import StateProblem
from pik.stores import state_rows as found
from pik.stores.aws.queue import PURGED, letter_is_sound
from pik.stores.aws.state import layout
from pik.stores.aws.state.backup import RESTORE
from pik.stores.aws.state.metrics import metric_is_sound
from pik.stores.aws.state.move_pointers import promotion_is_sound
from pik.stores.aws.state.runs import failures_are_sound, run_is_sound, task_is_sound, task_state_is_sound
from pik.stores.aws.table import Item, Key, Partition, Table
from pik.stores.state_rows import NO_ROWS, Place, pointer_digest, read_run, xor_of

_COPIED = (layout.METRICS, layout.PROMOTIONS)
"""The partitions of which each item has a copy."""


@dataclass(slots=True)
class _Rows:
    """How many rows a run has, and the XOR of their digests."""

    count: int = 0
    xor: bytes = NO_ROWS
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, count: int, digest: bytes) -> None:
        self.count, self.xor = self.count + count, xor_of([digest], self.xor)


@dataclass(slots=True)
class _Scan:
    """What a scan has counted, by run where that matters."""

    versions: dict[str, _Rows] = field(default_factory=lambda: defaultdict(_Rows))
    written: dict[str, _Rows] = field(default_factory=lambda: defaultdict(_Rows))
    tasks: Counter[str] = field(default_factory=Counter)
    settled: Counter[str] = field(default_factory=Counter)
    runs: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    moving: set[str] = field(default_factory=set)
    failing: set[tuple[str, str]] = field(default_factory=set)
    failures: set[tuple[str, str]] = field(default_factory=set)
    pointers: _Rows = field(default_factory=_Rows)
    buckets: set[tuple[str, int]] = field(default_factory=set)
    needed: set[tuple[str, int]] = field(default_factory=set)
    copies: dict[str, dict[str, Item]] = field(default_factory=lambda: defaultdict(dict))
    originals: dict[str, dict[str, Item]] = field(default_factory=lambda: defaultdict(dict))
    of_run: dict[str, Item] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AwsStateAudit:
    """Implements the port."""

    table: Table

    def problems(self) -> Iterator[StateProblem]:
        ended = self._ended()
        before = self._promotions()
        scan = _Scan()
        for item in self.table.scan():
            yield from _problems_of(item, scan)
        yield from self._runs(scan, ended)
        for metric, bucket in sorted(scan.needed - scan.buckets):
            if self._is_missing(layout.buckets_pk(metric), layout.time_key(bucket)):
                detail = "it has versions, and is not listed"
                yield StateProblem(f"bucket of {metric}", detail, found.RECOMPUTE, bucket)
        if not scan.moving and before == self._promotions():
            yield from self._pointers(scan)
        for kind in _COPIED:
            yield from self._copies(scan, kind)

    def _ended(self) -> dict[str, tuple[int | None, bool]]:
        """Return the runs that have ended: the number of their tasks, if it can be read, and whether they were
        cancelled."""
        keys = {item["sk"]: layout.run_key(item["sk"]) for item in self.table.query(layout.RUNS)}
        items = self.table.get_many(keys.values())
        ended = {}
        for run_id, key in keys.items():
            if (item := items.get(key)) and (state := item.get("state")) not in (RunState.PLANNED, RunState.RUNNING):
                try:
                    tasks = read_run(item["body"]).tasks
                except msgspec.MsgspecError:
                    tasks = None
                ended[run_id] = tasks, state == RunState.CANCELLED
        return ended

    def _promotions(self) -> set[str]:
        return {item["sk"] for item in self.table.query(layout.PROMOTIONS)}

    def _is_missing(self, pk: Partition[Any], sk: str) -> bool:
        """Return whether there is no such item now either: it may have been written after the scan passed its key."""
        key: Key[Any] = Key((pk, sk))
        return self.table.get(key) is None

    def _runs(self, scan: _Scan, ended: dict[str, tuple[int | None, bool]]) -> Iterator[StateProblem]:
        for run_id, (planned, cancelled) in ended.items():
            written, there = (rows.get(run_id, _Rows()) for rows in (scan.written, scan.versions))
            # A task that was done twice at once may have left more versions than either of the two counted.
            if there.count < written.count or (there.count == written.count and there.xor != written.xor):
                yield found.versions_lost(run_id, written.count, there.count)
            if there.count == written.count and there.kinds != written.kinds:
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
        for metric, bucket in sorted(scan.needed):
            pointers = {item["sk"]: item["run"] for item in self.table.query(layout.current_pk(metric, bucket))}
            versions = self.table.query(layout.bucket_pk(metric, bucket), index=layout.BY_BUCKET)
            for entity, items in groupby(versions, key=lambda item: layout.place_of(item).entity):
                bases = {item["run"]: item["base"] or None for item in items}
                now = pointers.pop(entity, None)
                place = Place(metric, bucket, entity)
                if now is not None and now not in bases:
                    yield found.pointer_without_version(place, now)
                elif not found.is_explained(now, bases, moves):
                    yield found.pointer_differs(place, now, found.expected_pointer(bases, moves)[0])
            for entity, run_id in pointers.items():
                yield found.pointer_without_version(Place(metric, bucket, entity), run_id)

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


def _problems_of(item: Item, scan: _Scan) -> Iterator[StateProblem]:
    """Count an item, and yield its problem if it has one."""
    kind, _, rest = item["pk"].partition("/")
    try:
        if kind in _CHECKS:
            yield from _CHECKS[kind](item, rest, scan)
    except (KeyError, ValueError, TypeError):
        yield found.row_altered(f"item {item['pk']} {item['sk']}".replace(layout.US, " "))


def _version(item: Any, run_id: str, scan: _Scan) -> Iterator[StateProblem]:
    place, rows = layout.place_of(item), scan.versions[run_id]
    rows.kinds[item["kind"]] += 1
    rows.add(1, item["digest"])
    scan.needed.add((place.metric, place.bucket))
    indexed = layout.bucket_pk(place.metric, place.bucket), f"{place.entity}{layout.US}{run_id}"
    if (
        item["run"] != run_id
        or (item["bucket_key"], item["version_key"]) != indexed
        or not layout.is_sound(place, item)
    ):
        yield found.version_altered(place, run_id)


def _current(item: Any, _: str, scan: _Scan) -> Iterator[StateProblem]:
    place = layout.place_of(item)
    scan.pointers.add(1, pointer_digest(place.metric, place.bucket, place.entity, item["run"]))
    scan.needed.add((place.metric, place.bucket))
    if not layout.is_sound(place, item):
        yield found.pointer_altered(place)


def _run(item: Any, run_id: str, scan: _Scan) -> Iterator[StateProblem]:
    kind, _, rest = item["sk"].partition("/")
    if kind == layout.RUN:
        scan.runs.add(run_id)
        if not run_is_sound(item):
            yield found.row_altered(f"run {run_id}")
    elif kind == "task":
        scan.tasks[run_id] += 1
        if not task_is_sound(item):
            yield found.row_altered(f"task {int(rest)} of run {run_id}")
    elif kind == "state":
        scan.begun.add(run_id)
        scan.settled[run_id] += "state" in item
        if "written" in item:
            rows, counts = scan.written[run_id], {name: item[name] for name in layout.TALLY}
            rows.add(item["written"], item["versions_xor"])
            rows.kinds.update({**counts, "": item["written"] - sum(counts.values())})
        if not task_state_is_sound(item):
            yield found.row_altered(f"the state of task {int(rest)} of run {run_id}")
        if item.get("failing") and item["failures"]:
            scan.failing.add((run_id, item["failures"]))
    elif kind == "failures":
        scan.failures.add((run_id, item["sk"]))
        if not failures_are_sound(item):
            yield found.row_altered(f"what failed in task {int(rest.partition('/')[0])} of run {run_id}")
    elif kind == "promotion":
        scan.begun.add(run_id)
        scan.of_run[rest] = item
        if not promotion_is_sound(item):
            yield found.row_altered(f"promotion {rest} of run {run_id}")
    elif kind == layout.MOVING:
        scan.moving.add(run_id)


def _metric(item: Any, _: str, scan: _Scan) -> Iterator[StateProblem]:
    scan.originals[layout.METRICS][item["sk"]] = item
    if not metric_is_sound(item):
        yield found.row_altered(f"metric {item['sk']}")


def _promotion(item: Any, _: str, scan: _Scan) -> Iterator[StateProblem]:
    scan.originals[layout.PROMOTIONS][item["sk"]] = item
    if not promotion_is_sound(item):
        yield found.row_altered(f"promotion {item['sk']}")


def _sealed(item: Any, kind: str, scan: _Scan) -> Iterator[StateProblem]:
    scan.copies[kind][item["sk"]] = item
    yield from ()


def _purged(item: Any, _: str, __: _Scan) -> Iterator[StateProblem]:
    if not letter_is_sound(item):
        yield found.row_altered(f"dead letter {item['sk']}")


def _bucket(item: Any, metric: str, scan: _Scan) -> Iterator[StateProblem]:
    scan.buckets.add((metric, layout.key_time(item["sk"])))
    yield from ()


def _listing(item: Any, _: str, scan: _Scan) -> Iterator[StateProblem]:
    scan.listed.add(item["sk"])
    yield from ()


def _restore(_: Any, __: str, ___: _Scan) -> Iterator[StateProblem]:
    what = "a restore was interrupted, or is under way"
    yield StateProblem("the state", what, "the same file again: pik restore FILE")


_CHECKS: dict[str, Callable[[Any, str, _Scan], Iterator[StateProblem]]] = {
    "version": _version,
    "current": _current,
    "run": _run,
    "buckets": _bucket,
    layout.RUNS: _listing,
    layout.METRICS: _metric,
    layout.PROMOTIONS: _promotion,
    layout.SEALED: _sealed,
    PURGED: _purged,
    RESTORE[0]: _restore,
}

"""Holding the state table against itself: one scan, in which each item is looked at by itself and counted.

Others may write meanwhile, and a scan is of no one moment. Runs are held against their versions only if they had ended
before it, and pointers against promotions only if nobody promoted during it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from pik.model.run import RunState
from pik.ports.state import StateProblem
from pik.stores import state_rows as found
from pik.stores.aws.queue import PURGED, letter_is_sound
from pik.stores.aws.state.aggregates import TALLY
from pik.stores.aws.state.items import RUN, SEALED, US, is_sound, key_time, row_of, time_key
from pik.stores.aws.state.metrics import METRICS, metric_is_sound
from pik.stores.aws.state.move_pointers import PROMOTIONS, UNDER_WAY, promotion_is_sound
from pik.stores.aws.state.runs import (
    LISTING,
    failures_are_sound,
    planned_tasks,
    run_is_sound,
    task_is_sound,
    task_state_is_sound,
)
from pik.stores.aws.table import Item, Table
from pik.stores.state_rows import NO_ROWS, Place, pointer_digest, xor_of

_BY_BUCKET = ("by_bucket", "bucket_key", "version_key")


@dataclass(slots=True)
class _Seen:
    """What a scan has counted, by run where that matters."""

    versions: dict[str, tuple[int, bytes]] = field(default_factory=lambda: defaultdict(lambda: (0, NO_ROWS)))
    written: dict[str, tuple[int, bytes]] = field(default_factory=lambda: defaultdict(lambda: (0, NO_ROWS)))
    kinds: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    tallied: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    tasks: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    settled: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    runs: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    moving: set[str] = field(default_factory=set)
    failing: set[tuple[str, str]] = field(default_factory=set)
    failures: set[tuple[str, str]] = field(default_factory=set)
    pointers: int = 0
    pointers_xor: bytes = NO_ROWS
    buckets: set[tuple[str, str]] = field(default_factory=set)
    needed: set[tuple[str, str]] = field(default_factory=set)
    copies: dict[str, dict[str, Item]] = field(default_factory=lambda: {METRICS: {}, PROMOTIONS: {}})
    originals: dict[str, dict[str, Item]] = field(default_factory=lambda: {METRICS: {}, PROMOTIONS: {}})
    of_run: dict[str, Item] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AwsStateAudit:
    """Implements the port."""

    table: Table

    def problems(self) -> Iterator[StateProblem]:
        ended, cancelled = self._ended()
        before = self._promotions()
        seen = _Seen()
        for item in self.table.scan():
            yield from _looked_at(item, seen)
        yield from self._runs(seen, ended, cancelled)
        yield from self._listings(seen)
        if not seen.moving and before == self._promotions():
            yield from self._pointers(seen)
        for kind in (METRICS, PROMOTIONS):
            yield from self._copies(seen, kind)

    def _ended(self) -> tuple[dict[str, int | None], set[str]]:
        """The runs that have ended, with the number of their tasks, and those of them that were cancelled."""
        ids = [item["sk"] for item in self.table.query(LISTING)]
        items = self.table.get_many((f"run/{run_id}", RUN) for run_id in ids)
        states = {run_id: items.get((f"run/{run_id}", RUN)) for run_id in ids}
        ended = {
            run_id: item
            for run_id, item in states.items()
            if item is not None and item.get("state") not in (RunState.PLANNED, RunState.RUNNING)
        }
        cancelled = {run_id for run_id, item in ended.items() if item.get("state") == RunState.CANCELLED}
        return {run_id: planned_tasks(item) for run_id, item in ended.items()}, cancelled

    def _promotions(self) -> set[str]:
        return {item["sk"] for item in self.table.query(PROMOTIONS)}

    def _runs(self, seen: _Seen, ended: dict[str, int | None], cancelled: set[str]) -> Iterator[StateProblem]:
        for run_id, planned in ended.items():
            written, total = seen.written.get(run_id, (0, NO_ROWS))
            there, there_total = seen.versions.get(run_id, (0, NO_ROWS))
            # A task that was done twice at once may have left more versions than either of the two counted.
            if there < written or (there == written and total != there_total):
                yield found.versions_lost(run_id, written, there)
            if there == written and seen.kinds[run_id] != seen.tallied[run_id]:
                yield found.row_altered(f"what the versions of run {run_id} change")
            if planned is not None and run_id in seen.runs:
                tasks = min(seen.tasks[run_id], seen.settled[run_id] if run_id not in cancelled else planned)
                if tasks != planned:
                    yield found.tasks_lost(run_id, planned, tasks)
        for run_id, sk in sorted(seen.failing - seen.failures):
            if self.table.get((f"run/{run_id}", sk)) is None:
                yield found.row_lost(f"what failed in run {run_id}", f"the state of its task, as {sk}")
        # One that is being created is listed first, and has its own item last.
        for run_id in sorted((seen.versions.keys() | seen.begun) - seen.runs):
            if self.table.get((f"run/{run_id}", RUN)) is None:
                yield found.run_lost(run_id)
        for run_id in sorted(seen.runs - seen.listed):
            if self.table.get((LISTING, run_id)) is None:
                yield StateProblem(f"run {run_id}", "it is not listed, so nobody finds it", found.RESTORE)

    def _listings(self, seen: _Seen) -> Iterator[StateProblem]:
        for metric, bucket in sorted(seen.needed - seen.buckets):
            if self.table.get((f"buckets/{metric}", bucket)) is None:
                yield StateProblem(
                    f"bucket of {metric}",
                    "it has versions, and is not listed",
                    found.RECOMPUTE,
                    key_time(bucket),
                )

    def _pointers(self, seen: _Seen) -> Iterator[StateProblem]:
        promotions = [item for _, item in sorted(seen.originals[PROMOTIONS].items())]
        expected = sum(item["pointers"] for item in promotions), xor_of(item["pointers_xor"] for item in promotions)
        if (seen.pointers, seen.pointers_xor) == expected:
            return
        moves = [(str(item["kind"]), str(item["run"])) for item in promotions]
        for metric, bucket in sorted(seen.needed):
            pointers = {item["sk"]: item["run"] for item in self.table.query(f"current/{metric}/{bucket}")}
            versions = self.table.query(f"{metric}{US}{bucket}", index=_BY_BUCKET)
            for entity, items in groupby(versions, key=lambda item: row_of(item).entity):
                bases = {item["run"]: item["base"] or None for item in items}
                now = pointers.pop(entity, None)
                place = Place(metric, key_time(bucket), entity)
                if now is not None and now not in bases:
                    yield found.pointer_without_version(place, now)
                elif not found.is_explained(now, bases, moves):
                    yield found.pointer_differs(place, now, found.expected_pointer(bases, moves)[0])
            for entity, run_id in pointers.items():
                yield found.pointer_without_version(Place(metric, key_time(bucket), entity), run_id)

    def _copies(self, seen: _Seen, kind: str) -> Iterator[StateProblem]:
        originals, copies = seen.originals[kind], seen.copies[kind]
        for sk in sorted(originals.keys() | copies.keys()):
            item, copy = originals.get(sk), copies.get(sk)
            if (item or copy or {}).get("run") in seen.moving:
                continue  # it is being written
            what = f"{kind} {sk}"
            if item is None:
                if self.table.get((kind, sk)) is None:
                    yield found.row_lost(what, f"the item {SEALED}/{kind} {sk}")
            elif copy is None or {**copy, "pk": kind} != item:
                if self.table.get((f"{SEALED}/{kind}", sk)) is None or copy is not None:
                    yield found.copy_lost(what, f"(the item {SEALED}/{kind} {sk})")
            elif kind == PROMOTIONS:
                beside = seen.of_run.get(sk)
                if beside is None or beside["digest"] != item["digest"]:
                    yield found.copy_lost(what, f"(the item run/{item['run']} promotion/{sk})")


def _looked_at(item: Item, seen: _Seen) -> Iterator[StateProblem]:
    """The problem of an item, if it has one; it is counted."""
    kind, _, rest = item["pk"].partition("/")
    try:
        if kind in _LOOKS_AT:
            yield from _LOOKS_AT[kind](item, rest, seen)
    except (KeyError, ValueError, TypeError):
        yield found.row_altered(f"item {item['pk']} {item['sk']}".replace(US, " "))


def _version(item: Item, run_id: str, seen: _Seen) -> Iterator[StateProblem]:
    row = row_of(item)
    versions, total = seen.versions[run_id]
    seen.kinds[run_id][item["kind"]] += 1
    seen.versions[run_id] = versions + 1, xor_of([item["digest"]], total)
    seen.needed.add((row.metric, time_key(row.bucket)))
    indexed = f"{row.metric}{US}{time_key(row.bucket)}", f"{row.entity}{US}{run_id}"
    if item["run"] != run_id or (item["bucket_key"], item["version_key"]) != indexed or not is_sound(row, item):
        yield found.version_altered(Place(row.metric, row.bucket, row.entity), run_id)


def _current(item: Item, _: str, seen: _Seen) -> Iterator[StateProblem]:
    row = row_of(item)
    digest = pointer_digest(row.metric, row.bucket, row.entity, item["run"])
    seen.pointers, seen.pointers_xor = seen.pointers + 1, xor_of([digest], seen.pointers_xor)
    seen.needed.add((row.metric, time_key(row.bucket)))
    if not is_sound(row, item):
        yield found.pointer_altered(Place(row.metric, row.bucket, row.entity))


def _run(item: Item, run_id: str, seen: _Seen) -> Iterator[StateProblem]:
    kind, _, rest = item["sk"].partition("/")
    if kind == RUN:
        seen.runs.add(run_id)
        if not run_is_sound(item):
            yield found.row_altered(f"run {run_id}")
    elif kind == "task":
        seen.tasks[run_id] += 1
        if not task_is_sound(item):
            yield found.row_altered(f"task {int(rest)} of run {run_id}")
    elif kind == "state":
        seen.begun.add(run_id)
        seen.settled[run_id] += "state" in item
        if "written" in item:
            written, total = seen.written[run_id]
            seen.written[run_id] = written + item["written"], xor_of([item["versions_xor"]], total)
            counts = {name: item[name] for name in TALLY}
            seen.tallied[run_id].update({**counts, "": item["written"] - sum(counts.values())})
        if not task_state_is_sound(item):
            yield found.row_altered(f"the state of task {int(rest)} of run {run_id}")
        if item.get("failing") and item["failures"]:
            seen.failing.add((run_id, item["failures"]))
    elif kind == "failures":
        seen.failures.add((run_id, item["sk"]))
        if not failures_are_sound(item):
            yield found.row_altered(f"what failed in task {int(rest.partition('/')[0])} of run {run_id}")
    elif kind == "promotion":
        seen.begun.add(run_id)
        seen.of_run[rest] = item
        if not promotion_is_sound(item):
            yield found.row_altered(f"promotion {rest} of run {run_id}")
    elif kind == UNDER_WAY:
        seen.moving.add(run_id)


def _metric(item: Item, _: str, seen: _Seen) -> Iterator[StateProblem]:
    seen.originals[METRICS][item["sk"]] = item
    if not metric_is_sound(item):
        yield found.row_altered(f"metric {item['sk']}")


def _promotion(item: Item, _: str, seen: _Seen) -> Iterator[StateProblem]:
    seen.originals[PROMOTIONS][item["sk"]] = item
    if not promotion_is_sound(item):
        yield found.row_altered(f"promotion {item['sk']}")


def _sealed(item: Item, kind: str, seen: _Seen) -> Iterator[StateProblem]:
    seen.copies[kind][item["sk"]] = item
    yield from ()


def _purged(item: Item, _: str, __: _Seen) -> Iterator[StateProblem]:
    if not letter_is_sound(item):
        yield found.row_altered(f"dead letter {item['sk']}")


def _bucket(item: Item, metric: str, seen: _Seen) -> Iterator[StateProblem]:
    seen.buckets.add((metric, item["sk"]))
    yield from ()


def _listed(item: Item, _: str, seen: _Seen) -> Iterator[StateProblem]:
    seen.listed.add(item["sk"])
    yield from ()


def _restore(_: Item, __: str, ___: _Seen) -> Iterator[StateProblem]:
    yield StateProblem(
        "the state", "a restore was interrupted, or is under way", "the same file again: pik restore FILE"
    )


_LOOKS_AT: dict[str, Callable[[Item, str, _Seen], Iterator[StateProblem]]] = {
    "version": _version,
    "current": _current,
    "run": _run,
    "buckets": _bucket,
    LISTING: _listed,
    METRICS: _metric,
    PROMOTIONS: _promotion,
    SEALED: _sealed,
    PURGED: _purged,
    "restore": _restore,
}

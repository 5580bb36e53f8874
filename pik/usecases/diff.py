"""What the numbers should be, against what they are: recomputed from raw, or written by a run. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Context, Decimal
from itertools import chain, islice
from operator import attrgetter

import msgspec

from pik.errors import NotFound
from pik.model.metric import Aggregate, BucketDigest, Computed, Metric
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.usecases.held import expect_held
from pik.usecases.metrics import chosen
from pik.usecases.ordering import sort_bounded
from pik.usecases.recompute import by_bucket_size, compare, current_rows, recomputing, widest
from pik.usecases.tolerance import EXACT, Tolerances

CHANGED, ADDED, REMOVED = "~", "+", "-"

_PERCENT = Context(prec=6)


class Difference(msgspec.Struct, frozen=True, gc=False):
    """A bucket whose value is another one (`~`), is not current yet (`+`), or is current without events (`-`).

    `delta` and `percent` (of the current value, to six digits) are None where one of the two values is missing,
    `percent` also where the current value is 0.
    """

    op: str
    metric: str
    bucket: int
    entity_id: str
    current: Decimal | None
    recomputed: Decimal | None
    delta: Decimal | None
    percent: Decimal | None
    inputs_before: int
    inputs_after: int


@dataclass(slots=True)
class Stats:
    """What was compared: the sum of equal, tolerated (different, but within tolerance), changed, added and removed.
    `other_inputs` of the equal ones have the same value from other events."""

    compared: int = 0
    equal: int = 0
    tolerated: int = 0
    changed: int = 0
    added: int = 0
    removed: int = 0
    other_inputs: int = 0


@dataclass(frozen=True, slots=True)
class Diff:
    """Differences, ordered by metric, bucket, entity; `stats` counts while they are iterated over.

    `effective` is what the whole buckets cover that the window touches.
    """

    window: Window
    effective: Window
    rows: Iterator[Difference]
    stats: Stats


def diff_aggregates(
    store: Store,
    engine: Engine,
    window: Window,
    *,
    metrics: Sequence[str] = (),
    entities: Sequence[str] = (),
    tolerances: Tolerances | None = None,
    changed_only: bool = False,
) -> Diff:
    """Recompute from raw and compare with what is current; with `changed_only` only where both have a value.

    Raises NotFound for an unknown metric, also in `tolerances`, and for a store without any events, NotHeld where
    raw of the whole buckets has expired or was not pulled; Damaged and EngineError while iterating.
    """
    wanted = chosen(store.metrics, metrics)
    _expect_known(store, tolerances)
    effective = widest(window, wanted)
    expect_held(store, effective, entities)
    if store.copy is None and not store.index.totals().segments:
        raise NotFound("the store holds no events, so there is nothing to compare", hint="pik ingest FILE")
    stats = Stats()
    pairs = _recomputed(store, engine, wanted, window, entities, stats)
    rows = _differences(pairs, tolerances or Tolerances(), stats)
    if len(by_bucket_size(wanted)) > 1:  # they are computed by size of bucket
        rows = _ordered(store, rows)
    return Diff(window, effective, _only(rows, changed_only), stats)


def diff_run(
    store: Store,
    run_id: str,
    *,
    metrics: Sequence[str] = (),
    entities: Sequence[str] = (),
    tolerances: Tolerances | None = None,
    changed_only: bool = False,
) -> Diff:
    """Compare what a run wrote with what is current now. Raises NotFound."""
    run = store.runs.get(run_id)
    wanted = chosen(store.metrics, metrics)
    _expect_known(store, tolerances)
    effective = Window(run.effective_start, run.effective_end)
    pairs = _written(store, run.run_id, wanted, effective, entities or run.request.entities)
    stats = Stats()
    rows = _differences(pairs, tolerances or Tolerances(), stats)
    return Diff(run.request.window, effective, _only(rows, changed_only), stats)


def _expect_known(store: Store, tolerances: Tolerances | None) -> None:
    """A tolerance for a metric that is not there would otherwise go by unseen. Raises NotFound."""
    if tolerances is not None and tolerances.metrics:
        chosen(store.metrics, tuple(tolerances.metrics))


_Pairs = Iterator[tuple[Aggregate | None, Computed | None]]


def _recomputed(
    store: Store, engine: Engine, metrics: Sequence[Metric], window: Window, entities: Sequence[str], stats: Stats
) -> _Pairs:
    for size, group in by_bucket_size(metrics):
        whole = window.widened(size)
        with ThreadPoolExecutor(1) as beside:  # the store is read while the engine computes
            equal = _EqualBuckets(store, group, whole, stats, beside)
            settled = None if entities else equal
            with recomputing(store, engine, group, whole, entities, settled=settled) as recomputed:
                first = list(islice(recomputed.rows, 1))  # by then every equal bucket is known
                yield from compare(equal.others(entities), chain(first, recomputed.rows))


class _EqualBuckets:
    """Buckets that are current exactly as they were recomputed: counted, and not looked at one aggregate at a time."""

    def __init__(self, store: Store, metrics: Sequence[Metric], window: Window, stats: Stats, beside: Executor) -> None:
        self._aggregates, self._metrics, self._window, self._stats = store.aggregates, metrics, window, stats
        self._digests = beside.submit(self._read)
        self._current: dict[tuple[str, int], BucketDigest] | None = None

    def _read(self) -> dict[tuple[str, int], BucketDigest]:
        digests = (digest for metric in self._metrics for digest in self._aggregates.digests(metric.name, self._window))
        return {(digest.metric, digest.bucket): digest for digest in digests}

    def __call__(self, computed: BucketDigest) -> bool:
        if self._current is None:
            self._current = self._digests.result()
        key = computed.metric, computed.bucket
        if self._current.get(key) != computed:
            return False
        del self._current[key]
        self._stats.compared += computed.aggregates
        self._stats.equal += computed.aggregates
        return True

    def others(self, entities: Sequence[str]) -> Iterator[Aggregate]:
        """The current aggregates of all other buckets, ordered by (metric, bucket, entity)."""
        if self._current is None:
            yield from current_rows(self._aggregates, self._metrics, self._window, entities)
            return
        sizes = {metric.name: metric.bucket_size for metric in self._metrics}
        for name, bucket in sorted(self._current):
            yield from self._aggregates.current(name, Window(bucket, bucket + sizes[name]), entities)


def _written(store: Store, run_id: str, metrics: Sequence[Metric], window: Window, entities: Sequence[str]) -> _Pairs:
    names, chosen_ones = {metric.name for metric in metrics}, set(entities)
    written = (
        change.written.computed
        for change in store.aggregates.changes(run_id)
        if change.written.computed.metric in names
        and (not chosen_ones or change.written.computed.entity_id in chosen_ones)
    )
    pairs = compare(current_rows(store.aggregates, metrics, window, entities), written)
    return (pair for pair in pairs if pair[1] is not None)


def _ordered(store: Store, rows: Iterator[Difference]) -> Iterator[Difference]:
    with store.raw.scratch() as scratch:
        yield from sort_bounded(rows, attrgetter("metric", "bucket", "entity_id"), scratch)


def _only(rows: Iterator[Difference], changed_only: bool) -> Iterator[Difference]:
    return (row for row in rows if row.op == CHANGED or not changed_only)


def _differences(pairs: _Pairs, tolerances: Tolerances, stats: Stats) -> Iterator[Difference]:
    for left, right in pairs:
        before = None if left is None else left.computed
        current = None if before is None else before.value
        value = None if right is None else right.value
        if current == value:
            if value is not None and before is not None and right is not None:
                stats.compared += 1
                stats.equal += 1
                stats.other_inputs += before.counted != right.counted
            continue
        stats.compared += 1
        row = _difference(before, right)
        if row.delta is not None and current is not None and tolerances.of(row.metric).covers(current, row.delta):
            stats.tolerated += 1
            continue
        stats.changed += row.op == CHANGED
        stats.added += row.op == ADDED
        stats.removed += row.op == REMOVED
        yield row


def _difference(before: Computed | None, after: Computed | None) -> Difference:
    here = before or after
    assert here is not None
    current = before.value if before else None
    value = after.value if after else None
    delta = percent = None
    if current is not None and value is not None:
        delta = EXACT.subtract(value, current)
        percent = _PERCENT.divide(EXACT.multiply(delta, Decimal(100)), current.copy_abs()) if current else None
    return Difference(
        op=ADDED if current is None else REMOVED if value is None else CHANGED,
        metric=here.metric,
        bucket=here.bucket,
        entity_id=here.entity_id,
        current=current,
        recomputed=value,
        delta=delta,
        percent=percent,
        inputs_before=before.inputs if before else 0,
        inputs_after=after.inputs if after else 0,
    )

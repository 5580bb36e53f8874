"""What the numbers should be, against what they are: recomputed from raw, or written by a run. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Context, Decimal
from itertools import groupby
from operator import attrgetter, itemgetter

import msgspec

from pik.errors import NotFound
from pik.model.metric import Aggregate, BucketDigest, Computed, Metric
from pik.model.window import Window
from pik.ports.engine import Bucket, Engine
from pik.ports.state import Aggregates
from pik.ports.store import Store
from pik.usecases.held import expect_held
from pik.usecases.metrics import Scales, chosen
from pik.usecases.ordering import sort_bounded
from pik.usecases.raw_inputs import gather
from pik.usecases.recompute import by_bucket_size, compare, current_rows, sound, widest, without_failures
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

    def count_equal(self, aggregates: int) -> None:
        """Count as many that are equal, of the same events."""
        self.compared += aggregates
        self.equal += aggregates


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
    rows = _differences(pairs, tolerances or Tolerances(), stats, Scales(store.metrics))
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
    rows = _differences(pairs, tolerances or Tolerances(), stats, Scales(store.metrics))
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
        yield from _stretch(store, engine, group, window.widened(size), entities, stats)


def _stretch(
    store: Store, engine: Engine, metrics: Sequence[Metric], window: Window, entities: Sequence[str], stats: Stats
) -> _Pairs:
    """Pairs of metrics of one bucket size over whole buckets. What is equal in a bucket whose aggregates are all equal
    is counted, and looked at no closer."""
    with ThreadPoolExecutor(1) as beside, gather(store, window, entities) as gathered:
        # The store is read while the engine computes.
        read = None if entities else beside.submit(_current_digests, store, metrics, window)
        definitions = [metric.definition for metric in metrics]
        with engine.computation(gathered.inputs, definitions, window, entities) as computation:
            if read is None:
                current, equal = sound(current_rows(store.aggregates, metrics, window, entities)), set[Bucket]()
            else:
                left, right = read.result(), _by_bucket(computation.digests())
                equal = {bucket for bucket in right if left.get(bucket) == right[bucket]}
                stats.count_equal(sum(right[bucket].aggregates for bucket in equal))
                current = _current_but(store.aggregates, equal, left.keys() | right.keys())
            yield from compare(current, without_failures(computation.rows(skipping=equal)))


def _by_bucket(digests: Iterable[BucketDigest]) -> dict[Bucket, BucketDigest]:
    return {(digest.metric, digest.bucket): digest for digest in digests}


def _current_digests(store: Store, metrics: Sequence[Metric], window: Window) -> dict[Bucket, BucketDigest]:
    return _by_bucket(digest for metric in metrics for digest in store.aggregates.digests(metric.name, window))


def _current_but(aggregates: Aggregates, equal: set[Bucket], buckets: Iterable[Bucket]) -> Iterator[Aggregate]:
    """What is current in `buckets` without the equal ones, ordered by (metric, bucket, entity).

    A current bucket may be of another size than the metric's: an earlier version wrote it. So a bucket is known by its
    start alone.
    """
    for name, group in groupby(sorted(buckets), key=itemgetter(0)):
        for is_equal, together in groupby(group, key=equal.__contains__):
            if not is_equal:
                starts = [start for _, start in together]
                yield from aggregates.current(name, Window(starts[0], starts[-1] + 1))


def _written(store: Store, run_id: str, metrics: Sequence[Metric], window: Window, entities: Sequence[str]) -> _Pairs:
    names, chosen_ones = {metric.name for metric in metrics}, set(entities)
    scales = Scales(store.metrics)
    written = (
        scales.shown(change.written).computed
        for change in store.aggregates.changes(run_id)
        if change.written.computed.metric in names
        and (not chosen_ones or change.written.computed.entity_id in chosen_ones)
    )
    pairs = compare(sound(current_rows(store.aggregates, metrics, window, entities)), written)
    return (pair for pair in pairs if pair[1] is not None)


def _ordered(store: Store, rows: Iterator[Difference]) -> Iterator[Difference]:
    with store.raw.scratch() as scratch:
        yield from sort_bounded(rows, attrgetter("metric", "bucket", "entity_id"), scratch)


def _only(rows: Iterator[Difference], changed_only: bool) -> Iterator[Difference]:
    return (row for row in rows if row.op == CHANGED or not changed_only)


def _differences(pairs: _Pairs, tolerances: Tolerances, stats: Stats, scales: Scales) -> Iterator[Difference]:
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
        row = _difference(None if left is None else scales.shown(left).computed, right)
        if row.delta is not None and current is not None and tolerances.cover(row.metric, current, row.delta):
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
        if current:
            percent = _PERCENT.divide(EXACT.multiply(delta, Decimal(100)), current.copy_abs()).normalize()
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
